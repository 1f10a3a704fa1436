//! Log lines as JSON, one flat object each.
//!
//! First come `timestamp` (RFC 3339, UTC), `level`, `target` and `message`, then the fields of the
//! spans around the event, from the outermost, then the event's own, then `trace_id` and `span_id` where
//! the request is traced. Where a name occurs twice the innermost wins; a field that bears one of the
//! first four names gets an underscore appended.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::traces::current_ids;

/// Writes each event as one line.
pub(super) struct JsonLines<W> {
    make_writer: W,
}

impl<W> JsonLines<W> {
    pub(super) const fn new(make_writer: W) -> Self {
        Self { make_writer }
    }
}

#[derive(Serialize)]
struct Line {
    timestamp: String,
    level: &'static str,
    target: String,
    message: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// A span's fields, kept with the span.
struct SpanFields(Fields);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().replace(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(SpanFields(outer)) = span.extensions().get() {
                fields.extend(outer);
            }
        }
        event.record(&mut fields);
        if let Some((trace_id, span_id)) = current_ids() {
            fields.others.insert("trace_id".to_owned(), trace_id.into());
            fields.others.insert("span_id".to_owned(), span_id.into());
        }

        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let line = Line {
            timestamp: now(),
            level: metadata.level().as_str(),
            target: metadata.target().to_owned(),
            message: fields.message,
            fields: fields.others,
        };
        // One write, so that lines of several threads never mix. A log that cannot be written has
        // nowhere to say so.
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            let _ = self.make_writer.make_writer_for(metadata).write_all(&bytes);
        }
    }
}

fn now() -> String {
    let mut text = String::new();
    let written = SystemTime.format_time(&mut Writer::new(&mut text));
    debug_assert!(written.is_ok(), "a string takes everything");
    text
}

/// Fields as they are collected.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    /// Adds a span's fields. A span's `message` is a field like any other.
    fn extend(&mut self, span: &Self) {
        self.others.extend(span.others.iter().map(|(name, value)| (name.clone(), value.clone())));
        if !span.message.is_empty() {
            self.others.insert("message_".to_owned(), Value::from(span.message.as_str()));
        }
    }

    fn insert(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => {
                self.message = match value {
                    Value::String(text) => text,
                    other => other.to_string(),
                }
            }
            // Where a record of the `log` crate comes from; its target is the line's.
            name if name.starts_with("log.") => {}
            name @ ("timestamp" | "level" | "target") => {
                self.others.insert(format!("{name}_"), value);
            }
            name => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows neither infinity nor NaN.
        let number = serde_json::Number::from_f64(value).map(Value::Number);
        self.insert(field, number.unwrap_or_else(|| Value::from(value.to_string())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let written = write!(text, ": {error}");
            debug_assert!(written.is_ok(), "a string takes everything");
            cause = error.source();
        }
        self.insert(field, Value::from(text));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, Value::from(format!("{value:?}")));
    }
}
