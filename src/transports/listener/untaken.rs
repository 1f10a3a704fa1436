//! What connections hold for clients that do not take it, and the most that it may be.
//!
//! A request that was read costs a few KiB until it is answered and its answer has left, and requests that wait have limits of their own
//! ([`InFlight`](crate::transports::in_flight::InFlight)); but an answer that its client does not take, a refusal or a small value, is out of
//! everyone's sight with HTTP/2's own library. So each connection tells at the end of its turn how much it holds. It reads no more
//! requests at a time than half of the room has left, whatever they come to, but for one: those who read what they asked for come to no
//! more than about that half together, however many they are. Where it is more, connections whose clients take nothing are
//! closed, those first that have taken nothing for longest. The less room there is the less patience they find, and with none left they
//! find none. Who has taken all that there was to take is not among them: a request that waits for its connection's next turn takes room,
//! but it is nobody's debt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::transports::refused::{RefusedRequests, RequestRefusal};

/// What a stream takes at most whose request does not wait: of a head of ordinary size, or of an answer below the size from which its bytes
/// are charged elsewhere.
pub(super) const STREAM_BYTES: u64 = 6 << 10;

/// How many requests a connection has in hand at the most: as many small ones as can be answered in a turn. HTTP/2's own library keeps the
/// room that it once had for so many streams.
pub(super) const MOST_REQUESTS: usize = 128;

/// How long a client may take nothing where just half of the room is left.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a client has taken since its connection was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All that there was: what is held waits for this side.
    All,
    Some,
    Nothing,
}

/// The room of one listener.
#[derive(Debug)]
pub(super) struct Untaken {
    max_bytes: u64,
    bytes: AtomicU64,
    debts: Mutex<Debts>,
    refused: Arc<RefusedRequests>,
}

/// What is held, by connection.
#[derive(Debug, Default)]
struct Debts {
    /// In the order of when their clients last took something.
    by_age: BTreeMap<u64, Debt>,
    next: u64,
    /// Of connections that are told to close, and have not.
    leaving_bytes: u64,
}

#[derive(Debug)]
struct Debt {
    since: Instant,
    bytes: u64,
    debtor: Arc<Debtor>,
}

/// A connection that can be told to close.
#[derive(Debug, Default)]
struct Debtor {
    has_to_go: AtomicBool,
    task: AtomicWaker,
}

impl Untaken {
    /// Room for so many bytes. Connections that are closed for want of it are counted in `refused`.
    pub(super) fn new(max_bytes: u64, refused: Arc<RefusedRequests>) -> Self {
        Self { max_bytes, bytes: AtomicU64::new(0), debts: Mutex::default(), refused }
    }

    /// What all connections hold.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many requests half of the room has left for, one at least.
    pub(super) fn requests(&self) -> usize {
        let room = (self.max_bytes / 2).saturating_sub(self.bytes()) / STREAM_BYTES;
        usize::try_from(room).unwrap_or(usize::MAX).clamp(1, MOST_REQUESTS)
    }

    /// How long a client may take nothing while so much is held; `None`: as long as it likes.
    fn patience(&self, bytes: u64) -> Option<Duration> {
        let half = self.max_bytes / 2;
        let beyond = bytes.checked_sub(half).filter(|beyond| *beyond > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "a share of it")]
        let left = half.saturating_sub(beyond) as f64 / half.max(1) as f64;
        Some(PATIENCE.mul_f64(left))
    }

    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells connections to close until others have room.
    fn make_room(&self) {
        if self.patience(self.bytes()).is_none() {
            return;
        }
        let mut told = Vec::new();
        {
            let mut debts = self.debts();
            while let Some(patience) = self.patience(self.bytes().saturating_sub(debts.leaving_bytes))
                && let Some(oldest) = debts.by_age.first_entry()
                && oldest.get().since.elapsed() >= patience
            {
                let Debt { bytes, debtor, .. } = oldest.remove();
                debts.leaving_bytes += bytes;
                debtor.has_to_go.store(true, Ordering::Release);
                told.push(debtor);
            }
        }
        for debtor in told {
            self.refused.count(RequestRefusal::TooManyUntaken);
            debtor.task.wake();
        }
    }
}

/// What one connection holds; nothing once it is dropped.
pub(super) struct Held {
    room: Arc<Untaken>,
    bytes: u64,
    /// Where it stands among the debts, unless it has to go; `None`: it holds nothing that its client could take.
    place: Option<u64>,
    debtor: Arc<Debtor>,
}

impl Held {
    pub(super) fn new(room: Arc<Untaken>) -> Self {
        Self { room, bytes: 0, place: None, debtor: Arc::default() }
    }

    pub(super) fn room(&self) -> &Untaken {
        &self.room
    }

    /// Whether the connection has to be closed, so that others have room.
    pub(super) fn has_to_go(&self) -> bool {
        self.bytes > 0 && self.debtor.has_to_go.load(Ordering::Acquire)
    }

