//! One load of one group: who waits for it, and whose duty it is.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Cache, Entries, Entry, Key, Place, Shard, sorted};

#[derive(Default)]
pub(super) struct Load {
    /// `None` while it is under way.
    outcome: Mutex<Option<Outcome>>,
    done: Condvar,
}

#[derive(Clone)]
pub(super) enum Outcome {
    Loaded(Entries),
    Failed,
}

impl Load {
    /// `None` when it took longer than `patience`. Holds its own lock alone, and gives it up while it waits.
    pub(super) fn wait(&self, patience: Duration) -> Option<Outcome> {
        let mut outcome = self.outcome.lock();
        self.done.wait_while_for(&mut outcome, |outcome| outcome.is_none(), patience);
        outcome.clone()
    }

    fn settle(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.done.notify_all();
    }
}

/// The duty to load one group. Dropping it fails the load, so nobody waits for a load that will not come.
pub struct Ticket {
    cache: Arc<Cache>,
    place: Place,
    key: Key,
    load: Arc<Load>,
    open: bool,
}

impl Ticket {
    /// Puts a load on the list of the shard, whose lock is held.
    pub(super) fn open(cache: &Arc<Cache>, shard: &mut Shard, place: Place, key: Key) -> (Self, Arc<Load>) {
        let load = Arc::new(Load::default());
        shard.loads.insert(key, Arc::clone(&load));
        (Self { cache: Arc::clone(cache), place, key, load: Arc::clone(&load), open: true }, load)
    }

    /// What is asked for: every stored address and `ip:port` in a group, or one id.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The load is done. Kept unless a write overtook it.
    pub fn finish(mut self, entries: Vec<Entry>) {
        let entries = sorted(entries);
        self.open = false;
        let mut shard = self.cache.shard(self.key).lock();
        if self.take_off(&mut shard) {
            self.cache.keep(&mut shard, self.key, entries.clone());
        }
        drop(shard);
        self.load.settle(Outcome::Loaded(entries));
    }

    /// Takes the load off the list; false if a write has done that. The shard's lock is held.
    fn take_off(&self, shard: &mut Shard) -> bool {
        let mine = shard.loads.get(&self.key).is_some_and(|load| Arc::ptr_eq(load, &self.load));
        if mine {
            shard.loads.remove(&self.key);
        }
        mine
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            let mut shard = self.cache.shard(self.key).lock();
            shard.counters.failures += 1;
            self.take_off(&mut shard);
            drop(shard);
            self.load.settle(Outcome::Failed);
        }
    }
}
