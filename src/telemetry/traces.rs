//! A server span for a request, where it is to have one.
//!
//! Whether it has is decided before anything is made: a request without a span costs a look for one header and the
//! throw of a die. Spans are made with OpenTelemetry's own API and not by way of `tracing`, whose registry would keep
//! every request's span, sampled or not.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, ContextGuard, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SdkTracer, ShouldSample};

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
    policy: &'static str,
}

impl Tracing {
    pub(super) fn new(
        tracer: SdkTracer,
        sampling: Sampling,
        follow_callers: bool,
        policy: &'static str,
    ) -> Self {
        Self { tracer, sampling, follow_callers, propagator: TraceContextPropagator::new(), policy }
    }

    /// The policy in force, for spans to tell.
    #[must_use]
    pub const fn policy(&self) -> &'static str {
        self.policy
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

/// The span of a request in flight. It ends with [`end`](Self::end), or as cancelled where it is dropped before.
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
