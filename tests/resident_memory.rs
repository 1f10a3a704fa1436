//! What the store says it uses against what the process holds, as the system tells it. Each measurement is made in a process of
//! its own.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "figures, shown where a test fails or is asked to tell")]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use engine::{
    Clock, Entry, Key, Limits, ManualClock, MemoryStore, MemoryStoreOptions, Store, StoreFuture, Table,
    WeighBy,
};

const MIB: u64 = 1 << 20;
const KIB: usize = 1024;
/// Says that this process is the one to measure in.
const ALONE: &str = "TINY_CACHE_TEST_ALONE";

/// Runs a test's body for each row, in a process of its own.
fn alone<T>(test: &str, rows: &[T], body: impl Fn(&T)) {
    if let Some(row) = std::env::var_os(ALONE) {
        let row: usize = row.to_str().and_then(|row| row.parse().ok()).expect("a number");
        return body(&rows[row]);
    }
    let binary = std::env::current_exe().expect("a test has a path");
    for row in 0..rows.len() {
        let mut child = Command::new(&binary);
        child.args([test, "--exact", "--nocapture"]).env(ALONE, row.to_string());
        let run = child.output().expect("it starts");
        let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        print!("{said}");
        assert!(run.status.success(), "{test}, row {row}: {said}");
        assert!(said.contains("1 passed"), "{test}, row {row}, is there no test of that name? {said}");
    }
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Writes this many bytes.
type Write = fn(&mut Subject, u64);
type Empty = fn(&mut Subject);

struct Subject {
    store: MemoryStore,
    clock: Arc<ManualClock>,
    bytes: Vec<u8>,
    random: fastrand::Rng,
    before: u64,
    /// The most that was resident above the limit.
    most: u64,
    written: u64,
    sets: u64,
}

impl Subject {
    fn new(policy: &str, limit: u64) -> Self {
        let entry = policies::find(policy).expect(policy);
        let factory = (entry.with_defaults)();
        let limits = Limits { max_items: None, max_memory_bytes: limit, max_value_bytes: limit };
        let clock = Arc::new(ManualClock::default());
        let options = MemoryStoreOptions {
            weigh_by: WeighBy::Bytes,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ..MemoryStoreOptions::new(
                limits,
                entry.name,
                entry.bytes_per_weighed_entry,
                Arc::new(move |capacity, seed| factory.build(capacity, seed)),
            )
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut bytes = vec![0; 2 << 20];
        random.fill(&mut bytes);
        let store = MemoryStore::new(options);
        Self { store, clock, bytes, random, before: resident_bytes(), most: 0, written: 0, sets: 0 }
    }

    fn set(&mut self, number: u64, size: usize, ttl: Option<Duration>) {
        let name = format!("key-{number:012}");
        let from = self.random.usize(0..1 << 20);
        let key = Key::shared(name.as_bytes()).expect("short");
        {
            let done = self.store.set(Entry { key, value: &self.bytes[from..from + size], ttl });
            assert!(matches!(done, StoreFuture::Ready(Some(Ok(())))));
        }
        self.written += (name.len() + size + 30) as u64;
        self.sets += 1;
        if size > 64 * KIB || self.sets.is_multiple_of(1024) {
            self.look();
        }
    }

    fn delete(&self, number: u64) {
        let name = format!("key-{number:012}");
        let done = self.store.delete(Key::shared(name.as_bytes()).expect("short"));
        assert!(matches!(done, StoreFuture::Ready(Some(Ok(_)))));
    }

    fn grown(&self) -> u64 {
        resident_bytes().saturating_sub(self.before)
    }

    fn look(&mut self) {
        self.most = self.most.max(self.grown());
    }

    fn told(&self) -> u64 {
        match self.store.stats() {
            StoreFuture::Ready(Some(Ok(stats))) => stats.counters.memory_bytes,
            _ => panic!("the memory store answers at once"),
        }
    }

    fn log_uniform(&mut self, smallest: f64, largest: f64) -> usize {
        size(smallest * (largest / smallest).powf(self.random.f64()))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of values")]
fn size(bytes: f64) -> usize {
    bytes as usize
}

#[expect(clippy::cast_precision_loss, reason = "sizes and shares")]
fn real(number: u64) -> f64 {
    number as f64
}

/// Ways to write this many bytes: sizes that grow or shrink, everything expiring at once, the same keys again with other
/// sizes, tiny and huge values in turns, sizes of every kind with deletes among them, and small values of which few ever expire.
const HISTORIES: [(&str, Write); 7] = [
    ("growing", |subject, total| {
        for number in 0.. {
            let done = real(subject.written) / real(total);
            if done >= 1.0 {
                break;
            }
            let spread = 0.7 + 0.7 * subject.random.f64();
            subject.set(number, size(16.0 * 65_536_f64.powf(done) * spread).min(KIB * KIB), None);
        }
    }),
    ("shrinking", |subject, total| {
        for number in 0.. {
            let left = 1.0 - real(subject.written) / real(total);
            if left <= 0.0 {
                break;
            }
            let spread = 0.7 + 0.7 * subject.random.f64();
            subject.set(number, size(16.0 * 65_536_f64.powf(left) * spread).min(KIB * KIB), None);
        }
    }),
    ("ttl storms", |subject, total| {
        let mut number = 0;
        for (storm, largest) in (1..).zip([1024.0, 65_536.0, 256.0, 16_384.0, 4096.0]) {
            while subject.written < total * storm / 5 {
                number += 1;
                let size = subject.log_uniform(16.0, largest);
                subject.set(number, size, Some(Duration::from_secs(60)));
            }
            subject.clock.advance(Duration::from_secs(60));
            assert!(matches!(subject.store.sweep(), StoreFuture::Ready(Some(Ok(1..)))));
            assert_eq!(subject.told(), 0, "all have expired");
        }
    }),
    ("replaced", |subject, total| {
        let sizes = [100, 5000, 300, 20_000, 1000, 40, 100_000, 2500];
        for turn in sizes.into_iter().cycle() {
            if subject.written >= total {
                break;
            }
            for number in 0..total / 12 / (turn as u64 + 16) {
                let size = turn / 2 + subject.random.usize(0..turn);
                subject.set(number, size, None);
            }
        }
    }),
    ("tiny and huge", |subject, total| {
        let mut number = 0;
        while subject.written < total {
            number += 1;
            let turn = subject.written * 16 / total;
            let huge = if turn < 8 { turn % 2 == 1 } else { number % 200 == 0 };
            subject.set(number, if huge { KIB * KIB } else { 16 }, None);
        }
    }),
    ("mixed", |subject, total| {
        let keys = total / 10 / 4096;
        while subject.written < total {
            let size = subject.log_uniform(16.0, 1_048_576.0);
            let (set, deleted) = (subject.random.u64(0..keys), subject.random.u64(0..keys));
            subject.set(set, size, None);
            if subject.random.u8(0..4) == 0 {
                subject.delete(deleted);
            }
        }
    }),
    ("few with a ttl", |subject, total| {
        for number in 0.. {
            if subject.written >= total {
                break;
            }
            let ttl = (subject.random.u8(0..100) == 0).then_some(Duration::from_secs(3600));
            subject.set(number, 16, ttl);
        }
    }),
];

#[test]
fn resident_memory_stays_near_the_limit_whatever_is_written() {
    let test = "resident_memory_stays_near_the_limit_whatever_is_written";
    alone(test, &HISTORIES, |(name, write)| {
        let limit = 64 * MIB;
        let mut subject = Subject::new("lru", limit);
        write(&mut subject, 10 * limit);
        println!("{name}: at most {:.3} of the limit", real(subject.most) / real(limit));
        assert!(subject.most <= limit + limit / 10 + 32 * MIB, "{name}: {} bytes", subject.most);
        assert!(subject.most >= limit / 2, "{name} fills the cache");
    });
}

#[test]
fn what_the_store_says_it_uses_is_what_it_holds() {
    const HOUR: Option<Duration> = Some(Duration::from_secs(3600));
    // How many of a hundred have a ttl.
    let rows = [
        (64 * MIB, 32, 0),
        (64 * MIB, 32, 1),
        (128 * MIB, 100, 0),
        (128 * MIB, 100, 1),
        (128 * MIB, 100, 100),
        (128 * MIB, 1000, 0),
        (128 * MIB, 10_000, 0),
        (128 * MIB, 200_000, 0),
    ];
    alone("what_the_store_says_it_uses_is_what_it_holds", &rows, |&(limit, size, mortal)| {
        let mut subject = Subject::new("lru", limit);
        for number in 0.. {
            if subject.told() > limit - limit / 10 {
                break;
            }
            for number in 256 * number..256 * (number + 1) {
                subject.set(number, size, HOUR.filter(|_| number % 100 < mortal));
            }
        }
        let error = 100.0 * (real(subject.told()) / real(subject.grown()) - 1.0);
        println!("{} MiB, {size} bytes, {mortal} % with a ttl: {error:+.1} %", limit / MIB);
        assert!(error.abs() <= 5.0, "{error:+.1} %");
    });
}

#[test]
fn memory_goes_back_to_the_system_when_entries_go() {
    let rows: [(&str, Empty); 3] = [
        ("cleared", |subject| {
            assert!(matches!(subject.store.clear(), StoreFuture::Ready(Some(Ok(1..)))));
        }),
        ("expired", |subject| {
            subject.clock.advance(Duration::from_secs(60));
            assert!(matches!(subject.store.sweep(), StoreFuture::Ready(Some(Ok(1..)))));
        }),
        ("deleted", |subject| {
            for number in 0..subject.sets {
                subject.delete(number);
            }
        }),
    ];
    alone("memory_goes_back_to_the_system_when_entries_go", &rows, |(how, empty)| {
        let mut subject = Subject::new("lru", 256 * MIB);
        while subject.told() < 200 * MIB {
            let size = subject.log_uniform(16.0, 200_000.0);
            subject.set(subject.sets, size, Some(Duration::from_secs(60)));
        }
        let full = subject.grown();
        empty(&mut subject);
        assert_eq!(subject.told(), 0, "{how}");
        let (left, held) = (subject.grown(), full / 16);
        println!("{how}: {left} bytes left of {full}");
        assert!(left <= held, "{how}: {left} bytes left of {full}");
    });
}

#[test]
fn what_tables_of_any_number_shrink_by_goes_back_to_the_system_at_once() {
    alone("what_tables_of_any_number_shrink_by_goes_back_to_the_system_at_once", &[64, 4096], |&tables| {
        const BYTES: usize = 128 << 20;
        // What the allocator keeps of them as they were when they were small.
        const SMALL: u64 = 4 * MIB;
        let before = resident_bytes();
        let rows = BYTES / tables / size_of::<u64>();
        let mut held: Vec<Table<u64>> = Vec::new();
        held.resize_with(tables, Table::default);
        // Side by side and in turns, as those of a store grow.
        for row in 0..rows as u64 {
            for table in &mut held {
                table.push(row);
            }
        }
        let full = resident_bytes() - before;
        assert!(full >= BYTES as u64, "{full} bytes");
        for table in &mut held {
            table.trim(rows / 4);
        }
        let left = resident_bytes() - before;
        println!("{tables} tables: {left} bytes left of {full}");
        assert!(left <= full / 4 + SMALL, "{left} bytes left of {full}");
        // The last of them, or one could be taken for what keeps all others.
        let rest = held.split_off(tables - 1);
        drop(held);
        let left = resident_bytes() - before;
        assert!(left <= full / 4 / tables as u64 + SMALL, "{left} bytes left of {full}");
        assert_eq!(rest[0].len(), rows / 4);
    });
}
