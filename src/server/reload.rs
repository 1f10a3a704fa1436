//! Reading the configuration again while the server runs: when it is told to, and when the file has changed.
//!
//! What can be taken over is ([`LIVE_KEYS`](crate::config::LIVE_KEYS)); what needs a restart is named in one warning. A
//! file that is wrong changes nothing: the log says what is wrong, a counter counts it, and the server goes on with what
//! it has. Environment and flags lie over the file as they did at the start.
//!
//! A thread of its own waits, looks, reads and has the store shrunk, so that no request waits for any of that.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use std::{env, io};

use engine::{Limits, WeighBy};
use tokio::runtime::Handle;

use super::{BoundServer, Server};
use crate::config::{
    Change, Config, ConfigErrors, Effective, Loaded, Loader, LogLevel, Origin, Override, Sources,
    StoreConfig, TransportKind,
};
use crate::service::CacheService;
use crate::telemetry::logs::LogControl;
use crate::telemetry::metrics::ConfigReloads;

/// How often the file is looked at. What it has become counts once it has stayed so from one look to the next.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Where a configuration was loaded from, to load it again.
pub struct ConfigSource {
    /// The file.
    pub file: PathBuf,
    /// The flags that lie over it.
    pub overrides: Vec<Override>,
}

/// Tells the thread that reads the configuration. It ends when this is dropped.
pub struct ReloadHandle(mpsc::Sender<()>);

impl ReloadHandle {
    /// Read the configuration now.
    pub fn reload(&self) {
        // It is gone only if it panicked, which the log has told.
        let _: Result<(), _> = self.0.send(());
    }
}

/// What of the configuration may change, as it is in force.
struct Live {
    max_items: Option<u64>,
    max_memory_bytes: u64,
    max_value_bytes: u64,
    log_level: LogLevel,
}

/// Reads a server's configuration again.
pub struct Reloader {
    server: Server,
    source: ConfigSource,
    service: Arc<CacheService>,
    reloads: Arc<ConfigReloads>,
    log: LogControl,
    runtime: Handle,
    started: Loaded,
    live: Live,
    /// What was taken over last, in its own words.
    applied: Effective,
    /// The last good file without what lies over it.
    file_alone: Option<Effective>,
    /// The last attempt failed.
    is_failing: bool,
}

impl Reloader {
    /// For a server that was bound with `started`. Must be called within its runtime.
    #[must_use]
    pub fn new(
        server: &Server,
        source: ConfigSource,
        started: Loaded,
        bound: &BoundServer,
        log: LogControl,
    ) -> Self {
        let Config { store, telemetry, .. } = &started.config;
        let live = Live {
            max_items: store.max_items,
            max_memory_bytes: store.max_memory_bytes,
            max_value_bytes: store.max_value_bytes,
            log_level: telemetry.log_level,
        };
        let mut new = Self {
            server: server.clone(),
            source,
            service: Arc::clone(&bound.service),
            reloads: Arc::clone(&bound.config_reloads),
            log,
            runtime: Handle::current(),
            applied: started.effective.clone(),
            started,
            live,
            file_alone: None,
            is_failing: false,
        };
        new.file_alone = new.load(false).ok().map(|loaded| loaded.effective);
        new
    }

