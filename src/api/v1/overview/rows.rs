//! The rows of the overview: pools, their backends, and clients that are close to a limit. What is bad comes first.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{FEW, Rates, WellBeing};
use crate::api::AdminApi;
use crate::api::v1::backends::BackendShown;
use crate::api::v1::live::{BucketLevel, Live, client_name, shown};
use crate::api::v1::pools::PoolShown;
use crate::history::{RecentBackend, RecentRates};
use crate::proxy::policy::ProxyPolicy;
use balancer_limiter::heavy_hitters::Heavy;
use balancer_limiter::limiter::Ask;
use balancer_pool::backend_state::State;
use balancer_pool::backends::{Backend, Snapshot};
use balancer_time::{Nanos, nanos};

/// A backend is bad when this share of its attempts fails.
const MOST_FAIL: f64 = 0.5;

/// A client is close to its limit when it has used more than this part of a bucket.
const CLOSE: f64 = 0.8;

/// Most clients that are shown as close to a limit.
const MAX_CLOSE: usize = 15;

/// A pool, without its backends.
#[derive(Serialize)]
pub(super) struct PoolGlance {
    pub level: WellBeing,
    #[serde(flatten)]
    pub pool: PoolShown,
    backends_up: usize,
    backends_total: usize,
    requests_per_sec: f64,
    errors_per_sec: f64,
}

/// A backend with all that is known of it.
#[derive(Serialize)]
pub(super) struct BackendGlance {
    pub level: WellBeing,
    /// Its name in sentences.
    title: String,
    #[serde(flatten)]
    backend: BackendShown,
    /// `up`, `drain`, `down` or `ejected`: the operator's word, then its health.
    is: &'static str,
    /// For how many seconds it has been so.
    since: f64,
    last_check: Option<CheckRow>,
    #[serde(flatten)]
    now: Rates,
    /// All counts are from the start of the process.
    requests: u64,
    errors: u64,
    retries: u64,
    response_bytes: u64,
    checks: CheckCounts,
    #[serde(skip)]
    state: State,
    /// Its level, without regard to errors.
    #[serde(skip)]
    state_level: WellBeing,
    #[serde(skip)]
    pub mostly_fails: bool,
}

/// The last health check: what came, how long it took, how long ago it ended.
#[derive(Serialize)]
struct CheckRow {
    address: std::net::SocketAddr,
    passed: bool,
    came: String,
    took: f64,
    age: f64,
}

#[derive(Serialize)]
struct CheckCounts {
    passed: u64,
    failed: u64,
}

/// A bucket that is nearly empty.
#[derive(Serialize)]
pub(super) struct CloseRow {
    client_id: String,
    #[serde(flatten)]
    bucket: BucketLevel,
}

impl BackendGlance {
    /// Whether it is given requests like any other.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether all is well with it, without regard to errors.
    pub fn is_whole(&self) -> bool {
        self.state_level == WellBeing::Ok
    }

    /// Its level for the first line, where a few errors are told of as errors and not as a backend that is not well.
    pub fn level_in_line(&self) -> WellBeing {
        if self.mostly_fails { WellBeing::Bad } else { self.state_level }
    }
}

/// The pools and backends of one policy: the worst first, those of one level in the order of the configuration.
pub(super) fn rows(
    api: &AdminApi,
    policy: &ProxyPolicy,
    recent: &RecentRates,
    now: Nanos,
) -> (Vec<PoolGlance>, Vec<BackendGlance>) {
    let (mut pools, mut backends) = (Vec::new(), Vec::new());
    for pool in policy.pools.iter() {
        let snapshot = pool.backends.snapshot();
        let own = snapshot.backends().iter().map(|group| backend_row(api, &snapshot, group, recent, now));
        let own: Vec<BackendGlance> = own.collect();
        let shown = PoolShown::of(pool, &snapshot, now);
        let sum = |of: fn(&Rates) -> f64| super::rounded(own.iter().map(|one| of(&one.now)).sum(), 1e3);
        let level = match () {
            () if !shown.up && !own.is_empty() => WellBeing::Bad,
            () if shown.waiting > 0 => WellBeing::Warn,
            () => WellBeing::Ok,
        };
        pools.push(PoolGlance {
            level,
            pool: shown,
            backends_up: own.iter().filter(|one| one.is_up()).count(),
            backends_total: own.len(),
            requests_per_sec: sum(|now| now.requests_per_sec),
            errors_per_sec: sum(|now| now.errors_per_sec),
        });
        backends.extend(own);
    }
    pools.sort_by_key(|pool| std::cmp::Reverse(pool.level));
    backends.sort_by_key(|one| std::cmp::Reverse(one.level));
    (pools, backends)
}

