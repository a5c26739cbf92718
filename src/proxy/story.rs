//! A request's story without I/O: admit → forward → relay. An engine tells it what happened and does what the [`Step`]
//! asks for; it never blocks and owns no socket, so that both engines drive the same one.

mod begin;
mod traced;

use std::sync::Arc;

use begin::Identity;

use super::exchange::{Answer, AnswerBody, DeliveryOutcome};
use super::forward::{Next, OutgoingFields, Received, RetryState, Spent};
use super::identify::Waiting;
use super::policy::ProxyPolicy;
use super::routes::{CheckedUsers, PasswordTicket};
use super::{Admitted, LateRefusal, Phase, Proxy, Reuse, UpstreamError};
use crate::error::Reject;
use balancer_http::fields::Fields;
use balancer_http::framing::response;
use balancer_http::headers;
use balancer_http::message::{BodyLength, Reason, RequestHead};
use balancer_pool::backends::{Endpoint, Lease};
use balancer_pool::policy::CallPolicy;
use balancer_pool::queue::Waker;
use balancer_time::Nanos;

/// A new request, as an engine hands it over.
pub struct NewRequest<'a> {
    /// What was asked.
    pub head: &'a mut RequestHead,
    /// The whole body is in memory: it can be sent again.
    pub in_memory: bool,
    /// Bytes of the body that came.
    pub body_bytes: u64,
    /// When the head was complete.
    pub received_at: Nanos,
    /// Whether the engine can relay both directions of a connection after a 101.
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
    /// Wait until the waker is called ([`Story::listen`]), at most until this time of the clock.
    Wait(Box<Story>, Nanos),
    /// Have the whole body read, at most so many bytes, and the request answered by [`super::service::Service::work`]
    /// on a thread that may block.
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
    /// Longest body, where that is less than `frontend.max_body_bytes`.
    pub max_body_bytes: Option<u64>,
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
    /// Its client is looked up in the store.
    Identifying(Identity, Arc<ProxyPolicy>, Waiting),
    /// Its password is checked.
    CheckingUsers(Identity, Arc<ProxyPolicy>, PasswordTicket, CheckedUsers),
    /// In line for an endpoint with room.
    InLine(RetryState),
    /// Sent.
    Sent(RetryState, Lease),
    /// Between two stages.
    Between,
}

