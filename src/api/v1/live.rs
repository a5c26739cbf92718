//! What this instance is doing now, beside what the store keeps. Nothing here takes a token from a bucket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::status::{InstanceStatus, TlsStatus};
use crate::api::health::ProcessHealth;
use crate::budget::SharedBudget;
use crate::clock::Clock;
use crate::history::{History, backends_now};
use crate::metrics::Metrics;
use crate::proxy::admit::importance;
use crate::proxy::identify::{Evidence, Identified, Stopped, Tried, identify};
use crate::proxy::policy::PolicyInForce;
use crate::proxy::pools::Pool;
use crate::store::Limits;
use crate::store::cache::EntryKind;
use crate::tls::front::FrontTls;
use balancer_http::fields::Fields;
use balancer_importance::Importance;
use balancer_limiter::heavy_hitters::{Heavy, HeavyHitters, RefusalReason};
use balancer_limiter::identity::{
    ClientAddress, ClientId, ClientKey, IdForm, client_address, drop_lookalikes,
};
use balancer_limiter::limiter::{Ask, Granted, Limiter, Room};
use balancer_limiter::terms::{BucketSpec, ClientLimit, DEFAULT_BUCKET};
use balancer_time::Nanos;
use balancer_time::nanos;

/// What may have decided: an entry of one of three kinds, a rule or a route without one, or nothing.
pub(super) const POLICIES: [&str; 5] = ["client", "range", "default", "rule", "none"];

/// The process as the API sees it.
#[allow(missing_docs)]
pub struct Live {
    /// This instance's id, as in `Via`: answers about counts are its own.
    pub instance: String,
    pub started_at: Nanos,
    pub health: Arc<ProcessHealth>,
    pub metrics: Arc<Metrics>,
    pub limiter: Arc<Limiter>,
    pub limits: Arc<Limits>,
    pub budget: Arc<SharedBudget>,
    pub heavy_hitters: Arc<HeavyHitters>,
    pub policy: Arc<PolicyInForce>,
    /// `None`: there is no TLS port.
    pub tls: Option<Arc<FrontTls>>,
    pub history: Arc<History>,
    /// How many loops of the frontend do not go on. A function, since the API may not use the engine.
    pub loops_stuck: Box<dyn Fn() -> usize + Send + Sync>,
    pub clock: Clock,
}

impl Live {
    /// What `GET /v1/status` shows. Waits for nothing.
    pub(super) fn status(&self) -> InstanceStatus {
        let totals = self.metrics.totals();
        InstanceStatus {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.clock.now().saturating_sub(self.started_at) / 1_000_000_000,
            ready: self.health.ready(),
            draining: self.health.draining(),
            store: self.limits.state().word(),
            requests: totals.requests,
            in_flight: totals.in_flight,
            allowed: totals.allowed,
            denied: totals.denied,
            clients: self.limiter.clients() as u64,
            tls: self.tls.as_ref().map(|tls| TlsStatus::of(&tls.certificates())),
            instances: self.budget.state().instances,
        }
    }

    /// What the client of a stored limit has left here. A range that is not shared has a bucket for each address; it
    /// shows an unused one. Waits for nothing.
    pub(super) fn usage(&self, id: &ClientId, limit: &ClientLimit) -> Usage {
        let granted = self.limits.granted(limit, source_of(id));
        let specs = granted.grant().map_or(&[][..], |grant| &grant.terms.buckets);
        let ask = Ask { grant: granted.grant(), rules: &[], cost: 1, room: Room::Own };
        let levels = self.limiter.levels(ClientKey::of_id(id), ask, self.clock.moment());
        let mut buckets = shown(specs, &levels.buckets);
        for (bucket, spent) in buckets.iter_mut().zip(levels.spent_elsewhere) {
            bucket.spent_elsewhere = Some(spent);
        }
        Usage { buckets, in_flight: levels.in_flight }
    }

    /// Makes the buckets of a stored limit's client full; of a range, those of every address in it. Waits for nothing.
    pub(super) fn reset(&self, id: &ClientId) {
        self.limits.fill(id);
    }

