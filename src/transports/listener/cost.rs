//! How long a connection's bytes take to be understood, and how many of them are read at a time for that.
//!
//! Bytes of a head of hundreds of names take several times as long as those of a request of ordinary size, and those of a change of settings
//! the longer the more streams are open. Whatever is read at once is seen to at once, so from who sends such things little
//! is read at a time.

use std::time::{Duration, Instant};

/// How long what is read at a time may take.
const READ_TIME: Duration = Duration::from_micros(400);

/// How much has to be read to tell something about its cost.
const TELLING_BYTES: usize = 256;

/// Reads of so many bytes and more are left as they are.
const LARGE_BYTES: usize = 4 << 10;

/// By how much less of it is remembered with each read.
const FORGOTTEN: f64 = 1.0 / 32.0;

/// The cost of one connection's bytes.
#[derive(Default)]
pub(super) struct Cost {
    /// Seconds a byte: of the last read that told something, and what is remembered.
    last: f64,
    remembered: f64,
    /// How many bytes may be read at once by that.
    bound: Option<usize>,
    /// When the last bytes came, and how many, while they are seen to.
    reading: Option<(Instant, usize)>,
}

impl Cost {
    /// How many bytes may be read at once, if that is to be bounded.
    pub(super) const fn bound(&self) -> Option<usize> {
        self.bound
    }

    /// So many bytes were read. `clock` is asked where their cost matters; the time, if so.
    pub(super) fn has_read(&mut self, bytes: usize, clock: impl Fn() -> Instant) -> Option<Instant> {
        let matters = bytes >= TELLING_BYTES || (bytes > 0 && self.bound.is_some());
        let now = matters.then(clock);
        self.reading = now.map(|now| (now, bytes));
        now
    }

    /// What was read has been seen to.
    #[inline]
    pub(super) fn is_done(&mut self, clock: impl Fn() -> Instant) {
        if let Some((began, bytes)) = self.reading.take() {
            self.learn((clock() - began).as_secs_f64(), bytes);
        }
    }

    /// Something else was done since.
    pub(super) const fn is_interrupted(&mut self) {
        self.reading = None;
    }

    fn learn(&mut self, seconds: f64, bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a buffer's length")]
        let cost = seconds / bytes as f64;
        // A thread that is not let run for a while makes one read look dear, and hardly two in a row.
        let told = cost.min(self.last);
        self.last = cost;
        self.remembered = told.max(self.remembered * (1.0 - FORGOTTEN));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and saturated"
        )]
        let bound = (READ_TIME.as_secs_f64() / self.remembered) as usize;
        self.bound = (bound < LARGE_BYTES).then_some(bound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads so many bytes, which take so long.
    fn read(cost: &mut Cost, bytes: usize, time: Duration) {
        let now = Instant::now();
        cost.has_read(bytes, || now);
        cost.is_done(|| now + time);
    }

    #[test]
    fn of_bytes_that_take_long_few_are_read_at_a_time() {
        for (bytes, micros, expected) in [
            (4096, 100, None),
            (100_000, 4000, None),
            (4096, 500, Some(3276)),
            (2500, 300, Some(3333)),
            (256, 3600, Some(28)),
            // These tell nothing.
            (255, 1_000_000, None),
        ] {
            let mut cost = Cost::default();
            for _ in 0..2 {
                read(&mut cost, bytes, Duration::from_micros(micros));
            }
            assert_eq!(cost.bound(), expected, "{bytes} bytes in {micros} µs");
        }
    }

    #[test]
    fn one_read_that_took_long_tells_nothing() {
        let mut cost = Cost::default();
        for micros in [30, 5000, 30, 5000, 30] {
            read(&mut cost, 1000, Duration::from_micros(micros));
            assert_eq!(cost.bound(), None);
        }
        read(&mut cost, 1000, Duration::from_millis(5));
        read(&mut cost, 1000, Duration::from_millis(5));
        assert_eq!(cost.bound(), Some(80));
    }

    #[test]
    fn what_took_long_is_forgotten_in_time_however_little_is_read() {
        let mut cost = Cost::default();
        for _ in 0..2 {
            read(&mut cost, 1000, Duration::from_millis(2));
        }
        let mut reads = 0;
        while let Some(bound) = cost.bound() {
            assert!((100..LARGE_BYTES).contains(&bound));
            read(&mut cost, 64, Duration::from_micros(1));
            reads += 1;
        }
        assert!((50..200).contains(&reads), "{reads}");
    }

    #[test]
    fn what_is_done_meanwhile_does_not_count() {
        let mut cost = Cost::default();
        for _ in 0..2 {
            let now = Instant::now();
            assert_eq!(cost.has_read(1000, || now), Some(now));
            cost.is_interrupted();
            cost.is_done(|| now + Duration::from_secs(1));
        }
        assert_eq!(cost.bound(), None);
    }
}
