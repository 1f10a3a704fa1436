//! A run of requests as simulations see it: columns of numbers, whoever holds them.

use std::ops::Range;

use crate::trace::Operation;

/// One request, with its key as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The key's number: dense, from 0 in the order of first appearance.
    pub id: u32,
    /// The object's size; 1 where the trace has none.
    pub size_bytes: u32,
    /// When, in seconds; 0 where the trace has no times or nobody needs them.
    pub time_seconds: u32,
    /// What a server's policies would see of the key.
    pub fingerprint: u64,
    /// What it does.
    pub operation: Operation,
}

/// Fingerprints of a block's requests.
#[derive(Clone, Copy)]
pub(super) enum Fingerprints<'a> {
    ById(&'a [u64]),
    ByRequest(&'a [u64]),
}

/// A run of consecutive requests.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    ids: &'a [u32],
    /// Empty where every size is 1.
    sizes: &'a [u32],
    /// Empty where nobody needs times.
    times: &'a [u32],
    /// Empty where all are reads.
    operations: &'a [Operation],
    /// Empty where the block is not of a sample.
    places: &'a [u32],
    fingerprints: Fingerprints<'a>,
    distinct: usize,
}

impl<'a> Block<'a> {
    /// Number of requests, those that are not counted included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The keys' numbers.
    #[must_use]
    pub const fn ids(&self) -> &'a [u32] {
        self.ids
    }

    /// Sizes in bytes; `None` where all are 1.
    #[must_use]
    pub fn sizes(&self) -> Option<&'a [u32]> {
        (!self.sizes.is_empty()).then_some(self.sizes)
    }

    /// Times in seconds; `None` where they were not kept.
    #[must_use]
    pub fn times(&self) -> Option<&'a [u32]> {
        (!self.times.is_empty()).then_some(self.times)
    }

    /// What requests do; `None` where all are reads.
    #[must_use]
    pub fn operations(&self) -> Option<&'a [Operation]> {
        (!self.operations.is_empty()).then_some(self.operations)
    }

    /// Number of reads: what requests are counted by.
    #[must_use]
    pub fn reads(&self) -> u64 {
        let reads =
            |operations: &[Operation]| operations.iter().filter(|&&kind| kind == Operation::Read).count();
        self.operations().map_or(self.len(), reads) as u64
    }

    /// In a sample: how many requests of the whole trace come before each, modulo 2^32.
    #[must_use]
    pub fn places(&self) -> Option<&'a [u32]> {
        (!self.places.is_empty()).then_some(self.places)
    }

    /// All numbers so far are below this.
    #[must_use]
    pub const fn distinct(&self) -> usize {
        self.distinct
    }

    /// What a server's policies would see of the key of the request at this index.
    #[must_use]
    pub fn fingerprint(&self, index: usize) -> u64 {
        match self.fingerprints {
            Fingerprints::ById(all) => all[self.ids[index] as usize],
            Fingerprints::ByRequest(all) => all[index],
        }
    }

    /// The sum of all sizes of reads.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.operations().is_some() {
            let reads = self.iter().filter(|request| request.operation == Operation::Read);
            return reads.map(|request| u64::from(request.size_bytes)).sum();
        }
        self.sizes().map_or(self.len() as u64, |sizes| sizes.iter().copied().map(u64::from).sum())
    }

    /// The requests one by one.
    pub fn iter(&self) -> impl Iterator<Item = Request> + use<'a> {
        let block = *self;
        (0..self.len()).map(move |index| Request {
            id: block.ids[index],
            size_bytes: block.sizes.get(index).copied().unwrap_or(1),
            time_seconds: block.times.get(index).copied().unwrap_or(0),
            fingerprint: block.fingerprint(index),
            operation: block.operations.get(index).copied().unwrap_or_default(),
        })
    }
}

/// Requests in columns, as blocks show them.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) ids: Vec<u32>,
    /// Empty as long as every size is 1.
    pub(super) sizes: Vec<u32>,
    /// Empty where nobody needs times.
    pub(super) times: Vec<u32>,
    /// Empty as long as all are reads.
    pub(super) operations: Vec<Operation>,
    pub(super) keep_times: bool,
    /// Empty where this is not a sample.
    pub(super) places: Vec<u32>,
}

impl Columns {
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.sizes.clear();
        self.times.clear();
        self.operations.clear();
    }

    /// Appends what belongs to the ids that were appended before it: the trace's sizes and times, where it tells them. All of
    /// them do the same.
    pub(super) fn extend(
        &mut self,
        sizes_bytes: &[u32],
        times_seconds: &[u32],
        operation: Operation,
        known: usize,
    ) {
        if operation != Operation::Read || !self.operations.is_empty() {
            self.operations.resize(known, Operation::Read);
            self.operations.resize(self.ids.len(), operation);
        }
        if !self.sizes.is_empty() || sizes_bytes.iter().any(|size| *size > 1) {
            self.sizes.resize(self.ids.len() - sizes_bytes.len(), 1);
            // An object costs something even where the trace says 0.
            self.sizes.extend(sizes_bytes.iter().map(|size| (*size).max(1)));
        }
        if self.keep_times {
            self.times.resize(self.ids.len() - times_seconds.len(), 0);
            self.times.extend_from_slice(times_seconds);
        }
    }

    pub(super) fn block<'a>(
        &'a self,
        requests: Range<usize>,
        fingerprints: Fingerprints<'a>,
        distinct: usize,
    ) -> Block<'a> {
        Block {
            ids: &self.ids[requests.clone()],
            sizes: self.sizes.get(requests.clone()).unwrap_or_default(),
            times: self.times.get(requests.clone()).unwrap_or_default(),
            operations: self.operations.get(requests.clone()).unwrap_or_default(),
            places: self.places.get(requests).unwrap_or_default(),
            fingerprints,
            distinct,
        }
    }
}
