//! A server span for a request, where it is to have one.
//!
//! Whether it has is decided before anything is made: a request without a span costs a look for one header and the
//! throw of a die. Spans are made with OpenTelemetry's own API and not by way of `tracing`, whose registry would keep
//! every request's span, sampled or not.

use std::borrow::Cow;

use engine::Key;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanBuilder, SpanContext, SpanKind, SpanRef, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SdkTracer, ShouldSample};

use super::operations::{Batch, Operation, OperationKind, OperationListener, OperationResult};
use crate::config::Sampling;

/// Where callers say which trace a request belongs to (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Where they are told of the span that came of it (W3C Trace Context, the draft of response headers).
pub const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Makes spans.
#[derive(Debug)]
pub struct Tracing {
    tracer: SdkTracer,
    sampling: Sampling,
    follow_callers: bool,
    propagator: TraceContextPropagator,
}

impl Tracing {
    /// Spans of this tracer for the share of requests that `sampling` says; `follow_callers`: as part of their callers' traces.
    #[must_use]
    pub fn new(tracer: SdkTracer, sampling: Sampling, follow_callers: bool) -> Self {
        Self { tracer, sampling, follow_callers, propagator: TraceContextPropagator::new() }
    }

    /// Begins the span of a request, if it is to have one: only then `describe` is asked for its name and attributes.
    pub fn begin(
        &self,
        headers: &HeaderMap,
        describe: impl FnOnce() -> (Cow<'static, str>, Vec<KeyValue>),
    ) -> Option<ServerSpan> {
        let caller = self.caller(headers);
        let is_wanted = match caller.as_ref().map(|context| context.span().span_context().clone()) {
            Some(caller) if self.sampling.parent_based => caller.is_sampled(),
            Some(caller) => self.samples(&caller),
            None => fastrand::f64() < self.sampling.ratio,
        };
        if !is_wanted {
            return None;
        }
        let (name, attributes) = describe();
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let parent = caller.unwrap_or_default();
        let span = self.tracer.build_with_context(builder, &parent);
        Some(ServerSpan { context: parent.with_span(span) })
    }

    /// The caller's span, where it tells of one.
    fn caller(&self, headers: &HeaderMap) -> Option<Context> {
        if !self.follow_callers || !headers.contains_key(TRACEPARENT) {
            return None;
        }
        let context = self.propagator.extract_with_context(&Context::new(), &HeaderExtractor(headers));
        context.has_active_span().then_some(context)
    }

    /// By the trace's id, so that all who sample by it agree.
    fn samples(&self, caller: &SpanContext) -> bool {
        let sampler = Sampler::TraceIdRatioBased(self.sampling.ratio);
        let result = sampler.should_sample(None, caller.trace_id(), "", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

/// The span of a request in flight. It ends with [`end`](Self::end), or once it is dropped.
#[derive(Debug)]
pub struct ServerSpan {
    context: Context,
}

impl ServerSpan {
    /// Makes it the current one of this thread, so that log lines and operations find it.
    #[must_use]
    pub fn enter(&self) -> ContextGuard {
        self.context.clone().attach()
    }

    /// The context that it is the current span of.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// The value of [`TRACERESPONSE`].
    ///
    /// # Panics
    ///
    /// Never: the ids of a span can be sent.
    #[must_use]
    pub fn response_header(&self) -> HeaderValue {
        let span = self.context.span();
        let span = span.span_context();
        let text = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags());
        HeaderValue::try_from(text).expect("hex digits and dashes are valid in a header")
    }

    /// Ends it. `error` says what kind of failure of the server's it was, if it was one.
    pub fn end(self, attributes: impl IntoIterator<Item = KeyValue>, error: Option<Cow<'static, str>>) {
        let span = self.context.span();
        span.set_attributes(attributes);
        if let Some(error) = error {
            span.set_status(Status::Error { description: error });
        }
        span.end();
    }
}

/// Tells the current span, where there is one, what the service did. The key's hash is its fingerprint, which the access
/// log and policies know it by as well; the key itself is nowhere.
#[derive(Debug)]
pub struct SpanAttributes {
    policy: &'static str,
}

impl SpanAttributes {
    /// For a server with this policy.
    #[must_use]
    pub const fn new(policy: &'static str) -> Self {
        Self { policy }
    }

    fn common(&self, kind: OperationKind, namespace: &str) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("tiny_cache.operation", kind.name()),
            KeyValue::new("tiny_cache.policy", self.policy),
        ];
        if !namespace.is_empty() {
            attributes.push(KeyValue::new("tiny_cache.namespace", namespace.to_owned()));
        }
        attributes
    }
}

impl OperationListener for SpanAttributes {
    fn wants_latency(&self) -> bool {
        false
    }

