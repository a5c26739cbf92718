//! One load of one group: the requests that wait for it, and the ticket of the one that has to do it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Cache, CacheGroup, Entries, Entry, Key, Known, Loader, Shard, pick, sorted};
use balancer_pool::queue::Waker;

#[derive(Default)]
pub(super) struct Load {
    progress: Mutex<Progress>,
    done: Condvar,
}

#[derive(Default)]
struct Progress {
    /// `None` while the load is under way.
    outcome: Option<LoadOutcome>,
    /// One for each look-up that waits; all are called when there is an outcome. The waker of a request that gave up stays
    /// until the load ends.
    wakers: Vec<Waker>,
}

#[derive(Clone)]
pub(super) enum LoadOutcome {
    Loaded(Entries),
    Failed,
}

impl Load {
    /// Blocks until the load has ended, at most for `patience`.
    fn wait(&self, patience: Duration) {
        let mut progress = self.progress.lock();
        self.done.wait_while_for(&mut progress, |progress| progress.outcome.is_none(), patience);
    }

    /// Sets the outcome, if there is none yet, and wakes all that wait. Wakers are called outside of every lock; the caller
    /// must hold none.
    pub(super) fn settle(&self, outcome: LoadOutcome) {
        let mut progress = self.progress.lock();
        progress.outcome.get_or_insert(outcome);
        let wakers = std::mem::take(&mut progress.wakers);
        drop(progress);
        self.done.notify_all();
        for waker in wakers {
            waker();
        }
    }
}

/// A look-up that waits for the database. Its owner waits for the end of the load, blocking or by a [`Waker`], at most
/// `cache.load_timeout`, and then asks what is [`Pending::known`].
#[derive(Clone)]
pub struct Pending {
    pub(super) cache: Arc<Cache>,
    pub(super) load: Arc<Load>,
    pub(super) key: Key,
    pub(super) client: (IpAddr, Option<u16>),
    /// What decides when the load brings nothing: a stale entry, or nothing.
    pub(super) before: Known,
}

impl Pending {
    /// Has `waker` called once when the load ends, on the thread that ends it. False when it has ended already; then `waker` is
    /// dropped.
    pub fn on_end(&self, waker: Waker) -> bool {
        let mut progress = self.load.progress.lock();
        let under_way = progress.outcome.is_none();
        if under_way {
            progress.wakers.push(waker);
        }
        under_way
    }

    /// Blocks until the load has ended, at most for `patience`.
    pub fn wait(&self, patience: Duration) {
        self.load.wait(patience);
    }

    /// Whether the load has ended.
    pub fn has_ended(&self) -> bool {
        self.load.progress.lock().outcome.is_some()
    }

    /// What the load brought. When it has not ended, the caller has waited for as long as it may: that counts as a
    /// time-out, and what was known before decides.
    pub fn known(self, loader: &impl Loader) -> Known {
        let (address, port) = self.client;
        let outcome = self.load.progress.lock().outcome.clone();
        match outcome {
            Some(LoadOutcome::Loaded(entries)) => {
                // What is held may be newer, from a write.
                let shard = self.cache.shard(self.key).lock();
                let held = shard.groups.peek(&self.key).map_or(&entries, |group| &group.entries);
                pick(held, address, port)
            }
            Some(LoadOutcome::Failed) => self.before,
            None => {
                self.cache.shard(self.key).lock().counters.timeouts += 1;
                loader.gave_up();
                self.before
            }
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("client", &self.client)
            .field("before", &self.before)
            .finish_non_exhaustive()
    }
}

/// The duty to load one group. If it is dropped, the load fails, so that no request waits for a load that will never end.
pub struct LoadTicket {
    cache: Arc<Cache>,
    place: CacheGroup,
    key: Key,
    load: Arc<Load>,
    open: bool,
}

impl LoadTicket {
    /// Puts a load on the list of the shard, whose lock is held.
    pub(super) fn open(
        cache: &Arc<Cache>,
        shard: &mut Shard,
        place: CacheGroup,
        key: Key,
    ) -> (Self, Arc<Load>) {
        let load = Arc::new(Load::default());
        shard.loads.insert(key, Arc::clone(&load));
        (Self { cache: Arc::clone(cache), place, key, load: Arc::clone(&load), open: true }, load)
    }

    /// What has to be loaded: every stored address and `ip:port` in a group, or one id.
    pub fn place(&self) -> &CacheGroup {
        &self.place
    }

    /// Ends the load with these entries. They are kept unless a write took the load off the list.
    pub fn finish(mut self, entries: Vec<Entry>) {
        let entries = sorted(entries);
        self.open = false;
        let mut shard = self.cache.shard(self.key).lock();
        if self.take_off(&mut shard) {
            self.cache.keep(&mut shard, self.key, entries.clone());
        }
        drop(shard);
        self.load.settle(LoadOutcome::Loaded(entries));
    }

    /// Takes the load off the list; false if it is no longer there. The shard's lock is held.
    fn take_off(&self, shard: &mut Shard) -> bool {
        let mine = shard.loads.get(&self.key).is_some_and(|load| Arc::ptr_eq(load, &self.load));
        if mine {
            shard.loads.remove(&self.key);
        }
        mine
    }
}

impl Drop for LoadTicket {
    fn drop(&mut self) {
        if self.open {
            let mut shard = self.cache.shard(self.key).lock();
            shard.counters.failures += 1;
            self.take_off(&mut shard);
            drop(shard);
            self.load.settle(LoadOutcome::Failed);
        }
    }
}
