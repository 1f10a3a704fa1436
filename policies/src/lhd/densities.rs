//! What is known about hit density: how many hits an entry of this class and age can still expect per
//! request that it stays.
//!
//! Ages are counted on a scale that is linear within an octave and doubles from one to the next. It covers
//! every age with a few hundred buckets and a resolution of an eighth, so that neither the scale nor
//! the size of the tables has to follow the cache.
//!
//! What has been seen of a class and age is mixed with an assumption, as if [`ASSUMED_EVENTS`] more entries
//! had been seen, half of which are hit once more within as long as they have waited already. So a new
//! cache behaves much like LRU with a bonus for what was hit, and nothing is learnt from noise.

/// Buckets per octave, as a power of two.
const STEPS_LOG2: u32 = 3;
const STEPS: u32 = 1 << STEPS_LOG2;
/// Ages of 32 bits; what is older counts as that old.
const BUCKETS: usize = ((u32::BITS - STEPS_LOG2 + 1) << STEPS_LOG2) as usize;
const CLASSES: usize = 16;
pub(super) const LAST_CLASS: u8 = 15;
/// What a period's events still count in the next one. In all, ten periods count: if a period has no more
/// than 2^20 events, no sum grows beyond what an `f32` can add 1 to.
const RETAINED: f32 = 0.9;
const ASSUMED_EVENTS: f32 = 16.0;
const ASSUMED_HITS: f32 = ASSUMED_EVENTS / 2.0;

#[derive(Clone, Copy, Default)]
struct Events {
    hits: f32,
    evictions: f32,
}

/// Events seen and densities learnt, by class and age.
pub(super) struct Densities {
    events: Vec<Events>,
    densities: Vec<f32>,
}

fn bucket(age: u32) -> usize {
    let octave = age.max(STEPS).ilog2() - STEPS_LOG2;
    ((octave << STEPS_LOG2) + (age >> octave)) as usize
}

/// The number of ages that share a bucket.
#[expect(clippy::cast_precision_loss, reason = "a power of two")]
const fn width(bucket: usize) -> f32 {
    (1_u32 << (bucket >> STEPS_LOG2).saturating_sub(1)) as f32
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn start(bucket: usize) -> f32 {
    let octave = (bucket >> STEPS_LOG2).saturating_sub(1);
    (((bucket - (octave << STEPS_LOG2)) as u64) << octave) as f32
}

impl Densities {
    /// Knows nothing and goes by the assumption alone.
    pub(super) fn new() -> Self {
        let mut unlearnt = Self {
            events: vec![Events::default(); CLASSES * BUCKETS],
            densities: vec![0.0; CLASSES * BUCKETS],
        };
        unlearnt.learn();
        unlearnt
    }

    pub(super) fn get(&self, class: u8, age: u32) -> f32 {
        self.densities[usize::from(class) * BUCKETS + bucket(age)]
    }

    pub(super) fn count_hit(&mut self, class: u8, age: u32) {
        self.events[usize::from(class) * BUCKETS + bucket(age)].hits += 1.0;
    }

    pub(super) fn count_eviction(&mut self, class: u8, age: u32) {
        self.events[usize::from(class) * BUCKETS + bucket(age)].evictions += 1.0;
    }

    /// Learns from the events so far, and lets them fade.
    pub(super) fn learn(&mut self) {
        let events = self.events.chunks_exact_mut(BUCKETS);
        let classes = (0_u8..).zip(events.zip(self.densities.chunks_exact_mut(BUCKETS)));
        for (class, (events, densities)) in classes {
            // What returned once is assumed to do so twice as often, and what did so soon a little more.
            let likelihood = if class == 0 { 1.0 } else { 2.0 + f32::from(class) / 17.0 };
            let assumed_hits = ASSUMED_HITS * likelihood;
            let (mut hits, mut all, mut lifetime) = (0.0, 0.0, 0.0);
            for (bucket, (events, density)) in events.iter_mut().zip(densities).enumerate().rev() {
                let here = events.hits + events.evictions;
                hits += events.hits;
                // Those who get older live through the whole bucket, those who end here through half of it.
                lifetime += (all + here / 2.0) * width(bucket);
                all += here;
                *density = (hits + assumed_hits) / (lifetime + ASSUMED_EVENTS * (start(bucket) + 1.0));
                events.hits *= RETAINED;
                events.evictions *= RETAINED;
            }
        }
    }

    pub(super) fn footprint_bytes(&self) -> usize {
        self.events.capacity() * size_of::<Events>() + self.densities.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "bounds within a quarter")]
    fn buckets_ascend_with_age_and_are_an_eighth_wide_at_most() {
        let ages = (0..100_000).chain((100_000..u32::MAX).step_by(10_000_019)).chain([u32::MAX]);
        let mut last = 0;
        for age in ages {
            let bucket = bucket(age);
            assert!(bucket >= last && bucket < BUCKETS, "age {age} is in bucket {bucket}");
            last = bucket;
            // Single precision rounds the ends of the widest buckets.
            let (age, start, width) = (age as f32, start(bucket), width(bucket));
            assert!(start <= age && age <= start + width, "age {age} is in {start} + {width}");
            assert!(width <= (start / 8.0).max(1.0), "{width} is an eighth of {start}");
        }
        assert_eq!(last, BUCKETS - 1, "every bucket is in use");
    }

    #[test]
    fn density_follows_what_was_seen_and_falls_to_nothing_where_no_hits_are_left() {
        let mut densities = Densities::new();
        assert!(densities.get(3, 10) > densities.get(3, 100), "unlearnt, density falls with age");
        assert!(densities.get(4, 10) > densities.get(3, 10), "and rises with the class");
        for _ in 0..1000 {
            densities.count_hit(3, 1000);
            densities.count_eviction(3, 20);
        }
        densities.learn();
        let [young, waiting, ripe, late] = [0, 100, 900, 1200].map(|age| densities.get(3, age));
        assert!(young < waiting && waiting < ripe, "nearer to the hit is denser");
        assert!(late < young, "past the last hit there is nothing to wait for");
        assert!(densities.get(4, 10) > densities.get(4, 100), "other classes have learnt nothing");
    }
}
