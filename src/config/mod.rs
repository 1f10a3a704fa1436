//! Configuration: from built-in defaults, one TOML file, environment variables and flags to one typed
//! [`Config`] in which nothing is left to be checked.
//!
//! - [`Loader::load`] puts the layers together. It either succeeds or reports *every* problem, each with
//!   its place: file and line, variable, or flag.
//! - Every layer's value is checked, also one that a later layer overrides.
//! - [`Effective`] remembers where each value came from.
//!
//! A key is declared in one line where it is read (`section.take("max_items", &format, default)`);
//! that line gives its type, its range, its messages, its default and its place in `config show`.

mod access;
mod access_log;
mod changes;
mod document;
mod duration;
mod effective;
mod environment;
mod error;
mod eviction;
mod format;
mod layers;
mod loader;
mod model;
mod origin;
mod otel;
mod otlp;
mod section;
mod size;
mod transport;

pub use access::{AuthConfig, ClientIdentity, Part};
pub use access_log::{AccessLogConfig, LogDestination, LoggedKeys};
pub use changes::{Change, LIVE_KEYS};
pub use effective::Effective;
pub use environment::UnreadVariables;
pub(crate) use error::nearest;
pub use error::{Complaint, ConfigErrors, EX_CONFIG, Problem};
pub use layers::Override;
pub use loader::{Loaded, Loader, Sources};
pub use model::*;
pub use origin::Origin;
pub use otlp::{
    BatchConfig, LogExport, MetricExport, OtlpConfig, OtlpProtocol, OtlpTarget, Sampling, Signal,
    Temporality, TraceExport,
};
