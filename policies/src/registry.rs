//! The table of all policies: one line each, nothing registers itself.

use std::fmt;
use std::marker::PhantomData;

use engine::{EvictionPolicy, WeighBy};

use crate::policy::{OptionDoc, OptionError, Policy, PolicyFactory};

/// Makes a factory out of the options that a deserializer yields.
pub type Configure =
    fn(&mut dyn erased_serde::Deserializer<'_>) -> Result<Box<dyn PolicyFactory>, erased_serde::Error>;

/// A policy's place in the table: who it is and how to build it from a file's options.
#[derive(Clone, Copy)]
pub struct PolicyEntry {
    /// See [`Policy::NAME`].
    pub name: &'static str,
    /// See [`Policy::SUMMARY`].
    pub summary: &'static str,
    /// See [`Policy::PAPER`].
    pub paper: &'static str,
    /// See [`Policy::BYTES_PER_ENTRY`].
    pub bytes_per_entry: usize,
    /// See [`Policy::BYTES_PER_WEIGHED_ENTRY`].
    pub bytes_per_weighed_entry: usize,
    /// See [`Policy::SCALES_DOWN`].
    pub scales_down: bool,
    /// See [`Policy::OPTIONS`].
    pub options: &'static [OptionDoc],
    /// Reads and checks options; absent ones take their defaults.
    pub configure: Configure,
    /// The factory with default options.
    pub with_defaults: fn() -> Box<dyn PolicyFactory>,
}

impl PolicyEntry {
    /// The entry of a policy. This is how a policy from outside this crate is registered, too.
    #[must_use]
    pub const fn of<P: Policy>() -> Self {
        Self {
            name: P::NAME,
            summary: P::SUMMARY,
            paper: P::PAPER,
            bytes_per_entry: P::BYTES_PER_ENTRY,
            bytes_per_weighed_entry: P::BYTES_PER_WEIGHED_ENTRY,
            scales_down: P::SCALES_DOWN,
            options: P::OPTIONS,
            configure: configure::<P>,
            with_defaults: || Box::new(Factory::<P> { options: P::Options::default(), policy: PhantomData }),
        }
    }
}

impl fmt::Debug for PolicyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Code that is generic over the concrete policy type: the way to loops without virtual calls.
pub trait PolicyVisitor {
    /// What the visit results in.
    type Output;

    /// Called with the concrete type that the name stands for.
    fn visit<P: Policy>(self, options: &P::Options) -> Self::Output;
}

macro_rules! table {
    ($($policy:ty),+ $(,)?) => {
        /// Every policy of this crate, in the order in which lists show them.
        pub const REGISTRY: &[PolicyEntry] = &[$(PolicyEntry::of::<$policy>()),+];

        /// Runs the visitor with the concrete policy of this name. `None` where the name is unknown;
        /// an error where the options are not the policy's.
        pub fn visit<V: PolicyVisitor>(
            name: &str,
            options: &mut dyn erased_serde::Deserializer<'_>,
            visitor: V,
        ) -> Option<Result<V::Output, erased_serde::Error>> {
            $(if name == <$policy>::NAME {
                return Some(read::<$policy>(options).map(|options| visitor.visit::<$policy>(&options)));
            })+
            None
        }
    };
}

table![
    crate::fifo::Fifo,
    crate::random::RandomReplacement,
    crate::clock::Clock,
    crate::lru::Lru,
    crate::slru::Slru,
    crate::lru_k::LruK,
    crate::lfu::Lfu,
    crate::two_q::TwoQ,
    crate::arc::Arc,
    crate::lirs::Lirs,
    crate::sieve::Sieve,
    crate::s3_fifo::S3Fifo,
    crate::clock2q_plus::Clock2QPlus,
    crate::w_tinylfu::WTinyLfu,
    crate::gdsf::Gdsf,
    crate::hyperbolic::Hyperbolic,
    crate::lhd::Lhd,
    crate::lecar::Lecar,
];

/// The entry of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static PolicyEntry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}

fn read<P: Policy>(
    options: &mut dyn erased_serde::Deserializer<'_>,
) -> Result<P::Options, erased_serde::Error> {
    let options: P::Options = erased_serde::deserialize(options)?;
    P::validate(&options).map_err(|error: OptionError| serde::de::Error::custom(error))?;
    Ok(options)
}

fn configure<P: Policy>(
    options: &mut dyn erased_serde::Deserializer<'_>,
) -> Result<Box<dyn PolicyFactory>, erased_serde::Error> {
    Ok(Box::new(Factory::<P> { options: read::<P>(options)?, policy: PhantomData }))
}

struct Factory<P: Policy> {
    options: P::Options,
    policy: PhantomData<fn() -> P>,
}

impl<P: Policy> PolicyFactory for Factory<P> {
    fn build(&self, capacity: u64, seed: u64) -> Box<dyn EvictionPolicy> {
        Box::new(P::new(capacity, seed, &self.options))
    }

    fn bytes_per_entry(&self, weigh_by: WeighBy) -> usize {
        match weigh_by {
            WeighBy::Items => P::BYTES_PER_ENTRY,
            WeighBy::Bytes => P::BYTES_PER_WEIGHED_ENTRY,
        }
    }

    fn options(&self) -> &dyn erased_serde::Serialize {
        &self.options
    }
}

impl<P: Policy> fmt::Debug for Factory<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(P::NAME).field("options", &self.options).finish()
    }
}
