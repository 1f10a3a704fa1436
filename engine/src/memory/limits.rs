//! The limits in force: read by every write, changed while writes go on.

use crate::directory::{Budget, WeighBy};
use crate::store::Limits;
use crate::sync::{AtomicU64, Ordering};

/// The largest value. What any is charged is a 32-bit number, also where it lies in pieces, which costs 12 bytes for each 4092, and with
/// [`MOST_BESIDE`] on top.
const MAX_VALUE_BYTES: u64 = u32::MAX as u64 - (16 << 20);

/// What an entry may be charged beside its value.
pub(super) const MOST_BESIDE: usize = 1 << 20;

/// Limits as they can be kept: no value is larger than all memory, or than can be charged for.
pub(super) fn possible(limits: Limits) -> Limits {
    let max_value_bytes = limits.max_value_bytes.min(limits.max_memory_bytes).min(MAX_VALUE_BYTES);
    Limits { max_value_bytes, ..limits }
}

/// What all shards together may use.
pub(super) fn budget(limits: &Limits) -> Budget {
    Budget { items: limits.max_items.unwrap_or(u64::MAX), bytes: limits.max_memory_bytes }
}

/// The capacity of each shard's policy: its fair share.
pub(super) fn policy_capacity(limits: &Limits, weigh_by: WeighBy, shards: usize) -> u64 {
    weigh_by.capacity(&budget(limits)).div_ceil(shards as u64)
}

/// Limits that threads share. Each figure is whole; a reader may see one of a change before another.
#[expect(clippy::struct_field_names, reason = "the names of the limits")]
pub(super) struct SharedLimits {
    /// `u64::MAX`: no limit.
    max_items: AtomicU64,
    max_memory_bytes: AtomicU64,
    max_value_bytes: AtomicU64,
}

impl SharedLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max_items: AtomicU64::new(budget(limits).items),
            max_memory_bytes: AtomicU64::new(limits.max_memory_bytes),
            max_value_bytes: AtomicU64::new(limits.max_value_bytes),
        }
    }

    pub(super) fn get(&self) -> Limits {
        let max_items = self.max_items.load(Ordering::Relaxed);
        Limits {
            max_items: (max_items != u64::MAX).then_some(max_items),
            max_memory_bytes: self.max_memory_bytes(),
            max_value_bytes: self.max_value_bytes(),
        }
    }

    pub(super) fn set(&self, limits: &Limits) {
        self.max_items.store(budget(limits).items, Ordering::Relaxed);
        self.max_memory_bytes.store(limits.max_memory_bytes, Ordering::Relaxed);
        self.max_value_bytes.store(limits.max_value_bytes, Ordering::Relaxed);
    }

    pub(super) fn max_memory_bytes(&self) -> u64 {
        self.max_memory_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn max_value_bytes(&self) -> u64 {
        self.max_value_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::outside::{mapped_charge, pieces_charge};
    use super::*;

    #[test]
    fn whatever_value_is_permitted_what_it_costs_is_a_32_bit_number() {
        let unlimited = Limits { max_items: None, max_memory_bytes: u64::MAX, max_value_bytes: u64::MAX };
        let largest = usize::try_from(possible(unlimited).max_value_bytes).expect("64 bits");
        for charge in [mapped_charge(largest), pieces_charge(largest)] {
            assert!(u32::try_from(charge + MOST_BESIDE).is_ok(), "{charge} for {largest}");
        }
    }
}
