//! Calls a gRPC method on a schedule, and tells how long its callers waited.
//!
//! Calls begin at random times with a fixed mean rate (a Poisson process, the same one in each run), whether earlier
//! ones have been answered or not, and their latency counts from the time when they were to begin. So nothing is left
//! out while a server stands still, as it is by a client that waits for one answer before it asks again.
//!
//! Prints one line of JSON; see `scripts/bench-grpc`. `late_p999_us` tells how far behind its schedule the load itself
//! was: a latency is the server's only where it is well above that.
//!
//! Where more is asked than can be answered (`scripts/bench-overload`), `--most-in-flight` says how many calls of a
//! connection wait for their answers at a time. One that finds no room is given up, as by a client that fails fast, and
//! one that the server turns away is no failure of the run: both are counted, and only what was served has a latency.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use h2::client::{self, ResponseFuture, SendRequest};
use hdrhistogram::Histogram;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Latencies are kept in nanoseconds up to this.
const LONGEST: Duration = Duration::from_secs(60);

/// The gRPC codes of a server that has too much to do.
const RESOURCE_EXHAUSTED: &str = "8";
const UNAVAILABLE: &str = "14";

/// The longest pause between two looks at the schedule.
const PAUSE: Duration = Duration::from_micros(50);

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    /// Where the server listens.
    address: SocketAddr,
    /// Such as `/cache.CacheService/Get`.
    path: String,
    /// The request: a gRPC message with its five bytes in front.
    body: PathBuf,
    /// Calls per second, all connections together.
    #[arg(long)]
    rate: f64,
    /// How long the load lasts.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How much of that at the beginning does not count.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Connections, which take turns.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Calls in flight on a connection: one more is given up. Without it calls wait, and all have to be answered well.
    #[arg(long)]
    most_in_flight: Option<usize>,
}

/// What was measured, in nanoseconds, and what was not served.
struct Measured {
    latency: Histogram<u64>,
    late: Histogram<u64>,
    /// Calls that found no room.
    given_up: u64,
    /// Calls that the server turned away, by the status of the answer.
    turned_away: BTreeMap<String, u64>,
}

/// What the calls of a run have in common.
struct Run {
    path: String,
    address: SocketAddr,
    body: Bytes,
    /// Calls that were to begin before are not counted.
    counts_from: Instant,
    most_in_flight: Option<usize>,
    measured: Mutex<Measured>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let run = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    run.block_on(load(arguments))
}

async fn load(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { address, path, body, rate, seconds, warm_up, connections, most_in_flight } = arguments;
    let body = Bytes::from(std::fs::read(body)?);
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(connect(address).await?);
    }
    let begins = Instant::now();
    let histogram = || Histogram::new_with_bounds(1, nanos(LONGEST), 3);
    let measured =
        Measured { latency: histogram()?, late: histogram()?, given_up: 0, turned_away: BTreeMap::default() };
    let measured = Mutex::new(measured);
    let counts_from = begins + Duration::from_secs_f64(warm_up);
    let run = Arc::new(Run { path, address, body, counts_from, most_in_flight, measured });
    let mut callers = JoinSet::new();
    let mut schedules = Vec::new();
    for requests in open {
        let (sender, schedule) = unbounded_channel();
        schedules.push(sender);
        callers.spawn(call_on_schedule(Arc::clone(&run), requests, schedule));
    }
    let pacer = thread::spawn(move || pace(begins, Duration::from_secs_f64(seconds), rate, &schedules));
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    pacer.join().map_err(|_| "the schedule's thread panicked")?;
    report(&run, seconds - warm_up)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Bytes>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (requests, connection) = client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake(stream)
        .await?;
    // Its failure is that of the requests.
    tokio::spawn(connection);
    Ok(requests)
}

/// Tells the connections in turn when a call is to begin, once it is time.
fn pace(begins: Instant, lasts: Duration, rate: f64, schedules: &[UnboundedSender<Instant>]) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut due = Duration::ZERO;
    for schedule in schedules.iter().cycle() {
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
        if due > lasts {
            return;
        }
        while begins.elapsed() < due {
            thread::sleep((due.saturating_sub(begins.elapsed())).min(PAUSE));
        }
        if schedule.send(begins + due).is_err() {
            return;
        }
    }
}

async fn call_on_schedule(
    run: Arc<Run>,
    mut requests: SendRequest<Bytes>,
    mut schedule: UnboundedReceiver<Instant>,
) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    while let Some(due) = schedule.recv().await {
        while let Some(ended) = calls.try_join_next() {
            ended??;
        }
        if run.most_in_flight.is_some_and(|most| calls.len() >= most) {
            run.note(due, |measured| measured.given_up += 1);
            continue;
        }
        requests = requests.ready().await?;
        let request = Request::post(format!("http://{}{}", run.address, run.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = requests.send_request(request, false)?;
        body.send_data(run.body.clone(), true)?;
        run.note(due, |measured| measured.late.saturating_record(nanos(due.elapsed())));
        calls.spawn(wait(Arc::clone(&run), answer, due));
    }
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    Ok(())
}

impl Run {
    /// Notes something about a call that was due then, if it counts.
    fn note(&self, due: Instant, what: impl FnOnce(&mut Measured)) {
        if due >= self.counts_from {
            what(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Waits for the end of an answer, which has to be a good one or, where that is allowed for, say that there is too much
/// to do.
async fn wait(run: Arc<Run>, answer: ResponseFuture, due: Instant) -> Result<(), Failure> {
    let answer = answer.await?;
    let status = |headers: &HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.to_owned());
    let of_head = status(answer.headers());
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = poll_fn(|cx| body.poll_trailers(cx)).await?;
    let code = of_head.or_else(|| status(&trailers?)).ok_or("an answer without a status")?;
    match code.as_str() {
        "0" => run.note(due, |measured| measured.latency.saturating_record(nanos(due.elapsed()))),
        RESOURCE_EXHAUSTED | UNAVAILABLE if run.most_in_flight.is_some() => {
            run.note(due, |measured| *measured.turned_away.entry(code).or_default() += 1);
        }
        _ => return Err(format!("not a good answer: status {code}").into()),
    }
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "figures to be read")]
fn report(run: &Run, seconds: f64) -> Result<(), Failure> {
    let measured = run.measured.lock().unwrap_or_else(PoisonError::into_inner);
    let micros = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let latency = |quantile| micros(&measured.latency, quantile);
    let report = serde_json::json!({
        "calls": measured.latency.len(),
        "rate": measured.latency.len() as f64 / seconds,
        "p50_us": latency(0.5),
        "p99_us": latency(0.99),
        "p999_us": latency(0.999),
        "max_us": latency(1.0),
        "late_p999_us": micros(&measured.late, 0.999),
        "given_up": measured.given_up,
        "turned_away": measured.turned_away,
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
