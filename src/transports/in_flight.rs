//! What a listener's requests hold while they are in flight, and the most that it may be.
//!
//! A request that is answered as soon as it is read holds nothing and is not counted. One that has to wait (for the rest of
//! its message, for the store, for a client that does not take its answer) has a place among those in flight, and
//! messages that are gathered, large batches and answers of some size are charged by their bytes until they have left. What
//! there is no room for is refused at once: nothing here queues.
//!
//! No connection may hold more than is left for all others: alone it gets half, with one like it a third each, and so on.
//! Those that come one after another leave less and less, so each has one place of its own besides: a client that does one
//! thing at a time always finds room, however much others ask for. And a connection that holds one message alone may
//! go on with that until an eighth is left, or the largest message would need twice its room.
//!
//! A stream that lasts would keep such a place for good. So there are as many places of another kind for these, shared out
//! by the same rule.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::refused::{RefusedRequests, RequestRefusal};

/// The room of one listener.
#[derive(Debug)]
pub struct InFlight {
    max_requests: u64,
    max_bytes: u64,
    requests: AtomicU64,
    lasting: AtomicU64,
    bytes: AtomicU64,
    refused: Arc<RefusedRequests>,
}

impl InFlight {
    /// Room for so many requests that wait and so many bytes. What is refused is counted in `refused`.
    #[must_use]
    pub fn new(max_requests: u64, max_bytes: u64, refused: Arc<RefusedRequests>) -> Self {
        let [requests, lasting, bytes] = [0; 3].map(AtomicU64::new);
        Self { max_requests, max_bytes, requests, lasting, bytes, refused }
    }

    /// Requests that wait.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of messages that are being gathered, of large batches, and of answers that have not left.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most requests that may wait at a time.
    #[must_use]
    pub const fn max_requests(&self) -> u64 {
        self.max_requests
    }

    /// Whether there is no place for one more request that waits, whoever asks. Threads that ask at the same time may
    /// each hear of the same place.
    pub fn is_full(&self) -> bool {
        self.requests() >= self.max_requests
    }

    /// Counts a request that was turned away as [`is_full`](Self::is_full).
    pub fn count_turned_away(&self) {
        self.count_refused(RequestRefusal::TooManyInFlight);
    }

    /// Counts a request that comes to nothing for this reason.
    pub fn count_refused(&self, reason: RequestRefusal) {
        self.refused.count(reason);
    }

    /// Where is counted what came to nothing.
    #[must_use]
    pub fn refused(&self) -> &RefusedRequests {
        &self.refused
    }

    /// Takes a place, whether or not there is one.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Place {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Place { in_flight: Arc::clone(self), share: None }
    }

    /// Takes `places` for a stream that lasts, if there are, or if the connection has no other such stream: where not, that
    /// is counted. There are as many of these as requests may wait.
    #[must_use]
    pub fn enter_lasting(self: &Arc<Self>, places: u64) -> Option<LastingPlace> {
        let share = Share::current();
        let mine = share.as_ref().map(|share| share.lasting.load(Ordering::Relaxed));
        let grown = self.lasting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
            let leaves_enough = mine.unwrap_or(0) + all + places <= self.max_requests;
            (leaves_enough || mine == Some(0)).then_some(all + places)
        });
        if grown.is_err() {
            self.count_turned_away();
            return None;
        }
        if let Some(share) = &share {
            share.lasting.fetch_add(places, Ordering::Relaxed);
        }
        Some(LastingPlace { in_flight: Arc::clone(self), places, share })
    }

    /// Room for this many bytes, if there is: where not, that is counted.
    #[must_use]
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let charge =
            Charge { in_flight: Arc::clone(self), bytes: AtomicU64::new(0), share: Share::current() };
        charge.grow(bytes).then_some(charge)
    }

    /// Room for this many bytes, if there is, or if the connection holds nothing else.
    #[must_use]
    pub fn charge_first(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let is_first = Share::current().is_some_and(|share| share.bytes.load(Ordering::Relaxed) == 0);
        if is_first { Some(self.charge_anyway(bytes)) } else { self.charge(bytes) }
    }

    /// Room for bytes of which it is too late to refuse any.
    #[must_use]
    pub fn charge_anyway(self: &Arc<Self>, bytes: usize) -> Charge {
        let bytes = bytes as u64;
        let share = Share::current();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(share) = &share {
            share.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Charge { in_flight: Arc::clone(self), bytes: AtomicU64::new(bytes), share }
    }
}

/// What the requests of one connection hold.
#[derive(Debug, Default)]
pub struct Share {
    requests: AtomicU64,
    lasting: AtomicU64,
    bytes: AtomicU64,
    /// One at a time of its requests may do what takes long.
    turn: Arc<Mutex<()>>,
}

