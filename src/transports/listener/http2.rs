//! An HTTP/2 connection that answers its requests itself, as long as they can be answered at once.
//!
//! hyper hands every request to an executor, and the usual one makes a task of each: an allocation, a trip through
//! the scheduler, often another thread to wake, and the way back. For an answer that takes a microsecond to make
//! that is most of the work. Here requests gather in an [`Inbox`] while the connection reads; then each is polled once,
//! on the spot, and all their answers leave in one write (see [`Corked`]). A request that has to wait (for the rest of its body, for a
//! store across a network, for the client's window) becomes a task of its own then.
//!
//! A connection that always has something to read, to answer or to write would keep its thread for good, so it does so for a moment
//! ([`ANSWERING_TURN`], [`WIRE_TURN`]) and queues up again behind all others, those that the system has not told of yet among them. That
//! is what lets a health check through where others ask for more than can be done, and a client beside one that means no good.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use hyper::server::conn::http2::{Builder, Connection};
use hyper_util::rt::TokioIo;
use tokio::time::Sleep;

use super::connection::Io;
use super::corked::{Corked, Standing};
use super::counters::ConnectionCounters;
use super::service::{ForConnection, HttpService};
use super::untaken::{Held, STREAM_BYTES, Taken};
use crate::line::{Line, Rest};
use crate::transports::in_flight::{Place, Share};
use crate::transports::lasting::noting_that_it_lasts;
use crate::transports::refused::RequestRefusal;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long a connection answers before it lets others have their turn: a hundred small requests, of which a connection
/// seldom has more at hand, and short enough for a hundred busy connections to go round within a moment.
const ANSWERING_TURN: Duration = Duration::from_micros(250);

/// How long it reads and writes before. Requests at an ordinary pace never take so long to be read.
const WIRE_TURN: Duration = Duration::from_micros(100);

/// Requests that the connection has read and nobody has looked at yet.
#[derive(Clone, Default)]
pub(super) struct Inbox(Arc<Mutex<VecDeque<Request>>>);

