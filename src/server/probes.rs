//! Where probes and scrapes are answered: on a thread of its own.
//!
//! The threads that serve the cache have as much to do as clients ask for. Whoever wants to know how the server is must
//! not wait for them: an orchestrator that hears nothing kills the process, and so makes an overload an outage. Here the
//! system's scheduler sees to it that probes get their share of the processor, however long the others' queues are.

use std::io;

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};

/// The runtime of what answers probes.
pub(super) struct ProbeRuntime(Option<Runtime>);

impl ProbeRuntime {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("probes").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("taken by the drop only")
    }

    /// Sockets that are bound meanwhile belong to this runtime.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime().enter()
    }

    pub(super) fn handle(&self) -> &Handle {
        self.runtime().handle()
    }
}

impl Drop for ProbeRuntime {
    /// Its owner may be a task of another runtime, which may not wait for this one.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
