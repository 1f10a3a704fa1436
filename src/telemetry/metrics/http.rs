//! HTTP requests, by the OpenTelemetry conventions for HTTP.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter, UpDownCounter};

use super::OTHER;
use super::catalogue::{Distribution, REQUEST_SECONDS};

const DURATION: Distribution = Distribution {
    name: "http.server.request.duration",
    unit: "s",
    description: "How long HTTP requests took, from their headers read to their answer made.",
    boundaries: REQUEST_SECONDS,
};

/// Methods that are told by name; the others are the client's, and there is no end to them.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];

/// A method, where it is one that is told by name.
#[must_use]
pub fn known_http_method(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

/// Where HTTP requests are recorded. They are few, so that nothing here needs to be fast.
pub struct HttpMetrics {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
}

impl HttpMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let active = meter
            .i64_up_down_counter("http.server.active_requests")
            .with_unit("{request}")
            .with_description("HTTP requests in flight.")
            .build();
        Self { duration: DURATION.build(meter), active }
    }

    /// A request has begun. It is active until the guard is dropped.
    #[must_use]
    pub fn begin(&self, method: &str, scheme: &'static str) -> ActiveHttpRequest<'_> {
        let method = known_http_method(method).unwrap_or(OTHER);
        let request = ActiveHttpRequest { metrics: self, method, scheme, began: Instant::now() };
        self.active.add(1, &request.labels());
        request
    }
}

/// An HTTP request in flight.
pub struct ActiveHttpRequest<'a> {
    metrics: &'a HttpMetrics,
    method: &'static str,
    scheme: &'static str,
    began: Instant,
}

impl ActiveHttpRequest<'_> {
    fn labels(&self) -> [KeyValue; 2] {
        [KeyValue::new("http.request.method", self.method), KeyValue::new("url.scheme", self.scheme)]
    }

    /// It was answered so. `route` is `None` where the path is none of ours.
    pub fn answered(self, route: Option<&str>, status: u16) {
        let took: Duration = self.began.elapsed();
        let mut labels = self.labels().to_vec();
        labels.push(KeyValue::new("http.response.status_code", i64::from(status)));
        if let Some(route) = route {
            labels.push(KeyValue::new("http.route", route.to_owned()));
        }
        if status >= 500 {
            labels.push(KeyValue::new("error.type", status.to_string()));
        }
        self.metrics.duration.record(took.as_secs_f64(), &labels);
    }
}

impl Drop for ActiveHttpRequest<'_> {
    fn drop(&mut self) {
        self.metrics.active.add(-1, &self.labels());
    }
}