    /// Reads the configuration when told to and when its file has changed, on a thread of its own.
    pub fn watch(mut self) -> io::Result<ReloadHandle> {
        let (sender, told) = mpsc::channel();
        let mut file = Watched::new(self.source.file.clone());
        thread::Builder::new().name("configuration".to_owned()).spawn(move || {
            loop {
                match told.recv_timeout(LOOK_INTERVAL) {
                    Ok(()) => {
                        file.is_read();
                        self.reload(true);
                    }
                    Err(RecvTimeoutError::Timeout) if file.has_changed() => self.reload(false),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(ReloadHandle(sender))
    }

    /// The configuration as it is now: what the server would start with, or the file alone.
    fn load(&self, layered: bool) -> Result<Loaded, ConfigErrors> {
        let registry = self.server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let ConfigSource { file, overrides } = &self.source;
        if layered {
            let environment = &|name: &str| env::var_os(name);
            loader.load(&Sources { file: Some(file.clone()), environment, overrides })
        } else {
            loader.load(&Sources::file(file))
        }
    }

    /// Reads and applies the configuration. Whoever `asked` hears of it even where nothing has changed.
    fn reload(&mut self, asked: bool) {
        let outcome = match self.load(true) {
            Ok(loaded) => self.apply(loaded, asked),
            Err(errors) => Err(errors.to_string().replace('\n', "; ")),
        };
        let was_failing = std::mem::replace(&mut self.is_failing, outcome.is_err());
        // It was touched, or the server has just started.
        if !asked && !was_failing && matches!(outcome, Ok(false)) {
            return;
        }
        // Counted first, so that whoever reads the line finds it counted.
        self.reloads.ended(outcome.is_ok());
        match outcome {
            Ok(_) => tracing::info!("configuration reloaded"),
            Err(error) => {
                tracing::error!(error, "configuration not reloaded, the previous one stays in force");
            }
        }
    }

    /// Takes over what can be; whether there was something to tell, or why nothing was taken over.
    fn apply(&mut self, loaded: Loaded, asked: bool) -> Result<bool, String> {
        let StoreConfig { max_memory_bytes, max_value_bytes, .. } = loaded.config.store;
        // What a policy counts in is decided when it is made.
        let counts_items = self.started.config.eviction.weigh_by == WeighBy::Items;
        let keeps_items = counts_items && loaded.config.store.max_items.is_none();
        let max_items = if keeps_items { self.live.max_items } else { loaded.config.store.max_items };
        let log_level = loaded.config.telemetry.log_level;
        let new = Live { max_items, max_memory_bytes, max_value_bytes, log_level };

        if new.limits() != self.live.limits() {
            let evicted = self.runtime.block_on(self.service.set_limits(new.limits()));
            let evicted = evicted.map_err(|error| format!("the limits cannot be changed: {error}"))?;
            tracing::debug!(evicted, "limits changed");
        }
        // Lines that only one of the two levels shows are shown.
        let was = std::mem::replace(&mut self.live, new).log_level;
        if log_level > was {
            self.set_log_level(log_level);
        }
        let has_told = self.tell(&loaded, keeps_items, asked);
        if log_level < was {
            self.set_log_level(log_level);
        }
        self.applied = loaded.effective;
        Ok(has_told)
    }

    fn set_log_level(&self, level: LogLevel) {
        if let Err(error) = self.log.set_level(level) {
            tracing::error!(%error, "cannot change the log level");
        }
    }

    /// Says what was taken over, what is overridden and what needs a restart; whether there was any of that.
    fn tell(&mut self, loaded: &Loaded, keeps_items: bool, asked: bool) -> bool {
        let is_live = |change: &Change| change.is_live() && !(keeps_items && change.key == "store.max_items");
        let changes = Change::between(&self.applied, &loaded.effective);
        for Change { key, old, new, origin } in changes.iter().filter(|change| is_live(change)) {
            tracing::info!(setting = key, old, new, from = %origin, "setting changed");
        }
        let mut has_told = !changes.is_empty();

        let file_alone = self.load(false).ok().map(|alone| alone.effective);
        let before_and_now = self.file_alone.iter().zip(&file_alone);
        for Change { key: setting, new, .. } in
            before_and_now.flat_map(|(old, new)| Change::between(old, new))
        {
            if let Some(origin) = overriding(&loaded.effective, &setting) {
                tracing::warn!(setting, file = new, overridden_by = %origin, "setting changed in the file only");
                has_told = true;
            }
        }
        self.file_alone = file_alone.or(self.file_alone.take());

        // Held against the start: what is taken back needs no restart any more.
        let waiting = Change::between(&self.started.effective, &loaded.effective);
        let waiting = waiting.into_iter().filter(|change| !is_live(change)).map(|change| change.key);
        let derived = derived(&self.started.config, &loaded.config).map(str::to_owned);
        let waiting: BTreeSet<String> = waiting.chain(derived).collect();
        if !waiting.is_empty() && (asked || !changes.is_empty()) {
            let settings = Vec::from_iter(waiting).join(", ");
            tracing::warn!(settings, "settings changed that need a restart");
        }
        has_told
    }
}

impl Live {
    const fn limits(&self) -> Limits {
        let Self { max_items, max_memory_bytes, max_value_bytes, .. } = *self;
        Limits { max_items, max_memory_bytes, max_value_bytes }
    }
}

/// The variable or flag that decides on a key, if one does.
fn overriding<'e>(effective: &'e Effective, key: &str) -> Option<&'e Origin> {
    let named = |header: &str, name: &str| key == format!("{}.{name}", header.trim_matches(['[', ']']));
    effective
        .values()
        .filter(|(header, name, ..)| named(header, name))
        .map(|(.., origin)| origin)
        .find(|origin| matches!(origin, Origin::Variable(_) | Origin::Flag(_)))
}

/// Keys that say "auto", and that other keys have made mean something else than at the start.
fn derived(started: &Config, now: &Config) -> impl Iterator<Item = &'static str> {
    let messages = |config: &Config| {
        let of_each = config.transports.iter().filter_map(|transport| match &transport.kind {
            TransportKind::Grpc(grpc) => Some(grpc.max_message_bytes),
            TransportKind::Http => None,
        });
        of_each.collect::<Vec<_>>()
    };
    [
        ("eviction.weigh_by", started.eviction.weigh_by != now.eviction.weigh_by),
        ("transport.max_message", messages(started) != messages(now)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
}

/// What tells one state of a file from another, whether it was written to, replaced, or is another file now since a
/// symbolic link on the way leads elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: it is not there.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// A file that is looked at again and again.
struct Watched {
    path: PathBuf,
    /// As it was when it was read last.
    read: Option<Stamp>,
    /// It was read since the start. Whether it has changed between its being loaded and the first look nobody knows.
    is_known: bool,
    /// As it was at the last look.
    seen: Option<Stamp>,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        let seen = Stamp::of(&path);
        Self { path, read: None, is_known: false, seen }
    }

    /// It is about to be read.
    fn is_read(&mut self) {
        self.seen = Stamp::of(&self.path);
        self.read = self.seen;
        self.is_known = true;
    }

    /// Whether it is another than was read last, and has been so since the look before: who writes it has finished.
    fn has_changed(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let is_settled = std::mem::replace(&mut self.seen, now) == now;
        if !is_settled || self.is_known && self.read == now {
            return false;
        }
        self.read = now;
        self.is_known = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_has_changed_once_it_stays_as_it_has_become() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let put = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
        put("file", "1");
        let mut watched = Watched::new(path.clone());
        assert!(watched.has_changed(), "nobody knows what it was when it was loaded");
        assert!(!watched.has_changed());
        let changes: [(&str, &dyn Fn()); 5] = [
            ("written to", &|| put("file", "2 and more")),
            ("replaced", &|| {
                put("other", "2 and more");
                fs::rename(directory.path().join("other"), &path).expect("renamed");
            }),
            ("removed", &|| fs::remove_file(&path).expect("removed")),
            ("a link", &|| {
                for version in ["v1", "v2"] {
                    fs::create_dir(directory.path().join(version)).expect("made");
                    put(&format!("{version}/file"), version);
                }
                symlink("v1", directory.path().join("data")).expect("linked");
                symlink("data/file", &path).expect("linked");
            }),
            ("a link on the way that leads elsewhere", &|| {
                symlink("v2", directory.path().join("data2")).expect("linked");
                fs::rename(directory.path().join("data2"), directory.path().join("data")).expect("swapped");
            }),
        ];
        for (how, change) in changes {
            change();
            assert!(!watched.has_changed(), "{how}: it may not be finished");
            assert!(watched.has_changed(), "{how}");
            assert!(!watched.has_changed(), "{how}: once");
        }
        put("v2/file", "changed again");
        watched.is_read();
        assert!(!watched.has_changed(), "whoever was told to has read it");
        assert!(!watched.has_changed());
    }
}
