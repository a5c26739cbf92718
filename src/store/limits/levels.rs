//! What is kept beside the database, and in it, for the time after a restart.

use std::time::Duration;

use super::super::StoreError;
use super::super::ops;
use super::super::resets::Resets;
use super::super::v1::SavedSegment;
use super::Limits;
use crate::metrics::StoreOp;

impl Limits {
    /// What memory knows of the database, as text.
    pub fn remembered(&self) -> String {
        self.core.remembered()
    }

    /// Puts that back in force until the database says otherwise; how many limits and plans it was.
    pub fn recall(&self, text: &str) -> usize {
        self.core.recall(text)
    }

    /// Changes with what memory knows.
    pub fn memory_version(&self) -> u64 {
        self.core.memory_version()
    }

    /// Saves pieces of this instance's levels, each in the place of its earlier one. Waits at most `database.timeout`.
    pub fn save_levels(&self, instance: &str, segments: Vec<(u8, Vec<u8>)>) -> Result<(), StoreError> {
        let instance = instance.to_owned();
        self.read(StoreOp::Levels, move |store, within| ops::save_levels(store, within, &instance, &segments))
    }

    /// What any instance saved: at most `count` pieces behind that one, in order. Waits at most `database.timeout`.
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

    /// Whose levels were filled by hand since the oldest of those pieces was saved. Waits at most `database.timeout`.
    pub fn resets(&self) -> Result<Resets, StoreError> {
        let ranges = self.core.ranges();
        Ok(Resets::new(self.read(StoreOp::Levels, ops::resets)?, &ranges))
    }

    /// Forgets what was saved longer ago than that. Waits at most `database.timeout`.
    pub fn forget_levels(&self, older_than: Duration) -> Result<(), StoreError> {
        self.read(StoreOp::Levels, move |store, within| ops::forget_levels(store, within, older_than))
    }
}
