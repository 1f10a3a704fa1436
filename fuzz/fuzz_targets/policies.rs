//! Every policy with any options, inside a directory beside a naive account of who is resident; and the same policy once more that is told its hits
//! one by one and is never trimmed, which must not make a difference.
#![no_main]

use std::collections::HashMap;

use arbitrary::{Result, Unstructured};
use engine::{Budget, Directory, Entries, EvictionPolicy, Insertion, Newcomer, Slot, Update, WeighBy};
use fuzz::AnyPolicy;
use libfuzzer_sys::fuzz_target;

#[derive(Clone, Copy)]
struct Resident {
    key: u8,
    charge: u32,
}

/// Who is resident where, and who left.
#[derive(Default)]
struct Account {
    by_slot: Vec<Option<Resident>>,
    by_key: HashMap<u8, Slot>,
    left: Vec<u8>,
}

impl Account {
    fn at(&self, slot: Slot) -> Resident {
        self.by_slot[slot.index()].unwrap_or_else(|| panic!("{slot:?} is asked about, and not resident"))
    }

    fn forget(&mut self, slot: Slot) -> Resident {
        let gone = self.at(slot);
        self.by_slot[slot.index()] = None;
        assert_eq!(self.by_key.remove(&gone.key), Some(slot));
        gone
    }
}

impl Entries for Account {
    fn charge(&self, slot: Slot) -> u32 {
        self.at(slot).charge
    }

    fn evicted(&mut self, slot: Slot) -> u32 {
        let Resident { key, charge } = self.forget(slot);
        self.left.push(key);
        charge
    }
}

struct Checked {
    directory: Directory<Box<dyn EvictionPolicy>>,
    account: Account,
    weigh_by: WeighBy,
    /// Whether hits come in batches and what nobody needs is given back.
    is_plain: bool,
}

