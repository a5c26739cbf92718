//! What the API asks of the running process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::api::{BucketLevel, ClientCount, DeniedFor, Health, Live, Question, Status, Top, Usage, Verdict};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::proxy::identify::{Identified, Stopped, Tried, identify};
use crate::proxy::policy::PolicyInForce;
use crate::store::Limits;
use crate::store::cache::Source;
use balancer_http::fields::Fields;
use balancer_limiter::heavy_hitters::{Heavy, HeavyHitters, Reason};
use balancer_limiter::identity::{
    ClientAddress, ClientId, ClientKey, IdForm, client_address, drop_lookalikes,
};
use balancer_limiter::limiter::{Ask, Granted, Limiter};
use balancer_limiter::terms::{BucketSpec, ClientLimit, DEFAULT_BUCKET};
use balancer_time::Nanos;
use balancer_time::nanos;

/// The process as the API sees it.
pub(super) struct Running {
    pub instance: String,
    pub started_at: Nanos,
    pub health: Arc<dyn Health>,
    pub metrics: Arc<Metrics>,
    pub limiter: Arc<Limiter>,
    pub limits: Arc<Limits>,
    pub heavy_hitters: Arc<HeavyHitters>,
    pub policy: Arc<PolicyInForce>,
    pub clock: Clock,
}

impl Live for Running {
    fn instance(&self) -> &str {
        &self.instance
    }

    fn status(&self) -> Status {
        let totals = self.metrics.totals();
        let draining = self.health.draining();
        Status {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.clock.now().saturating_sub(self.started_at) / 1_000_000_000,
            ready: !draining && self.health.any_backend_up(),
            draining,
            store: self.health.store().word(),
            requests: totals.requests,
            in_flight: totals.in_flight,
            allowed: totals.allowed,
            denied: totals.denied,
            clients: self.limiter.clients() as u64,
        }
    }

    fn usage(&self, id: &ClientId, limit: &ClientLimit) -> Usage {
        let granted = self.limits.granted(limit, source_of(id));
        let specs = granted.grant().map_or(&[][..], |grant| &grant.terms.buckets);
        let levels = self.limiter.levels(ClientKey::of_id(id), specs, self.clock.moment());
        Usage { buckets: shown(specs, &levels.buckets), in_flight: levels.in_flight }
    }

    fn reset(&self, id: &ClientId, _: &ClientLimit) {
        self.limits.fill(id);
    }

    fn check(&self, question: &Question) -> Verdict {
        let when = self.clock.moment();
        let policy = self.policy.load();
        let peer = SocketAddr::new(question.address, question.port.unwrap_or(0));
        let mut fields = question.fields.clone();
        drop_lookalikes(&policy.keys, &mut fields);
        let fields = &fields;
        let mut client = client_address(peer, &policy.trusted_proxies, fields);
        client.port = client.port.and(question.port);
        let mut tried = Vec::new();
        let mut note = |one: Tried<'_>| tried.extend(one.id.map(str::to_owned));
        let mut waited = None;
        let Identified { found, key } = loop {
            match identify(&self.limits, &policy, &client, fields, when.now, waited, &mut note) {
                Ok(identified) => break identified,
                Err(Stopped::Refused(_)) => return refused(client.address, tried),
                Err(Stopped::Waits(waiting)) => waited = Some(waiting.block(&self.limits)),
            }
        };
        let path = question.path.split('?').next().unwrap_or_default();
        let exempt = matches!(found.granted, Granted::Exempt);
        let preflight = policy.is_preflight(&question.method, fields, has_body(fields));
        let needs = policy.rules.needs(&question.method, path).filter(|_| !exempt);
        let needs = needs.map(|needs| if preflight { needs.to_look() } else { needs });
        let grant = found.granted.grant().filter(|_| needs.is_some());
        let ask = needs.as_ref().map(|needs| Ask {
            grant,
            rules: &needs.rules,
            cost: needs.cost,
            room: found.room,
        });
        let by_rule = grant.is_none() && needs.as_ref().is_none_or(|needs| !needs.rules.is_empty());
        let policy = match (&found.granted, found.source) {
            (Granted::Unlimited, _) if by_rule => "rule",
            (Granted::Unlimited, _) => "none",
            (Granted::Limited(_), _) if needs.is_none() => "rule",
            (_, Source::Client) => "client",
            (_, Source::Range) => "range",
            (_, Source::Default) => "default",
        };
        let specs: Vec<BucketSpec> =
            ask.map(|ask| ask.buckets().map(|(spec, ..)| spec.clone()).collect()).unwrap_or_default();
        let decided = ask.map(|ask| self.limiter.foresee(found.client, ask, when));
        let (allowed, levels) =
            decided.map_or((true, Vec::new()), |(decision, levels)| (decision.allowed, levels));
        let decides = found.entry.as_deref().or_else(|| grant.map(|_| DEFAULT_BUCKET));
        Verdict {
            allowed,
            identity: key.as_deref().map_or_else(|| client.address.to_string(), str::to_owned),
            candidates: if key.is_none() {
                tried.extend(candidates(&client, found.entry.as_deref(), found.source));
                tried
            } else {
                tried
            },
            matched: decides.map(str::to_owned),
            policy,
            buckets: shown(&specs, &levels),
        }
    }

