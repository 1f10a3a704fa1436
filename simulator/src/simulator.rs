//! Makes simulations of policies by their names, one's own policies included.

use engine::EvictionPolicy;
use policies::{Policy, PolicyEntry, PolicyFactory, PolicyVisitor, REGISTRY};
use serde_json::{Map, Value};

use crate::replay::{Cache, Replay, Simulation};

/// A policy by its name, with the options that differ from its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyChoice {
    /// The name in the registry.
    pub name: String,
    /// Options by name, as under `[eviction.<policy>]`.
    pub options: Map<String, Value>,
}

impl PolicyChoice {
    /// A policy with its defaults.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), options: Map::new() }
    }

    fn refused(&self, error: &erased_serde::Error) -> ChoiceError {
        let reason = error.to_string().trim().replace('\n', ", ");
        ChoiceError::Options { policy: self.name.clone(), reason }
    }
}

/// A choice that cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// Nobody registered it.
    #[error("unknown policy {name:?}")]
    UnknownPolicy {
        /// As chosen.
        name: String,
    },
    /// The policy refuses its options.
    #[error("{policy}: {reason}")]
    Options {
        /// The policy's name.
        policy: String,
        /// What it says.
        reason: String,
    },
}

/// Knows policies and makes simulations of them.
///
/// The built-in policies are there from the start and run as concrete types; one's own are added by
/// [`Self::policy`] with the same entry that the server's builder takes, and run boxed.
#[derive(Clone, Debug)]
pub struct Simulator {
    policies: Vec<PolicyEntry>,
}

impl Default for Simulator {
    fn default() -> Self {
        Self { policies: REGISTRY.to_vec() }
    }
}

impl Simulator {
    /// A simulator with the built-in policies, to be extended.
    #[must_use]
    pub fn builder() -> Self {
        Self::default()
    }

    /// A simulator of exactly these policies, such as a server's.
    #[must_use]
    pub fn with_policies(policies: &[PolicyEntry]) -> Self {
        Self { policies: policies.to_vec() }
    }

    /// Adds a policy.
    #[must_use]
    pub fn policy(mut self, entry: PolicyEntry) -> Self {
        self.policies.push(entry);
        self
    }

    /// Every policy, the built-in ones first.
    #[must_use]
    pub fn policies(&self) -> &[PolicyEntry] {
        &self.policies
    }

    /// The policy of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&PolicyEntry> {
        self.policies.iter().find(|entry| entry.name == name)
    }

    /// Whether the choice can be simulated.
    pub fn check(&self, choice: &PolicyChoice) -> Result<(), ChoiceError> {
        self.configure(choice).map(drop)
    }

    fn configure(&self, choice: &PolicyChoice) -> Result<Box<dyn PolicyFactory>, ChoiceError> {
        let PolicyChoice { name, options } = choice;
        let entry = self.find(name).ok_or_else(|| ChoiceError::UnknownPolicy { name: name.clone() })?;
        let mut options = <dyn erased_serde::Deserializer<'_>>::erase(Value::Object(options.clone()));
        (entry.configure)(&mut options).map_err(|error| choice.refused(&error))
    }

    /// An empty cache under this policy.
    pub fn simulation(
        &self,
        choice: &PolicyChoice,
        cache: &Cache,
    ) -> Result<Box<dyn Simulation>, ChoiceError> {
        self.build(choice, Build { cache, miniature: false })
    }

    /// An empty cache under this policy, to run on a sample of the objects; its capacity is the sample's share.
    pub fn miniature(
        &self,
        choice: &PolicyChoice,
        cache: &Cache,
    ) -> Result<Box<dyn Simulation>, ChoiceError> {
        self.build(choice, Build { cache, miniature: true })
    }

    fn build(&self, choice: &PolicyChoice, build: Build<'_>) -> Result<Box<dyn Simulation>, ChoiceError> {
        let PolicyChoice { name, options } = choice;
        let mut options = <dyn erased_serde::Deserializer<'_>>::erase(Value::Object(options.clone()));
        if self.find(name).is_some_and(is_built_in)
            && let Some(simulation) = policies::visit(name, &mut options, build)
        {
            return simulation.map_err(|error| choice.refused(&error));
        }
        let factory = self.configure(choice)?;
        let scales_down = self.find(name).is_none_or(|entry| entry.scales_down);
        Ok(build.replay(scales_down, |cache| factory.build(cache.capacity, cache.seed)))
    }
}

/// Whether the entry is the one of this name that came with the policies' crate.
fn is_built_in(entry: &PolicyEntry) -> bool {
    policies::find(entry.name).is_some_and(|built_in| built_in.summary == entry.summary)
}

#[derive(Clone, Copy)]
struct Build<'a> {
    cache: &'a Cache,
    miniature: bool,
}

impl Build<'_> {
    fn replay<P: EvictionPolicy + 'static>(
        self,
        scales_down: bool,
        policy: impl FnOnce(&Cache) -> P,
    ) -> Box<dyn Simulation> {
        Box::new(if self.miniature && !scales_down {
            Replay::miniature(policy, self.cache)
        } else {
            Replay::new(policy(self.cache), self.cache)
        })
    }
}

impl PolicyVisitor for Build<'_> {
    type Output = Box<dyn Simulation>;

    fn visit<P: Policy>(self, options: &P::Options) -> Self::Output {
        self.replay(P::SCALES_DOWN, |cache| P::new(cache.capacity, cache.seed, options))
    }
}