fn fingerprint(key: u8) -> u64 {
    let mut z = u64::from(key).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Checked {
    fn find(&self, key: u8) -> Option<Slot> {
        self.account.by_key.get(&key).copied()
    }

    /// A read through the cache.
    fn access(&mut self, key: u8, charge: u32) {
        if let Some(slot) = self.find(key) {
            return self.directory.hit(slot, &mut self.account);
        }
        let newcomer = Newcomer { fingerprint: fingerprint(key), charge };
        match self.directory.insert(newcomer, &mut self.account) {
            Insertion::Inserted(slot) => {
                let slots = &mut self.account.by_slot;
                assert!(slot.index() <= slots.len(), "slots are dense");
                if slot.index() == slots.len() {
                    assert_eq!(slots.len(), self.account.by_key.len(), "free slots are recycled first");
                    slots.push(None);
                }
                let before = slots[slot.index()].replace(Resident { key, charge });
                assert!(before.is_none(), "{slot:?} was free");
                self.account.by_key.insert(key, slot);
            }
            Insertion::Rejected => {}
            Insertion::TooLarge => {
                let budget = self.directory.budget();
                assert!(u64::from(charge) > budget.bytes || budget.items == 0);
            }
        }
    }

    fn update(&mut self, key: u8, charge: u32) {
        let Some(slot) = self.find(key) else { return };
        match self.directory.update(slot, fingerprint(key), charge, &mut self.account) {
            Update::Kept => {
                self.account.by_slot[slot.index()] = Some(Resident { charge, ..self.account.at(slot) })
            }
            Update::Rejected => {
                self.account.forget(slot);
                self.account.left.push(key);
            }
            Update::TooLarge => assert!(u64::from(charge) > self.directory.budget().bytes),
        }
    }

    fn hit_all(&mut self, first: u8, count: u8) {
        let keys = (0..=count % 16).map(|step| first.wrapping_add(step));
        let slots: Vec<Slot> = keys.filter_map(|key| self.find(key)).collect();
        if self.is_plain || self.directory.sheds_on_hit() {
            for slot in slots {
                // A hit can make another of them leave.
                if self.account.by_slot[slot.index()].is_some() {
                    self.directory.hit(slot, &mut self.account);
                }
            }
        } else {
            self.directory.hit_all(&slots);
        }
    }

    fn evict_one(&mut self) {
        let was_empty = self.account.by_key.is_empty();
        let victim = self.directory.evict_one(&mut self.account);
        assert_eq!(victim.is_none(), was_empty, "there is a victim where anybody is");
    }

    fn resize(&mut self, budget: Budget) {
        self.directory.set_budget(budget);
        self.directory.set_policy_capacity(self.weigh_by.capacity(&budget));
        while self.directory.is_over_budget() {
            self.evict_one();
        }
    }

    fn apply(&mut self, operation: u8, key: u8, bytes: u16) {
        match operation {
            // Most are reads.
            0..160 => self.access(key, u32::from(operation) % 20 + 1),
            160..180 => self.access(key, u32::from(operation) - 100),
            180..200 => self.update(key, u32::from(operation) - 179),
            200..210 => self.update(key, (u32::from(operation) - 199) * 20),
            210..225 => {
                if let Some(slot) = self.find(key) {
                    self.directory.remove(slot, &self.account);
                    self.account.forget(slot);
                }
            }
            225..235 => self.hit_all(key, operation),
            235..240 => self.evict_one(),
            240..250 => {
                self.resize(Budget { items: 1 + u64::from(key), bytes: 1 + u64::from(bytes) % 1024 });
            }
            _ if self.is_plain => {}
            _ => {
                self.directory.trim();
                self.account.by_slot.truncate(self.directory.slots());
            }
        }
    }

    fn check(&self, thoroughly: bool) {
        let Self { directory, account, .. } = self;
        let charges = account.by_slot.iter().flatten().map(|resident| u64::from(resident.charge));
        assert_eq!(directory.items(), account.by_key.len() as u64, "everybody is accounted for");
        assert_eq!(directory.bytes(), charges.sum::<u64>(), "every byte is accounted for");
        assert!(!directory.is_over_budget(), "the budget holds after every operation");
        if let Some(next) = directory.next_victim() {
            account.at(next);
        }
        if thoroughly {
            directory.check_invariants(account);
            directory.policy().gauges(&mut |gauge| assert!(gauge.value.is_finite(), "{}", gauge.name));
        }
    }
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let AnyPolicy { factory, .. } = fuzz::policy(input)?;
    let setup: u8 = input.arbitrary()?;
    let weigh_by = if setup & 1 == 0 { WeighBy::Items } else { WeighBy::Bytes };
    let (items, bytes): (u8, u16) = (input.arbitrary()?, input.arbitrary()?);
    let budget = Budget { items: 1 + u64::from(items % 64), bytes: 1 + u64::from(bytes % 1024) };
    // What the policy counts in is always limited.
    let budget = match weigh_by {
        _ if setup & 2 == 0 => budget,
        WeighBy::Items => Budget::of_items(budget.items),
        WeighBy::Bytes => Budget::of_bytes(budget.bytes),
    };
    let checked = |is_plain| Checked {
        directory: Directory::new(
            factory.build(weigh_by.capacity(&budget), u64::from(setup)),
            budget,
            weigh_by,
        ),
        account: Account::default(),
        weigh_by,
        is_plain,
    };
    let (mut batched, mut plain) = (checked(false), checked(true));
    let mut steps = 0_u32;
    while !input.is_empty() {
        let (operation, key) = (input.arbitrary()?, input.arbitrary()?);
        let bytes = if (240..250).contains(&operation) { input.arbitrary()? } else { 0 };
        plain.apply(operation, key, bytes);
        batched.apply(operation, key, bytes);
        steps += 1;
        batched.check(steps.is_multiple_of(8) || input.is_empty());
        plain.check(false);
        assert_eq!(batched.account.left, plain.account.left, "the same leave in the same order");
        batched.account.left.clear();
        plain.account.left.clear();
    }
    batched.check(true);
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // The input's end is the history's.
    let _: Result<()> = run(&mut Unstructured::new(data));
});
