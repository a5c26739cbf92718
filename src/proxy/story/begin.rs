//! What happens to a request before it is sent for the first time. The order is always the same: what the proxy answers
//! by itself, its routes, addresses that they do not let in, limits, passwords, answers of its route, and what the
//! route changes on the way to a backend.

use std::sync::Arc;

use arc_swap::Guard;

use super::{NewRequest, Stage, Step, Story};
use crate::error::Reject;
use crate::proxy::account::RequestSummary;
use crate::proxy::admit::{self, Admission, LimitFields};
use crate::proxy::exchange::Answer;
use crate::proxy::identify::Waiting;
use crate::proxy::policy::ProxyPolicy;
use crate::proxy::pools::Pool;
use crate::proxy::request_ids::RequestIds;
use crate::proxy::routes::{ActiveRoutes, CheckedUsers, MAX_CHECK, NotIn, Rewritten};
use crate::proxy::{Admitted, Proxy, local};
use balancer_http::message::{BodyLength, Reason, RequestHead};
use balancer_http::routes::{MetRoutes, TooManyReadings};
use balancer_importance::Importance;
use balancer_limiter::identity::{self, ClientAddress, ClientKey};
use balancer_pool::backends::Snapshot;
use balancer_time::{Moment, nanos, seconds};

/// Seconds that a client is told to wait when passwords can't be checked in time.
const RETRY_AFTER_S: u64 = 1;

/// What a request is admitted by. It does not change while the request waits.
pub(super) struct Identity {
    pub client: ClientAddress,
    pub when: Moment,
    in_memory: bool,
    body_bytes: u64,
    can_upgrade: bool,
    bound_to: Option<u64>,
    /// The routes that it meets.
    pub met: MetRoutes,
    /// What the route that takes it changes of its target.
    rewritten: Rewritten,
    /// No route takes it, and there are no backends at the top of the configuration.
    is_nobodys: bool,
    pool: Arc<Pool>,
    snapshot: Arc<Snapshot>,
}

impl Proxy {
    /// Begins a request that is not for our own API.
    pub fn begin(self: &Arc<Self>, asked: NewRequest<'_>) -> Step {
        let NewRequest { head, in_memory, body_bytes, received_at, can_upgrade, bound_to } = asked;
        let policy = self.accounts.policy.load();
        identity::drop_lookalikes(&policy.keys, &mut head.fields);
        let client = identity::client_address(head.peer, &policy.trusted_proxies, &head.fields);
        let wall = self.accounts.clock.wall();
        let ids = RequestIds::of(&head.fields, client.peer_trusted, wall);
        let in_flight = self.accounts.metrics.begin();
        let mut summary = RequestSummary::new(ids, client.address, received_at, in_flight);
        summary.record(policy.tracer.as_ref(), &head.fields);
        let request_id = &summary.ids.request_id;
        let answer = local::answer(head, &self.instance, &policy.keys, request_id)
            .or_else(|| local::redirect(head, policy.redirect_to, client.peer_trusted, request_id));
        if let Some(answer) = answer {
            return Step::Answer(self.accounts.close(answer, head, summary));
        }
        policy.routes.resolve_dots(head);
        let head = &*head;
        let when = Moment { now: received_at, wall_s: seconds(wall) };
        let (met, rewritten) = match by_routes(&policy.routes, head) {
            Ok(both) => both,
            Err(reject) => {
                let answer = reject.answer(request_id);
                return Step::Answer(self.accounts.close(answer, head, summary));
            }
        };
        let route = policy.routes.by(&met);
        let pool = route.and_then(|route| route.pool.as_ref()).unwrap_or(policy.pools.default_pool());
        let snapshot = pool.backends.snapshot();
        let is_nobodys = route.is_none() && snapshot.backends().is_empty();
        let pool = Arc::clone(pool);
        let identity = Identity {
            client,
            when,
            in_memory,
            body_bytes,
            can_upgrade,
            bound_to,
            met,
            rewritten,
            is_nobodys,
            pool,
            snapshot,
        };
        if let Some(route) = policy.routes.closed_to(&identity.met, client.address) {
            let reject = Reject::new(Reason::Forbidden, "this client may not come in here")
                .because(format_args!("route {} is closed to {}", route.config.name, client.address));
            let key = ClientKey::address(client.address);
            return self
                .story(summary, &identity, key, LimitFields::default(), &policy)
                .refuse(&reject, head, &policy);
        }
        match self.admit.admit(head, &identity.client, &identity.met, when, &policy, None) {
            Ok(admission) => self.proceed(head, summary, identity, admission, &policy),
            Err(waiting) => self.wait_for_store(summary, identity, Guard::into_inner(policy), waiting),
        }
    }

