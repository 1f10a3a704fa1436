//! A directory for owners without records: the simulator, and tests of policies.

use crate::directory::{Budget, Directory, Entries, Insertion, Leaver, Newcomer, Update, WeighBy};
use crate::policy::{EvictionPolicy, Slot};

#[derive(Clone, Copy)]
struct Tag {
    hash: u64,
    /// Bytes; 0 where nothing is resident.
    charge: u32,
}

/// A [`Directory`] that keeps each entry's hash and charge itself. Victims go to a closure; a slot
/// may be recycled as soon as the call that named it has returned.
pub struct TaggedDirectory<P> {
    directory: Directory<P>,
    tags: Vec<Tag>,
}

/// The tags together with whoever wants to know about victims.
struct Watched<'a, F> {
    tags: &'a mut [Tag],
    on_evict: F,
}

impl<F: FnMut(Slot)> Entries for Watched<'_, F> {
    fn hash(&self, slot: Slot) -> u64 {
        self.tags[slot.index()].hash
    }

    fn charge(&self, slot: Slot) -> u32 {
        self.tags[slot.index()].charge
    }

    fn evicted(&mut self, slot: Slot) -> Leaver {
        let Tag { hash, charge } = self.tags[slot.index()];
        self.tags[slot.index()].charge = 0;
        (self.on_evict)(slot);
        Leaver { hash, charge }
    }
}

/// The tags where nothing can be evicted.
struct Unwatched<'a>(&'a [Tag]);

impl Entries for Unwatched<'_> {
    fn hash(&self, slot: Slot) -> u64 {
        self.0[slot.index()].hash
    }

    fn charge(&self, slot: Slot) -> u32 {
        self.0[slot.index()].charge
    }

    fn evicted(&mut self, slot: Slot) -> Leaver {
        unreachable!("{slot:?} was evicted by an operation that evicts nothing");
    }
}

impl<P: EvictionPolicy> TaggedDirectory<P> {
    /// See [`Directory::new`].
    #[must_use]
    pub fn new(policy: P, budget: Budget, weigh_by: WeighBy) -> Self {
        Self { directory: Directory::new(policy, budget, weigh_by), tags: Vec::new() }
    }

    /// See [`Directory::find`].
    pub fn find(&self, hash: u64, is_key: impl FnMut(Slot) -> bool) -> Option<Slot> {
        self.directory.find(hash, is_key)
    }

    /// See [`Directory::hit`].
    pub fn hit(&mut self, slot: Slot, on_evict: impl FnMut(Slot)) {
        self.directory.hit(slot, &mut Watched { tags: &mut self.tags, on_evict });
    }

    /// See [`Directory::insert`].
    pub fn insert(&mut self, newcomer: Newcomer, on_evict: impl FnMut(Slot)) -> Insertion {
        let insertion = self.directory.insert(newcomer, &mut Watched { tags: &mut self.tags, on_evict });
        if let Insertion::Inserted(slot) = insertion {
            let tag = Tag { hash: newcomer.hash, charge: newcomer.charge };
            match self.tags.get_mut(slot.index()) {
                Some(recycled) => *recycled = tag,
                None => self.tags.push(tag),
            }
        }
        insertion
    }

    /// See [`Directory::update`].
    pub fn update(
        &mut self,
        slot: Slot,
        fingerprint: u64,
        charge: u32,
        on_evict: impl FnMut(Slot),
    ) -> Update {
        let mut entries = Watched { tags: &mut self.tags, on_evict };
        let update = self.directory.update(slot, fingerprint, charge, &mut entries);
        match update {
            // Nothing is charged for unused slots here, so it is still in its own.
            Update::Kept(slot) => self.tags[slot.index()].charge = charge,
            Update::Rejected => self.tags[slot.index()].charge = 0,
            Update::TooLarge => {}
        }
        update
    }

    /// See [`Directory::remove`].
    pub fn remove(&mut self, slot: Slot) {
        self.directory.remove(slot, &Unwatched(&self.tags));
        self.tags[slot.index()].charge = 0;
    }

    /// See [`Directory::evict_one`].
    pub fn evict_one(&mut self) -> Option<Slot> {
        self.directory.evict_one(&mut Watched { tags: &mut self.tags, on_evict: |_| {} })
    }

    /// See [`Directory::set_budget`].
    pub fn set_budget(&mut self, budget: Budget) {
        self.directory.set_budget(budget);
    }

    /// See [`Directory::set_policy_capacity`].
    pub fn set_policy_capacity(&mut self, capacity: u64) {
        self.directory.set_policy_capacity(capacity);
    }

    /// See [`Directory::is_over_budget`].
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.directory.is_over_budget()
    }

    /// See [`Directory::items`].
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.directory.items()
    }

    /// See [`Directory::bytes`].
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.directory.bytes()
    }

    /// See [`Directory::budget`].
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.directory.budget()
    }

    /// See [`Directory::policy`].
    #[must_use]
    pub const fn policy(&self) -> &P {
        self.directory.policy()
    }

    /// See [`Directory::slots`].
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.directory.slots()
    }

    /// A resident entry's charge in bytes.
    #[must_use]
    pub fn charge(&self, slot: Slot) -> u32 {
        self.tags[slot.index()].charge
    }

    /// Whether a slot holds an entry.
    #[must_use]
    pub fn is_resident(&self, slot: Slot) -> bool {
        self.tags.get(slot.index()).is_some_and(|tag| tag.charge != 0)
    }

    /// Bytes of memory held now by the directory and the tags.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        self.directory.footprint_bytes() + self.tags.capacity() * size_of::<Tag>()
    }

    /// See [`Directory::check_invariants`].
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self) {
        let resident = self.tags.iter().filter(|tag| tag.charge != 0).count();
        assert_eq!(self.directory.items(), resident as u64, "items = tags of residents");
        self.directory.check_invariants(&Unwatched(&self.tags));
    }
}