fn backend_row(
    api: &AdminApi,
    snapshot: &Snapshot,
    group: &Arc<Backend>,
    recent: &RecentRates,
    now: Nanos,
) -> BackendGlance {
    let key = (group.pool.to_string(), group.name.to_string());
    let own = recent.backends.get(&key).copied().unwrap_or_default();
    let state = snapshot.told(group).state;
    let backend = api.parts.control.shown(snapshot, group);
    let state_level = match state {
        State::Down | State::Ejected if group.withheld().is_none() => WellBeing::Bad,
        State::Up if backend.cause.is_none() => WellBeing::Ok,
        _ => WellBeing::Warn,
    };
    let RecentBackend { counted: (attempts, failed), .. } = own;
    let mostly_fails = failed >= FEW && failed as f64 >= MOST_FAIL * attempts as f64;
    let error_level = match failed {
        0 => WellBeing::Ok,
        _ if mostly_fails => WellBeing::Bad,
        _ => WellBeing::Warn,
    };
    let since = api.parts.live.history.since(&key).unwrap_or(now);
    let (passed, failed) = group.checks();
    BackendGlance {
        level: state_level.max(error_level),
        title: group.title.to_string(),
        backend,
        is: state.name(),
        since: seconds(now.saturating_sub(since)),
        last_check: last_check(snapshot, group, now),
        now: Rates::of(&own.rates),
        requests: own.requests,
        errors: own.errors,
        retries: group.resent(),
        response_bytes: group.delivered(),
        checks: CheckCounts { passed, failed },
        state,
        state_level,
        mostly_fails,
    }
}

/// Of several addresses one whose check failed, else the one that was checked last.
fn last_check(snapshot: &Snapshot, group: &Arc<Backend>, now: Nanos) -> Option<CheckRow> {
    let checked = snapshot.own(group).filter_map(|one| Some((one.address, one.last_check()?)));
    let (address, check) = checked.max_by_key(|(_, check)| (!check.passed, check.ended))?;
    Some(CheckRow {
        address,
        passed: check.passed,
        came: check.came.clone(),
        took: seconds(check.took),
        age: seconds(now.saturating_sub(check.ended)),
    })
}

fn seconds(ns: Nanos) -> f64 {
    super::rounded(ns as f64 / 1e9, 1e6)
}

impl Live {
    /// The nearly empty buckets of the busiest clients, the emptiest first. Clients whose limits are not in memory are
    /// left out: it waits for no database.
    pub(super) fn close(&self, window: Duration, busiest: usize) -> Vec<CloseRow> {
        let busy = self.heavy_hitters.by_requests(nanos(window), busiest, self.clock.now());
        let mut close: Vec<(f64, CloseRow)> = Vec::new();
        for client in &busy {
            let name = client_name(client);
            for bucket in self.levels_of(client) {
                let used = 1.0 - f64::from(bucket.level) / f64::from(bucket.capacity.max(1));
                if used > CLOSE && bucket.capacity > 0 {
                    close.push((used, CloseRow { client_id: name.clone(), bucket }));
                }
            }
        }
        close.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        close.into_iter().take(MAX_CLOSE).map(|(_, row)| row).collect()
    }

    fn levels_of(&self, client: &Heavy) -> Vec<BucketLevel> {
        let when = self.clock.moment();
        let found = match client.client.network() {
            Some(network) => self.limits.peek(network.addr()),
            None => client.name.as_ref().and_then(|id| self.limits.peek_key(id)),
        };
        let Some(found) = found else { return Vec::new() };
        let Some(grant) = found.granted.grant() else { return Vec::new() };
        let ask = Ask { grant: Some(grant), rules: &[], cost: 1, room: found.room };
        let levels = self.limiter.levels(client.client, ask, when);
        shown(&grant.terms.buckets, &levels.buckets)
    }
}