    /// The limiter has decided: the request is refused, or goes on.
    pub(super) fn proceed(
        self: &Arc<Self>,
        head: &RequestHead,
        mut summary: RequestSummary,
        identity: Identity,
        admission: Admission,
        policy: &Arc<ProxyPolicy>,
    ) -> Step {
        let Admission { refused, why: _, fields, record, client, importance, seat, route_seats } = admission;
        (summary.limit, summary.seat, summary.route_seats) = (record, seat, route_seats);
        let mut story = self.story(summary, &identity, client, fields, policy);
        story.admitted.importance = importance;
        match refused {
            Some(reject) => story.refuse(&reject, head, policy),
            None => story.check_users(head, identity, policy, CheckedUsers::default()),
        }
    }

    pub(super) fn wait_for_store(
        self: &Arc<Self>,
        summary: RequestSummary,
        identity: Identity,
        policy: Arc<ProxyPolicy>,
        waiting: Waiting,
    ) -> Step {
        let client = ClientKey::address(identity.client.address);
        let mut story = self.story(summary, &identity, client, LimitFields::default(), &policy);
        let most = nanos(self.admit.limits.load_timeout());
        let until = self.accounts.clock.now().saturating_add(most);
        story.stage = Stage::Identifying(identity, policy, waiting);
        Step::Wait(story, until)
    }

    fn story(
        self: &Arc<Self>,
        mut summary: RequestSummary,
        identity: &Identity,
        counted_as: ClientKey,
        fields: LimitFields,
        policy: &ProxyPolicy,
    ) -> Box<Story> {
        let route = policy.routes.by(&identity.met).cloned();
        if let (Some(trace), Some(route)) = (&mut summary.trace, &route) {
            trace.goes_by(&route.config.path, &route.config.name);
        }
        let admitted = Admitted {
            summary,
            peer_trusted: identity.client.peer_trusted,
            via: identity.snapshot.policy().via,
            counted_as,
            importance: Importance::default(),
            fields,
            route,
            rewritten: Rewritten::default(),
        };
        let can_upgrade = identity.can_upgrade;
        Box::new(Story { proxy: Arc::clone(self), admitted, can_upgrade, stage: Stage::Between })
    }
}

impl Story {
    /// Asks for a password where the met routes want one, and goes on once it is right.
    pub(super) fn check_users(
        mut self: Box<Self>,
        head: &RequestHead,
        identity: Identity,
        policy: &Arc<ProxyPolicy>,
        passed: CheckedUsers,
    ) -> Step {
        let now = self.proxy.accounts.clock.now();
        let lane = &self.proxy.passwords;
        match policy.routes.check_users(&identity.met, &head.fields, lane, passed, now) {
            Ok(()) => self.answer_or_forward(head, identity),
            Err(NotIn::Wrong(route)) => {
                let reject = Reject::new(Reason::Unauthorized, "a right name and password are needed here")
                    .because(format_args!("route {} asks for a right name and password", route.config.name))
                    .challenge(route.challenge());
                self.refuse(&reject, head, policy)
            }
            Err(NotIn::Soon(ticket, passed)) => {
                self.stage = Stage::CheckingUsers(identity, Arc::clone(policy), ticket, passed);
                Step::Wait(self, now.saturating_add(MAX_CHECK))
            }
            Err(NotIn::Busy) => {
                self.refuse(&unchecked("too many passwords wait to be checked"), head, policy)
            }
        }
    }

    /// Refuses a request whose password was not checked in time.
    pub(super) fn unchecked(self: Box<Self>, head: &RequestHead, policy: &ProxyPolicy) -> Step {
        self.refuse(&unchecked("its password was not checked in time"), head, policy)
    }

