//! A directory with an index, for owners without records: tests of policies.

use crate::directory::{Budget, Directory, Entries, Insertion, Newcomer, Update, WeighBy};
use crate::index::Index;
use crate::policy::{EvictionPolicy, Slot};
use crate::table::Table;

#[derive(Clone, Copy)]
struct Tag {
    hash: u64,
    /// Bytes; 0 where nothing is resident.
    charge: u32,
}

/// A [`Directory`] with an index, that keeps each entry's hash and charge itself. Victims go to a closure; a slot
/// may be recycled as soon as the call that named it has returned.
///
/// Keys are compared by the caller: a look-up takes a closure that says whether a slot holds
/// the key in question. A hash alone is never trusted. Hashes are 64 well-mixed bits.
pub struct TaggedDirectory<P> {
    directory: Directory<P>,
    tagged: Tagged,
}

/// What is known of the entries.
#[derive(Default)]
struct Tagged {
    index: Index<Slot>,
    tags: Table<Tag>,
}

impl Tagged {
    fn insert(&mut self, slot: Slot, tag: Tag) {
        let tags = &self.tags;
        self.index.insert(tag.hash, slot, |other| tags[other.index()].hash);
        match self.tags.get_mut(slot.index()) {
            Some(recycled) => *recycled = tag,
            None => self.tags.push(tag),
        }
    }

    fn remove(&mut self, slot: Slot) -> Tag {
        let tags = &self.tags;
        let tag = tags[slot.index()];
        self.index.remove(tag.hash, slot, |other| tags[other.index()].hash);
        self.tags[slot.index()].charge = 0;
        tag
    }
}

/// The tags together with whoever wants to know about victims.
struct Watched<'a, F> {
    tagged: &'a mut Tagged,
    on_evict: F,
}

impl<F: FnMut(Slot)> Entries for Watched<'_, F> {
    fn charge(&self, slot: Slot) -> u32 {
        self.tagged.tags[slot.index()].charge
    }

    fn evicted(&mut self, slot: Slot) -> u32 {
        let tag = self.tagged.remove(slot);
        (self.on_evict)(slot);
        tag.charge
    }
}

/// The tags where nothing can be evicted.
struct Unwatched<'a>(&'a Tagged);

impl Entries for Unwatched<'_> {
    fn charge(&self, slot: Slot) -> u32 {
        self.0.tags[slot.index()].charge
    }

    fn evicted(&mut self, slot: Slot) -> u32 {
        unreachable!("{slot:?} was evicted by an operation that evicts nothing");
    }
}

impl<P: EvictionPolicy> TaggedDirectory<P> {
    /// See [`Directory::new`].
    #[must_use]
    pub fn new(policy: P, budget: Budget, weigh_by: WeighBy) -> Self {
        Self { directory: Directory::new(policy, budget, weigh_by), tagged: Tagged::default() }
    }

    /// The slot whose key has this hash and satisfies `is_key`.
    pub fn find(&self, hash: u64, mut is_key: impl FnMut(Slot) -> bool) -> Option<Slot> {
        self.tagged.index.find(hash, |slot| is_key(slot).then_some(slot))
    }

    /// See [`Directory::hit`].
    pub fn hit(&mut self, slot: Slot, on_evict: impl FnMut(Slot)) {
        self.directory.hit(slot, &mut Watched { tagged: &mut self.tagged, on_evict });
    }

    /// See [`Directory::insert`]. The key's hash may be another one than the policy's fingerprint.
    pub fn insert(&mut self, hash: u64, newcomer: Newcomer, on_evict: impl FnMut(Slot)) -> Insertion {
        let insertion = self.directory.insert(newcomer, &mut Watched { tagged: &mut self.tagged, on_evict });
        if let Insertion::Inserted(slot) = insertion {
            self.tagged.insert(slot, Tag { hash, charge: newcomer.charge });
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
        let mut entries = Watched { tagged: &mut self.tagged, on_evict };
        let update = self.directory.update(slot, fingerprint, charge, &mut entries);
        match update {
            Update::Kept => self.tagged.tags[slot.index()].charge = charge,
            Update::Rejected => _ = self.tagged.remove(slot),
            Update::TooLarge => {}
        }
        update
    }

    /// See [`Directory::remove`].
    pub fn remove(&mut self, slot: Slot) {
        self.directory.remove(slot, &Unwatched(&self.tagged));
        self.tagged.remove(slot);
    }

    /// See [`Directory::evict_one`].
    pub fn evict_one(&mut self) -> Option<Slot> {
        self.directory.evict_one(&mut Watched { tagged: &mut self.tagged, on_evict: |_| {} })
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
        self.tagged.tags[slot.index()].charge
    }

    /// Whether a slot holds an entry.
    #[must_use]
    pub fn is_resident(&self, slot: Slot) -> bool {
        self.tagged.tags.get(slot.index()).is_some_and(|tag| tag.charge != 0)
    }

    /// Bytes of memory held now by the directory, the index and the tags.
    #[must_use]
    pub fn footprint_bytes(&self) -> usize {
        let Tagged { index, tags } = &self.tagged;
        self.directory.footprint_bytes() + index.footprint_bytes() + tags.footprint_bytes()
    }

    /// See [`Directory::check_invariants`].
    ///
    /// # Panics
    ///
    /// Where an invariant does not hold.
    pub fn check_invariants(&self) {
        let Tagged { index, tags } = &self.tagged;
        let resident = tags.iter().filter(|tag| tag.charge != 0).count();
        assert_eq!(self.directory.items(), resident as u64, "items = tags of residents");
        assert_eq!(index.len(), resident, "residents are in the index");
        index.check_invariants(|slot| tags[slot.index()].hash);
        self.directory.check_invariants(&Unwatched(&self.tagged));
    }
}
