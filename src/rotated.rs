//! What is read from files that may be exchanged while the server runs: certificates, bearer tokens.
//!
//! A reload only decides what counts from then on. Files that cannot be used leave what is in force as it is, so a bad
//! rotation is a log line and a counter, not an outage.

use std::error::Error;
use std::fs::File;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Files, and what they are made into.
pub trait Files: Clone + Send + Sync + 'static {
    /// What is in them. Hashed, so that a change is noticed without keeping a secret around.
    type Contents: Hash;
    /// What that becomes.
    type Value: Send + Sync;
    /// Why it cannot be used: one line that names the file and quotes nothing of it.
    type Error: Error + Clone + PartialEq + Hash + Send + Sync;
    /// In the plural, as the log has it.
    const WHAT: &'static str;

    /// Reads them. Blocks.
    fn read(&self) -> Result<Self::Contents, Self::Error>;

    /// Checks everything.
    fn load(&self, contents: Self::Contents) -> Result<Self::Value, Self::Error>;

    /// The one to be named.
    fn path(&self) -> &Path;

    /// How often to look at them.
    fn reload_interval(&self) -> Duration;
}

/// The permission of everybody to read.
const READ_BY_OTHERS: u32 = 0o004;

/// A file with something in it that nobody else is to know.
#[derive(Hash)]
pub struct SecretFile {
    /// What is in it, no more than was asked for.
    pub bytes: Vec<u8>,
    is_read_by_others: bool,
}

impl SecretFile {
    /// Reads so much of it at the most.
    pub fn read(path: &Path, most_bytes: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let is_read_by_others = file.metadata()?.mode() & READ_BY_OTHERS != 0;
        let mut bytes = Vec::new();
        file.take(most_bytes).read_to_end(&mut bytes)?;
        Ok(Self { bytes, is_read_by_others })
    }

    /// Tells the log where everybody on this machine may read it. `what` is in it.
    pub fn warn_if_exposed(&self, path: &Path, what: &str) {
        if self.is_read_by_others {
            tracing::warn!(file = %path.display(), "everybody on this machine may read {what}: chmod o-r");
        }
    }
}

/// How the last attempt to load ended.
struct Attempt<E> {
    fingerprint: u64,
    failure: Option<E>,
}

/// What is in force, and where to find what comes next.
pub struct Rotated<F: Files> {
    files: F,
    current: RwLock<Arc<F::Value>>,
    last_attempt: Mutex<Attempt<F::Error>>,
    hasher: RandomState,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
}

impl<F: Files> Rotated<F> {
    /// Reads and checks the files.
    pub fn load(files: &F) -> Result<Arc<Self>, F::Error> {
        let hasher = RandomState::new();
        let contents = files.read();
        let fingerprint = hasher.hash_one(&contents);
        Ok(Arc::new(Self {
            files: files.clone(),
            current: RwLock::new(Arc::new(files.load(contents?)?)),
            last_attempt: Mutex::new(Attempt { fingerprint, failure: None }),
            hasher,
            reloads: AtomicU64::new(0),
            reload_failures: AtomicU64::new(0),
        }))
    }

    /// What is in force.
    pub fn current(&self) -> Arc<F::Value> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again, whether or not they changed, and uses them from now on.
    ///
    /// Where they cannot be used everything stays as it is. That is logged when the failure is another one than
    /// the last time, and counted always. Blocks on file I/O.
    pub fn reload(&self) -> Result<(), F::Error> {
        // Locked first: what was read earlier must not be put in the place of what was read later.
        let mut last = self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        self.attempt(self.files.read(), &mut last)
    }

    /// As [`reload`](Self::reload), but only where the files differ from those of the last attempt.
    pub(crate) fn reload_if_changed(&self) {
        let mut last = self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = self.files.read();
        if self.hasher.hash_one(&contents) != last.fingerprint {
            // A failure has been logged and counted, and the next change is another chance.
            drop(self.attempt(contents, &mut last));
        }
    }

    fn attempt(
        &self,
        contents: Result<F::Contents, F::Error>,
        last: &mut Attempt<F::Error>,
    ) -> Result<(), F::Error> {
        last.fingerprint = self.hasher.hash_one(&contents);
        match contents.and_then(|contents| self.files.load(contents)) {
            Ok(value) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                self.reloads.fetch_add(1, Ordering::Relaxed);
                last.failure = None;
                tracing::info!(file = %self.files.path().display(), "{} reloaded", F::WHAT);
                Ok(())
            }
            Err(error) => {
                self.reload_failures.fetch_add(1, Ordering::Relaxed);
                if last.failure.as_ref() != Some(&error) {
                    tracing::error!(%error, "{} not reloaded, the previous ones stay in use", F::WHAT);
                    last.failure = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Looks at the files every now and then, as they say how often, and reloads what changed, until `shutdown`.
    ///
    /// It compares contents, not file times or inodes: that is what works where a directory is swapped under the
    /// files by a symbolic link, as Kubernetes does, or where a file system has coarse times.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(self.files.reload_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let this = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.reload_if_changed()).await {
                tracing::error!(%error, "checking the {} for changes failed", F::WHAT);
            }
        }
    }

    /// How often newer files were taken into use.
    pub fn reloads_total(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// How often newer files could not be used.
    pub fn reload_failures_total(&self) -> u64 {
        self.reload_failures.load(Ordering::Relaxed)
    }
}

impl<F: Files> std::fmt::Debug for Rotated<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotated").field("file", &self.files.path()).finish_non_exhaustive()
    }
}
