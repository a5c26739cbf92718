//! The first step of a request: finds out which client it comes from, and whether that client may send it now.

mod decision_text;

use std::net::IpAddr;
use std::sync::Arc;

use super::identify::{self, Evidence, Identified, Stopped, Waiting};
use crate::error::Reject;
use crate::log::record::LimitRecord;
use crate::metrics::{self, Metrics, Policy};
use crate::proxy::lone_peer::{self, LonePeer};
use crate::proxy::policy::ProxyPolicy;
use crate::proxy::routes::{ActiveRoute, RouteSeat, RouteSeats};
use crate::store::Limits;
use crate::store::cache::Found;
use balancer_http::fields::Fields;
use balancer_http::message::Reason;
use balancer_http::message::{BodyLength, RequestHead};
use balancer_http::routes::MetRoutes;
use balancer_importance::Importance;
use balancer_limiter::answer::{self, Concurrency, EntryKind, ShownLimit};
use balancer_limiter::heavy_hitters::{HeavyHitters, Refusal};
use balancer_limiter::identity::{ClientAddress, ClientKey};
use balancer_limiter::limiter::{Ask, Decision, Granted, Limiter, Room, Seat};
use balancer_limiter::request_rules::Needs;
use balancer_limiter::terms::{BucketName, CONCURRENCY};
use balancer_time::Moment;

pub(super) use decision_text::{LimitFields, has_legacy};

use decision_text::DecisionText;

/// What admission works with.
pub struct Admit {
    /// The stored limits.
    pub limits: Arc<Limits>,
    /// The buckets.
    pub limiter: Arc<Limiter>,
    /// Which clients ask most, and which are refused most.
    pub heavy_hitters: Arc<HeavyHitters>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether a proxy in front of us is taken for the client.
    pub lone_peer: Arc<LonePeer>,
    /// Requests under way of each client, by route.
    pub route_seats: Arc<RouteSeats>,
}

/// What came of admission.
pub(super) struct Admission {
    /// The refusal, if it is refused: 429 by a limit, or 400, 401 or 503 because of its key.
    pub refused: Option<Reject>,
    /// Which limit refused it, if one did.
    pub why: Option<Refusal>,
    /// The limiter's fields for the answer, whether a backend's or our own.
    pub fields: LimitFields,
    /// What the access log says about its limit.
    pub record: Option<LimitRecord>,
    /// The key that the limiter counts the client by.
    pub client: ClientKey,
    /// How soon the request gets a place in its pool when all are taken.
    pub importance: Importance,
    /// Counts the request as under way, until it is dropped.
    pub seat: Option<Seat>,
    /// The same for the routes it meets that have `max_in_flight`.
    pub route_seats: Vec<RouteSeat>,
}

impl Admit {
    /// Finds out which client it is, and takes the tokens that the request needs, if that client has a limit. Never
    /// blocks. `waited`: the [`Waiting`] that an earlier call for this request returned, once the request has waited
    /// for it (at most [`Limits::load_timeout`]). All other arguments must then be as they were; nothing is counted
    /// twice.
    ///
    /// # Errors
    /// The request has to wait for the database.
    pub(super) fn admit(
        &self,
        head: &RequestHead,
        client: &ClientAddress,
        met: &MetRoutes,
        when: Moment,
        policy: &ProxyPolicy,
        waited: Option<Waiting>,
    ) -> Result<Admission, Waiting> {
        let fields = &head.fields;
        if !client.peer_trusted && waited.is_none() {
            self.watch(client.address, fields);
        }
        let tried = identify::counter(&self.metrics);
        match identify::identify(&self.limits, policy, client, Evidence::of(head), when.now, waited, tried) {
            Ok(Identified { found, key }) => {
                let mut admission = self.decide(head, &found, met, when, policy);
                admission.importance = importance(&found.granted, policy.routes.by(met));
                // Only entries that have one bucket: a client's, or a range's whose clients share it.
                let entry = found.entry.as_ref().filter(|_| found.room == Room::Own);
                let name = key.as_ref().or(entry);
                self.heavy_hitters.count(found.client, name, admission.why.as_ref(), when.now);
                if let Some(record) = &mut admission.record {
                    record.key = key;
                }
                Ok(admission)
            }
            Err(Stopped::Waits(waiting)) => Err(waiting),
            Err(Stopped::Refused(reject)) => Ok(Admission {
                refused: Some(reject),
                why: None,
                fields: LimitFields::default(),
                record: None,
                client: ClientKey::address(client.address),
                importance: Importance::default(),
                seat: None,
                route_seats: Vec::new(),
            }),
        }
    }

