//! The part of [`Limits`] that keeps levels and limits over a restart.

use std::time::Duration;

use super::super::StoreError;
use super::super::ops;
use super::super::resets::Resets;
use super::super::v1::SavedSegment;
use super::Limits;
use crate::metrics::StoreOp;

impl Limits {
    /// What memory holds of the database, as text.
    pub fn remembered(&self) -> String {
        self.core.remembered()
    }

    /// Puts that text back in force, until the database can be asked. Returns how many limits and plans there were.
    pub fn recall(&self, text: &str) -> usize {
        self.core.recall(text)
    }

    /// A number that changes whenever memory learns something of the database.
    pub fn memory_version(&self) -> u64 {
        self.core.memory_version()
    }

    /// Saves pieces of this instance's levels; each replaces the earlier one of its number. Waits at most `database.timeout`.
    pub fn save_levels(&self, instance: &str, segments: Vec<(u8, Vec<u8>)>) -> Result<(), StoreError> {
        let instance = instance.to_owned();
        self.read(StoreOp::Levels, move |store, within| ops::save_levels(store, within, &instance, &segments))
    }

    /// The pieces that all instances saved: at most `count` of them, in order, beginning after `after`. Waits at most
    /// `database.timeout`.
    pub fn saved_levels(
        &self,
        after: Option<(String, u8)>,
        count: usize,
    ) -> Result<Vec<SavedSegment>, StoreError> {
        self.read(StoreOp::Levels, move |store, within| {
            let after = after.as_ref().map(|(instance, segment)| (instance.as_str(), *segment));
            ops::saved_levels(store, within, after, count)
        })
    }

    /// The clients whose buckets were filled by hand since the oldest of those pieces was saved. Waits at most
    /// `database.timeout`.
    pub fn resets(&self) -> Result<Resets, StoreError> {
        let ranges = self.core.ranges();
        Ok(Resets::new(self.read(StoreOp::Levels, ops::resets)?, &ranges))
    }

    /// Removes pieces that were saved longer ago than that. Waits at most `database.timeout`.
    pub fn forget_levels(&self, older_than: Duration) -> Result<(), StoreError> {
        self.read(StoreOp::Levels, move |store, within| ops::forget_levels(store, within, older_than))
    }
}
