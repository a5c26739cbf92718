//! The pool at one moment, and how one of its endpoints is picked.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::endpoint::{Backend, Endpoint};
use super::lease::{Lease, LeaseTerms, Refused, Total};
use super::outlier::{Ejection, Out, Outliers};
use crate::health::Status;
use crate::policy::PoolPolicy;
use crate::sticky::SigningKey;
use crate::strategy::{Candidate, Draw, Strategy};
use balancer_time::Nanos;

/// How often a pick begins again because a count that it was based on has changed. After that it does not compare the
/// count.
const MAX_REPICKS: usize = 4;

/// How often a pick begins again at all. After [`MAX_REPICKS`] it does so only if other requests took the last place of
/// what it picked meanwhile, so more than a few in a row are a fault of ours, which must not keep a thread busy for
/// ever.
const MAX_ROUNDS: usize = 1_000;

/// The settings by which endpoints are picked.
#[derive(Debug)]
pub(super) struct Picker {
    pub strategy: Strategy,
    /// Held while a strategy that keeps turns reads, decides and writes them; never across I/O.
    pub turns: Arc<Mutex<()>>,
    /// Most workers that one backend may hold while there is another one.
    pub most_workers: u32,
    /// The bound of the whole pool.
    pub total: Option<Total>,
    /// No other pool takes requests.
    pub alone: bool,
    /// When endpoints are ejected because of their answers; `None`: never.
    pub outliers: Option<Outliers>,
    /// Whether there are health checks. Without them every endpoint counts as healthy.
    pub checked: bool,
    /// The secret for endpoints' tokens.
    pub sticky: Option<SigningKey>,
}

/// What a request asks of a pick.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Ids of endpoints that must not be picked.
    pub tried: &'a [u64],
    /// The key of the request ([`crate::strategy::key_of`]); only `hash` uses it.
    pub key: u64,
    /// The present.
    pub now: Nanos,
    /// The request can be sent again if it fails, so that it may probe an endpoint that is half open.
    pub may_probe: bool,
    /// What the client sent as tokens ([`crate::sticky`]). The first endpoint that has one of them and room is picked.
    pub preferred: &'a [&'a [u8]],
    /// Id of the endpoint to which the client's connection is bound. It comes before all others.
    pub bound_to: Option<u64>,
}

/// Why no endpoint was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Every endpoint was tried, must not be used or is down.
    Nobody,
    /// An endpoint could be picked if it had room.
    Full,
}

/// The order of picking: none of a later rank is picked while one of an earlier rank can be. The numbers are tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It is half open: the next request probes it.
    Probe,
    /// It passed its health checks.
    Regular(u16),
    /// It passed its health checks, and is of a backup.
    Backup(u16),
    /// It was never checked.
    Unknown(u16),
    /// It is out because of its answers, which is better than none.
    Ejected,
}

/// The pool at one moment. Its lists never change; counters and health in them do.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) backends: Vec<Arc<Backend>>,
    pub(super) picker: Arc<Picker>,
    pub(super) policy: Arc<PoolPolicy>,
}

/// What [`Snapshot::gather`] found beside the candidates.
struct Seen {
    /// The rank of all candidates.
    rank: Rank,
    /// Whether an endpoint was left out because it has no room.
    full: bool,
    /// Whether a backend holds its share of the workers.
    over_share: bool,
    /// Whether there are several backends that can be used, or other pools.
    several: bool,
}

impl Snapshot {
    pub(super) fn new(
        endpoints: Vec<Arc<Endpoint>>,
        backends: Vec<Arc<Backend>>,
        picker: Arc<Picker>,
        policy: Arc<PoolPolicy>,
    ) -> Self {
        Self { endpoints, backends, picker, policy }
    }

    /// All endpoints, whatever their state, in the order of the configuration and then by address.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The configured backends, in order, with their counters.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// How one of several endpoints is picked.
    pub fn strategy(&self) -> Strategy {
        self.picker.strategy
    }

    /// How the pool is used.
    pub fn policy(&self) -> &PoolPolicy {
        &self.policy
    }

