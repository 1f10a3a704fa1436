//! Log lines kept in memory, for tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing::subscriber::Subscriber;

use crate::config::{LogFormat, LogLevel, TelemetryConfig};

use super::logs::{LogControl, subscriber};

/// A log to write to and to read.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// A subscriber as [`super::logs::init`] installs it, writing here.
    pub(crate) fn subscriber(
        &self,
        log_level: LogLevel,
        log_format: LogFormat,
    ) -> (impl Subscriber + Send + Sync + use<>, LogControl) {
        let writer = self.clone();
        subscriber(
            &TelemetryConfig { log_level, log_format, ..TelemetryConfig::default() },
            false,
            move || writer.clone(),
        )
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }

    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
