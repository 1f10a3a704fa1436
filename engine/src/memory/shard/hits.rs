//! Hits on their way to the policy.

use crate::policy::Slot;

/// Hits that the policy has not been told yet. Telling it writes to several places in memory that are rarely in a
/// near cache, and the next lock to be taken waits for every write. So hits are told together and in their order, before
/// anything else happens that the policy is told or asked: no decision can depend on the delay.
#[repr(C)]
pub(super) struct Hits {
    len: usize,
    slots: [Slot; Self::MOST],
}

impl Hits {
    pub(super) const MOST: usize = 32;

    /// Whether there was room.
    #[inline]
    pub(super) fn push(&mut self, slot: Slot) -> bool {
        let Some(place) = self.slots.get_mut(self.len) else { return false };
        *place = slot;
        self.len += 1;
        true
    }

    #[inline]
    pub(super) fn last(&self) -> Option<Slot> {
        self.slots.get(self.len.wrapping_sub(1)).copied()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// All of them, which are forgotten.
    #[inline]
    pub(super) fn take(&mut self) -> &[Slot] {
        &self.slots[..std::mem::take(&mut self.len)]
    }
}

impl Default for Hits {
    fn default() -> Self {
        Self { len: 0, slots: [Slot::new(0); Self::MOST] }
    }
}
