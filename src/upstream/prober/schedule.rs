//! Which endpoint of which pool is checked when: a value that the thread which makes the checks asks, and tells what they
//! found. It makes none itself and never waits.

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

/// Checks start up to this share of the interval early, so that those of many endpoints, or of many balancers, drift
/// apart. Early and never late: `rise` checks then always fit in `rise` intervals.
const JITTER: f64 = 0.1;

/// See the module.
pub(super) struct Schedule {
    /// By what [`Schedule::watch`] gave.
    pools: BTreeMap<u64, WatchedPool>,
    /// By numbers of its own and not by [`Endpoint::id`]: when a pool is checked otherwise, its endpoints stay, and what is
    /// under way concerns nobody any more.
    watched: HashMap<u64, Watched>,
    /// The last number of a pool or of something watched.
    last: u64,
    /// How many checks of endpoints are under way whose last check timed out.
    late_under_way: usize,
    /// And how many may be.
    max_late: usize,
    is_over: bool,
}

/// A pool whose endpoints are checked.
struct WatchedPool {
    backends: Arc<Backends>,
    settings: Arc<HealthCheck>,
    /// Its endpoints may be others than those that are watched.
    changed: Arc<AtomicBool>,
    /// What was followed last. Most changes are of health, which makes no other snapshot.
    followed: Option<Arc<Snapshot>>,
    /// What its endpoints are watched under, by [`Endpoint::id`].
    numbers: HashMap<u64, u64>,
    /// When each that is not under way is due. Not a heap: an endpoint that is removed leaves at once.
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
    /// Whose.
    pub endpoint: Arc<Endpoint>,
    /// How.
    pub settings: Arc<HealthCheck>,
}

impl Schedule {
    /// Without pools. `places`: how many checks are made at once. A check that times out holds its place longest, so
    /// endpoints whose last check did get half of the places at most: those that are known to hang delay no others.
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

    /// One pool more, under the number that is given back. Its endpoints are followed whenever the flag says so.
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

    /// That pool is checked no more, and what is under way is not written down.
    pub fn forget(&mut self, pool: u64) {
        for number in self.pools.remove(&pool).into_iter().flat_map(|pool| pool.numbers.into_values()) {
            if let Some(one) = self.watched.remove(&number) {
                self.late_under_way -= usize::from(one.is_late && one.due.is_none());
            }
        }
    }

    /// Takes over which endpoints the pools have now that have changed: new ones are due at once, removed ones are forgotten.
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

    /// Whether a check of that number still concerns anybody, as far as was followed.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "epoll")),
        allow(dead_code, reason = "the portable driver has a thread for each check")
    )]
    pub fn has(&self, number: u64) -> bool {
        self.watched.contains_key(&number)
    }

    /// What is to be checked now; its check is under way from here on. The pool with the fewest under way has its turn, so that
    /// one with many that hang leaves room for the others; in a pool, who is due longest.
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

    /// When [`Schedule::next`] will have something; `None`: only after a check has ended or a pool has changed.
    pub fn until(&self) -> Option<Nanos> {
        self.firsts().map(|(_, at, _)| at).min()
    }

    /// Of each pool how many are under way, and which is due first and when.
    fn firsts(&self) -> impl Iterator<Item = (usize, Nanos, u64)> {
        let has_room = self.late_under_way < self.max_late;
        self.pools.values().filter_map(move |pool| {
            let late = pool.late.first().filter(|_| has_room);
            let (at, number) = pool.due.first().into_iter().chain(late).min()?;
            Some((pool.under_way, *at, *number))
        })
    }

    /// Writes down what a check that was started at that time has found. Nothing, if its endpoint or its pool was removed
    /// meanwhile: it concerns nobody, and may come of the removal itself.
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
        // Later than now, so that starting all that is due now comes to an end.
        let due = now.saturating_add(nanos(pause(pool.settings.interval, took, fastrand::f64())).max(1));
        one.due = Some(due);
        if one.is_late {
            pool.late.insert((due, number))
        } else {
            pool.due.insert((due, number))
        };
    }
}

/// How long to wait after a check that took so long: from start to start it is the interval or a little less. `random`
/// is in 0..1.
fn pause(interval: Duration, took: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER * random).saturating_sub(took)
}
