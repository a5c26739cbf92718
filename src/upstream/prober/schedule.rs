//! Decides which endpoint of which pool is checked when. A driver asks what is due, makes the checks, and tells what
//! they found. The schedule itself makes no check and never waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::check::{CheckResult, NotPassed};
use super::check_state::CheckState;
use crate::config::HealthCheck;
use balancer_pool::backends::{Backends, Endpoint, Snapshot};
use balancer_time::{Nanos, nanos};

#[cfg(test)]
mod tests;

/// Checks start early by up to this share of the interval, so that those of many endpoints, or of many balancers, drift
/// apart. They never start late, so that `rise` checks always fit in `rise` intervals.
const JITTER: f64 = 0.1;

/// See the module.
pub(super) struct Schedule {
    /// By the numbers that [`Schedule::watch`] gave.
    pools: BTreeMap<u64, WatchedPool>,
    /// The endpoints, by numbers of their own. Not by [`Endpoint::id`]: when a pool gets other settings for its checks,
    /// its endpoints stay, but the checks under way must not count any more.
    watched: HashMap<u64, Watched>,
    /// The last number that a pool or an endpoint got.
    last: u64,
    /// How many checks are under way of endpoints whose last check timed out.
    late_under_way: usize,
    /// How many of those may be under way.
    max_late: usize,
    is_over: bool,
}

/// A pool whose endpoints are checked.
struct WatchedPool {
    backends: Arc<Backends>,
    settings: Arc<HealthCheck>,
    /// Set when its endpoints may have changed.
    changed: Arc<AtomicBool>,
    /// The last snapshot that was followed. Most changes are about health, and make no new snapshot.
    followed: Option<Arc<Snapshot>>,
    /// The numbers of its endpoints, by [`Endpoint::id`].
    numbers: HashMap<u64, u64>,
    /// When each endpoint is due that has no check under way. Not a heap, so that an endpoint can be removed at once.
    due: BTreeSet<(Nanos, u64)>,
    /// The same for those whose last check timed out.
    late: BTreeSet<(Nanos, u64)>,
    /// How many of its checks are under way.
    under_way: usize,
}

/// An endpoint of a pool.
struct Watched {
    pool: u64,
    endpoint: Arc<Endpoint>,
    state: CheckState,
    /// `None`: its check is under way.
    due: Option<Nanos>,
    /// Its last check timed out.
    is_late: bool,
}

/// A check that is to be made now.
pub(super) struct DueCheck {
    /// What [`Schedule::ended`] is told; not 0.
    pub number: u64,
    /// What to check.
    pub endpoint: Arc<Endpoint>,
    /// How to check it.
    pub settings: Arc<HealthCheck>,
}

impl Schedule {
    /// Without pools. `places`: how many checks are made at once. A check that times out holds its place longest. So
    /// endpoints whose last check timed out get at most half of the places: those that are known to hang delay no
    /// others.
    pub fn new(places: usize) -> Self {
        Self {
            pools: BTreeMap::new(),
            watched: HashMap::new(),
            last: 0,
            late_under_way: 0,
            max_late: (places / 2).max(1),
            is_over: false,
        }
    }

    /// No check is made any more.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether [`Schedule::end`] was called.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Adds a pool, and returns its number. Its endpoints are followed whenever `changed` is set.
    pub fn watch(
        &mut self,
        backends: &Arc<Backends>,
        settings: HealthCheck,
        changed: &Arc<AtomicBool>,
    ) -> u64 {
        self.last += 1;
        let pool = WatchedPool {
            backends: Arc::clone(backends),
            settings: Arc::new(settings),
            changed: Arc::clone(changed),
            followed: None,
            numbers: HashMap::new(),
            due: BTreeSet::new(),
            late: BTreeSet::new(),
            under_way: 0,
        };
        self.pools.insert(self.last, pool);
        self.last
    }

    /// Removes a pool. The results of its checks under way are dropped.
    pub fn forget(&mut self, pool: u64) {
        for number in self.pools.remove(&pool).into_iter().flat_map(|pool| pool.numbers.into_values()) {
            if let Some(one) = self.watched.remove(&number) {
                self.late_under_way -= usize::from(one.is_late && one.due.is_none());
            }
        }
    }

    /// Follows the endpoints of pools that have changed: new ones are due at once, removed ones are forgotten.
    pub fn follow(&mut self, now: Nanos) {
        let is_changed = |pool: &WatchedPool| pool.changed.swap(false, Ordering::AcqRel);
        let changed = self.pools.iter().filter(|(_, pool)| is_changed(pool)).map(|(number, _)| *number);
        for pool in changed.collect::<Vec<_>>() {
            self.follow_one(pool, now);
        }
    }

