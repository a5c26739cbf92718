//! A request's story without I/O: admit → forward → relay. An engine tells it what happened and does what the [`Step`] asks
//! for; it never blocks and owns no socket, so that both engines drive the same one.

use std::sync::Arc;

use arc_swap::Guard;

use super::account::RequestSummary;
use super::admit::{self, Admission, LimitFields};
use super::exchange::{Answer, AnswerBody, DeliveryOutcome};
use super::forward::{Next, NoAnswer, OutgoingFields, Received, RetryState, Spent};
use super::identify::Waiting;
use super::local;
use super::policy::ProxyPolicy;
use super::pools::Pool;
use super::request_ids::RequestIds;
use super::{Admitted, Proxy, Reuse, UpstreamError};
use balancer_http::fields::Fields;
use balancer_http::framing::response;
use balancer_http::headers;
use balancer_http::message::{BodyLength, RequestHead};
use balancer_limiter::identity::{self, ClientAddress, ClientKey};
use balancer_pool::backends::{Endpoint, Lease, Snapshot};
use balancer_pool::policy::CallPolicy;
use balancer_pool::queue::Waker;
use balancer_time::{Moment, Nanos, nanos, seconds};

/// A new request, as an engine hands it over.
pub struct NewRequest<'a> {
    /// What was asked.
    pub head: &'a mut RequestHead,
    /// The whole body is in memory: it can be sent again.
    pub in_memory: bool,
    /// When the head was complete.
    pub received_at: Nanos,
    /// The engine can relay both directions of a connection after a 101.
    pub can_upgrade: bool,
    /// Id of the endpoint to which the client's connection is bound, since the credentials that it gave belong to one
    /// connection.
    pub bound_to: Option<u64>,
}

/// What an engine is to do next with a request.
pub enum Step {
    /// Send this answer. The story is over.
    Answer(Answer),
    /// Send the request there, and tell what came of it.
    Call(Box<Story>, Call),
    /// Wait until the waker is called ([`Story::listen`]), at most until then.
    Wait(Box<Story>, Nanos),
    /// Have the whole body read, at most so many bytes, and the request answered by [`super::service::Service::work`] on a
    /// thread that may block.
    Work(usize),
}

/// Where a request is to be sent, and how.
#[derive(Clone)]
pub struct Call {
    /// Where.
    pub endpoint: Arc<Endpoint>,
    /// Which kept connections may be taken.
    pub reuse: Reuse,
    /// When all of it must be over, the answer's body too: `upstream.request_timeout`.
    pub deadline: Option<Nanos>,
    /// How long its parts may take.
    pub policy: CallPolicy,
}

/// What came of a call.
pub enum Event {
    /// The head of the final answer, or a 101.
    Head(response::Head),
    /// None came.
    Failed(UpstreamError),
}

/// A request under way, beside its head and its body, which the engine keeps.
pub struct Story {
    proxy: Arc<Proxy>,
    admitted: Admitted,
    can_upgrade: bool,
    stage: Stage,
}

enum Stage {
    /// What the store has of its client is looked up.
    Identifying(Identity, Arc<ProxyPolicy>, Waiting),
    /// In line for an endpoint with room.
    InLine(RetryState),
    /// Sent.
    Sent(RetryState, Lease),
    /// Between two stages.
    Between,
}

impl Proxy {
    /// Begins a request that is not ours.
    pub fn begin(self: &Arc<Self>, asked: NewRequest<'_>) -> Step {
        let NewRequest { head, in_memory, received_at, can_upgrade, bound_to } = asked;
        let policy = self.accounts.policy.load();
        identity::drop_lookalikes(&policy.keys, &mut head.fields);
        let head = &*head;
        let client = identity::client_address(head.peer, &policy.trusted_proxies, &head.fields);
        let wall = self.accounts.clock.wall();
        let ids = RequestIds::of(&head.fields, client.peer_trusted, wall);
        let summary = RequestSummary {
            client_addr: client.address,
            received_at,
            spent: Spent::default(),
            limit: None,
            lease: None,
            seat: None,
            client_gone: false,
            failed: false,
            in_flight: self.accounts.metrics.begin(),
            ids,
        };
        let request_id = &summary.ids.request_id;
        let answer = local::answer(head, &self.instance, &policy.keys, request_id)
            .or_else(|| local::redirect(head, policy.redirect_to, client.peer_trusted, request_id));
        if let Some(answer) = answer {
            return Step::Answer(self.accounts.close(answer, head, summary));
        }
        let when = Moment { now: received_at, wall_s: seconds(wall) };
        let pool = Arc::clone(policy.pools.default_pool());
        let snapshot = pool.backends.snapshot();
        let identity = Identity { client, when, in_memory, can_upgrade, bound_to, pool, snapshot };
        match self.admit.admit(head, &identity.client, when, &policy, None) {
            Ok(admission) => self.proceed(head, summary, &identity, admission, &policy),
            Err(waiting) => self.wait_for_store(summary, identity, Guard::into_inner(policy), waiting),
        }
    }

