//! Runs many simulations of one trace on several threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::optimum::optimum;
use crate::replay::{Cache, Simulation, Tally};
use crate::requests::{Recording, Requests, Stream};
use crate::trace::TraceError;

/// How far a run is, and the wish to end it. Shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    simulated: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Requests simulated, each counted once per simulation.
    #[must_use]
    pub fn simulated(&self) -> u64 {
        self.simulated.load(Ordering::Relaxed)
    }

    /// Ends the run soon: simulations that are not at their end give no result.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether an end was asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn add(&self, requests: u64) {
        self.simulated.fetch_add(requests, Ordering::Relaxed);
    }
}

/// One row to compute.
pub enum Job {
    /// A policy's.
    Policy(Box<dyn Simulation>),
    /// The optimum's.
    Optimum(Cache),
}

/// Threads for simulations.
pub struct Runner {
    pool: ThreadPool,
    progress: Arc<Progress>,
}

impl Runner {
    /// A runner with this many threads; 0 stands for one per core.
    pub fn new(threads: usize, progress: Arc<Progress>) -> Result<Self, ThreadPoolBuildError> {
        Ok(Self { pool: ThreadPoolBuilder::new().num_threads(threads).build()?, progress })
    }

    /// Runs jobs on a recorded trace, each for itself. `None` for those that were stopped.
    #[must_use]
    pub fn recorded(&self, recording: &Recording, jobs: Vec<Job>) -> Vec<Option<Tally>> {
        let run = |job| match job {
            Job::Policy(mut simulation) => {
                for block in recording.blocks() {
                    if self.progress.is_stopped() {
                        return None;
                    }
                    simulation.replay(&block);
                    self.progress.add(block.reads());
                }
                Some(finished(simulation.as_ref()))
            }
            Job::Optimum(_) if self.progress.is_stopped() => None,
            Job::Optimum(cache) => {
                let tally = optimum(recording, &cache);
                self.progress.add(recording.survey().requests);
                Some(tally)
            }
        };
        self.pool.install(|| jobs.into_par_iter().map(run).collect())
    }

    /// Runs simulations on a trace as it is read, all on the same block before the next one, which
    /// is read meanwhile. Ends at the trace's end, its first error, or when stopped.
    pub fn streamed(
        &self,
        requests: &mut Requests,
        simulations: &mut [Box<dyn Simulation>],
    ) -> Result<(), TraceError> {
        self.pool.install(|| {
            let (mut current, mut next) = (Stream::default(), Stream::default());
            let mut outcome = current.fill(requests);
            while !current.block().is_empty() && !self.progress.is_stopped() {
                let go_on = outcome.is_ok();
                let simulate = || {
                    let block = current.block();
                    simulations.par_iter_mut().for_each(|simulation| {
                        simulation.replay(&block);
                        self.progress.add(block.reads());
                    });
                };
                let read = || if go_on { next.fill(requests) } else { Ok(()) };
                let (read, ()) = rayon::join(read, simulate);
                if !go_on {
                    break;
                }
                outcome = read;
                std::mem::swap(&mut current, &mut next);
            }
            if cfg!(debug_assertions) {
                for simulation in simulations {
                    simulation.check_invariants();
                }
            }
            outcome
        })
    }
}

fn finished(simulation: &dyn Simulation) -> Tally {
    if cfg!(debug_assertions) {
        simulation.check_invariants();
    }
    simulation.tally()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Mode;
    use crate::requests::BLOCK_REQUESTS;
    use crate::requests::tests::{recording, trace};
    use crate::simulator::{PolicyChoice, Simulator};

    const CACHE: Cache = Cache { mode: Mode::Items, capacity: 50, ttl_seconds: None, seed: 0 };

    fn simulations() -> Vec<Box<dyn Simulation>> {
        let simulator = Simulator::default();
        let build = |name| simulator.simulation(&PolicyChoice::named(name), &CACHE).unwrap();
        simulator.policies().iter().map(|entry| build(entry.name)).collect()
    }

    fn rows(requests: usize) -> String {
        let rows: Vec<String> = (0..requests).map(|turn| format!("{},1", turn * turn % 977)).collect();
        rows.join("\n")
    }

    #[test]
    fn streamed_and_recorded_runs_agree_on_any_number_of_threads() {
        let rows = rows(BLOCK_REQUESTS * 2 + 17);
        let recording = recording(&rows);
        for threads in [1, 3] {
            let progress = Arc::new(Progress::default());
            let runner = Runner::new(threads, Arc::clone(&progress)).unwrap();
            let recorded = runner.recorded(&recording, simulations().into_iter().map(Job::Policy).collect());
            let mut streamed = simulations();
            runner.streamed(&mut Requests::new(trace(&rows)), &mut streamed).unwrap();
            assert_eq!(progress.simulated(), 2 * streamed.len() as u64 * recording.survey().requests);
            for (recorded, streamed) in recorded.into_iter().zip(streamed) {
                let (recorded, streamed) = (recorded.unwrap(), streamed.tally());
                assert_eq!(recorded.requests, recording.survey().requests);
                let counts = |tally: Tally| (tally.requests, tally.misses, tally.bytes, tally.missed_bytes);
                assert_eq!(counts(recorded), counts(streamed));
            }
        }
    }

    #[test]
    fn a_stopped_run_has_no_results_and_a_broken_trace_has_those_until_there() {
        let progress = Arc::new(Progress::default());
        let runner = Runner::new(1, Arc::clone(&progress)).unwrap();
        let mut streamed = simulations();
        let broken = format!("{}\nx,no\n", rows(100));
        assert!(runner.streamed(&mut Requests::new(trace(&broken)), &mut streamed).is_err());
        assert_eq!(streamed[0].tally().requests, 100);
        progress.stop();
        let jobs = simulations().into_iter().map(Job::Policy).collect();
        assert!(runner.recorded(&recording("a,1\n"), jobs).iter().all(Option::is_none));
    }
}
