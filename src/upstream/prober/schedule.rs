//! Which endpoint is checked when: a value that the thread which makes the checks asks, and tells what they found. It makes none
//! itself and never waits.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::check::{CheckResult, NotPassed};
use super::check_state::CheckState;
use crate::config::HealthCheck;
use balancer_pool::backends::{Backends, Endpoint};
use balancer_time::{Nanos, nanos};

/// Checks start up to this share of the interval early, so that those of many endpoints, or of many balancers, drift
/// apart. Early and never late: `rise` checks then always fit in `rise` intervals.
const JITTER: f64 = 0.1;

/// See the module.
pub(super) struct Schedule {
    backends: Arc<Backends>,
    settings: Arc<HealthCheck>,
    /// By [`Endpoint::id`].
    watched: HashMap<u64, Watched>,
    /// When each that is not under way is due. Not a heap: an endpoint that is removed leaves at once.
    due: BTreeSet<(Nanos, u64)>,
    /// The same for those whose last check timed out.
    late: BTreeSet<(Nanos, u64)>,
    /// How many checks of these are under way.
    late_under_way: usize,
    /// And how many may be.
    max_late: usize,
}

/// An endpoint of the pool.
struct Watched {
    endpoint: Arc<Endpoint>,
    state: CheckState,
    /// `None`: its check is under way.
    due: Option<Nanos>,
    /// Its last check timed out.
    is_late: bool,
}

impl Schedule {
    /// Without endpoints. `places`: how many checks are made at once. A check that times out holds its place longest, so
    /// endpoints whose last check did get half of the places at most: those that are known to hang delay no others.
    pub fn new(backends: Arc<Backends>, settings: Arc<HealthCheck>, places: usize) -> Self {
        Self {
            backends,
            settings,
            watched: HashMap::new(),
            due: BTreeSet::new(),
            late: BTreeSet::new(),
            late_under_way: 0,
            max_late: (places / 2).max(1),
        }
    }

    /// Takes over which endpoints the pool has now: new ones are due at once, removed ones are forgotten.
    pub fn follow(&mut self, now: Nanos) {
        let snapshot = self.backends.snapshot();
        let present: HashSet<u64> = snapshot.endpoints().iter().map(|endpoint| endpoint.id).collect();
        let Self { watched, due, late, late_under_way, .. } = self;
        watched.retain(|id, one| {
            if present.contains(id) {
                return true;
            }
            match one.due {
                Some(at) if one.is_late => _ = late.remove(&(at, *id)),
                Some(at) => _ = due.remove(&(at, *id)),
                None => *late_under_way -= usize::from(one.is_late),
            }
            false
        });
        for endpoint in snapshot.endpoints() {
            self.watched.entry(endpoint.id).or_insert_with(|| {
                self.due.insert((now, endpoint.id));
                let state = CheckState::new(&self.settings, endpoint.health());
                Watched { endpoint: Arc::clone(endpoint), state, due: Some(now), is_late: false }
            });
        }
    }

    /// Whether the pool still has it, as far as was followed.
    pub fn has(&self, id: u64) -> bool {
        self.watched.contains_key(&id)
    }

    /// Whose check is to be started now, longest due first; its check is under way from here on.
    pub fn next(&mut self, now: Nanos) -> Option<Arc<Endpoint>> {
        let (at, id) = self.first().filter(|(at, _)| *at <= now)?;
        let one = self.watched.get_mut(&id)?;
        one.due = None;
        if one.is_late {
            self.late.remove(&(at, id));
            self.late_under_way += 1;
        } else {
            self.due.remove(&(at, id));
        }
        Some(Arc::clone(&one.endpoint))
    }

    /// When [`Schedule::next`] will have something; `None`: only after a check has ended or the pool has changed.
    pub fn until(&self) -> Option<Nanos> {
        self.first().map(|(at, _)| at)
    }

    fn first(&self) -> Option<(Nanos, u64)> {
        let late = self.late.first().filter(|_| self.late_under_way < self.max_late);
        self.due.first().into_iter().chain(late).min().copied()
    }

    /// Writes down what a check that was started at that time has found. Nothing, if its endpoint was removed meanwhile:
    /// it concerns nobody, and may come of the removal itself.
    pub fn ended(&mut self, id: u64, started: Nanos, result: &CheckResult, now: Nanos) {
        let Some(one) = self.watched.get_mut(&id) else { return };
        one.state.take(result, &one.endpoint, &self.backends, now);
        self.late_under_way -= usize::from(one.is_late);
        one.is_late = result.as_ref().is_err_and(NotPassed::is_timeout);
        let took = Duration::from_nanos(now.saturating_sub(started));
        // Later than now, so that starting all that is due now comes to an end.
        let due = now.saturating_add(nanos(pause(self.settings.interval, took, fastrand::f64())).max(1));
        one.due = Some(due);
        if one.is_late {
            self.late.insert((due, id))
        } else {
            self.due.insert((due, id))
        };
    }
}

