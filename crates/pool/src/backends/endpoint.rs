//! Backends as configured, and their endpoints, over which requests are balanced.

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

/// The operator's word about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operator {
    /// It is used while it is healthy.
    Up,
    /// It gets no new requests; those under way go on.
    Drain,
    /// It is out of service.
    Down,
}

/// One entry of `backends`: what all its endpoints share. Exists as long as the backend is configured, whatever
/// addresses its name has, so that its counters never decrease.
#[derive(Debug)]
pub struct Backend {
    /// The name in the configuration, in logs, metrics and the API.
    pub name: Arc<str>,
    /// Its pool's name.
    pub pool: Arc<str>,
    /// Its name in messages, see [`title`].
    pub title: Arc<str>,
    /// The Host of health checks: [`BackendEntry::authority`].
    pub authority: String,
    url: String,
    /// The host in its URL: a name or an address.
    pub host: String,
    /// Whether it is called over TLS.
    pub is_tls: bool,
    backup: AtomicBool,
    /// Nanoseconds in which the share of an endpoint that came up grows to the full one.
    slow_start: AtomicU64,
    weight: AtomicU32,
    operator: AtomicU8,
    /// Most requests at once on all its endpoints.
    pub(super) bound: BoundInForce,
    /// Only [`super::Lease`] writes it.
    pub(super) in_flight: AtomicU32,
    /// Workers that its requests hold. Only [`super::Lease`] writes it.
    pub(super) calling: AtomicU32,
    checks_passed: AtomicU64,
    checks_failed: AtomicU64,
    /// Requests that were sent again after an attempt at it.
    resent: AtomicU64,
    /// Bytes of its answers' bodies that clients got.
    delivered: AtomicU64,
    /// Why it has no address. Only the resolver writes it.
    absence: ArcSwapOption<Arc<str>>,
    /// The pool's line of waiting requests.
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

    /// The same backend with that line.
    pub(super) fn waited_for_in(self, queue: &Arc<Queue>) -> Self {
        Self { queue: Arc::clone(queue), ..self }
    }

    /// The same backend with the bound of its entry; a measured one begins at `now`.
    pub(super) fn bounded(self, entry: &BackendEntry, auto: AutoBounds, now: Nanos) -> Self {
        self.bound.set(entry.max_in_flight, auto, now);
        self
    }

    /// A backend for an entry of the same name with another URL. Keeps the counters and the operator's word.
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

