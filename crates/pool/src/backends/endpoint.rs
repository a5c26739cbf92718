//! What is balanced over: backends as configured, their endpoints, and the leases that count requests on them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::DEFAULT_POOL;
use super::measured::BoundInForce;
use super::outlier::EndpointStanding;
use crate::backend::{BackendEntry, Located, WHOLE};
use crate::fair::AutoBounds;
use crate::health::{LastCheck, Status};
use crate::queue::Queue;
use crate::sticky::{SigningKey, Token};
use crate::strategy::{FAILURE_COUNTS_AS, Latency, key_of, warming_weight};
use balancer_time::Nanos;
use balancer_time::nanos;

/// What the operator says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// Use it while it is healthy.
    Up,
    /// Nothing new goes there; what is under way ends.
    Drain,
    /// Out of service.
    Down,
}

/// One entry of `backends`: what all its endpoints share. Lives as long as the backend is configured, whatever its name
/// resolves to, so that its counters never fall.
#[derive(Debug)]
pub struct Backend {
    /// The name in the configuration, in logs, metrics and the API.
    pub name: Arc<str>,
    /// What its pool is called.
    pub pool: Arc<str>,
    /// What sentences call it: its name, behind that of its pool if that is not [`DEFAULT_POOL`].
    pub title: Arc<str>,
    /// The Host of health checks: [`BackendEntry::authority`].
    pub authority: String,
    url: String,
    /// Host of its URL: a name or an address.
    pub host: String,
    /// It is spoken to by TLS.
    pub is_tls: bool,
    backup: AtomicBool,
    /// How long an endpoint takes to its full share after it came up.
    slow_start: AtomicU64,
    weight: AtomicU32,
    operator: AtomicU8,
    /// Most requests at once on all its endpoints.
    pub(super) bound: BoundInForce,
    /// Written by [`super::Lease`] alone.
    pub(super) in_flight: AtomicU32,
    /// Workers that wait for an answer's head, or are held to its end. Written by [`super::Lease`] alone.
    pub(super) calling: AtomicU32,
    checks_passed: AtomicU64,
    checks_failed: AtomicU64,
    /// Requests that were sent again after an attempt at it.
    resent: AtomicU64,
    /// Bytes of its answers' bodies that clients got.
    delivered: AtomicU64,
    /// Why it has no address. Written by the resolver alone.
    absence: ArcSwapOption<Arc<str>>,
    /// The pool's line of requests that wait for room.
    pub(super) queue: Arc<Queue>,
}

impl Backend {
    pub(super) fn new(entry: &BackendEntry, pool: &Arc<str>) -> Self {
        Self {
            name: Arc::from(entry.name.as_str()),
            pool: Arc::clone(pool),
            title: title(pool, &entry.name).into(),
            authority: entry.authority(),
            url: entry.url(),
            host: entry.host.clone(),
            is_tls: entry.is_tls,
            backup: AtomicBool::new(entry.backup),
            slow_start: AtomicU64::new(nanos(entry.slow_start)),
            weight: AtomicU32::new(entry.weight),
            operator: AtomicU8::new(Operator::Up as u8),
            bound: BoundInForce::default(),
            in_flight: AtomicU32::new(0),
            calling: AtomicU32::new(0),
            checks_passed: AtomicU64::new(0),
            checks_failed: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            absence: ArcSwapOption::empty(),
            queue: Arc::default(),
        }
    }

    /// The same with that line.
    pub(super) fn waited_for_in(self, queue: &Arc<Queue>) -> Self {
        Self { queue: Arc::clone(queue), ..self }
    }

    /// The same with the bound of its entry; a measured one begins now.
    pub(super) fn bounded(self, entry: &BackendEntry, auto: AutoBounds, now: Nanos) -> Self {
        self.bound.set(entry.max_in_flight, auto, now);
        self
    }

    /// The same backend under the same name, with what was counted of it and the operator's word, at another place.
    pub(super) fn moved(&self, entry: &BackendEntry) -> Self {
        let (passed, failed) = self.checks();
        Self {
            operator: AtomicU8::new(self.operator() as u8),
            checks_passed: AtomicU64::new(passed),
            checks_failed: AtomicU64::new(failed),
            resent: AtomicU64::new(self.resent()),
            delivered: AtomicU64::new(self.delivered()),
            bound: BoundInForce::default().with_probes_of(&self.bound),
            queue: Arc::clone(&self.queue),
            ..Self::new(entry, &self.pool)
        }
    }