    /// Picks an endpoint that was not tried, and counts the request on it, within all bounds. Endpoints that passed
    /// their health checks come first, then backups, then those that were never checked, each tier by tier. An ejected
    /// one is used only if there is no other; one that is down, never. Takes the lock of the turns under round robin,
    /// and the lock of a measured bound.
    ///
    /// # Errors
    /// No endpoint can take the request.
    pub fn pick(&self, wanted: &Wanted<'_>) -> Result<Lease, Unavailable> {
        let bound = wanted.bound_to.and_then(|id| self.pick_preferred(wanted, |one| one.id == id));
        let named =
            |sent: &&[u8]| self.pick_preferred(wanted, |one| one.token().is_some_and(|token| token.is(sent)));
        if let Some(lease) = bound.or_else(|| wanted.preferred.iter().find_map(named)) {
            return Ok(lease);
        }
        thread_local!(static SCRATCH: Cell<Vec<Candidate>> = const { Cell::new(Vec::new()) });
        let mut candidates = SCRATCH.take();
        let lease = self.pick_among(wanted, &mut candidates);
        SCRATCH.set(candidates);
        lease
    }

    /// Picks the endpoint for which `is_meant` is true. `None`: it is gone, or can't take the request.
    fn pick_preferred(&self, wanted: &Wanted<'_>, is_meant: impl Fn(&Endpoint) -> bool) -> Option<Lease> {
        let endpoint = self.endpoints.iter().find(|one| is_meant(one))?;
        let rank = self.rank(endpoint, wanted).filter(|rank| *rank < Rank::Unknown(0))?;
        let group = &endpoint.group;
        if self.pool_is_full() || group.bound.is_full(group.in_flight()) {
            return None;
        }
        let is_other = |one: &Arc<Endpoint>| {
            !Arc::ptr_eq(&one.group, group) && self.rank(one, wanted).is_some_and(|rank| rank < Rank::Ejected)
        };
        let most = self.picker.most_workers;
        if group.calling() >= most && self.endpoints.iter().any(is_other) {
            return None;
        }
        let terms = LeaseTerms {
            seen: None,
            most_workers: u32::MAX,
            share: most,
            total: self.picker.total.as_ref(),
            as_probe: rank == Rank::Probe,
            now: wanted.now,
        };
        Lease::take(endpoint, terms).ok()
    }

    fn pick_among(&self, wanted: &Wanted<'_>, candidates: &mut Vec<Candidate>) -> Result<Lease, Unavailable> {
        let Picker { strategy, turns, most_workers, total, .. } = &*self.picker;
        let _turns = strategy.keeps_turns().then(|| turns.lock());
        for round in 0..MAX_ROUNDS {
            let seen = self.gather_within_shares(wanted, candidates)?;
            // Checked before anything is counted: to take a count back would look like room to a request that waits.
            if self.pool_is_full() {
                return Err(Unavailable::Full);
            }
            let draw = Draw { random: fastrand::u64(..), key: wanted.key };
            let index = strategy.pick(candidates, draw).ok_or(Unavailable::Nobody)?;
            if strategy.keeps_turns() {
                for candidate in candidates.iter() {
                    self.at(candidate).turn.store(candidate.turn, Ordering::Relaxed);
                }
            }
            let chosen = candidates[index];
            let terms = LeaseTerms {
                // If another pick came between looking and counting, looks again. Otherwise a burst would go to one
                // endpoint.
                seen: (!strategy.keeps_turns() && round < MAX_REPICKS).then_some(chosen.in_flight),
                most_workers: if seen.several { *most_workers } else { u32::MAX },
                share: *most_workers,
                total: total.as_ref(),
                as_probe: seen.rank == Rank::Probe,
                now: wanted.now,
            };
            match Lease::take(self.at(&chosen), terms) {
                Ok(lease) => return Ok(lease),
                Err(Refused::Moved | Refused::Full) => {}
            }
        }
        Err(Unavailable::Full)
    }

    /// Whether any endpoint could take this request, now or once it has room.
    pub fn knows_any(&self, wanted: &Wanted<'_>) -> bool {
        self.endpoints.iter().any(|one| self.rank(one, wanted).is_some())
    }

    /// Whether there is room that this request can't take but another one could: on an endpoint that this one has
    /// tried, or on a half-open one, which only a request that can be sent again may probe.
    pub fn leaves_room(&self, wanted: &Wanted<'_>) -> bool {
        let other = Wanted { tried: &[], may_probe: true, ..*wanted };
        !self.pool_is_full()
            && self.endpoints.iter().any(|one| {
                let rank = self.rank(one, &other).filter(|rank| *rank < Rank::Ejected);
                rank.is_some()
                    && !one.group.bound.is_full(one.group.in_flight())
                    && self.rank(one, wanted) != rank
            })
    }

    fn pool_is_full(&self) -> bool {
        self.picker.total.as_ref().is_some_and(|total| total.count.load(Ordering::Relaxed) >= total.most)
    }

