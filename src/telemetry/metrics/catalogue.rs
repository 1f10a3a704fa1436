//! What a metric is, and how it becomes an instrument of the OpenTelemetry SDK.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter};

use super::Snapshot;
use super::published::Published;

/// Takes one value of a metric that has labels.
pub(super) type Observe<'a, T> = dyn FnMut(T, &[KeyValue]) + 'a;

/// How a metric behaves, and its value in a snapshot.
pub(super) enum Source {
    /// Only ever rises.
    Counter(fn(&Snapshot) -> u64),
    /// Only ever rises, one value per set of labels.
    Counters(fn(&Snapshot, &mut Observe<'_, u64>)),
    /// Only ever rises, and is not a whole number, or not always there.
    Amounts(fn(&Snapshot, &mut Observe<'_, f64>)),
    /// Rises and falls.
    Gauge(fn(&Snapshot) -> u64),
    /// Rises and falls, one value per set of labels.
    Gauges(fn(&Snapshot, &mut Observe<'_, u64>)),
    /// A gauge that is not a whole number.
    Measure(fn(&Snapshot) -> f64),
    /// A gauge that is not a whole number, one value per set of labels.
    Measures(fn(&Snapshot, &mut Observe<'_, f64>)),
}

/// A metric whose value is read from a snapshot.
pub(super) struct Metric {
    pub(super) name: &'static str,
    /// In UCUM; in braces where it is only an annotation, which leaves no suffix.
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    pub(super) source: Source,
}

/// A metric that is recorded as things happen, since a distribution cannot be observed later.
pub(super) struct Distribution {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    /// Upper bounds of all buckets but the last.
    pub(super) boundaries: &'static [f64],
}

/// Bounds for how long a request takes, in seconds: from what a lookup in memory takes to what nobody waits for.
pub(super) const REQUEST_SECONDS: &[f64] = &[
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
    1.0, 2.5, 5.0, 10.0,
];

impl Distribution {
    pub(super) fn build(&self, meter: &Meter) -> Histogram<f64> {
        meter
            .f64_histogram(self.name)
            .with_unit(self.unit)
            .with_description(self.description)
            .with_boundaries(self.boundaries.to_vec())
            .build()
    }
}

impl Metric {
    /// Makes the instrument, which reads what is published whenever some reader collects.
    pub(super) fn register(&'static self, meter: &Meter, published: &Arc<Published>) {
        let Self { name, unit, description, source } = self;
        let published = Arc::clone(published);
        match *source {
            Source::Counter(value) => {
                let counter =
                    meter.u64_observable_counter(*name).with_unit(*unit).with_description(*description);
                counter.with_callback(move |to| published.read(|s| to.observe(value(s), &[]))).build();
            }
            Source::Counters(values) => {
                let counter =
                    meter.u64_observable_counter(*name).with_unit(*unit).with_description(*description);
                counter.with_callback(move |to| published.read(|s| values(s, &mut observe(to)))).build();
            }
            Source::Amounts(values) => {
                let counter =
                    meter.f64_observable_counter(*name).with_unit(*unit).with_description(*description);
                counter.with_callback(move |to| published.read(|s| values(s, &mut observe(to)))).build();
            }
            Source::Gauge(value) => {
                let gauge = meter.u64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                gauge.with_callback(move |to| published.read(|s| to.observe(value(s), &[]))).build();
            }
            Source::Gauges(values) => {
                let gauge = meter.u64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                gauge.with_callback(move |to| published.read(|s| values(s, &mut observe(to)))).build();
            }
            Source::Measure(value) => {
                let gauge = meter.f64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                gauge.with_callback(move |to| published.read(|s| to.observe(value(s), &[]))).build();
            }
            Source::Measures(values) => {
                let gauge = meter.f64_observable_gauge(*name).with_unit(*unit).with_description(*description);
                gauge.with_callback(move |to| published.read(|s| values(s, &mut observe(to)))).build();
            }
        }
    }
}

fn observe<T>(to: &dyn AsyncInstrument<T>) -> impl FnMut(T, &[KeyValue]) {
    move |value, labels| to.observe(value, labels)
}
