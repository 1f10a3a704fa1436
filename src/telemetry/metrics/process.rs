//! The process, under the names that every Prometheus client uses, and the build that it is.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;

use super::Snapshot;
use super::catalogue::Source::{Amounts, Gauges, Measures};
use super::catalogue::{Metric, Observe};

/// Figures of the process, in a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFigures {
    resident_bytes: u64,
    virtual_bytes: u64,
    cpu_seconds: f64,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    start_seconds: f64,
    threads: u64,
}

/// What of this process is in memory; `None` where the system does not tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let memory = procfs::process::Process::myself().and_then(|process| process.statm()).ok()?;
    Some(memory.resident.saturating_mul(procfs::page_size()))
}

/// What of this process is in memory; `None` where the system does not tell.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub const fn resident_bytes() -> Option<u64> {
    None
}

impl ProcessFigures {
    /// What the system tells of this process; `None` where it has no `/proc`.
    #[cfg(target_os = "linux")]
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks of a hundredth of a second are few enough for 53 bits"
    )]
    pub fn read() -> Option<Self> {
        let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
        let ticks_per_second = procfs::ticks_per_second() as f64;
        Some(Self {
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
            virtual_bytes: stat.vsize,
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second,
            open_fds: open_fds(),
            max_fds: rlimit::Resource::NOFILE.get_soft().ok(),
            start_seconds: START.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            threads: u64::try_from(stat.num_threads).unwrap_or_default(),
        })
    }

    /// What the system tells of this process; `None` where it has no `/proc`.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub const fn read() -> Option<Self> {
        None
    }
}

/// When the process started, as near as it noticed itself. The system tells it since the machine's own start, which is in a
/// file that a sandbox hides.
static START: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// To be called as early as can be.
pub(super) fn note_start() {
    LazyLock::force(&START);
}

#[cfg(target_os = "linux")]
fn open_fds() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    // Linux 6.2 and later tell the number as the directory's size. To count them takes milliseconds where there are
    // thousands.
    match std::fs::metadata(DIRECTORY).ok()?.len() {
        0 => Some(std::fs::read_dir(DIRECTORY).ok()?.count() as u64),
        count => Some(count),
    }
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "process.resident_memory",
        unit: "By",
        description: "Memory of the process that is in use, as the system counts it.",
        source: Gauges(|s, observe| each(s, observe, |process| Some(process.resident_bytes))),
    },
    Metric {
        name: "process.virtual_memory",
        unit: "By",
        description: "Address space of the process.",
        source: Gauges(|s, observe| each(s, observe, |process| Some(process.virtual_bytes))),
    },
    Metric {
        name: "process.cpu",
        unit: "s",
        description: "Processor time of the process, user and system.",
        source: Amounts(|s, observe| each(s, observe, |process| Some(process.cpu_seconds))),
    },
    Metric {
        name: "process.open_fds",
        unit: "{descriptor}",
        description: "Open file descriptors.",
        source: Gauges(|s, observe| each(s, observe, |process| process.open_fds)),
    },
    Metric {
        name: "process.max_fds",
        unit: "{descriptor}",
        description: "Limit on open file descriptors.",
        source: Gauges(|s, observe| each(s, observe, |process| process.max_fds)),
    },
    Metric {
        name: "process.start_time",
        unit: "s",
        description: "When the process started, in seconds since 1970.",
        source: Measures(|s, observe| each(s, observe, |process| Some(process.start_seconds))),
    },
    Metric {
        name: "process.threads",
        unit: "{thread}",
        description: "Threads of the process.",
        source: Gauges(|s, observe| each(s, observe, |process| Some(process.threads))),
    },
    Metric {
        name: "tiny_cache.build_info",
        unit: "",
        description: "Always 1; the labels tell the version and how it was built.",
        source: Gauges(build_info),
    },
];

fn each<T>(snapshot: &Snapshot, observe: &mut Observe<'_, T>, value: fn(&ProcessFigures) -> Option<T>) {
    if let Some(value) = snapshot.process.as_ref().and_then(value) {
        observe(value, &[]);
    }
}

fn build_info(_: &Snapshot, observe: &mut Observe<'_, u64>) {
    let labels = [
        KeyValue::new("version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("commit", env!("BUILD_COMMIT")),
        KeyValue::new("rustc", env!("BUILD_RUSTC")),
        KeyValue::new("target", env!("BUILD_TARGET")),
        KeyValue::new("profile", env!("BUILD_PROFILE")),
    ];
    observe(1, &labels);
}