impl Story {
    /// Tells what came of its call. `replayable`: all of the body can be sent again.
    pub fn on(mut self: Box<Self>, event: Event, head: &RequestHead, replayable: bool) -> Step {
        let Stage::Sent(state, lease) = std::mem::replace(&mut self.stage, Stage::Between) else {
            return self.lost(head);
        };
        let event = match event {
            Event::Head(answer) => self.check_switch(answer, head),
            failed => failed,
        };
        self.attempt_ended(match &event {
            Event::Head(answer) => Ok(answer.status),
            Event::Failed(error) => Err(error.phase),
        });
        let proxy = Arc::clone(&self.proxy);
        match event {
            Event::Head(answer) => {
                match proxy.forward.received(state, lease, head, answer.status, replayable) {
                    Received::Again(state, lease, reuse) => self.go(Next::To(*state, lease, reuse), head),
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

    /// Goes on after a [`Step::Wait`]: it was woken, or the time it may wait is over (`late`).
    pub fn resume(mut self: Box<Self>, head: &RequestHead, late: bool) -> Step {
        let proxy = Arc::clone(&self.proxy);
        match std::mem::replace(&mut self.stage, Stage::Between) {
            // Late or not, what the store has said by now decides.
            Stage::Identifying(identity, policy, waiting) => {
                let summary = self.admitted.summary;
                let Identity { client, met, when, .. } = &identity;
                match proxy.admit.admit(head, client, met, *when, &policy, Some(waiting)) {
                    Ok(admission) => proxy.proceed(head, summary, identity, admission, &policy),
                    Err(waiting) => proxy.wait_for_store(summary, identity, policy, waiting),
                }
            }
            Stage::CheckingUsers(_, policy, ..) if late => self.unchecked(head, &policy),
            Stage::CheckingUsers(identity, policy, _, passed) => {
                self.check_users(head, identity, &policy, passed)
            }
            // If its turn came at the last moment, it takes the free place, which would stay unused otherwise.
            Stage::InLine(state) if late && !state.is_told() => {
                let next = Next::Failed(proxy.forward.out_of_patience(state));
                self.go(next, head)
            }
            Stage::InLine(state) => {
                let next = proxy.forward.step(state, head);
                self.go(next, head)
            }
            stage => {
                self.stage = stage;
                self.lost(head)
            }
        }
    }

    /// Has `waker` called when it can go on. False: it can already, and `waker` is dropped.
    pub fn listen(&self, waker: Waker) -> bool {
        match &self.stage {
            Stage::Identifying(_, _, waiting) => waiting.pending.on_end(waker),
            Stage::CheckingUsers(_, _, ticket, _) => ticket.on_end(waker),
            Stage::InLine(state) => state.on_turn(waker),
            Stage::Sent(..) | Stage::Between => false,
        }
    }

    /// The client left: everything is given back, the end is logged, and no answer is sent.
    pub fn abandon(mut self: Box<Self>, head: &RequestHead) {
        let proxy = Arc::clone(&self.proxy);
        let failed = match std::mem::replace(&mut self.stage, Stage::Between) {
            Stage::InLine(state) => proxy.forward.left_line(state),
            Stage::Sent(state, lease) => {
                self.attempt_ended(Err(Phase::Cancelled));
                proxy.forward.left(state, lease)
            }
            Stage::Identifying(..) | Stage::CheckingUsers(..) => proxy.forward.left_early(),
            Stage::Between => return,
        };
        if let Step::Answer(answer) = self.go(Next::Failed(failed), head)
            && let Some(ticket) = answer.ticket
        {
            ticket.settle(0, DeliveryOutcome::ClientGone);
        }
    }

    /// The protocol that the request asks to switch to, if that is allowed.
    pub fn protocol<'a>(&'a self, head: &'a RequestHead) -> Option<&'a str> {
        if self.can_upgrade { self.proxy.upgrade_to(head) } else { None }
    }

    /// The request's fields as they go to that endpoint, in memory that this thread lends.
    pub fn outgoing(&self, head: &RequestHead, endpoint: &Endpoint, use_them: impl FnOnce(&Fields)) {
        let Admitted { route, rewritten, .. } = &self.admitted;
        let origin = self.proxy.request(&self.admitted, head).origin;
        let mut out = OutgoingFields::of(head, &origin, endpoint);
        self.trace_on(out.fields_mut());
        if let Some(route) = route {
            route.set_request_fields(out.fields_mut(), rewritten, self.admitted.as_asked(head));
        }
        use_them(out.fields());
    }

    /// The request's target as it goes to a backend.
    pub fn target<'a>(&'a self, head: &'a RequestHead) -> &'a str {
        self.admitted.rewritten.target.as_deref().unwrap_or(&head.target)
    }

    /// For an engine that may find out late that the answer is broken.
    pub fn late_refusal(&self) -> LateRefusal {
        let Admitted { summary, route, fields, .. } = &self.admitted;
        LateRefusal {
            route: route.clone(),
            fields: fields.clone(),
            client_addr: summary.client_addr,
            request_id: summary.ids.request_id.clone(),
        }
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
                    max_body_bytes: self
                        .admitted
                        .route
                        .as_ref()
                        .and_then(|route| route.config.max_body_bytes),
                    policy: state.call_policy(),
                };
                self.attempt_begins(&lease.endpoint, state.picked_at());
                self.stage = Stage::Sent(state, lease);
                Step::Call(self, call)
            }
            Next::Waits(state) => {
                let until = state.waits_until();
                self.stage = Stage::InLine(state);
                Step::Wait(self, until)
            }
            Next::Failed(failed) => {
                // `false`: only the engine knows whether an unread rest of the body is in the way of the next request.
                let answer = self.admitted.summary.refuse(failed, false);
                let answer = self.admitted.dress(answer, head);
                Step::Answer(self.proxy.accounts.close(answer, head, self.admitted.summary))
            }
        }
    }

    /// Answers with 500. The engine told the story something that it does not wait for, which is a bug of ours.
    fn lost(self: Box<Self>, head: &RequestHead) -> Step {
        let reject = Reject::new(Reason::Internal, "the request could not be handled");
        self.end_with(&reject, head)
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
        Event::Failed(UpstreamError { phase: Phase::Malformed, cause })
    }

    /// Makes the client's answer out of a backend's. The engine moves the body.
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
        if let Some(route) = &self.admitted.route {
            route.set_answer_fields(&mut fields, self.admitted.as_asked(head));
        }
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