    /// The limiter has decided: the request is refused, or goes on to a backend.
    fn proceed(
        self: &Arc<Self>,
        head: &RequestHead,
        mut summary: RequestSummary,
        identity: &Identity,
        admission: Admission,
        policy: &ProxyPolicy,
    ) -> Step {
        let Admission { refused, why: _, fields, record, client: counted_as, seat } = admission;
        (summary.limit, summary.seat) = (record, seat);
        if let Some(reject) = refused {
            let mut answer = fields.add_to(reject.answer(&summary.ids.request_id));
            if let Some(cors) = &policy.cors {
                cors.open(&head.fields, admit::has_legacy(policy.headers), &mut answer.fields);
            }
            return Step::Answer(self.accounts.close(answer, head, summary));
        }
        let story = self.story(summary, identity, counted_as, fields);
        let pool = (Arc::clone(&identity.pool), Arc::clone(&identity.snapshot));
        let asked = self.request(&story.admitted, head);
        let mut state = self.forward.begin(&asked, pool, identity.in_memory);
        state.bind(identity.bound_to);
        let next = self.forward.step(state, head, true);
        story.go(next, head)
    }

    fn wait_for_store(
        self: &Arc<Self>,
        summary: RequestSummary,
        identity: Identity,
        policy: Arc<ProxyPolicy>,
        waiting: Waiting,
    ) -> Step {
        let client = ClientKey::address(identity.client.address);
        let mut story = self.story(summary, &identity, client, LimitFields::default());
        let most = nanos(self.admit.limits.load_timeout());
        let until = self.accounts.clock.now().saturating_add(most);
        story.stage = Stage::Identifying(identity, policy, waiting);
        Step::Wait(story, until)
    }

    fn story(
        self: &Arc<Self>,
        summary: RequestSummary,
        identity: &Identity,
        counted_as: ClientKey,
        fields: LimitFields,
    ) -> Box<Story> {
        let admitted = Admitted {
            summary,
            peer_trusted: identity.client.peer_trusted,
            via: identity.snapshot.policy().via,
            counted_as,
            fields,
        };
        let can_upgrade = identity.can_upgrade;
        Box::new(Story { proxy: Arc::clone(self), admitted, can_upgrade, stage: Stage::Between })
    }
}

/// What a request is admitted by. Nothing of it changes while it waits for the database.
struct Identity {
    client: ClientAddress,
    when: Moment,
    in_memory: bool,
    can_upgrade: bool,
    bound_to: Option<u64>,
    pool: Arc<Pool>,
    snapshot: Arc<Snapshot>,
}

impl Story {
    /// Tells what came of its call. `replayable`: none of the body is gone.
    pub fn on(mut self: Box<Self>, event: Event, head: &RequestHead, replayable: bool) -> Step {
        let Stage::Sent(state, lease) = std::mem::replace(&mut self.stage, Stage::Between) else {
            return self.lost(head);
        };
        let event = match event {
            Event::Head(answer) => self.check_switch(answer, head),
            failed => failed,
        };
        let proxy = Arc::clone(&self.proxy);
        match event {
            Event::Head(answer) => {
                match proxy.forward.received(state, lease, head, answer.status, replayable) {
                    Received::Again(state, lease, reuse) => self.go(Next::To(state, lease, reuse), head),
                    Received::Final { lease, spent, set_cookie } => {
                        self.relay(answer, head, lease, spent, set_cookie)
                    }
                }
            }
            Event::Failed(error) => {
                let next = proxy.forward.broke(state, lease, error, head, replayable);
                self.go(next, head)
            }
        }
    }

    /// It was woken, or the time it may wait is over (`late`).
    pub fn resume(mut self: Box<Self>, head: &RequestHead, late: bool) -> Step {
        let proxy = Arc::clone(&self.proxy);
        match std::mem::replace(&mut self.stage, Stage::Between) {
            // In time or not: what is known now decides.
            Stage::Identifying(identity, policy, waiting) => {
                let summary = self.admitted.summary;
                match proxy.admit.admit(head, &identity.client, identity.when, &policy, Some(waiting)) {
                    Ok(admission) => proxy.proceed(head, summary, &identity, admission, &policy),
                    Err(waiting) => proxy.wait_for_store(summary, identity, policy, waiting),
                }
            }
            Stage::InLine(state) if late => {
                let next = Next::Failed(proxy.forward.out_of_patience(state));
                self.go(next, head)
            }
            Stage::InLine(state) => {
                let next = proxy.forward.step(state, head, true);
                self.go(next, head)
            }
            stage => {
                self.stage = stage;
                self.lost(head)
            }
        }
    }

    /// Names whom to tell that it can go on. False: it can already.
    pub fn listen(&self, waker: Waker) -> bool {
        match &self.stage {
            Stage::Identifying(_, _, waiting) => waiting.pending.on_end(waker),
            Stage::InLine(state) => state.on_turn(waker),
            Stage::Sent(..) | Stage::Between => false,
        }
    }

