//! A line of those who had a turn and have more to do: connections, and requests that are worked on in slices.
//!
//! Between two turns all others have theirs, those that the system has not told of yet among them. Whoever only wakes itself is behind
//! those that are known to be ready, and the thread would look for news, such as a request on a quiet connection, after many such turns
//! only; and who is woken by others meanwhile, as a connection is by each request of its own that waits, would have a turn whenever that
//! happens.
//!
//! Each thread calls one who stands in the line, looks for news, sees to those that there is news of, and then has that one take
//! its turn. So a request on a quiet connection waits for one such turn, however many there are that always have more to do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::yield_now;

thread_local! {
    /// That of what this thread polls.
    static CURRENT: RefCell<Option<Arc<Line>>> = const { RefCell::new(None) };
}

/// Who had a turn and wants another, in the order in which they get it.
#[derive(Debug)]
pub(crate) struct Line {
    threads: usize,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    waiting: VecDeque<Arc<Place>>,
    /// How many will be called once a thread has looked for news.
    calls: usize,
    /// How many were called whose turn has not begun.
    called: usize,
}

/// Somebody's place in a line.
#[derive(Debug, Default)]
struct Place {
    is_called: AtomicBool,
    task: AtomicWaker,
}

/// Is woken once a thread has looked for news.
struct Call(Arc<Line>);

impl Line {
    /// For so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, standing: Mutex::default() }
    }

    /// Has what is polled meanwhile stand in this line where it [rests](rest).
    pub(crate) fn during<T>(self: &Arc<Self>, poll: impl FnOnce() -> T) -> T {
        struct Left(Option<Arc<Line>>);

        impl Drop for Left {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }

        let _left = Left(CURRENT.replace(Some(Arc::clone(self))));
        poll()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, place: &Arc<Place>) {
        self.standing().waiting.push_back(Arc::clone(place));
        self.call();
    }

    /// Has one more called, if somebody waits and there is a thread for it.
    fn call(self: &Arc<Self>) {
        {
            let mut standing = self.standing();
            if standing.calls >= standing.waiting.len() || standing.calls + standing.called >= self.threads {
                return;
            }
            standing.calls += 1;
        }
        // Each call has a waker of its own: of two that are the same only one would be woken.
        let waker = Waker::from(Arc::new(Call(Arc::clone(self))));
        let asked = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        debug_assert!(asked.is_pending(), "it is ready the second time");
    }

    /// The turn of one who was called begins, or never will.
    fn answered(self: &Arc<Self>) {
        self.standing().called -= 1;
        self.call();
    }

    fn leave(self: &Arc<Self>, place: &Arc<Place>) {
        self.standing().waiting.retain(|waiting| !Arc::ptr_eq(waiting, place));
        // Whoever is called is no longer among them.
        if place.is_called.load(Ordering::Acquire) {
            self.answered();
        }
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        let next = {
            let mut standing = self.0.standing();
            standing.calls -= 1;
            let next = standing.waiting.pop_front();
            if let Some(next) = &next {
                standing.called += 1;
                next.is_called.store(true, Ordering::Release);
            }
            next
        };
        if let Some(next) = next {
            next.task.wake();
        }
    }
}