    /// Answers the request if its route does that by itself, and sends it to a backend otherwise.
    fn answer_or_forward(mut self: Box<Self>, head: &RequestHead, identity: Identity) -> Step {
        let Identity { in_memory, body_bytes, bound_to, rewritten, is_nobodys, pool, .. } = identity;
        // Not the snapshot of its beginning: a backend may have been removed while it waited for the store or for its
        // password.
        let snapshot = pool.backends.snapshot();
        let route = self.admitted.route.clone();
        if let Some(answer) = route.as_ref().and_then(|route| route.answer(self.admitted.as_asked(head))) {
            return self.end(answer, head);
        }
        if is_nobodys {
            let reject = Reject::new(Reason::NotFound, "nothing of that name is here")
                .because("no route takes it, and there are no backends at the top");
            return self.end_with(&reject, head);
        }
        let most = route.as_ref().and_then(|route| route.config.max_body_bytes);
        let came = if let BodyLength::Known(bytes) = head.length { bytes } else { body_bytes };
        if most.is_some_and(|most| came > most) {
            let reject =
                Reject::new(Reason::ContentTooLarge, "the request's body is larger than this server takes")
                    .because("the request's body is larger than its route's max_body_bytes");
            return self.end_with(&reject, head);
        }
        self.admitted.rewritten = rewritten;
        let proxy = Arc::clone(&self.proxy);
        let asked = proxy.request(&self.admitted, head);
        let mut state = proxy.forward.begin(&asked, (pool, snapshot), in_memory);
        state.bind(bound_to);
        if let Some(limit) = route.as_ref().and_then(|route| route.config.request_timeout) {
            state.end_within(nanos(limit), asked.received_at);
        }
        let next = proxy.forward.step(state, head);
        self.go(next, head)
    }

    /// Refuses a request that was not admitted. Scripts may read why, where `rate_limit.cors` allows it.
    fn refuse(self: Box<Self>, reject: &Reject, head: &RequestHead, policy: &ProxyPolicy) -> Step {
        let mut answer = self.admitted.refusal(reject, head);
        if let Some(cors) = &policy.cors {
            cors.open(&head.fields, admit::has_legacy(policy.headers), &mut answer.fields);
        }
        let Story { proxy, admitted, .. } = *self;
        Step::Answer(proxy.accounts.close(answer, head, admitted.summary))
    }

    /// Ends it with a refusal.
    pub(super) fn end_with(self: Box<Self>, reject: &Reject, head: &RequestHead) -> Step {
        let answer = self.admitted.refusal(reject, head);
        let Story { proxy, admitted, .. } = *self;
        Step::Answer(proxy.accounts.close(answer, head, admitted.summary))
    }

    /// Ends it with its route's own answer.
    fn end(self: Box<Self>, answer: Answer, head: &RequestHead) -> Step {
        let Story { proxy, admitted, .. } = *self;
        let answer = admitted.fields.add_to(answer);
        Step::Answer(proxy.accounts.close(answer, head, admitted.summary))
    }
}

/// The routes that a request meets, and what the one that takes it changes of its target.
fn by_routes(routes: &ActiveRoutes, head: &RequestHead) -> Result<(MetRoutes, Rewritten), Reject> {
    let met = routes.met(head.host.as_deref(), head.path()).map_err(|TooManyReadings| ambiguous())?;
    let rewritten = routes.by(&met).map_or_else(|| Some(Rewritten::default()), |route| route.rewrite(head));
    Ok((met, rewritten.ok_or_else(leads_out)?))
}

fn leads_out() -> Reject {
    Reject::new(Reason::BadRequest, "a path that leads out of where it is served")
        .because("some backend would read what its route makes of the path as one outside")
}

fn ambiguous() -> Reject {
    Reject::new(Reason::BadRequest, "the path means too many things to different servers")
        .because("which routes the path meets can't be told: it has too many readings")
}

fn unchecked(cause: &'static str) -> Reject {
    Reject::new(Reason::Unavailable, "whether this password is right can't be told now")
        .because(cause)
        .retry_after(RETRY_AFTER_S)
}