/// Whose request is being polled on this thread, and whether it may wait.
struct Current {
    share: Option<Arc<Share>>,
    may_wait: bool,
}

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(Current { share: None, may_wait: true }) };
}

impl Share {
    /// Whether the connection may have one more request that waits. It always may have one.
    pub fn has_place(&self, of: &InFlight) -> bool {
        let mine = self.requests.load(Ordering::Relaxed);
        mine == 0 || mine < of.max_requests.saturating_sub(of.requests())
    }

    /// Takes a place, whether or not there is one.
    #[must_use]
    pub fn enter(self: &Arc<Self>, of: &Arc<InFlight>) -> Place {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut place = of.enter();
        place.share = Some(Arc::clone(self));
        place
    }

    /// Runs `poll` on a request of this connection: what it is charged meanwhile is the connection's.
    pub fn during<T>(self: &Arc<Self>, may_wait: bool, poll: impl FnOnce() -> T) -> T {
        CURRENT.set(Current { share: Some(Arc::clone(self)), may_wait });
        let _nobody_after = NobodyAfter;
        poll()
    }

    fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(|current| current.share.clone())
    }
}

/// Whatever becomes of a request's poll, a panic included: what comes next on its thread is not its connection's.
struct NobodyAfter;

impl Drop for NobodyAfter {
    fn drop(&mut self) {
        CURRENT.set(Current { share: None, may_wait: true });
    }
}

/// Whether the request that is being polled on this thread has a place to wait, or may have one. One that has none is to
/// be answered at once.
#[must_use]
pub fn may_wait() -> bool {
    CURRENT.with_borrow(|current| current.may_wait)
}