impl Inbox {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Exchanges what is in here with `requests`.
    fn swap(&self, requests: &mut VecDeque<Request>) {
        std::mem::swap(requests, &mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inbox {
    fn execute(&self, request: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Box::pin(request));
    }
}

/// Wakes the connection's task, but not for what the task itself does: answers are written in any case once they have
/// all been made.
#[derive(Default)]
struct Alarm {
    task: AtomicWaker,
    answering: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.answering.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

/// A connection with its inbox.
pub(super) struct Http2<S: HttpService> {
    connection: Connection<TokioIo<Corked<Io>>, ForConnection<S>, Inbox>,
    /// Where it writes.
    io: Corked<Io>,
    inbox: Inbox,
    /// The requests in hand; empty but for its capacity, unless a turn ended before they did.
    requests: VecDeque<Request>,
    /// How the connection ended. What it had read before that counts and is answered, whoever may hear of it.
    ended: Option<hyper::Result<()>>,
    alarm: Arc<Alarm>,
    waker: Waker,
    rest: Rest,
    /// Where the connection and its requests stand between their turns.
    line: Arc<Line>,
    counters: Arc<ConnectionCounters>,
    share: Arc<Share>,
    /// Requests that wait have a clone each.
    waiting: Arc<()>,
    held: Held,
    /// How long a request may wait, its client's taking of the answer included.
    patience: Duration,
}

impl<S: HttpService> Http2<S> {
    /// Serves `io`, configured by `configure`. It waits in `line` between its turns. A request and its answer may wait for `patience` together.
    pub(super) fn new(
        io: Io,
        service: ForConnection<S>,
        counters: &Arc<ConnectionCounters>,
        line: &Arc<Line>,
        patience: Duration,
        configure: impl FnOnce(&mut Builder<Inbox>),
    ) -> Self {
        let inbox = Inbox::default();
        let mut builder = Builder::new(inbox.clone());
        configure(&mut builder);
        let alarm = Arc::<Alarm>::default();
        let io = Corked::new(io, WIRE_TURN, Arc::clone(counters.refused_requests()));
        Self {
            connection: builder.serve_connection(TokioIo::new(io.clone()), service),
            io,
            inbox,
            requests: VecDeque::new(),
            ended: None,
            waker: Waker::from(Arc::clone(&alarm)),
            rest: Rest::new(line),
            line: Arc::clone(line),
            alarm,
            counters: Arc::clone(counters),
            share: Arc::default(),
            waiting: Arc::default(),
            held: Held::new(Arc::clone(counters.untaken())),
            patience,
        }
    }

    /// Takes no new requests, finishes those in flight, then ends.
    pub(super) fn graceful_shutdown(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }

    /// Answers what is in the inbox, up to the end of the turn; whether there was anything.
    fn answer(&mut self, turn: &mut Turn) -> bool {
        if self.requests.is_empty() {
            self.inbox.swap(&mut self.requests);
        }
        if self.requests.is_empty() {
            return false;
        }
        self.alarm.answering.store(true, Ordering::SeqCst);
        while let Some(request) = self.requests.pop_front() {
            self.answer_or_spawn(request);
            turn.answered();
            if turn.is_over() {
                break;
            }
        }
        self.alarm.answering.store(false, Ordering::SeqCst);
        true
    }

    /// Polls a request once, and leaves it to the scheduler where it has to wait and there is a place for it.
    fn answer_or_spawn(&self, mut request: Request) {
        let Self { line, counters, share, patience, .. } = self;
        let in_flight = counters.in_flight();
        let has_place = share.has_place(in_flight);
        // As in a task: a panic ends this one request, whose stream is reset, and is told by the panic hook.
        let (polled, lasts) = noting_that_it_lasts(|| {
            let mut poll = || request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let poll = || catch_unwind(AssertUnwindSafe(&mut poll));
            line.during(|| share.during(has_place, poll))
        });
        if !matches!(polled, Ok(Poll::Pending)) {
            return;
        }
        // A service that has to wait has seen for itself that there is no place, and said so. What waits nevertheless is an
        // answer that its client does not take. One that lasts has a place of another kind.
        if !has_place && !lasts {
            return in_flight.count_turned_away();
        }
        tokio::spawn(Waiting {
            request,
            deadline: (!lasts).then(|| Box::pin(tokio::time::sleep(*patience))),
            line: Arc::clone(line),
            counters: Arc::clone(counters),
            place: (!lasts).then(|| share.enter(in_flight)),
            share: Arc::clone(share),
            _counted: Arc::clone(&self.waiting),
        });
    }

    /// Ends a turn in which all was `done` that can be, or not, and rests where there is more to do.
    fn end_turn(&mut self, done: bool, cx: &mut Context<'_>) {
        let Standing { is_over, open, fresh, blocked_bytes, took } = self.io.end_turn();
        let rests = is_over || !done;
        let waiting = Arc::strong_count(&self.waiting) - 1;
        let held = open.saturating_sub(waiting);
        // What this side has not read as a whole or not answered before it rests is nothing that a client could take.
        let unanswered = if rests { fresh + self.requests.len() } else { 0 };
        let taken = if held <= unanswered && blocked_bytes == 0 {
            Taken::All
        } else if took {
            Taken::Some
        } else {
            Taken::Nothing
        };
        self.held.set(held as u64 * STREAM_BYTES + blocked_bytes as u64, taken, cx.waker());
        if rests {
            self.rest.begin(cx);
        }
    }
}

impl<S: HttpService> Drop for Http2<S> {
    /// hyper gives each request a clone of the inbox: those that lie in it would keep it, and it them, with all that their streams hold.
    fn drop(&mut self) {
        let mut unanswered = VecDeque::new();
        self.inbox.swap(&mut unanswered);
    }
}

/// The time in which a connection may answer, counted from the end of its first answer: one that has a single request to
/// answer reads the clock once.
enum Turn {
    ToBegin,
    Since(Instant),
    Over,
}

impl Turn {
    /// Takes note of an answer.
    fn answered(&mut self) {
        match self {
            Self::ToBegin => *self = Self::Since(Instant::now()),
            Self::Since(began) if began.elapsed() >= ANSWERING_TURN => *self = Self::Over,
            Self::Since(_) | Self::Over => {}
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }
}

/// A request that could not be answered at once. Its stream is reset where that takes too long.
struct Waiting {
    request: Request,
    /// `None`: the answer may last.
    deadline: Option<Pin<Box<Sleep>>>,
    line: Arc<Line>,
    counters: Arc<ConnectionCounters>,
    share: Arc<Share>,
    /// `None`: the answer lasts.
    place: Option<Place>,
    _counted: Arc<()>,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (polled, lasts) = noting_that_it_lasts(|| {
            let Self { request, line, share, .. } = &mut *self;
            line.during(|| share.during(true, || request.as_mut().poll(cx)))
        });
        if polled.is_ready() {
            return polled;
        }
        if lasts {
            (self.deadline, self.place) = (None, None);
        }
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        if deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.counters.refused_requests().count(RequestRefusal::NotTaken);
        Poll::Ready(())
    }
}

impl<S: HttpService> Future for Http2<S> {
    type Output = hyper::Result<()>;

    /// Goes on for as long as the client sends, but no longer than a turn.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.alarm.task.register(cx.waker());
        if self.held.has_to_go() {
            return Poll::Ready(Ok(()));
        }
        if self.rest.goes_on(cx) {
            return Poll::Pending;
        }
        let mut turn = Turn::ToBegin;
        loop {
            let in_hand = self.requests.len() + self.inbox.len();
            self.io.begin(self.held.room().requests().saturating_sub(in_hand), cx);
            let Self { connection, waker, ended, .. } = &mut *self;
            if ended.is_none()
                && let Poll::Ready(result) = Pin::new(connection).poll(&mut Context::from_waker(waker))
            {
                *ended = Some(result);
            }
            let is_spent_writing = self.io.is_spent_writing();
            if is_spent_writing || turn.is_over() {
                // What follows many others may wait with the next.
                if !is_spent_writing {
                    self.io.poll_uncork(cx);
                }
                self.end_turn(false, cx);
                return Poll::Pending;
            }
            if self.answer(&mut turn) {
                continue;
            }
            // Whether writing failed is told by the connection, once it has heard of it.
            let has_failed = self.io.poll_uncork(cx);
            if let Some(ended) = self.ended.take() {
                return Poll::Ready(ended);
            }
            if !has_failed && !self.io.is_let_go() {
                self.end_turn(true, cx);
                return Poll::Pending;
            }
        }
    }
}