/// Lets others have their turn, in the line [during](Line::during) which this is polled, if there is one.
pub(crate) async fn rest() {
    let line = CURRENT.with_borrow(Option::clone);
    let Some(line) = line else { return yield_now().await };
    let mut rest = Rest::new(&line);
    rest.enter();
    poll_fn(|cx| if rest.goes_on(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// The rest of one who has turns.
pub(crate) struct Rest {
    stage: Stage,
    line: Arc<Line>,
    place: Arc<Place>,
}

enum Stage {
    /// Its owner may go on.
    Over,
    InLine,
    /// Its owner may go on when those have had their turn of whom there is news.
    Called,
}

impl Rest {
    /// One that has not begun.
    pub(crate) fn new(line: &Arc<Line>) -> Self {
        Self { stage: Stage::Over, line: Arc::clone(line), place: Arc::default() }
    }

    /// To be polled again by whom this wakes.
    pub(crate) fn begin(&mut self, cx: &Context<'_>) {
        self.place.task.register(cx.waker());
        self.enter();
    }

    fn enter(&mut self) {
        self.stage = Stage::InLine;
        self.line.enter(&self.place);
    }

    /// Whether its owner has to wait; who polls it is woken when it is time.
    pub(crate) fn goes_on(&mut self, cx: &Context<'_>) -> bool {
        if matches!(self.stage, Stage::Over) {
            return false;
        }
        self.place.task.register(cx.waker());
        if matches!(self.stage, Stage::Called) {
            self.stage = Stage::Over;
            self.place.is_called.store(false, Ordering::Relaxed);
            self.line.answered();
            return false;
        }
        if self.place.is_called.load(Ordering::Acquire) {
            self.stage = Stage::Called;
            // Those of whom there is news have just been woken, and the owner after them. The scheduler begins with the
            // last one, but puts one that wakes itself behind all.
            cx.waker().wake_by_ref();
        }
        true
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Over) {
            self.line.leave(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Somebody who has turns, and how often it was woken.
    struct One {
        rest: Rest,
        waker: Waker,
        woken: Arc<Woken>,
    }

    impl One {
        fn new(line: &Arc<Line>) -> Self {
            let woken = Arc::<Woken>::default();
            Self { rest: Rest::new(line), waker: Waker::from(Arc::clone(&woken)), woken }
        }

        fn begin(&mut self) {
            self.rest.begin(&Context::from_waker(&self.waker));
        }

        /// As when it is polled.
        fn rests(&mut self) -> bool {
            self.rest.goes_on(&Context::from_waker(&self.waker))
        }

        fn leave(&mut self) {
            self.rest = Rest::new(&Arc::new(Line::new(1)));
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    /// Others have their turn, and the system is asked for news.
    async fn news() {
        yield_now().await;
    }

    #[tokio::test]
    async fn a_rest_goes_on_until_others_had_their_turn_whoever_wakes_it() {
        let mut one = One::new(&Arc::new(Line::new(1)));
        let mut expected = 0;
        assert!(!one.rests(), "it has not begun");
        for _ in 0..2 {
            one.begin();
            for _ in 0..3 {
                assert!(one.rests());
                one.waker.wake_by_ref();
                expected += 1;
                assert_eq!(one.woken(), expected);
            }
            assert!(one.rests());
            news().await;
            assert!(one.woken() == expected + 1, "its turn has come");
            assert!(one.rests(), "those with news go first");
            expected += 2;
            assert_eq!(one.woken(), expected);
            assert!(!one.rests());
        }
    }

    /// Polls those that were woken since; whose turn it is.
    fn poll(all: &mut [One], seen: &mut [usize]) -> Vec<usize> {
        let mut turns = Vec::new();
        for (number, (one, seen)) in all.iter_mut().zip(seen).enumerate() {
            while one.woken() > *seen {
                *seen = one.woken();
                if !one.rests() {
                    turns.push(number);
                }
            }
        }
        turns
    }

    #[tokio::test]
    async fn between_two_looks_for_news_as_many_have_their_turn_as_there_are_threads() {
        for threads in 1..4 {
            let line = Arc::new(Line::new(threads));
            let mut all: Vec<_> = (0..5).map(|_| One::new(&line)).collect();
            for one in &mut all {
                one.begin();
                assert!(one.rests());
            }
            let mut seen = [0; 5];
            let mut next = 0;
            for _ in 0..20 {
                news().await;
                let turns = poll(&mut all, &mut seen);
                let mut expected: Vec<_> = (next..next + threads).map(|number| number % 5).collect();
                next += threads;
                expected.sort_unstable();
                assert_eq!(turns, expected, "{threads} threads");
                // In the order of the line, which they enter again.
                for number in (next - threads..next).map(|number| number % 5) {
                    all[number].begin();
                    assert!(all[number].rests());
                }
            }
        }
    }

    #[tokio::test]
    async fn who_leaves_the_line_holds_nobody_up() {
        let line = Arc::new(Line::new(1));
        let mut all: Vec<_> = (0..4).map(|_| One::new(&line)).collect();
        for one in &mut all {
            one.begin();
            assert!(one.rests());
        }
        let mut seen = [0; 4];
        // Before it is called, while it is, and between its two calls.
        all[0].leave();
        news().await;
        assert_eq!(all[1].woken(), 1);
        all[1].leave();
        news().await;
        assert_eq!(all[2].woken(), 1);
        assert!(all[2].rests());
        all[2].leave();
        (seen[1], seen[2]) = (1, 2);
        news().await;
        assert_eq!(poll(&mut all, &mut seen), [3]);
        let standing = line.standing();
        assert_eq!((standing.waiting.len(), standing.calls, standing.called), (0, 0, 0));
    }

    #[tokio::test]
    async fn who_rests_stands_in_the_line_that_it_is_polled_with() {
        let line = Arc::new(Line::new(1));
        let cx = &mut Context::from_waker(Waker::noop());
        let mut all: Vec<_> = (0..3).map(|_| Box::pin(rest())).collect();
        for one in &mut all {
            assert!(line.during(|| one.as_mut().poll(cx)).is_pending());
        }
        let mut none = Box::pin(rest());
        assert!(none.as_mut().poll(cx).is_pending());
        assert_eq!(line.standing().waiting.len(), 3, "where it is polled with none it yields");
        for left in (0..3).rev() {
            news().await;
            let mut ready = Vec::new();
            for one in &mut all {
                // It is woken twice.
                ready.push(one.as_mut().poll(cx).is_ready() || one.as_mut().poll(cx).is_ready());
            }
            assert!(ready[0] && ready.iter().filter(|ready| **ready).count() == 1, "{ready:?}");
            drop(all.remove(0));
            assert_eq!(all.len(), left);
        }
    }
}