    /// What a request would get. Waits at most `cache.load_timeout`, as that request would.
    pub(super) fn check(&self, question: &Question) -> CheckVerdict {
        let when = self.clock.moment();
        let policy = self.policy.load();
        let peer = SocketAddr::new(question.address, question.port.unwrap_or(0));
        let mut fields = question.fields.clone();
        drop_lookalikes(&policy.keys, &mut fields);
        let fields = &fields;
        let mut client = client_address(peer, &policy.trusted_proxies, fields);
        client.port = client.port.and(question.port);
        let path = &*policy.routes.as_sent(question.path.split('?').next().unwrap_or_default());
        let Ok(met) = policy.routes.met(question.host.as_deref(), path) else {
            return refused(client.address, Vec::new());
        };
        let mut tried = Vec::new();
        let mut note = |one: Tried<'_>| tried.extend(one.id.map(str::to_owned));
        // A question has no handshake.
        let evidence = Evidence { fields, certificate: None };
        let mut waited = None;
        let Identified { found, key } = loop {
            match identify(&self.limits, &policy, &client, evidence, when.now, waited, &mut note) {
                Ok(identified) => break identified,
                Err(Stopped::Refused(_)) => return refused(client.address, tried),
                Err(Stopped::Waits(waiting)) => waited = Some(waiting.block(&self.limits)),
            }
        };
        let preflight = policy.is_preflight(&question.method, fields, has_body(fields));
        let needs = policy.rules.needs(&question.method, path).filter(|_| !found.granted.is_exempt());
        let mut needs = needs.map(|needs| if preflight { needs.to_look() } else { needs });
        if let Some(needs) = &mut needs {
            policy.routes.add_rules(&met, &mut needs.rules);
        }
        let grant = found.granted.grant().filter(|_| needs.is_some());
        let ask = needs.as_ref().map(|needs| Ask {
            grant,
            rules: &needs.rules,
            cost: needs.cost,
            room: found.room,
        });
        let by_rule = grant.is_none() && needs.as_ref().is_none_or(|needs| !needs.rules.is_empty());
        let decided_by = match (&found.granted, found.source) {
            (Granted::Unlimited, _) if by_rule => "rule",
            (Granted::Unlimited, _) => "none",
            (Granted::Limited(_), _) if needs.is_none() => "rule",
            (_, EntryKind::Client) => "client",
            (_, EntryKind::Range) => "range",
            (_, EntryKind::Default) => "default",
        };
        let specs: Vec<BucketSpec> =
            ask.map(|ask| ask.buckets().map(|(spec, ..)| spec.clone()).collect()).unwrap_or_default();
        let decided = ask.map(|ask| self.limiter.foresee(found.client, ask, when));
        let (allowed, levels) =
            decided.map_or((true, Vec::new()), |(decision, levels)| (decision.allowed, levels));
        let decides = found.entry.as_deref().or_else(|| grant.map(|_| DEFAULT_BUCKET));
        if key.is_none() {
            tried.extend(candidates(&client, found.entry.as_deref(), found.source));
        }
        let route = policy.routes.by(&met);
        let pool = match route {
            Some(route) => route.pool.as_ref(),
            None => Some(policy.pools.default_pool()).filter(|pool| pool.has_backends()),
        };
        CheckVerdict {
            allowed: allowed && policy.routes.closed_to(&met, client.address).is_none(),
            route: route.map(|route| route.config.name.to_string()),
            pool: pool.map(|pool| pool.name().to_string()),
            importance: importance(&found.granted, route),
            identity: key.as_deref().map_or_else(|| client.address.to_string(), str::to_owned),
            candidates: tried,
            matched: decides.map(str::to_owned),
            policy: decided_by,
            buckets: shown(&specs, &levels),
        }
    }

    /// Records in the history how backends are now.
    pub(super) fn watch(&self, now: Nanos) {
        let policy = self.policy.load();
        let of_pool = |pool: &Arc<Pool>| backends_now(&pool.backends.snapshot());
        self.history.tick(policy.pools.iter().flat_map(of_pool), now);
    }

    /// Seconds since the epoch, now.
    pub(super) fn epoch_seconds(&self) -> f64 {
        self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// Seconds since the epoch at a moment of the past, as the wall clock goes now.
    pub(super) fn epoch_of(&self, at: Nanos) -> u64 {
        let ago = self.clock.now().saturating_sub(at) as f64 / 1e9;
        // Never negative, and below what a float holds exactly.
        (self.epoch_seconds() - ago).round().max(0.0) as u64
    }

    /// The moment of a time in seconds since the epoch: 0 for one before the clock's start, `Nanos::MAX` for one in the
    /// future.
    pub(super) fn moment_of(&self, epoch: u64) -> Nanos {
        let ago = (self.epoch_seconds() - epoch as f64) * 1e9;
        // A float that is too large becomes the largest number that there is.
        if ago < 0.0 { Nanos::MAX } else { self.clock.now().saturating_sub(ago as Nanos) }
    }

    /// At most `count` clients of the last `window` (at most an hour). Waits for nothing.
    pub(super) fn top(&self, by: RankBy, window: Duration, count: usize) -> Vec<ClientCount> {
        let (window_ns, now) = (nanos(window), self.clock.now());
        let heavy = match by {
            RankBy::Requests => self.heavy_hitters.by_requests(window_ns, count, now),
            RankBy::Denied => self.heavy_hitters.by_refusals(window_ns, count, now),
        };
        heavy.into_iter().map(counted).collect()
    }
}

/// One bucket as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::api) struct BucketLevel {
    /// Its name.
    pub name: String,
    /// Most tokens that it holds.
    pub capacity: u32,
    /// Whole tokens in it.
    pub level: u32,
    /// Of a client's usage: tokens that other instances reported of it since it was last idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent_elsewhere: Option<u64>,
}

/// What a client has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Usage {
    /// In the order of its limit, or of its plan.
    pub buckets: Vec<BucketLevel>,
    /// Its requests under way in this instance.
    pub in_flight: u32,
}