    /// Looks for a proxy that is missing in `trusted_proxies`. Only a private peer that sends `X-Forwarded-For` may be
    /// one.
    fn watch(&self, peer: IpAddr, fields: &Fields) {
        if lone_peer::is_private(peer) && fields.has("x-forwarded-for") {
            let total = || {
                let totals = self.metrics.totals();
                totals.requests + totals.in_flight
            };
            if let Some(peer) = self.lone_peer.note(peer, total) {
                log::warn!("{}", lone_peer::text(peer));
            }
        }
    }

    fn decide(
        &self,
        head: &RequestHead,
        found: &Found,
        met: &MetRoutes,
        when: Moment,
        policy: &ProxyPolicy,
    ) -> Admission {
        let preflight = policy.is_preflight(&head.method, &head.fields, head.length != BodyLength::Empty);
        let needs = policy.rules.needs(&head.method, head.path());
        let Some(Needs { mut rules, cost }) =
            needs.map(|needs| if preflight { needs.to_look() } else { needs })
        else {
            return self.unasked(Policy::Rule, found.client, None);
        };
        if found.granted.is_exempt() {
            let record = record(found, None, true, None);
            return self.unasked(policy_label(found.source), found.client, Some(record));
        }
        policy.routes.add_rules(met, &mut rules);
        let grant = found.granted.grant();
        let is_asked = grant.is_some() || !rules.is_empty();
        let ask = is_asked.then_some(Ask { grant, rules: &rules, cost, room: found.room });
        match self.route_seats.take(&policy.routes, met, found.client) {
            Err((route, most)) => self.crowded(found, route, most, policy),
            Ok(seats) => {
                let said = if preflight { Self::look } else { Self::take };
                let mut admission = said(self, found, ask, when, policy);
                if admission.refused.is_none() {
                    admission.route_seats = seats;
                }
                admission
            }
        }
    }

    /// Takes the tokens that the request needs, if it needs any.
    fn take(&self, found: &Found, ask: Option<Ask<'_>>, when: Moment, policy: &ProxyPolicy) -> Admission {
        let Some(ask) = ask else { return self.unasked(Policy::None, found.client, None) };
        let (decision, seat) = self.limiter.admit(found.client, ask, when);
        self.told(found, ask, (decision, seat), policy)
    }

    /// For a CORS preflight: takes no token, but refuses a client that has none left. Otherwise a client could send any
    /// number.
    fn look(&self, found: &Found, ask: Option<Ask<'_>>, when: Moment, policy: &ProxyPolicy) -> Admission {
        let looked = ask.map(|ask| (ask, self.limiter.preview(found.client, ask, when)));
        match looked {
            Some((ask, refused)) if !refused.allowed => self.told(found, ask, (refused, None), policy),
            _ => self.unasked(Policy::None, found.client, None),
        }
    }

    /// Refuses a request whose client has as many requests under way by a route as that route allows.
    fn crowded(&self, found: &Found, route: &ActiveRoute, most: u32, policy: &ProxyPolicy) -> Admission {
        self.metrics.decision(Policy::Rule, metrics::Decision::Denied);
        let told = answer::rate_limit_fields(&[], Some(Concurrency { most, refused: true }));
        let bucket = BucketName::concurrency();
        let rule = Some(Arc::clone(&route.config.name));
        let mut reject = Reject::new(Reason::QuotaExceeded, CROWDED);
        reject.retry_after_s = told.retry_after_s;
        reject.violated_policies = vec![CONCURRENCY.into()];
        let record = record(found, Some(bucket.clone()), false, told.first);
        Admission {
            refused: Some(reject),
            why: Some(Refusal { entry: None, bucket, rule }),
            fields: LimitFields::new(told, policy.headers),
            record: Some(record),
            client: found.client,
            importance: Importance::default(),
            seat: None,
            route_seats: Vec::new(),
        }
    }

