//! Room for an answer, charged before there is more of it.
//!
//! A batch of reads holds what it has found for a while, then a copy of it in the message, and lets others have their turn
//! meanwhile. So room is looked for as values come, and not once they are all there.

use std::sync::Arc;

use tonic::Status;

use super::message::no_room;
use crate::transports::in_flight::{Charge, InFlight};

/// From this size on an answer is charged until it has left. Smaller ones are bounded by how many streams there may be.
const CHARGED_BYTES: usize = 4 << 10;

/// What an answer holds so far.
pub(super) struct Room<'a> {
    in_flight: &'a Arc<InFlight>,
    bytes: usize,
    /// `None`: it is too small to be charged.
    charge: Option<Charge>,
    is_due: bool,
}

impl<'a> Room<'a> {
    /// For an answer that can be refused.
    pub(super) const fn new(in_flight: &'a Arc<InFlight>) -> Self {
        Self { in_flight, bytes: 0, charge: None, is_due: false }
    }

    /// For one that says what was done, so that it is too late to refuse it.
    pub(super) fn due(in_flight: &'a Arc<InFlight>) -> Self {
        Self { is_due: true, ..Self::new(in_flight) }
    }

    /// Takes in this many more bytes, if there is room for them: where not, that is counted.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes < CHARGED_BYTES {
            return true;
        }
        if let Some(charge) = &self.charge {
            return charge.grow_answer(bytes);
        }
        self.charge = if self.is_due {
            Some(self.in_flight.charge_anyway(self.bytes))
        } else {
            self.in_flight.charge(self.bytes)
        };
        self.charge.is_some()
    }

    /// What an answer of this size is charged, of which what was taken in is a part.
    pub(super) fn charge(mut self, bytes: usize) -> Result<Option<Charge>, Status> {
        if self.grow(bytes.saturating_sub(self.bytes)) { Ok(self.charge) } else { Err(no_room()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transports::in_flight::Share;

    #[test]
    fn an_answer_is_charged_once_for_what_it_is_made_of() {
        let in_flight = Arc::new(InFlight::new(1, 1 << 20, Arc::default()));
        for parts in [&[][..], &[1], &[CHARGED_BYTES - 1], &[CHARGED_BYTES - 1, 1, 70_000], &[1 << 20]] {
            let mut room = Room::new(&in_flight);
            let mut bytes = 0;
            for part in parts {
                assert!(room.grow(*part));
                bytes += part;
                let charged = if bytes < CHARGED_BYTES { 0 } else { bytes };
                assert_eq!(in_flight.bytes(), charged as u64, "{parts:?}");
            }
            let charge = room.charge(bytes).expect("there is room");
            assert_eq!(charge.is_some(), bytes >= CHARGED_BYTES);
            drop(charge);
            assert_eq!(in_flight.bytes(), 0);
        }
    }

    #[test]
    fn one_answer_may_take_all_there_is_and_others_are_refused_but_for_what_is_due() {
        let in_flight = Arc::new(InFlight::new(1, 1 << 20, Arc::default()));
        Arc::<Share>::default().during(true, || {
            let mut room = Room::new(&in_flight);
            assert!(room.grow(1 << 19) && room.grow(1 << 19) && !room.grow(1));
            assert!(Room::new(&in_flight).charge(CHARGED_BYTES).is_err());
            assert!(Room::due(&in_flight).charge(CHARGED_BYTES).expect("it is due").is_some());
        });
        assert_eq!(in_flight.bytes(), 0);
    }
}