    /// The client left: the end of the story is logged, and no answer is made.
    pub fn abandon(mut self: Box<Self>, head: &RequestHead) {
        let proxy = Arc::clone(&self.proxy);
        let failed = match std::mem::replace(&mut self.stage, Stage::Between) {
            Stage::InLine(state) => NoAnswer { client_gone: true, ..proxy.forward.out_of_patience(state) },
            Stage::Sent(state, lease) => proxy.forward.left(state, lease),
            Stage::Identifying(..) => proxy.forward.left_early(),
            Stage::Between => return,
        };
        if let Step::Answer(answer) = self.go(Next::Failed(failed), head)
            && let Some(ticket) = answer.ticket
        {
            ticket.settle(0, DeliveryOutcome::ClientGone);
        }
    }

    /// The protocol that the request asks to go on in and that may be.
    pub fn protocol<'a>(&'a self, head: &'a RequestHead) -> Option<&'a str> {
        if self.can_upgrade { self.proxy.upgrade_to(head) } else { None }
    }

    /// The request's fields as they go to that endpoint, in memory that this thread lends.
    pub fn outgoing(&self, head: &RequestHead, endpoint: &Endpoint, use_them: impl FnOnce(&Fields)) {
        let origin = self.proxy.request(&self.admitted, head).origin;
        use_them(OutgoingFields::of(head, &origin, endpoint).fields());
    }

    /// The request's id, for the log.
    pub fn request_id(&self) -> &str {
        &self.admitted.summary.ids.request_id
    }

    fn go(mut self: Box<Self>, next: Next, head: &RequestHead) -> Step {
        match next {
            Next::To(state, lease, reuse) => {
                let call = Call {
                    endpoint: Arc::clone(&lease.endpoint),
                    reuse,
                    deadline: state.deadline(),
                    policy: state.call_policy(),
                };
                self.stage = Stage::Sent(state, lease);
                Step::Call(self, call)
            }
            Next::Waits(state) => {
                let until = state.waits_until();
                self.stage = Stage::InLine(state);
                Step::Wait(self, until)
            }
            Next::Failed(failed) => {
                let Admitted { mut summary, fields, .. } = self.admitted;
                // Whether the rest of a body is in the way of the next request is the engine's to know.
                let answer = summary.refuse(failed, false);
                Step::Answer(self.proxy.accounts.close(fields.add_to(answer), head, summary))
            }
        }
    }

    /// What comes of an engine that tells a story something that it does not wait for: a fault of ours.
    fn lost(self: Box<Self>, head: &RequestHead) -> Step {
        let reject = crate::error::Reject::new(
            balancer_http::message::Reason::Internal,
            "the request could not be handled",
        );
        let Admitted { summary, fields, .. } = self.admitted;
        let answer = reject.answer(&summary.ids.request_id);
        Step::Answer(self.proxy.accounts.close(fields.add_to(answer), head, summary))
    }

    /// RFC 9110 §15.2.2: a 101 is an answer to a request for an upgrade alone, and says what it switches to.
    fn check_switch(&self, answer: response::Head, head: &RequestHead) -> Event {
        if answer.status != 101 {
            return Event::Head(answer);
        }
        let cause = match self.protocol(head) {
            None => "a 101 that nobody asked for".to_owned(),
            Some(protocol)
                if answer.fields.has_token("Upgrade", protocol)
                    && answer.fields.has_token("Connection", "upgrade") =>
            {
                return Event::Head(answer);
            }
            Some(protocol) => format!("a 101 that does not switch to {protocol}"),
        };
        Event::Failed(UpstreamError { phase: super::Phase::Malformed, cause })
    }

    /// Makes the client's answer out of a backend's. Its body is the engine's to move.
    fn relay(
        mut self: Box<Self>,
        answer: response::Head,
        head: &RequestHead,
        lease: Lease,
        spent: Spent,
        set_cookie: Option<String>,
    ) -> Step {
        let length = answer.body_length(head.method == "HEAD");
        let declared = answer.declared_length();
        let response::Head { status, reason, fields, .. } = answer;
        let body = match length {
            _ if status == 101 => AnswerBody::Tunnel,
            BodyLength::Empty if head.method == "HEAD" || matches!(status, 204 | 304) => AnswerBody::None {
                declared: match declared {
                    BodyLength::Known(bytes) => Some(bytes),
                    BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => None,
                },
            },
            BodyLength::Empty => AnswerBody::Bytes(Vec::new()),
            length => AnswerBody::Relayed(length),
        };
        let mut fields = headers::to_client(status, fields);
        if status == 101 {
            fields.push("Upgrade", self.protocol(head).unwrap_or_default().as_bytes());
        }
        if let Some(set_cookie) = set_cookie {
            fields.push("Set-Cookie", set_cookie.as_bytes());
        }
        let answer =
            Answer { status, reason: Some(reason), fields, body, close: false, cause: None, ticket: None };
        let Admitted { ref mut summary, fields: ref limits, .. } = self.admitted;
        (summary.lease, summary.spent) = (Some(lease), spent);
        let answer = limits.add_to(answer);
        Step::Answer(self.proxy.accounts.close(answer, head, self.admitted.summary))
    }
}