    /// Allows a request that no bucket was asked about, and counts it.
    fn unasked(&self, policy: Policy, client: ClientKey, record: Option<LimitRecord>) -> Admission {
        self.metrics.decision(policy, metrics::Decision::Allowed);
        Admission {
            refused: None,
            why: None,
            fields: LimitFields::default(),
            record,
            client,
            importance: Importance::default(),
            seat: None,
            route_seats: Vec::new(),
        }
    }

    /// Makes an admission of the limiter's decision, and counts it.
    fn told(
        &self,
        found: &Found,
        ask: Ask<'_>,
        (decision, seat): (Decision, Option<Seat>),
        policy: &ProxyPolicy,
    ) -> Admission {
        let grant = ask.grant;
        let entry = grant.map_or(found.source, |grant| grant.entry);
        let told = DecisionText::of(&decision, ask, entry);
        let by_rule = if decision.allowed { grant.is_none() } else { told.of_rule.is_some() };
        let label = if by_rule { Policy::Rule } else { policy_label(entry) };
        self.metrics.decision(label, counted(&decision));
        let why = told.bucket.clone().filter(|_| !decision.allowed).map(|bucket| {
            let rule = told.of_rule.and_then(|id| ask.rules.iter().find(|rule| rule.has_bucket(id)));
            let rule = rule.map(|rule| Arc::clone(&rule.name));
            Refusal { entry: (!by_rule).then_some(entry), bucket, rule }
        });
        let record = record(found, told.bucket, decision.allowed, told.fields.first);
        let refused = (!decision.allowed).then(|| {
            let mut reject = Reject::new(Reason::QuotaExceeded, detail(&decision));
            reject.retry_after_s = told.fields.retry_after_s;
            reject.violated_policies = told.violated;
            reject
        });
        let fields = LimitFields::new(told.fields, policy.headers);
        Admission {
            refused,
            why,
            fields,
            record: Some(record),
            client: found.client,
            importance: Importance::default(),
            seat,
            route_seats: Vec::new(),
        }
    }
}

/// How important a request is while it waits for a place. Its priority is its route's, or its client's where the route
/// has none. Its weight is its client's, and counts among requests of the same priority.
pub fn importance(granted: &Granted, route: Option<&Arc<ActiveRoute>>) -> Importance {
    let of_client = granted.importance();
    let of_route = route.and_then(|route| route.config.priority);
    Importance { priority: of_route.unwrap_or(of_client.priority), ..of_client }
}

const CROWDED: &str = "this client has as many requests under way as it may";

fn detail(decision: &Decision) -> &'static str {
    if decision.crowded { CROWDED } else { "this client's quota is used up" }
}

fn record(
    found: &Found,
    bucket: Option<BucketName>,
    allowed: bool,
    first: Option<ShownLimit>,
) -> LimitRecord {
    LimitRecord {
        names_client: found.source == EntryKind::Client,
        key: None,
        entry: found.entry.clone(),
        bucket,
        allowed,
        remaining: first.map(|shown| shown.left),
    }
}

fn policy_label(entry: EntryKind) -> Policy {
    match entry {
        EntryKind::Client => Policy::Client,
        EntryKind::Range => Policy::Range,
        EntryKind::Default => Policy::Default,
    }
}

/// Every request counts once: one that only a `shadow` bucket would have refused is `ShadowDenied` and not `Allowed`.
fn counted(decision: &Decision) -> metrics::Decision {
    match decision {
        Decision { allowed: false, .. } => metrics::Decision::Denied,
        Decision { shadow_denied: true, .. } => metrics::Decision::ShadowDenied,
        _ => metrics::Decision::Allowed,
    }
}