    fn on_operation(&self, operation: &Operation<'_>) {
        if operation.in_batch {
            return;
        }
        with_current_span(|span| {
            let mut attributes = self.common(operation.kind, operation.namespace);
            attributes.push(KeyValue::new("tiny_cache.result", operation.result.name()));
            // A key that is none has no hash either.
            if let Some(key) = Key::new(operation.namespace.as_bytes(), operation.key.as_bytes()) {
                attributes.push(KeyValue::new("tiny_cache.key.hash", format!("{:016x}", key.fingerprint())));
            }
            attributes.extend(operation.value_bytes.map(|bytes| size("tiny_cache.value.size", bytes)));
            let ttl = operation.ttl.map(|ttl| KeyValue::new("tiny_cache.ttl", ttl.as_secs_f64()));
            attributes.extend(ttl);
            span.set_attributes(attributes);
        });
    }

    fn on_batch(&self, batch: &Batch<'_>) {
        with_current_span(|span| {
            let mut attributes = self.common(batch.kind, batch.namespace);
            attributes.push(size("tiny_cache.batch.keys", batch.keys));
            attributes.push(size("tiny_cache.batch.value.size", batch.value_bytes));
            for result in OperationResult::ALL {
                if batch.count(result) > 0 {
                    let name = format!("tiny_cache.batch.{}", result.name());
                    attributes.push(size(name, batch.count(result)));
                }
            }
            span.set_attributes(attributes);
        });
    }
}

fn size(name: impl Into<opentelemetry::Key>, number: u64) -> KeyValue {
    KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX))
}

fn with_current_span(tell: impl FnOnce(SpanRef<'_>)) {
    Context::map_current(|context| {
        if context.has_active_span() {
            tell(context.span());
        }
    });
}

/// The current span of this thread, for a log line.
pub(super) fn current_ids() -> Option<(String, String)> {
    Context::map_current(|context| {
        context.has_active_span().then(|| {
            let span = context.span();
            let span = span.span_context();
            (span.trace_id().to_string(), span.span_id().to_string())
        })
    })
}

/// The longest text of a span's attribute that a client chooses, in bytes: spans wait for the collector in numbers, whatever they hold.
const MOST_TEXT_BYTES: usize = 256;

/// The beginning of a text that a client has chosen, for an attribute.
#[must_use]
pub fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MOST_TEXT_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    const CALLER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// The `traceresponse` of a request with this `traceparent`, if it got a span.
    fn response(sampling: Sampling, follow_callers: bool, traceparent: Option<&str>) -> Option<String> {
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
        let tracing = Tracing::new(provider.tracer("test"), sampling, follow_callers);
        let mut headers = HeaderMap::new();
        if let Some(value) = traceparent {
            headers.insert(TRACEPARENT, HeaderValue::try_from(value).expect("can be sent"));
        }
        let span = tracing.begin(&headers, || ("test".into(), Vec::new()))?;
        Some(span.response_header().to_str().expect("text").to_owned())
    }

    #[test]
    fn a_callers_decision_holds_where_it_is_followed() {
        let caller = |flags: &str| format!("00-{CALLER}-00f067aa0ba902b7-{flags}");
        let (wanted, unwanted) = (caller("01"), caller("00"));
        let continues = |response: Option<String>| response.map(|text| text.contains(CALLER));
        let sampling = |parent_based, ratio| Sampling { parent_based, ratio };
        for (sampling, traceparent, expected) in [
            (sampling(true, 0.0), None, None),
            (sampling(true, 1.0), None, Some(false)),
            (sampling(true, 0.0), Some(&wanted), Some(true)),
            (sampling(true, 1.0), Some(&unwanted), None),
            (sampling(false, 0.0), Some(&wanted), None),
            (sampling(false, 1.0), Some(&unwanted), Some(true)),
            // Garbage is as good as nothing.
            (sampling(true, 1.0), Some(&"00-xyz".to_owned()), Some(false)),
        ] {
            let actual = continues(response(sampling, true, traceparent.map(String::as_str)));
            assert_eq!(actual, expected, "{sampling:?} {traceparent:?}");
        }
        assert_eq!(continues(response(sampling(true, 1.0), false, Some(&unwanted))), Some(false));
    }

    #[test]
    fn a_share_of_the_requests_is_sampled() {
        let sampling = Sampling { parent_based: true, ratio: 0.25 };
        let sampled = (0..4000).filter(|_| response(sampling, true, None).is_some()).count();
        assert!((800..1200).contains(&sampled), "{sampled}");
        // By the id where it is not the caller's to decide: the same one each time.
        let sampling = Sampling { parent_based: false, ratio: 0.25 };
        for (id, expected) in [("1", true), ("f", false)] {
            let traceparent = format!("00-{CALLER:.16}{}-00f067aa0ba902b7-00", id.repeat(16));
            assert_eq!(response(sampling, true, Some(&traceparent)).is_some(), expected, "{id}");
        }
    }

    #[test]
    fn a_header_tells_the_caller_of_the_span() {
        let text = response(Sampling { parent_based: true, ratio: 1.0 }, true, None).expect("a span");
        let parts: Vec<&str> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!((parts[0], parts[3]), ("00", "01"));
    }
}
