//! Connections that together take no more than a share of a core, for what is asked for now and then.
//!
//! Probes and scrapes have a thread of their own, and where a machine has one core, or all are busy, that thread takes its time from
//! those that serve the cache. Whoever asks for one page after the other would have half of it, in slices of milliseconds. So a
//! connection that has been served for longer than its share waits, and those that ask now and then never do.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How much longer all connections wait than they are served.
const WAITED_FOR_SERVED: u32 = 2;

/// How much a connection may be served beyond its share before it waits.
const TURN: Duration = Duration::from_micros(250);

/// When those who wait have all had their turn.
#[derive(Debug)]
pub(super) struct Schedule(Mutex<Instant>);

impl Schedule {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// When somebody may go on who was served for so long beyond a share: after all others who wait.
    fn next(&self, served: Duration, now: Instant) -> Instant {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = now.max(*last) + served * WAITED_FOR_SERVED;
        *last
    }
}

/// How long somebody was served beyond a share.
struct Beyond {
    time: Duration,
    until: Instant,
}

impl Beyond {
    /// Takes note that it was served for so long until `now`. If that is too much, all of it, which is to be waited for.
    fn served(&mut self, time: Duration, now: Instant) -> Option<Duration> {
        self.time = self.time.saturating_sub((now - self.until) / WAITED_FOR_SERVED) + time;
        self.until = now;
        (self.time >= TURN).then(|| std::mem::take(&mut self.time))
    }
}

/// A connection that waits when it had more than its share.
pub(super) struct Paced<C> {
    connection: C,
    schedule: Arc<Schedule>,
    beyond: Beyond,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<C> Paced<C> {
    pub(super) fn new(connection: C, schedule: &Arc<Schedule>) -> Self {
        let beyond = Beyond { time: Duration::ZERO, until: Instant::now() };
        Self { connection, schedule: Arc::clone(schedule), beyond, wait: None }
    }

    /// For who has something to say to the connection, which is to hear of it at once: it waits no longer.
    pub(super) fn hurried(&mut self) -> &mut C {
        self.wait = None;
        &mut self.connection
    }
}

impl<C: Future + Unpin> Future for Paced<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        let began = std::time::Instant::now();
        let polled = Pin::new(&mut self.connection).poll(cx);
        if polled.is_pending() {
            let now = Instant::now();
            if let Some(served) = self.beyond.served(began.elapsed(), now) {
                let mut wait = Box::pin(sleep_until(self.schedule.next(served, now)));
                if wait.as_mut().poll(cx).is_ready() {
                    // It is over already, and whoever is to wake the connection may have done so before.
                    cx.waker().wake_by_ref();
                } else {
                    self.wait = Some(wait);
                }
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is served for so long whenever it is polled, and wants more each time.
    struct Served {
        time: Duration,
        polls: u32,
    }

    impl Future for Served {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            let began = std::time::Instant::now();
            while began.elapsed() < self.time {}
            let Some(polls) = self.polls.checked_sub(1) else { return Poll::Ready(()) };
            self.polls = polls;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_always_wants_more_waits_for_longer_than_it_is_served() {
        let schedule = Arc::new(Schedule::new());
        let began = Instant::now();
        let all: Vec<_> =
            (0..3).map(|_| tokio::spawn(Paced::new(Served { time: TURN, polls: 20 }, &schedule))).collect();
        for one in all {
            one.await.expect("no panic");
        }
        // The clock is moved by nothing but their waiting.
        assert!(began.elapsed() >= TURN * WAITED_FOR_SERVED * 20 * 3, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_now_and_then_waits_for_nobody() {
        let began = Instant::now();
        let schedule = Arc::new(Schedule::new());
        schedule.next(Duration::from_secs(60), began);
        Paced::new(Served { time: Duration::ZERO, polls: 1 }, &schedule).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_hurried_goes_on_at_once() {
        let began = Instant::now();
        let mut paced = Paced::new(Served { time: TURN, polls: 1 }, &Arc::new(Schedule::new()));
        let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut paced).poll(cx))).await;
        assert!(polled.is_pending() && paced.wait.is_some());
        paced.hurried();
        paced.await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn too_much_is_a_turn_more_than_a_share() {
        let began = Instant::now();
        let mut beyond = Beyond { time: Duration::ZERO, until: began };
        let mut now = began;
        // A share is no matter how often.
        for _ in 0..100 {
            now += TURN;
            assert_eq!(beyond.served(TURN / WAITED_FOR_SERVED, now), None);
        }
        assert_eq!(beyond.served(TURN / 2, now), Some(TURN), "half a turn is of the last time");
        assert_eq!(beyond.served(TURN * 3, now + TURN), Some(TURN * 3), "there is no credit");
        assert_eq!(beyond.served(TURN / 2, now + TURN), None);
        assert_eq!(beyond.served(TURN / 2, now + TURN), Some(TURN));
    }
}
