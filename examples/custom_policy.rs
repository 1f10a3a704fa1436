//! An eviction policy of one's own, in the server and in the simulator.
//!
//! The policy is "most recently used": what was used last leaves first, which is the right thing for
//! a loop over more entries than fit. Run this as you would run `tiny-cache`:
//!
//! ```sh
//! cargo run --example custom_policy -- policies
//! cargo run --example custom_policy -- serve --policy mru --max-items 1000
//! cargo run --example custom_policy -- simulate --trace keys.txt --policy mru,lru --capacity 10%
//! ```

use std::process::ExitCode;

use engine::{EvictionPolicy, Item, Slot, Verdict};
use policies::structures::{SlotLinks, SlotList};
use policies::{NoOptions, OptionDoc, Policy, PolicyEntry};
use tiny_cache::server::Server;

/// Evicts the entry that was used last.
#[derive(Default)]
struct Mru {
    links: SlotLinks,
    list: SlotList,
}

impl Policy for Mru {
    const NAME: &'static str = "mru";
    const SUMMARY: &'static str = "most recently used: what was used last leaves";
    const PAPER: &'static str = "folklore";
    const OPTIONS: &'static [OptionDoc] = &[];
    const BYTES_PER_ENTRY: usize = 8;
    type Options = NoOptions;

    fn new(_capacity: u64, _seed: u64, _options: &NoOptions) -> Self {
        Self::default()
    }
}

impl EvictionPolicy for Mru {
    fn relocate(&mut self, from: Slot, to: Slot) {
        self.list.relocate(&mut self.links, from, to);
    }

    fn trim(&mut self, slots: usize) {
        self.links.trim(slots);
    }

    fn insert(&mut self, slot: Slot, _item: &Item) {
        self.list.push_front(&mut self.links, slot);
    }

    fn hit(&mut self, slot: Slot) {
        self.list.move_to_front(&mut self.links, slot);
    }

    fn remove(&mut self, slot: Slot) {
        self.list.remove(&mut self.links, slot);
    }

    fn evict(&mut self, _incoming: &Item) -> Verdict {
        let victim = self.list.front().expect("evict needs a resident entry");
        self.list.remove(&mut self.links, victim);
        Verdict::Evict(victim)
    }

    fn resize(&mut self, _capacity: u64) {}

    fn len(&self) -> usize {
        self.list.len()
    }

    fn footprint_bytes(&self) -> usize {
        self.links.footprint_bytes()
    }

    fn check_invariants(&self) {
        self.list.check_invariants(&self.links);
    }
}

/// The server with one more policy. The command line takes its policies from here, the simulator's included.
fn server() -> Server {
    Server::builder().policy(PolicyEntry::of::<Mru>())
}

fn main() -> ExitCode {
    tiny_cache::cli::main(&server())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use simulator::trace::{Trace, TraceOptions};
    use simulator::{Cache, Mode, PolicyChoice, Recording, Simulator};
    use tiny_cache::config::{Loader, Sources};
    use tiny_cache::proto::cache_service_client::CacheServiceClient;
    use tiny_cache::proto::{CacheItem, CacheKey};
    use tokio_util::sync::CancellationToken;
    use tonic::transport::Endpoint;

    use super::*;

    const CAPACITY: u64 = 9;

    /// Ten keys in a loop: one more than fit.
    fn keys() -> impl Iterator<Item = String> {
        (0..200).map(|turn| (turn % 10).to_string())
    }

    fn simulated_misses(policy: &str) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.txt");
        std::fs::write(&path, keys().collect::<Vec<_>>().join("\n")).unwrap();
        let trace = Trace::open(&path, &TraceOptions::default(), Arc::default()).unwrap();
        let (recording, outcome) = Recording::of(trace, false, || true);
        outcome.unwrap();

        let simulator = Simulator::builder().policy(PolicyEntry::of::<Mru>());
        let cache = Cache { mode: Mode::Items, capacity: CAPACITY, ttl_seconds: None, seed: 0 };
        let mut simulation = simulator.simulation(&PolicyChoice::named(policy), &cache).unwrap();
        recording.blocks().for_each(|block| simulation.replay(&block));
        simulation.check_invariants();
        simulation.tally().misses
    }

    async fn served_misses(policy: &str) -> u64 {
        let server = server();
        let registry = server.registry();
        let loader = Loader { policies: &registry.policies, stores: &registry.store_names() };
        let text = format!(
            "[store]\nmax_items = {CAPACITY}\n[eviction]\npolicy = \"{policy}\"\n\
             [[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n"
        );
        let configured = loader.load_text("test.toml", text, &Sources::nothing()).unwrap();
        let bound = server.bind(&configured.config).unwrap();
        let address = bound.addresses("grpc")[0].to_string();
        let stop = CancellationToken::new();
        let running = tokio::spawn(bound.run(stop.clone()));

        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut client = CacheServiceClient::new(channel);
        let mut misses = 0;
        for key in keys() {
            if !client.get(CacheKey { key: key.clone() }).await.unwrap().into_inner().found {
                misses += 1;
                client.set(CacheItem { key, value: b"value".to_vec().into(), ttl: 0 }).await.unwrap();
            }
        }
        drop(client);
        stop.cancel();
        running.await.unwrap();
        misses
    }

    #[tokio::test]
    async fn the_server_and_the_simulator_take_the_policy_and_agree() {
        for (policy, misses) in [("mru", 10 + 190 / 9), ("lru", 200)] {
            assert_eq!(simulated_misses(policy), misses, "{policy}");
            assert_eq!(served_misses(policy).await, misses, "{policy}");
        }
    }
}