/// A request's place among those that wait, given back when dropped.
#[derive(Debug)]
pub struct Place {
    in_flight: Arc<InFlight>,
    share: Option<Arc<Share>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.requests.fetch_sub(1, Ordering::Relaxed);
        if let Some(share) = &self.share {
            share.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The places of a stream that lasts, given back when dropped.
#[derive(Debug)]
pub struct LastingPlace {
    in_flight: Arc<InFlight>,
    places: u64,
    share: Option<Arc<Share>>,
}

impl Drop for LastingPlace {
    fn drop(&mut self) {
        self.in_flight.lasting.fetch_sub(self.places, Ordering::Relaxed);
        if let Some(share) = &self.share {
            share.lasting.fetch_sub(self.places, Ordering::Relaxed);
        }
    }
}

/// Bytes in flight, given back when dropped.
#[derive(Debug)]
pub struct Charge {
    in_flight: Arc<InFlight>,
    bytes: AtomicU64,
    share: Option<Arc<Share>>,
}

impl Charge {
    /// Takes in this many more, if there is room: where not, that is counted and nothing changes.
    #[must_use]
    pub fn grow(&self, bytes: usize) -> bool {
        self.take_in(bytes, 0)
    }

    /// The same, as if all of it were charged at once: what it has already is not held against its connection.
    #[must_use]
    pub fn grow_answer(&self, bytes: usize) -> bool {
        self.take_in(bytes, self.bytes.load(Ordering::Relaxed))
    }

    /// Waits until no other request of its connection does what takes long, and lets none do so while the answer is there.
    pub async fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        let share = self.share.as_ref()?;
        Some(Arc::clone(&share.turn).lock_owned().await)
    }

    /// Counts its request, which comes to nothing for this reason.
    pub fn count_refused(&self, reason: RequestRefusal) {
        self.in_flight.count_refused(reason);
    }

    /// Takes in bytes, if the connection leaves enough with what it holds but for `spared` bytes.
    fn take_in(&self, bytes: usize, spared: u64) -> bool {
        let InFlight { bytes: all, max_bytes, refused, .. } = &*self.in_flight;
        let more = bytes as u64;
        let mine = self.share.as_ref().map_or(0, |share| share.bytes.load(Ordering::Relaxed));
        let is_only = mine == self.bytes.load(Ordering::Relaxed);
        let grown = all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
            let all = all.checked_add(more)?;
            let leaves_enough =
                mine.saturating_sub(spared).checked_add(all).is_some_and(|both| both <= *max_bytes);
            (leaves_enough || is_only && all <= max_bytes - max_bytes / 8).then_some(all)
        });
        if grown.is_err() {
            refused.count(RequestRefusal::TooManyBytes);
            return false;
        }
        self.bytes.fetch_add(more, Ordering::Relaxed);
        if let Some(share) = &self.share {
            share.bytes.fetch_add(more, Ordering::Relaxed);
        }
        true
    }

    /// Whether room is scarce: more than an eighth of what may be in flight is. Up to so much clients may hold for good that never
    /// take their answers.
    pub fn is_tight(&self) -> bool {
        self.in_flight.bytes() > self.in_flight.max_bytes / 8
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.in_flight.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(share) = &self.share {
            share.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn room(requests: u64, bytes: u64) -> (Arc<InFlight>, Arc<RefusedRequests>) {
        let refused = Arc::<RefusedRequests>::default();
        (Arc::new(InFlight::new(requests, bytes, Arc::clone(&refused))), refused)
    }

    #[test]
    fn bytes_never_exceed_their_limit_and_all_come_back() {
        let (room, refused) = room(1, 100);
        let first = room.charge(60).expect("fits");
        assert!(room.charge(41).is_none());
        assert!(first.grow(40) && !first.grow(1));
        assert_eq!((room.bytes(), refused.total(RequestRefusal::TooManyBytes)), (100, 2));
        drop(room.charge_anyway(7));
        drop(first);
        assert_eq!(room.bytes(), 0);
        assert!(room.charge(100).is_some());
        let none = room.charge_anyway(1).grow(usize::MAX);
        assert!(!none && room.bytes() == 0);
    }

    #[test]
    fn bytes_are_true_however_many_threads_charge() {
        let (room, _) = room(1, 1000);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let charge = room.charge(fastrand::usize(..600));
                        assert!(room.bytes() <= 1000);
                        drop(charge);
                    }
                });
            }
        });
        assert_eq!(room.bytes(), 0);
    }

    #[test]
    fn a_connection_leaves_as_much_as_it_holds() {
        let (room, _) = room(100, 100);
        let (one, other) = (Arc::<Share>::default(), Arc::<Share>::default());
        let mut places = Vec::new();
        while one.has_place(&room) {
            places.push(one.enter(&room));
        }
        assert_eq!(places.len(), 50);
        while other.has_place(&room) {
            places.push(other.enter(&room));
        }
        assert_eq!(places.len(), 75);
        let charge = |share: &Arc<Share>| {
            let [one, other] = [0, 1].map(|bytes| share.during(true, || room.charge_anyway(bytes)));
            while one.grow(1) {}
            [one, other]
        };
        let first = charge(&one);
        assert_eq!(room.bytes(), 50);
        let _second = charge(&other);
        assert_eq!(room.bytes(), 75);
        while room.requests() < 100 {
            places.push(room.enter());
        }
        assert!(Share::default().has_place(&room) && !one.has_place(&room), "each has one place of its own");
        drop((first, places));
        assert!(one.has_place(&room) && other.has_place(&room));
        assert_eq!((room.bytes(), room.requests()), (25, 0));
    }

    #[test]
    fn a_connection_may_have_one_message_of_seven_eighths() {
        let (room, _) = room(1, 80);
        let (one, other) = (Arc::<Share>::default(), Arc::<Share>::default());
        let message = one.during(true, || room.charge_first(1)).expect("there is room");
        while message.grow(1) {}
        assert_eq!(room.bytes(), 70);
        assert!(one.during(true, || room.charge_first(1)).is_none(), "it has its part");
        let small = other.during(true, || room.charge_first(20));
        assert_eq!((small.is_some(), room.bytes()), (true, 90), "each may have a first one");
        assert!(other.during(true, || room.charge_first(1)).is_none());
        drop((message, small));
        assert_eq!(room.bytes(), 0);
    }

    #[test]
    fn streams_that_last_are_shared_out_like_requests_and_take_none_of_their_places() {
        let (room, refused) = room(100, 0);
        let (one, other) = (Arc::<Share>::default(), Arc::<Share>::default());
        let enter = |share: &Arc<Share>, places| share.during(true, || room.enter_lasting(places));
        let mut streams: Vec<_> = std::iter::from_fn(|| enter(&one, 2)).collect();
        assert_eq!((streams.len(), refused.total(RequestRefusal::TooManyInFlight)), (25, 1));
        streams.extend(std::iter::from_fn(|| enter(&other, 5)));
        assert_eq!(streams.len(), 30);
        while let Some(stream) = room.enter_lasting(1) {
            streams.push(stream);
        }
        assert_eq!(room.lasting.load(Ordering::Relaxed), 100);
        assert!(enter(&Arc::default(), 2).is_some() && enter(&one, 1).is_none(), "each may have one");
        assert!(one.has_place(&room) && room.requests() == 0);
        drop(streams);
        assert!(enter(&one, 50).is_some() && room.lasting.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn a_panic_leaves_nobody_behind() {
        let share = Arc::<Share>::default();
        let poll = AssertUnwindSafe(|| share.during(false, || panic!("while it is polled")));
        assert!(catch_unwind(poll).is_err() && Share::current().is_none() && may_wait());
    }

    #[test]
    fn a_place_is_given_back() {
        let (room, _) = room(2, 0);
        let places = [room.enter(), room.enter()];
        assert!(room.is_full());
        drop(places);
        assert_eq!((room.is_full(), room.requests()), (false, 0));
    }
}