/// How long to wait after a check that took so long: from start to start it is the interval or a little less. `random`
/// is in 0..1.
fn pause(interval: Duration, took: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER * random).saturating_sub(took)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, pool, settings};
    use super::*;
    use balancer_pool::backend_state::Failed;
    use balancer_pool::health::Status;
    use std::net::SocketAddr;

    const S: Nanos = 1_000_000_000;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    /// Of that many endpoints, with that many places and checks a second apart.
    fn schedule(count: u16, places: usize) -> (Arc<Backends>, Schedule) {
        let pool = pool(&addresses(count));
        let second = Duration::from_secs(1);
        let settings = HealthCheck { interval: second, ..settings(second) };
        let mut schedule = Schedule::new(Arc::clone(&pool), Arc::new(settings), places);
        schedule.follow(0);
        (pool, schedule)
    }

    fn ports(schedule: &mut Schedule, now: Nanos) -> Vec<(u16, u64)> {
        std::iter::from_fn(|| schedule.next(now)).map(|one| (one.address.port(), one.id)).collect()
    }

    fn timed_out() -> CheckResult {
        Err(Failed::NoAnswer.into())
    }

    /// So `rise` checks of a backend that is back fit in `rise` intervals, even after one that timed out.
    #[test]
    fn checks_start_at_most_an_interval_apart() {
        let ms = Duration::from_millis;
        for (took, random, expected) in
            [(0, 0.0, 2_000), (0, 0.5, 1_900), (1_000, 0.0, 1_000), (1_000, 0.5, 900), (2_500, 0.0, 0)]
        {
            assert_eq!(pause(ms(2_000), ms(took), random), ms(expected), "{took} {random}");
        }
    }

    #[test]
    fn each_is_due_at_once_and_then_within_an_interval_of_its_start() {
        let (_pool, mut schedule) = schedule(3, 9);
        assert_eq!(schedule.until(), Some(0));
        let all = ports(&mut schedule, 0);
        assert_eq!(all.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(schedule.until(), None, "all are under way");
        for (_, id) in &all {
            schedule.ended(*id, 0, &Ok(200), S / 2);
        }
        assert!(ports(&mut schedule, S * 9 / 10 - 1).is_empty());
        assert_eq!(ports(&mut schedule, S).len(), 3);
    }

    #[test]
    fn what_a_check_of_a_removed_one_finds_is_not_written_down() {
        let (pool, mut schedule) = schedule(2, 9);
        let removed = Arc::clone(&pool.snapshot().endpoints()[0]);
        let under_way = schedule.next(0).unwrap();
        assert_eq!(under_way.id, removed.id);
        // The name comes back at the same place: that is another endpoint, with a first check of its own.
        for addresses in [&[][..], &addresses(1)] {
            pool.resolved(&entry(), addresses, 1);
            schedule.follow(1);
        }
        assert!(!schedule.has(removed.id));
        schedule.ended(removed.id, 0, &timed_out(), 2);
        assert_eq!((removed.health(), pool.backends()[0].checks()), (Status::Unknown, (0, 0)));
        let again = ports(&mut schedule, 2);
        assert_eq!(again.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [1]);
        assert_ne!(again[0].1, removed.id);
    }

    #[test]
    fn those_that_timed_out_get_half_of_the_places_among_them() {
        let (pool, mut schedule) = schedule(10, 4);
        let all = ports(&mut schedule, 0);
        for (port, id) in &all {
            schedule.ended(*id, 0, &if *port <= 6 { timed_out() } else { Ok(200) }, S);
        }
        // The sound ones, and two of the six.
        let now = ports(&mut schedule, 3 * S);
        assert_eq!(now.iter().filter(|(port, _)| *port <= 6).count(), 2, "{now:?}");
        assert_eq!(now.len(), 4 + 2);
        assert_eq!(schedule.until(), None);
        // One that answers again makes room, as one that hangs on does, and one that is removed.
        let late: Vec<_> = now.iter().filter(|(port, _)| *port <= 6).collect();
        schedule.ended(late[0].1, 3 * S, &Ok(200), 4 * S);
        assert_eq!(ports(&mut schedule, 4 * S).len(), 1);
        schedule.ended(late[1].1, 3 * S, &timed_out(), 4 * S);
        assert_eq!(ports(&mut schedule, 4 * S).len(), 1);
        pool.resolved(&entry(), &addresses(10)[6..], 1);
        schedule.follow(5 * S);
        assert_eq!((schedule.late_under_way, schedule.late.len()), (0, 0));
    }
}
