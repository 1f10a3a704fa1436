//! Takes traces one after the other and collects rows and complaints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use simulator::trace::{Trace, TraceError, TraceOptions, is_standard_input};
use simulator::{
    Cache, Capacity, Job, Mode, OPTIMUM, PolicyChoice, Progress, Recording, Requests, Runner, Simulation,
    SimulationResult, Simulator, Stream, Survey, Tally,
};

use super::super::output::grouped;
use super::super::progress::{reading_bar, simulating_bar, watched, watched_by};

/// What to do with every trace.
pub(super) struct Plan {
    pub(super) choices: Vec<PolicyChoice>,
    pub(super) capacities: Vec<Capacity>,
    pub(super) mode: Mode,
    pub(super) ttl_seconds: Option<u32>,
    pub(super) seed: u64,
    pub(super) optimum: bool,
    pub(super) allow_oversized: bool,
    pub(super) options: TraceOptions,
}

pub(super) struct Session<'a> {
    simulator: &'a Simulator,
    runner: &'a Runner,
    progress: &'a Progress,
    plan: &'a Plan,
    pub(super) results: Vec<SimulationResult>,
    pub(super) problems: Vec<String>,
}

/// A row to come: its cache, and its policy's place in the plan; `None` for the optimum.
#[derive(Clone, Copy)]
struct Row {
    cache: Cache,
    choice: Option<usize>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        simulator: &'a Simulator,
        runner: &'a Runner,
        progress: &'a Progress,
        plan: &'a Plan,
    ) -> Self {
        Self { simulator, runner, progress, plan, results: Vec::new(), problems: Vec::new() }
    }

    /// Computes every row of a trace.
    pub(super) fn simulate(&mut self, path: &Path) {
        let relative = self.plan.capacities.iter().any(|capacity| matches!(capacity, Capacity::Percent(_)));
        let outcome = if self.plan.optimum || (relative && is_standard_input(path)) {
            self.simulate_recorded(path)
        } else {
            self.simulate_streamed(path, relative)
        };
        if let Err(error) = outcome {
            self.problems.push(error.to_string());
        }
    }

    /// Reads the whole trace, then runs every row for itself.
    fn simulate_recorded(&mut self, path: &Path) -> Result<(), TraceError> {
        let (trace, consumed) = self.open(path)?;
        let name = trace.name().to_owned();
        let keep_times = self.plan.ttl_seconds.is_some();
        let (recording, outcome) = watched(&reading_bar(path), &consumed, || {
            Recording::of(trace, keep_times, || !self.progress.is_stopped())
        });
        let survey = *recording.survey();
        if survey.requests == 0 || self.progress.is_stopped() {
            return outcome;
        }
        let rows = self.rows(&name, Some(&survey));
        let jobs = rows.iter().map(|row| match row.choice {
            Some(choice) => Job::Policy(self.simulation(choice, &row.cache)),
            None => Job::Optimum(row.cache),
        });
        let jobs: Vec<Job> = jobs.collect();
        let total = survey.requests * jobs.len() as u64;
        let before = self.progress.simulated();
        let tallies = watched_by(
            &simulating_bar(total),
            || self.progress.simulated() - before,
            || self.runner.recorded(&recording, jobs),
        );
        for (row, tally) in rows.iter().zip(tallies) {
            if let Some(tally) = tally {
                self.push(&name, row, &tally);
            }
        }
        self.complain_of_oversized(&name, &rows, &survey);
        outcome
    }

    /// Runs every row at once as the trace is read, which is read before where percentages need its footprint.
    fn simulate_streamed(&mut self, path: &Path, relative: bool) -> Result<(), TraceError> {
        let mut known = None;
        if relative {
            let (trace, consumed) = self.open(path)?;
            let mut requests = Requests::new(trace);
            watched(&reading_bar(path), &consumed, || {
                let mut stream = Stream::default();
                // What is wrong with the trace shows again below.
                while !self.progress.is_stopped()
                    && stream.fill(&mut requests).is_ok()
                    && !stream.block().is_empty()
                {}
            });
            known = Some(*requests.survey());
        }
        let (trace, consumed) = self.open(path)?;
        let name = trace.name().to_owned();
        let rows = self.rows(&name, known.as_ref());
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.choice.is_some()).collect();
        let simulation = |row: &Row| Some(self.simulation(row.choice?, &row.cache));
        let mut simulations: Vec<Box<dyn Simulation>> = rows.iter().filter_map(simulation).collect();
        let mut requests = Requests::new(trace);
        let outcome =
            watched(&reading_bar(path), &consumed, || self.runner.streamed(&mut requests, &mut simulations));
        let survey = *requests.survey();
        // A run that was stopped has rows of a part of the trace only, which nobody asked for.
        if self.progress.is_stopped() || survey.requests == 0 {
            return outcome;
        }
        let fits = |row: &Row| Capacity::Count(row.cache.capacity).resolve(row.cache.mode, &survey);
        let mut told = Vec::new();
        for (row, simulation) in rows.iter().zip(&simulations) {
            match fits(row) {
                Ok(_) => self.push(&name, row, &simulation.tally()),
                Err(error) if !told.contains(&row.cache.capacity) => {
                    told.push(row.cache.capacity);
                    self.problems.push(format!("{name}: {error}"));
                }
                Err(_) => {}
            }
        }
        self.complain_of_oversized(&name, &rows, &survey);
        outcome
    }

    fn open(&self, path: &Path) -> Result<(Trace, Arc<AtomicU64>), TraceError> {
        let consumed = Arc::new(AtomicU64::new(0));
        let trace = Trace::open(path, &self.plan.options, Arc::clone(&consumed))?;
        trace.require(self.plan.ttl_seconds.is_some(), self.plan.mode == Mode::Bytes)?;
        Ok((trace, consumed))
    }

    /// The rows of a trace in the order of the results. Capacities that make no sense are told.
    fn rows(&mut self, name: &str, survey: Option<&Survey>) -> Vec<Row> {
        let Plan { mode, ttl_seconds, seed, .. } = *self.plan;
        let mut capacities = Vec::new();
        for capacity in &self.plan.capacities {
            let resolved = match (survey, capacity) {
                (Some(survey), capacity) => capacity.resolve(mode, survey),
                // Known only once the trace was read.
                (None, Capacity::Count(count) | Capacity::Bytes(count)) => Ok(*count),
                (None, Capacity::Percent(_)) => continue,
            };
            match resolved {
                Ok(resolved) if capacities.contains(&resolved) => {}
                Ok(resolved) => capacities.push(resolved),
                Err(error) => self.problems.push(format!("{name}: {error}")),
            }
        }
        let choices = || (0..self.plan.choices.len()).map(Some).chain(self.plan.optimum.then_some(None));
        let cache = |capacity| Cache { mode, capacity, ttl_seconds, seed };
        let rows_of = |capacity| choices().map(move |choice| Row { cache: cache(capacity), choice });
        capacities.into_iter().flat_map(rows_of).collect()
    }

    fn simulation(&self, choice: usize, cache: &Cache) -> Box<dyn Simulation> {
        let choice = &self.plan.choices[choice];
        self.simulator.simulation(choice, cache).expect("the choices were checked")
    }

    fn push(&mut self, name: &str, row: &Row, tally: &Tally) {
        let policy = row.choice.map_or(OPTIMUM, |choice| &self.plan.choices[choice].name);
        let Cache { mode, capacity, .. } = row.cache;
        self.results.push(SimulationResult::new(name, mode, capacity, policy, tally));
    }

    fn complain_of_oversized(&mut self, name: &str, rows: &[Row], survey: &Survey) {
        let (size, position) = survey.largest;
        let caches = rows.iter().map(|row| row.cache.capacity).filter(|capacity| *capacity < u64::from(size));
        let Some(smallest) = caches.min() else { return };
        if self.plan.mode == Mode::Bytes && !self.plan.allow_oversized {
            self.problems.push(format!(
                "{name}: {position}: an object of {} bytes is larger than the cache of {} bytes: such requests \
                 were counted as misses (--allow-oversized accepts that)",
                grouped(size.into()),
                grouped(smallest),
            ));
        }
    }
}
