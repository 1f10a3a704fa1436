//! What memory takes: how long one waits for a line of it to which another led.

use std::hint::black_box;
use std::time::Instant;

use memmap2::MmapMut;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// As processors fetch them.
const LINE_BYTES: usize = 64;
const STEPS: u32 = 1_000_000;

/// A way through memory, in huge pages where there are any. Each line tells the next, at random, so that nothing can be
/// asked for ahead: what no read of a table in memory can be without.
pub struct Walk {
    memory: MmapMut,
    at: u32,
}

impl Walk {
    #[expect(clippy::cast_possible_truncation, reason = "some GiB have fewer than 2^32 lines")]
    pub fn through(bytes: usize) -> Self {
        let lines = (bytes / LINE_BYTES) as u32;
        let mut memory = MmapMut::map_anon(lines as usize * LINE_BYTES).expect("memory");
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        // One way through all of them, in an order by chance.
        let mut order: Vec<u32> = (0..lines).collect();
        order.shuffle(&mut SmallRng::seed_from_u64(7));
        for (&line, next) in order.iter().zip(order.iter().cycle().skip(1)) {
            memory[line as usize * LINE_BYTES..][..4].copy_from_slice(&next.to_le_bytes());
        }
        Self { memory, at: SmallRng::seed_from_u64(8).random_range(0..lines) }
    }

    fn go(&mut self, steps: u32) {
        for _ in 0..steps {
            let line = &self.memory[self.at as usize * LINE_BYTES..][..4];
            self.at = u32::from_le_bytes(line.try_into().expect("four bytes"));
        }
        black_box(self.at);
    }

    /// Nanoseconds for a line.
    pub fn wait_nanos(&mut self) -> f64 {
        self.go(STEPS / 4);
        let began = Instant::now();
        self.go(STEPS);
        began.elapsed().as_secs_f64() * 1e9 / f64::from(STEPS)
    }
}