    fn follow_one(&mut self, number: u64, now: Nanos) {
        let Self { pools, watched, last, late_under_way, .. } = self;
        let Some(pool) = pools.get_mut(&number) else { return };
        let WatchedPool { backends, settings, followed, numbers, due, late, under_way, .. } = pool;
        let snapshot = backends.snapshot();
        if followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, &snapshot)) {
            return;
        }
        let present: HashSet<u64> = snapshot.endpoints().iter().map(|endpoint| endpoint.id).collect();
        for (_, gone) in numbers.extract_if(|id, _| !present.contains(id)) {
            let Some(one) = watched.remove(&gone) else { continue };
            match one.due {
                Some(at) if one.is_late => _ = late.remove(&(at, gone)),
                Some(at) => _ = due.remove(&(at, gone)),
                None => {
                    *under_way -= 1;
                    *late_under_way -= usize::from(one.is_late);
                }
            }
        }
        for endpoint in snapshot.endpoints() {
            numbers.entry(endpoint.id).or_insert_with(|| {
                *last += 1;
                due.insert((now, *last));
                let (endpoint, state) = (Arc::clone(endpoint), CheckState::new(settings, endpoint.health()));
                let one = Watched { pool: number, endpoint, state, due: Some(now), is_late: false };
                watched.insert(*last, one);
                *last
            });
        }
        *followed = Some(snapshot);
    }

    /// Whether the endpoint of that number is still watched, as of the last [`Schedule::follow`].
    #[cfg_attr(
        not(all(target_os = "linux", feature = "epoll")),
        allow(dead_code, reason = "the portable driver has a thread for each check")
    )]
    pub fn has(&self, number: u64) -> bool {
        self.watched.contains_key(&number)
    }

    /// The next check that is due; it counts as under way from here on. The pool with the fewest checks under way has
    /// its turn, so that a pool with many endpoints that hang leaves room for the others. In a pool, it is the endpoint
    /// that is due longest.
    pub fn next(&mut self, now: Nanos) -> Option<DueCheck> {
        let (_, at, number) = self.firsts().filter(|(_, at, _)| *at <= now).min()?;
        let one = self.watched.get_mut(&number)?;
        let pool = self.pools.get_mut(&one.pool)?;
        one.due = None;
        pool.under_way += 1;
        if one.is_late {
            pool.late.remove(&(at, number));
            self.late_under_way += 1;
        } else {
            pool.due.remove(&(at, number));
        }
        Some(DueCheck { number, endpoint: Arc::clone(&one.endpoint), settings: Arc::clone(&pool.settings) })
    }

    /// When [`Schedule::next`] will have something. `None`: only after a check has ended or a pool has changed.
    pub fn until(&self) -> Option<Nanos> {
        self.firsts().map(|(_, at, _)| at).min()
    }

    /// Of each pool how many checks are under way, when the next one is due, and its number.
    fn firsts(&self) -> impl Iterator<Item = (usize, Nanos, u64)> {
        let has_room = self.late_under_way < self.max_late;
        self.pools.values().filter_map(move |pool| {
            let late = pool.late.first().filter(|_| has_room);
            let (at, number) = pool.due.first().into_iter().chain(late).min()?;
            Some((pool.under_way, *at, *number))
        })
    }

    /// Records what a check found that was started at that time. If its endpoint or its pool was removed meanwhile, the
    /// result is dropped: the removal itself may have caused it.
    pub fn ended(&mut self, number: u64, started: Nanos, result: &CheckResult, now: Nanos) {
        self.follow(now);
        let Some(one) = self.watched.get_mut(&number) else { return };
        let Some(pool) = self.pools.get_mut(&one.pool) else { return };
        let took = now.saturating_sub(started);
        one.state.take((result, took), &one.endpoint, &pool.backends, now);
        pool.under_way -= 1;
        self.late_under_way -= usize::from(one.is_late);
        one.is_late = result.as_ref().is_err_and(NotPassed::is_timeout);
        let took = Duration::from_nanos(took);
        // At least 1 ns later than now, so that a loop over all that is due comes to an end.
        let due = now.saturating_add(nanos(pause(pool.settings.interval, took, fastrand::f64())).max(1));
        one.due = Some(due);
        if one.is_late {
            pool.late.insert((due, number))
        } else {
            pool.due.insert((due, number))
        };
    }
}

/// How long to wait after a check that took so long. From start to start it is then the interval or a little less.
/// `random` is in 0..1.
fn pause(interval: Duration, took: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER * random).saturating_sub(took)
}