    /// Whether that entry names the same place.
    pub(super) fn is_at(&self, entry: &BackendEntry) -> bool {
        self.url == entry.url()
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes over what an entry says beside its name and its place. Needs the pool's writer's lock.
    pub(super) fn set_terms(&self, entry: &BackendEntry, auto: AutoBounds, now: Nanos) {
        self.weight.store(entry.weight, Ordering::Relaxed);
        self.backup.store(entry.backup, Ordering::Relaxed);
        self.slow_start.store(nanos(entry.slow_start), Ordering::Relaxed);
        self.bound.set(entry.max_in_flight, auto, now);
    }

    /// Used only when no other backend is left.
    pub fn backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// Share relative to the others, for each of its endpoints; 0 gets nothing new.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// What the operator says.
    pub fn operator(&self) -> Operator {
        match self.operator.load(Ordering::Relaxed) {
            code if code == Operator::Up as u8 => Operator::Up,
            code if code == Operator::Drain as u8 => Operator::Drain,
            _ => Operator::Down,
        }
    }

    /// Says what the operator wants. Only what serves the operator calls it.
    pub fn set_operator(&self, operator: Operator) {
        self.operator.store(operator as u8, Ordering::Relaxed);
        self.queue.changed();
    }

    /// Why it has no address, as long as it has none.
    pub fn absence(&self) -> Option<Arc<str>> {
        self.absence.load().as_deref().cloned()
    }

    /// Says why it has no address. Only the resolver calls it.
    pub fn set_absence(&self, cause: &str) {
        self.absence.store(Some(Arc::new(cause.into())));
    }

    /// Workers that its endpoints hold.
    pub fn calling(&self) -> u32 {
        self.calling.load(Ordering::Relaxed)
    }

    /// Requests in flight on all its endpoints, on former ones too.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Health checks that passed and that failed, of all its endpoints.
    pub fn checks(&self) -> (u64, u64) {
        (self.checks_passed.load(Ordering::Relaxed), self.checks_failed.load(Ordering::Relaxed))
    }

    /// Counts a health check. For the prober.
    pub fn count_check(&self, passed: bool) {
        let counter = if passed { &self.checks_passed } else { &self.checks_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were sent again after an attempt at it.
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Counts one of them.
    pub fn count_resent(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of its answers' bodies that clients got.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts those of one answer.
    pub fn count_delivered(&self, bytes: u64) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A backend's name among those of all pools: `a` of the default pool, `api/a` of the pool `api`. No name holds a slash.
pub fn title(pool: &str, name: &str) -> String {
    if pool == DEFAULT_POOL { name.to_owned() } else { format!("{pool}/{name}") }
}

/// The unit of balancing: one address of one backend. Carried across snapshots while it does not change, with its
/// counters and its health.
#[derive(Debug)]
pub struct Endpoint {
    /// The backend's name in the configuration.
    pub backend: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Never used again in this process; what a pool of connections is keyed by.
    pub id: u64,
    /// What it shares with the backend's other addresses: weight and the operator's word.
    pub group: Arc<Backend>,
    /// Its [`Located::tier`] and [`Located::weight`]. Written under the pool's writer's lock.
    tier: AtomicU16,
    weight: AtomicU32,
    /// What a sticky session's cookie names it by; none: sessions do not stick. Written under the pool's writer's lock.
    token: ArcSwapOption<Token>,
    /// What `hash` knows it by: the same in every process that calls it so.
    pub(super) identity: u64,
    /// Written by [`super::Lease`] alone.
    pub(super) in_flight: AtomicU32,
    /// Written by the prober alone, through [`super::Backends::set_health`].
    pub(super) health: AtomicU8,
    /// Why its checks fail, while it is down. Written by the prober alone.
    pub(super) failing: ArcSwapOption<Arc<str>>,
    /// Written by the prober alone.
    last_check: ArcSwapOption<LastCheck>,
    /// When it came up while others were running; 0: it always was. Written as `health` is.
    pub(super) up_since: AtomicU64,
    /// Whether it is out because of how it answered. Written by [`super::outlier`] alone.
    pub(super) standing: EndpointStanding,
    /// A [`Latency`]. Written by [`Endpoint::observe_latency`] alone.
    pace: AtomicU64,
    /// Written by round robin alone, under the lock of the turns.
    pub(super) turn: AtomicI64,
}

impl Endpoint {
    /// A new endpoint with an id of its own, that is new since then; 0: it is no newcomer.
    pub fn new(group: Arc<Backend>, located: Located, health: Status, since: Nanos) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let Located { tier, address, weight } = located;
        Self {
            backend: Arc::clone(&group.name),
            address,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            token: ArcSwapOption::empty(),
            identity: key_of(format!("{}\n{address}", group.name).as_bytes()),
            group,
            tier: AtomicU16::new(tier),
            weight: AtomicU32::new(weight),
            in_flight: AtomicU32::new(0),
            health: AtomicU8::new(health as u8),
            failing: ArcSwapOption::empty(),
            last_check: ArcSwapOption::empty(),
            up_since: AtomicU64::new(since),
            standing: EndpointStanding::default(),
            pace: AtomicU64::new(0),
            turn: AtomicI64::new(0),
        }
    }

    /// An endpoint that belongs to no pool: weight 1, healthy. For trying out an upstream by itself.
    pub fn alone(backend: &str, address: SocketAddr) -> Arc<Self> {
        let entry = BackendEntry::new(backend, &address.ip().to_string(), address.port());
        Arc::new(Self::new(
            Arc::new(Backend::new(&entry, &DEFAULT_POOL.into())),
            address.into(),
            Status::Up,
            0,
        ))
    }

    /// What the health checks say.
    pub fn health(&self) -> Status {
        match self.health.load(Ordering::Relaxed) {
            code if code == Status::Up as u8 => Status::Up,
            code if code == Status::Down as u8 => Status::Down,
            _ => Status::Unknown,
        }
    }

    /// Says why its checks fail. For the prober alone, before it says that they do.
    pub fn set_failing(&self, cause: &str) {
        self.failing.store(Some(Arc::new(cause.into())));
    }

    /// What its last check came to; `None`: none has ended yet.
    pub fn last_check(&self) -> Option<Arc<LastCheck>> {
        self.last_check.load_full()
    }

    /// Says what its last check came to. For the prober alone.
    pub fn set_last_check(&self, check: LastCheck) {
        self.last_check.store(Some(Arc::new(check)));
    }

    /// Says why its answers took it out.
    pub fn set_ejected_for(&self, cause: &str) {
        self.standing.set_cause(cause);
    }

    /// Requests in flight on it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Its share as strategies count it: smaller than its weight says while it warms up.
    pub fn effective_weight(&self, now: Nanos) -> u32 {
        let up_for = match self.up_since.load(Ordering::Relaxed).max(self.standing.back_since()) {
            0 => Nanos::MAX,
            since => now.saturating_sub(since),
        };
        let full = self.group.weight().saturating_mul(self.weight.load(Ordering::Relaxed));
        warming_weight(full, up_for, self.group.slow_start.load(Ordering::Relaxed))
    }

    /// See [`Located::tier`].
    pub fn tier(&self) -> u16 {
        self.tier.load(Ordering::Relaxed)
    }

    /// Its share relative to all other endpoints of its pool, while it is not warming up.
    pub fn weight(&self) -> f64 {
        f64::from(self.group.weight()) * f64::from(self.weight.load(Ordering::Relaxed)) / f64::from(WHOLE)
    }

    /// It is used as that says from now on. Whether that is a change. Needs the pool's writer's lock.
    pub(super) fn set_use(&self, located: &Located) -> bool {
        let tier = self.tier.swap(located.tier, Ordering::Relaxed);
        let weight = self.weight.swap(located.weight, Ordering::Relaxed);
        (tier, weight) != (located.tier, located.weight)
    }

    /// What a sticky session's cookie names it by; `None`: sessions do not stick.
    pub fn token(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    /// Names it anew, or not at all. Needs the pool's writer's lock.
    pub(super) fn set_token(&self, key: Option<&SigningKey>) {
        let of = |key| Token::of(key, &self.backend, self.address);
        self.token.store(key.map(of).map(Arc::new));
    }

    /// What is known of its latency.
    pub(super) fn pace(&self) -> Latency {
        Latency::from_bits(self.pace.load(Ordering::Relaxed))
    }

    /// Takes one more attempt into account.
    pub(super) fn observe_latency(&self, took: Nanos, failed: bool, now: Nanos) {
        let took = if failed { took.max(FAILURE_COUNTS_AS) } else { took };
        let next = |bits| Some(Latency::from_bits(bits).observe(took, now).bits());
        // The closure always gives a value, so this always succeeds.
        let _ = self.pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Whether it counts as up: in service, and not taken out by its health checks. One that was never checked counts.
    pub fn is_up(&self) -> bool {
        self.in_service() && self.health() != Status::Down
    }

    /// Whether it is out because of how it answered, or being probed after that.
    pub fn is_ejected(&self) -> bool {
        self.standing.is_out()
    }

    /// Whether configuration and operator let anything new go there, health aside.
    pub fn in_service(&self) -> bool {
        self.group.weight() > 0 && self.group.operator() == Operator::Up
    }
}