    /// [`Snapshot::gather`], without backends that hold their share of the workers if there are others.
    fn gather_within_shares(
        &self,
        wanted: &Wanted<'_>,
        candidates: &mut Vec<Candidate>,
    ) -> Result<Seen, Unavailable> {
        let mut seen = self.gather(wanted, candidates, false);
        if seen.over_share && seen.several {
            seen = Seen { several: true, ..self.gather(wanted, candidates, true) };
        }
        // It is better to wait for one that is full than to use one that fails.
        if candidates.is_empty() || (seen.full && seen.rank == Rank::Ejected) {
            return Err(if seen.full { Unavailable::Full } else { Unavailable::Nobody });
        }
        Ok(seen)
    }

    /// Fills `candidates` with the endpoints with room that have the best rank.
    fn gather(&self, wanted: &Wanted<'_>, candidates: &mut Vec<Candidate>, within_share: bool) -> Seen {
        candidates.clear();
        let mut seen =
            Seen { rank: Rank::Ejected, full: false, over_share: false, several: !self.picker.alone };
        let mut backend: Option<&Arc<Backend>> = None;
        for (position, endpoint) in (0u32..).zip(&self.endpoints) {
            let Some(rank) = self.rank(endpoint, wanted) else { continue };
            let group = &endpoint.group;
            if rank != Rank::Ejected {
                seen.several |= backend.is_some_and(|other| !Arc::ptr_eq(other, group));
                backend = Some(group);
            }
            let over_share = group.calling() >= self.picker.most_workers;
            seen.over_share |= over_share;
            if group.bound.is_full(group.in_flight()) || (within_share && over_share) {
                seen.full |= rank != Rank::Ejected;
                continue;
            }
            if rank > seen.rank {
                continue;
            }
            if rank < seen.rank {
                candidates.clear();
                seen.rank = rank;
            }
            candidates.push(self.candidate(position, endpoint, wanted.now));
        }
        seen
    }

    fn candidate(&self, position: u32, endpoint: &Endpoint, now: Nanos) -> Candidate {
        let in_flight = endpoint.in_flight();
        let latency_ns = if self.picker.strategy.needs_latency() {
            endpoint.pace().expected_ns(in_flight, now)
        } else {
            0
        };
        Candidate {
            position,
            weight: endpoint.effective_weight(now),
            in_flight,
            turn: endpoint.turn.load(Ordering::Relaxed),
            identity: endpoint.identity,
            latency_ns,
        }
    }

    fn at(&self, candidate: &Candidate) -> &Arc<Endpoint> {
        &self.endpoints[candidate.position as usize]
    }

    /// An endpoint's rank for this request; `None`: it must not be picked.
    fn rank(&self, endpoint: &Endpoint, wanted: &Wanted<'_>) -> Option<Rank> {
        if !endpoint.in_service() || wanted.tried.contains(&endpoint.id) {
            return None;
        }
        let tier = endpoint.tier();
        let rank = match endpoint.health() {
            Status::Up if endpoint.group.backup() => Rank::Backup(tier),
            Status::Up => Rank::Regular(tier),
            Status::Unknown => Rank::Unknown(tier),
            Status::Down => return None,
        };
        let Some(outliers) = &self.picker.outliers else { return Some(rank) };
        Some(match endpoint.standing.out(wanted.now) {
            Out::No => rank,
            Out::HalfOpen(since) if wanted.may_probe || since > outliers.patience() => match rank {
                Rank::Regular(0) => Rank::Probe,
                other => other,
            },
            Out::Yes | Out::HalfOpen(_) => Rank::Ejected,
        })
    }

    /// Takes into account how an attempt ended. `took`: the time to the answer's head, or to the failure. An endpoint
    /// may go out or come back for it; then it takes the ejections' lock.
    pub fn observe(&self, lease: &mut Lease, took: Nanos, failed: bool, now: Nanos) -> Option<Ejection> {
        let Picker { strategy, outliers, .. } = &*self.picker;
        if strategy.needs_latency() {
            lease.endpoint.observe_latency(took, failed, now);
        }
        let outliers = outliers.as_ref()?;
        let standing = &lease.endpoint.standing;
        let ejection = if std::mem::take(&mut lease.is_probe) {
            outliers.conclude_probe(standing, failed, now)
        } else {
            let up = self.endpoints.iter().filter(|one| one.is_up()).map(|one| &one.standing);
            outliers.observe(standing, up, failed, now)
        };
        if ejection.is_some() {
            lease.endpoint.group.queue.changed();
        }
        ejection
    }
}
