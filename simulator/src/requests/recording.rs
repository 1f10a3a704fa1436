//! A whole trace in memory, and samples of its objects.

use super::block::{Block, Columns, Fingerprints};
use super::{BLOCK_REQUESTS, Requests, Survey};
use crate::interner::mix;
use crate::trace::{Trace, TraceError};

const NOT_SAMPLED: u32 = u32::MAX;

/// What decides which of a few alike objects a sample holds. Policies use the fingerprint's bits as they are, so this
/// takes others: or a sketch of the sample's keys would see a part of its counters only.
fn lot(fingerprint: u64) -> u64 {
    mix(mix(fingerprint))
}

/// Objects with counts of the same bucket are requested about as often.
fn bucket(count: u32) -> u32 {
    let log = count.max(1).ilog2();
    let half = (count >> log.saturating_sub(1)) & 1;
    2 * log + half
}

/// A whole trace in memory.
#[derive(Default)]
pub struct Recording {
    columns: Columns,
    fingerprints: Vec<u64>,
    survey: Survey,
}

impl Recording {
    /// Reads a trace to its end, or to its first error, which comes with what there is until then.
    /// Times are kept only where they are needed. `go_on` is asked now and then.
    pub fn of(
        trace: Trace,
        keep_times: bool,
        mut go_on: impl FnMut() -> bool,
    ) -> (Self, Result<(), TraceError>) {
        let mut requests = Requests::new(trace);
        let mut columns = Columns { keep_times, ..Columns::default() };
        let mut outcome;
        loop {
            let before = columns.ids.len();
            outcome = requests.read(&mut columns, BLOCK_REQUESTS);
            if columns.ids.len() == before || outcome.is_err() || !go_on() {
                break;
            }
        }
        let Requests { interner, survey, .. } = requests;
        (Self { columns, fingerprints: interner.into_fingerprints(), survey }, outcome)
    }

    /// The requests to so many of the objects: one out of each run of alike ones, the one with the lowest hash. Alike
    /// are objects that are requested about as often, and neighbours those whose first requests are; so the
    /// sample's popularity and its arrivals over time are the whole's, which leaves little to luck.
    #[must_use]
    pub fn sample(&self, objects: u64) -> Self {
        let objects = usize::try_from(objects).unwrap_or(usize::MAX).min(self.fingerprints.len());
        let counts = self.counts();
        let mut alike: Vec<(u32, u32)> =
            (0u32..).zip(&counts).map(|(id, &count)| (bucket(count), id)).collect();
        alike.sort_unstable();
        let mut numbers = vec![NOT_SAMPLED; counts.len()];
        let ends = (1..=objects).map(|run| run * alike.len() / objects);
        let mut start = 0;
        for end in ends {
            let run = alike[start..end].iter();
            if let Some(&(_, chosen)) = run.min_by_key(|(_, id)| lot(self.fingerprints[*id as usize])) {
                numbers[chosen as usize] = 0;
            }
            start = end;
        }
        let mut sample = Self::default();
        let chosen = numbers.iter_mut().zip(&self.fingerprints).filter(|(number, _)| **number == 0);
        for (next, (number, &fingerprint)) in (0..).zip(chosen) {
            *number = next;
            sample.fingerprints.push(fingerprint);
        }
        let Columns { ids, sizes, times, operations, places, .. } = &self.columns;
        let columns = &mut sample.columns;
        for (index, (&id, number_in_trace)) in ids.iter().zip((0..=u32::MAX).cycle()).enumerate() {
            let number = numbers[id as usize];
            if number == NOT_SAMPLED {
                continue;
            }
            columns.ids.push(number);
            columns.sizes.extend(sizes.get(index));
            columns.times.extend(times.get(index));
            columns.operations.extend(operations.get(index));
            columns.places.push(places.get(index).copied().unwrap_or(number_in_trace));
        }
        sample.survey.requests = sample.whole().reads();
        sample.survey.distinct = sample.fingerprints.len() as u64;
        sample
    }

    /// How often each object is requested.
    pub(super) fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0_u32; self.fingerprints.len()];
        for &id in &self.columns.ids {
            counts[id as usize] += 1;
        }
        counts
    }

    /// What is known of the trace.
    #[must_use]
    pub const fn survey(&self) -> &Survey {
        &self.survey
    }

    /// All requests as one block.
    #[must_use]
    pub fn whole(&self) -> Block<'_> {
        let (fingerprints, distinct) = (Fingerprints::ById(&self.fingerprints), self.fingerprints.len());
        self.columns.block(0..self.columns.ids.len(), fingerprints, distinct)
    }

    /// The requests in blocks of [`BLOCK_REQUESTS`].
    pub fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let (fingerprints, distinct) = (Fingerprints::ById(&self.fingerprints), self.fingerprints.len());
        let requests = self.columns.ids.len();
        (0..requests).step_by(BLOCK_REQUESTS).map(move |start| {
            self.columns.block(start..requests.min(start + BLOCK_REQUESTS), fingerprints, distinct)
        })
    }
}