/// A request to be judged, which is not sent.
#[derive(Clone, Debug)]
pub(in crate::api) struct Question {
    /// The TCP peer.
    pub address: IpAddr,
    /// Its port, where that matters.
    pub port: Option<u16>,
    /// As its `Host` has it.
    pub host: Option<String>,
    /// `GET` unless it is said.
    pub method: String,
    /// With or without a query; `/` unless it is said.
    pub path: String,
    /// Fields of its head.
    pub fields: Fields,
}

/// What that request would get now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct CheckVerdict {
    /// Whether it would be let through.
    pub allowed: bool,
    /// The route that it would go by; `None`: none takes it.
    pub route: Option<String>,
    /// The pool that it would go to; `None`: it would be answered, or sent elsewhere.
    pub pool: Option<String>,
    /// Who it counts as.
    pub identity: String,
    /// Every id that was looked for, most specific first; `default` last.
    pub candidates: Vec<String>,
    /// The stored id that decided, or `default`; `None`: nothing did.
    pub matched: Option<String>,
    /// `client`, `range` or `default`: the kind of entry that decides; `rule` where only a rule does, `none` without a
    /// limit.
    pub policy: &'static str,
    /// What it would need a token of.
    pub buckets: Vec<BucketLevel>,
    /// The weight and priority with which it would wait for a place.
    pub importance: Importance,
}

/// A client by what it sent within a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ClientCount {
    /// The stored id that names it, else its address or prefix.
    pub client_id: String,
    /// Requests, refused ones among them.
    pub requests: u64,
    /// Those that were refused.
    pub denied: u64,
    /// Why, most frequent first; only for [`RankBy::Denied`]. Shown by `/v1/limited` alone.
    #[serde(skip)]
    pub reasons: Vec<DeniedFor>,
}

/// Why requests of a client were refused, as it was decided then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::api) struct DeniedFor {
    /// `client`, `range` or `default`: the kind of entry whose bucket refused; `rule` for a rule's.
    pub policy: &'static str,
    /// The bucket, or `concurrency`.
    pub bucket: String,
    /// The rule that has the bucket.
    pub rule: Option<String>,
    /// How often.
    pub denied: u64,
}

/// By what clients are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum RankBy {
    /// Most requests first.
    Requests,
    /// Most refusals first; clients without one are left out.
    Denied,
}

/// The kind of entry that an id names.
fn source_of(id: &ClientId) -> EntryKind {
    if matches!(id.form(), IdForm::Range(_)) { EntryKind::Range } else { EntryKind::Client }
}

/// Whether a head with these fields has a body behind it.
fn has_body(fields: &Fields) -> bool {
    fields.has("Transfer-Encoding") || fields.get("Content-Length").is_some_and(|length| length != b"0")
}

/// Buckets as they are shown.
pub(super) fn shown(specs: &[BucketSpec], levels: &[u32]) -> Vec<BucketLevel> {
    let level = |(spec, level): (&BucketSpec, &u32)| BucketLevel {
        name: spec.name.as_str().to_owned(),
        capacity: spec.limit.capacity,
        level: *level,
        spent_elsewhere: None,
    };
    specs.iter().zip(levels).map(level).collect()
}

/// The verdict on a request that is refused before a limit is asked: its path has too many readings, or its key is
/// refused.
fn refused(address: IpAddr, candidates: Vec<String>) -> CheckVerdict {
    CheckVerdict {
        allowed: false,
        route: None,
        pool: None,
        identity: address.to_string(),
        candidates,
        matched: None,
        policy: "none",
        importance: Importance::default(),
        buckets: Vec::new(),
    }
}

/// The ids that were looked for, most specific first, up to the one that decided.
fn candidates(client: &ClientAddress, entry: Option<&str>, source: EntryKind) -> Vec<String> {
    let address = client.address;
    let peer = client.port.map(|port| SocketAddr::new(address, port).to_string());
    let form = entry.and_then(|entry| ClientId::parse(entry).ok()).map(|id| id.form());
    let mut candidates: Vec<String> = peer.into_iter().collect();
    if matches!(form, Some(IdForm::AddressPort(_))) {
        return candidates;
    }
    candidates.push(address.to_string());
    match source {
        EntryKind::Client => {}
        EntryKind::Range => candidates.extend(entry.map(str::to_owned)),
        EntryKind::Default => candidates.push(DEFAULT_BUCKET.to_owned()),
    }
    candidates
}

/// The id that names it; else its address alone, or the prefix that it is counted with.
pub(super) fn client_name(heavy: &Heavy) -> String {
    heavy.name.as_ref().map_or_else(|| heavy.client.to_string(), ToString::to_string)
}

fn counted(heavy: Heavy) -> ClientCount {
    let client_id = client_name(&heavy);
    let reason = |RefusalReason { refusal, denied }: RefusalReason| DeniedFor {
        policy: refusal.policy(),
        bucket: refusal.bucket.as_str().to_owned(),
        rule: refusal.rule.map(|rule| rule.to_string()),
        denied,
    };
    let reasons = heavy.reasons.into_iter().map(reason).collect();
    ClientCount { client_id, requests: heavy.requests, denied: heavy.denied, reasons }
}
