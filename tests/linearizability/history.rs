//! What clients did and saw, and how it is shown to people.

use std::fmt;

/// A value: each write stores another one, so that a reader knows whose write it sees. 0 stands for nothing.
pub(crate) type Value = u64;

/// Nothing is stored under the key.
pub(crate) const NOTHING: Value = 0;

/// What an operation on one key did, as its caller saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A read and what it saw, possibly [`NOTHING`].
    Get(Value),
    /// An unconditional write.
    Set(Value),
    /// A write where nothing was: it was done.
    SetIfAbsent(Value),
    /// A write where nothing was: something was.
    Exists,
    /// A write in place of a value: it was done.
    CompareAndSet { expected: Value, value: Value },
    /// A write in place of a value: another one was there.
    Mismatch { expected: Value },
    /// A write in place of a value: nothing was there.
    NotFound,
    /// A removal, whether there was something or not.
    Delete,
}

impl Operation {
    /// The value that it writes.
    pub(crate) const fn writes(self) -> Option<Value> {
        match self {
            Self::Set(value) | Self::SetIfAbsent(value) | Self::CompareAndSet { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The value that was there by its account.
    pub(crate) const fn sees(self) -> Option<Value> {
        match self {
            Self::Get(NOTHING) => None,
            Self::Get(value) | Self::CompareAndSet { expected: value, .. } => Some(value),
            _ => None,
        }
    }
}

/// Nobody knows when, or whether, it took effect: its caller gave up or was told of a failure.
pub(crate) const NEVER: u64 = u64::MAX;

/// An operation with the moments between which it took effect, in nanoseconds of the clients' monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) invoked: u64,
    /// [`NEVER`]: it may have taken effect at any time since, or not at all.
    pub(crate) responded: u64,
    /// How long what it writes may live.
    pub(crate) ttl: Option<u64>,
    /// The task that called.
    pub(crate) client: usize,
    pub(crate) operation: Operation,
}

impl Event {
    /// When what it writes is expired at the latest.
    pub(crate) fn deadline(&self) -> u64 {
        self.ttl.map_or(NEVER, |ttl| self.responded.saturating_add(ttl))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |nanos: u64| format!("{}.{:03}", nanos / 1_000_000, nanos / 1000 % 1000);
        let until = if self.responded == NEVER { "?".to_owned() } else { micros(self.responded) };
        write!(f, "{:>12} .. {until:>12} ms  client {:>2}  ", micros(self.invoked), self.client)?;
        match self.operation {
            Operation::Get(NOTHING) => write!(f, "Get: nothing"),
            Operation::Get(value) => write!(f, "Get: {value}"),
            Operation::Set(value) => write!(f, "Set {value}"),
            Operation::SetIfAbsent(value) => write!(f, "SetIfAbsent {value}: stored"),
            Operation::Exists => write!(f, "SetIfAbsent: exists"),
            Operation::CompareAndSet { expected, value } => {
                write!(f, "CompareAndSet {expected} by {value}: stored")
            }
            Operation::Mismatch { expected } => write!(f, "CompareAndSet {expected}: mismatch"),
            Operation::NotFound => write!(f, "CompareAndSet: not found"),
            Operation::Delete => write!(f, "Delete"),
        }?;
        if let Some(ttl) = self.ttl {
            write!(f, " (ttl {} s)", ttl / 1_000_000_000)?;
        }
        if self.responded == NEVER {
            write!(f, " (unknown whether done)")?;
        }
        Ok(())
    }
}
