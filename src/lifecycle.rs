//! The life of the process: ready, told to reload, told to stop, gone.
//!
//! SIGTERM and SIGINT drain; a second one ends the process at once. SIGHUP has everything read again that can be:
//! the configuration, the certificates, and the access log is opened anew.
//! Where a service manager listens (`NOTIFY_SOCKET`), it is told `READY=1` and `STOPPING=1`, as
//! `sd_notify(3)` describes.

use std::io;
use std::pin::pin;
use std::process::ExitCode;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::server::BoundServer;
use crate::server::reload::ReloadHandle;

/// What the process was told.
enum Told {
    Stop(SignalKind),
    Reload,
}

/// The signals that are listened to, from the moment this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to listen. Must run within a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop(SignalKind::terminate()),
            _ = self.interrupt.recv() => Told::Stop(SignalKind::interrupt()),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

/// Serves until a signal ends it. Success where the server drained; connections that had to be cut
/// off are logged and no failure. `configuration` is told to reload; there is none where there is no file.
pub async fn run(server: BoundServer, mut signals: Signals, configuration: Option<ReloadHandle>) -> ExitCode {
    announce(&server);
    let certificates = server.certificates();
    let access_log = server.access_log().cloned();
    let stop = CancellationToken::new();
    let mut running = pin!(server.run(stop.clone()));
    notify(NotifyState::Ready);
    loop {
        let told = tokio::select! {
            _ = &mut running => return ExitCode::SUCCESS,
            told = signals.next() => told,
        };
        match told {
            Told::Reload => {
                tracing::info!("told to reload");
                if let Some(configuration) = &configuration {
                    configuration.reload();
                }
                if let Some(log) = &access_log {
                    log.reopen();
                }
                for tls in certificates.clone() {
                    // What goes wrong is logged and counted where it happens; the old ones stay.
                    tokio::task::spawn_blocking(move || tls.reload().is_ok());
                }
            }
            Told::Stop(_) if !stop.is_cancelled() => {
                tracing::info!("stopping: draining connections");
                notify(NotifyState::Stopping);
                stop.cancel();
            }
            Told::Stop(kind) => {
                tracing::warn!("told to stop again: ending at once");
                let by_signal = 128 + kind.as_raw_value();
                return ExitCode::from(u8::try_from(by_signal).unwrap_or(u8::MAX));
            }
        }
    }
}

/// The start-up line: where it listens, with the real ports, and the limits in force.
fn announce(server: &BoundServer) {
    let addresses = |kind| {
        let addresses: Vec<String> = server.addresses(kind).iter().map(ToString::to_string).collect();
        addresses.join(", ")
    };
    let limits = server.limits();
    tracing::info!(
        grpc = addresses("grpc"),
        http = addresses("http"),
        policy = server.policy(),
        max_items = limits.max_items,
        max_memory_bytes = limits.max_memory_bytes,
        max_value_bytes = limits.max_value_bytes,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