    /// What it holds now, and what its client has taken. `task` is woken when it has to go.
    pub(super) fn set(&mut self, bytes: u64, taken: Taken, task: &Waker) {
        let is_as_before = match taken {
            Taken::All => self.place.is_none(),
            Taken::Some => false,
            Taken::Nothing => self.place.is_some(),
        };
        if bytes == self.bytes && (bytes == 0 || is_as_before) {
            return;
        }
        if bytes > 0 {
            self.debtor.task.register(task);
        }
        let mut debts = self.room.debts();
        if self.has_to_go() {
            // With all that it held when it was told.
            return;
        }
        let known = self.place.take().and_then(|place| Some((place, debts.by_age.remove(&place)?.since)));
        self.room.bytes.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
        if bytes > 0 && taken != Taken::All {
            let (place, since) = known.filter(|_| taken == Taken::Nothing).unwrap_or_else(|| {
                debts.next += 1;
                (debts.next, Instant::now())
            });
            debts.by_age.insert(place, Debt { since, bytes, debtor: Arc::clone(&self.debtor) });
            self.place = Some(place);
        }
        drop(debts);
        self.room.make_room();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut debts = self.room.debts();
        if self.has_to_go() {
            debts.leaving_bytes -= self.bytes;
        } else if let Some(place) = self.place {
            debts.by_age.remove(&place);
        }
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 1000 * STREAM_BYTES;

    fn room() -> Arc<Untaken> {
        Arc::new(Untaken::new(MAX, Arc::default()))
    }

    fn holding(room: &Arc<Untaken>, bytes: u64) -> Held {
        let mut held = Held::new(Arc::clone(room));
        held.set(bytes, Taken::Nothing, Waker::noop());
        held
    }

    fn closed(room: &Untaken) -> u64 {
        room.refused.total(RequestRefusal::TooManyUntaken)
    }

    #[test]
    fn the_less_room_there_is_the_fewer_requests_are_read() {
        let room = room();
        assert_eq!(room.requests(), MOST_REQUESTS);
        let mut held = holding(&room, MAX / 2 - 10 * STREAM_BYTES);
        assert_eq!(room.requests(), 10);
        held.set(MAX / 2 - 1, Taken::Some, Waker::noop());
        assert_eq!(room.requests(), 1, "each may do one thing at a time");
        drop(held);
        assert_eq!((room.bytes(), room.requests()), (0, MOST_REQUESTS));
    }

    #[test]
    fn where_there_is_no_room_those_who_took_nothing_for_longest_have_to_go() {
        let room = room();
        let quarter = MAX / 4;
        let mut all: Vec<_> = (0..4).map(|_| holding(&room, quarter)).collect();
        let gone = |all: &[Held]| all.iter().map(Held::has_to_go).collect::<Vec<_>>();
        assert_eq!(gone(&all), [true, false, false, false], "there is room for less than four");
        // One that takes something is behind the others, and one that holds more or less is not.
        all[1].set(quarter - 1, Taken::Some, Waker::noop());
        all[2].set(quarter - 1, Taken::Nothing, Waker::noop());
        assert_eq!(gone(&all), [true, false, false, false]);
        let one_more = holding(&room, quarter + 2);
        assert_eq!(gone(&all), [true, false, true, false]);
        assert!(!one_more.has_to_go());
        assert_eq!(closed(&room), 2);
        // What it holds now does not matter any more.
        all[0].set(0, Taken::Some, Waker::noop());
        assert!(all[0].has_to_go());
        drop((all, one_more));
        assert_eq!(room.bytes(), 0);
        let debts = room.debts();
        assert_eq!((debts.leaving_bytes, debts.by_age.len()), (0, 0));
    }

    #[test]
    fn who_has_taken_all_there_was_to_take_stays_whatever_others_owe() {
        let room = room();
        let mut newcomer = Held::new(Arc::clone(&room));
        newcomer.set(STREAM_BYTES, Taken::All, Waker::noop());
        let mut busy = holding(&room, MAX / 2);
        busy.set(MAX, Taken::Some, Waker::noop());
        assert_eq!((newcomer.has_to_go(), busy.has_to_go()), (false, true));
        assert_eq!(room.bytes(), MAX + STREAM_BYTES, "its bytes count nevertheless");
        // What is left to take is a debt from then on, and none once it has been taken.
        newcomer.set(STREAM_BYTES, Taken::Nothing, Waker::noop());
        newcomer.set(2 * STREAM_BYTES, Taken::All, Waker::noop());
        let next = holding(&room, MAX);
        assert_eq!((newcomer.has_to_go(), next.has_to_go()), (false, true));
        newcomer.set(2 * STREAM_BYTES, Taken::Nothing, Waker::noop());
        let last = holding(&room, MAX - STREAM_BYTES);
        assert_eq!((newcomer.has_to_go(), last.has_to_go()), (true, false));
        drop((newcomer, busy, next, last));
        let debts = room.debts();
        assert_eq!((room.bytes(), debts.leaving_bytes, debts.by_age.len()), (0, 0, 0));
    }

    #[test]
    fn who_is_slow_has_patience_while_there_is_room() {
        let room = room();
        for (bytes, expected) in [
            (0, None),
            (MAX / 2, None),
            (MAX / 4 * 3, Some(PATIENCE / 2)),
            (MAX, Some(Duration::ZERO)),
            (2 * MAX, Some(Duration::ZERO)),
        ] {
            assert_eq!(room.patience(bytes), expected, "{bytes}");
        }
        let held = holding(&room, MAX / 4 * 3);
        assert!(!held.has_to_go());
        assert_eq!(closed(&room), 0);
    }
}