    /// Whether that entry has the same URL.
    pub(super) fn is_at(&self, entry: &BackendEntry) -> bool {
        self.url == entry.url()
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Takes over everything of an entry except its name and its URL. The pool's writer's lock must be held.
    pub(super) fn set_terms(&self, entry: &BackendEntry, auto: AutoBounds, now: Nanos) {
        self.weight.store(entry.weight, Ordering::Relaxed);
        self.backup.store(entry.backup, Ordering::Relaxed);
        self.slow_start.store(nanos(entry.slow_start), Ordering::Relaxed);
        self.bound.set(entry.max_in_flight, auto, now);
    }

    /// Whether it is used only if no other backend is left.
    pub fn backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// The share of each of its endpoints relative to others; 0: they get no new requests.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The operator's word.
    pub fn operator(&self) -> Operator {
        match self.operator.load(Ordering::Relaxed) {
            code if code == Operator::Up as u8 => Operator::Up,
            code if code == Operator::Drain as u8 => Operator::Drain,
            _ => Operator::Down,
        }
    }

    /// Sets the operator's word. To be called for the operator alone.
    pub fn set_operator(&self, operator: Operator) {
        self.operator.store(operator as u8, Ordering::Relaxed);
        self.queue.changed();
    }

    /// Why it has no address, as long as it has none.
    pub fn absence(&self) -> Option<Arc<str>> {
        self.absence.load().as_deref().cloned()
    }

    /// Notes why it has no address. Only the resolver calls it.
    pub fn set_absence(&self, cause: &str) {
        self.absence.store(Some(Arc::new(cause.into())));
    }

    /// Workers that its endpoints hold.
    pub fn calling(&self) -> u32 {
        self.calling.load(Ordering::Relaxed)
    }

    /// Requests in flight on all its endpoints, those included that were removed.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Numbers of health checks of all its endpoints that passed and that failed.
    pub fn checks(&self) -> (u64, u64) {
        (self.checks_passed.load(Ordering::Relaxed), self.checks_failed.load(Ordering::Relaxed))
    }

    /// Counts a health check. Only the prober calls it.
    pub fn count_check(&self, passed: bool) {
        let counter = if passed { &self.checks_passed } else { &self.checks_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were sent again after an attempt at it.
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Counts a request that is sent again.
    pub fn count_resent(&self) {
        self.resent.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of its answers' bodies that clients got.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Counts the bytes of one answer's body.
    pub fn count_delivered(&self, bytes: u64) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A backend's name among those of all pools: `a` in the default pool, `api/a` in the pool `api`. Names hold no slash.
pub fn title(pool: &str, name: &str) -> String {
    if pool == DEFAULT_POOL { name.to_owned() } else { format!("{pool}/{name}") }
}

/// The unit of balancing: one address of one backend. While it stays, snapshots carry it over with its counters and its
/// health.
#[derive(Debug)]
pub struct Endpoint {
    /// The backend's name in the configuration.
    pub backend: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// No other endpoint of this process ever has this id. Kept connections are found by it.
    pub id: u64,
    /// The backend, with what all its endpoints share.
    pub group: Arc<Backend>,
    /// Its [`Located::tier`] and [`Located::weight`]. Written under the pool's writer's lock.
    tier: AtomicU16,
    weight: AtomicU32,
    /// Its token in the cookie of sticky sessions; none: sessions do not stick. Written under the pool's writer's lock.
    token: ArcSwapOption<Token>,
    /// Its number for the strategy `hash`, the same in every process.
    pub(super) identity: u64,
    /// Only [`super::Lease`] writes it.
    pub(super) in_flight: AtomicU32,
    /// A [`Status`]. Only the prober writes it, by [`super::Backends::set_health`].
    pub(super) health: AtomicU8,
    /// Why its checks fail, while it is down. Only the prober writes it.
    pub(super) failing: ArcSwapOption<Arc<str>>,
    /// Only the prober writes it.
    last_check: ArcSwapOption<LastCheck>,
    /// When it came up while others were running; 0: it was up from the start. Written like `health`.
    pub(super) up_since: AtomicU64,
    /// Whether it is out because of its answers. Only [`super::outlier`] writes it.
    pub(super) standing: EndpointStanding,
    /// A [`Latency`]. Only [`Endpoint::observe_latency`] writes it.
    pace: AtomicU64,
    /// Only round robin writes it, under the lock of the turns.
    pub(super) turn: AtomicI64,
}

impl Endpoint {
    /// A new endpoint with an id of its own. `since`: when it came up, for the slow start; 0: it needs none.
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

    /// An endpoint that belongs to no pool, healthy and of weight 1, for tests of one endpoint.
    pub fn alone(backend: &str, address: SocketAddr) -> Arc<Self> {
        let entry = BackendEntry::new(backend, &address.ip().to_string(), address.port());
        Arc::new(Self::new(
            Arc::new(Backend::new(&entry, &DEFAULT_POOL.into())),
            address.into(),
            Status::Up,
            0,
        ))
    }

    /// Its status by its health checks.
    pub fn health(&self) -> Status {
        match self.health.load(Ordering::Relaxed) {
            code if code == Status::Up as u8 => Status::Up,
            code if code == Status::Down as u8 => Status::Down,
            _ => Status::Unknown,
        }
    }

    /// Notes why its checks fail. Only the prober calls it, before [`super::Backends::set_health`].
    pub fn set_failing(&self, cause: &str) {
        self.failing.store(Some(Arc::new(cause.into())));
    }

    /// Its last check; `None`: none has ended yet.
    pub fn last_check(&self) -> Option<Arc<LastCheck>> {
        self.last_check.load_full()
    }

    /// Notes its last check. Only the prober calls it.
    pub fn set_last_check(&self, check: LastCheck) {
        self.last_check.store(Some(Arc::new(check)));
    }

    /// Notes why it was ejected.
    pub fn set_ejected_for(&self, cause: &str) {
        self.standing.set_cause(cause);
    }

    /// Requests in flight on it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The weight that strategies see, which is smaller during the slow start.
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

    /// Its share relative to all other endpoints of its pool, without a slow start.
    pub fn weight(&self) -> f64 {
        f64::from(self.group.weight()) * f64::from(self.weight.load(Ordering::Relaxed)) / f64::from(WHOLE)
    }

    /// Sets tier and weight. Returns whether that is a change. The pool's writer's lock must be held.
    pub(super) fn set_use(&self, located: &Located) -> bool {
        let tier = self.tier.swap(located.tier, Ordering::Relaxed);
        let weight = self.weight.swap(located.weight, Ordering::Relaxed);
        (tier, weight) != (located.tier, located.weight)
    }

    /// Its token in the cookie of sticky sessions; `None`: sessions do not stick.
    pub fn token(&self) -> Option<Arc<Token>> {
        self.token.load_full()
    }

    /// Makes its token with another key, or removes it. The pool's writer's lock must be held.
    pub(super) fn set_token(&self, key: Option<&SigningKey>) {
        let of = |key| Token::of(key, &self.backend, self.address);
        self.token.store(key.map(of).map(Arc::new));
    }

    /// Its latency, as far as it is known.
    pub(super) fn pace(&self) -> Latency {
        Latency::from_bits(self.pace.load(Ordering::Relaxed))
    }

    /// Takes the latency of one more attempt into account.
    pub(super) fn observe_latency(&self, took: Nanos, failed: bool, now: Nanos) {
        let took = if failed { took.max(FAILURE_COUNTS_AS) } else { took };
        let next = |bits| Some(Latency::from_bits(bits).observe(took, now).bits());
        // Can't fail: the closure always returns a value.
        let _ = self.pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Whether it is in service and not down. One that was never checked counts as up.
    pub fn is_up(&self) -> bool {
        self.in_service() && self.health() != Status::Down
    }

    /// Whether it is out because of its answers, also while it is being probed.
    pub fn is_ejected(&self) -> bool {
        self.standing.is_out()
    }

    /// Whether weight and operator allow new requests, whatever its health.
    pub fn in_service(&self) -> bool {
        self.group.weight() > 0 && self.group.operator() == Operator::Up
    }
}
