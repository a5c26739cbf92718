//! The hot buckets of one shard, under the shard's lock.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::hot::HotBucket;
use crate::identity::ClientKey;
use crate::terms::BucketId;
use balancer_time::Nanos;

/// Most hot buckets of a process, about 300 bytes each with two other instances. About three times as many as can be
/// reported in a second (20 flushes of [`crate::budget::MAX_REPORTS`]).
pub(super) const MAX_HOT: usize = 16_384;

/// Counts over all shards.
#[derive(Debug, Default)]
pub(super) struct HotCounts {
    hot: AtomicUsize,
    clients: AtomicUsize,
    episodes: AtomicU32,
}

impl HotCounts {
    /// How many buckets are hot.
    pub fn hot(&self) -> usize {
        self.hot.load(Ordering::Relaxed)
    }

    /// How many clients have hot buckets.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// The number of an episode that begins now; later episodes have later numbers.
    pub fn next_episode(&self) -> u32 {
        self.episodes.fetch_add(1, Ordering::Relaxed)
    }
}

/// The place of a hot bucket in its shard's table: its index plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HotPlace(NonZeroU16);

/// The hot buckets of one shard.
#[derive(Default)]
pub(super) struct HotTable {
    buckets: Vec<Option<HotBucket>>,
    free: Vec<HotPlace>,
}

impl HotTable {
    pub fn get(&self, place: HotPlace) -> Option<&HotBucket> {
        self.buckets.get(usize::from(place.0.get()) - 1)?.as_ref()
    }

    pub fn get_mut(&mut self, place: HotPlace) -> Option<&mut HotBucket> {
        self.buckets.get_mut(usize::from(place.0.get()) - 1)?.as_mut()
    }

    /// Adds a bucket. `None`: there are [`MAX_HOT`] in all shards.
    pub fn add(
        &mut self,
        client: ClientKey,
        id: BucketId,
        counts: &HotCounts,
        now: Nanos,
    ) -> Option<HotPlace> {
        let one_more = |hot| (hot < MAX_HOT).then_some(hot + 1);
        counts.hot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        if !self.holds(client) {
            counts.clients.fetch_add(1, Ordering::Relaxed);
        }
        let episode = counts.next_episode();
        let bucket = Some(HotBucket::new(client, id, episode, now));
        if let Some(place) = self.free.pop() {
            *self.buckets.get_mut(usize::from(place.0.get()) - 1)? = bucket;
            return Some(place);
        }
        self.buckets.push(bucket);
        // At most MAX_HOT, which 16 bits hold.
        u16::try_from(self.buckets.len()).ok().and_then(NonZeroU16::new).map(HotPlace)
    }

    pub fn remove(&mut self, place: HotPlace, counts: &HotCounts) {
        let Some(bucket) = self.buckets.get_mut(usize::from(place.0.get()) - 1) else { return };
        if let Some(gone) = bucket.take() {
            counts.hot.fetch_sub(1, Ordering::Relaxed);
            self.free.push(place);
            if !self.holds(gone.client) {
                counts.clients.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if self.free.len() == self.buckets.len() {
            // Gives the memory of a flood back.
            *self = Self::default();
        }
    }

    /// Whether there is a bucket of that client. All its buckets are in this shard. Looks at all of the shard's, which
    /// are [`MAX_HOT`] / 256 on average, but only when a bucket becomes hot or quiet.
    fn holds(&self, client: ClientKey) -> bool {
        self.buckets.iter().flatten().any(|bucket| bucket.client == client)
    }

    /// The places of all hot buckets.
    pub fn places(&self) -> impl Iterator<Item = HotPlace> {
        let used = |(at, bucket): (usize, &Option<HotBucket>)| {
            bucket.as_ref().and_then(|_| NonZeroU16::new(at as u16 + 1)).map(HotPlace)
        };
        self.buckets.iter().enumerate().filter_map(used)
    }

    /// Heap memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Option<HotBucket>>()
            + self.free.capacity() * size_of::<HotPlace>()
    }
}

#[cfg(test)]
mod tests;