    fn top(&self, by: Top, window: Duration, count: usize) -> Vec<ClientCount> {
        let (window_ns, now) = (nanos(window), self.clock.now());
        let heavy = match by {
            Top::Requests => self.heavy_hitters.by_requests(window_ns, count, now),
            Top::Denied => self.heavy_hitters.by_refusals(window_ns, count, now),
        };
        heavy.into_iter().map(counted).collect()
    }
}

/// What kind of entry an id makes.
fn source_of(id: &ClientId) -> Source {
    if matches!(id.form(), IdForm::Range(_)) { Source::Range } else { Source::Client }
}

/// Whether a head with these fields has a body behind it.
fn has_body(fields: &Fields) -> bool {
    fields.has("Transfer-Encoding") || fields.get("Content-Length").is_some_and(|length| length != b"0")
}

fn shown(specs: &[BucketSpec], levels: &[u32]) -> Vec<BucketLevel> {
    let level = |(spec, level): (&BucketSpec, &u32)| BucketLevel {
        name: spec.name.as_str().to_owned(),
        capacity: spec.limit.capacity,
        level: *level,
    };
    specs.iter().zip(levels).map(level).collect()
}

/// The verdict on a request whose key is blurred, or one that `rate_limit.unknown_keys` refuses.
fn refused(address: IpAddr, candidates: Vec<String>) -> Verdict {
    Verdict {
        allowed: false,
        identity: address.to_string(),
        candidates,
        matched: None,
        policy: "none",
        buckets: Vec::new(),
    }
}

/// The ids that were looked for, most specific first, up to the one that decided.
fn candidates(client: &ClientAddress, entry: Option<&str>, source: Source) -> Vec<String> {
    let address = client.address;
    let peer = client.port.map(|port| SocketAddr::new(address, port).to_string());
    let form = entry.and_then(|entry| ClientId::parse(entry).ok()).map(|id| id.form());
    let mut candidates: Vec<String> = peer.into_iter().collect();
    if matches!(form, Some(IdForm::AddressPort(_))) {
        return candidates;
    }
    candidates.push(address.to_string());
    match source {
        Source::Client => {}
        Source::Range => candidates.extend(entry.map(str::to_owned)),
        Source::Default => candidates.push(DEFAULT_BUCKET.to_owned()),
    }
    candidates
}

/// By the id that names it; else by its address alone, or the prefix that it is counted with.
fn counted(heavy: Heavy) -> ClientCount {
    let client_id = match (heavy.name, heavy.client.network()) {
        (Some(name), _) => name.to_string(),
        (None, Some(network)) if network.prefix_len() == network.max_prefix_len() => {
            network.addr().to_string()
        }
        (None, _) => format!("{:?}", heavy.client),
    };
    let reason = |Reason { refusal, denied }: Reason| DeniedFor {
        policy: refusal.policy(),
        bucket: refusal.bucket.as_str().to_owned(),
        rule: refusal.rule.map(|rule| rule.to_string()),
        denied,
    };
    let reasons = heavy.reasons.into_iter().map(reason).collect();
    ClientCount { client_id, requests: heavy.requests, denied: heavy.denied, reasons }
}
