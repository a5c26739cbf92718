//! What becomes of a request that is not for our own API: admit → forward → relay. The libraries decide and count;
//! [`story`] puts their decisions in order. Nothing here does I/O: engines call [`service::Service`], and do what a
//! [`story::Step`] asks for.

pub mod account;
pub mod admit;
pub mod exchange;
pub mod forward;
pub mod identify;
mod local;
pub mod lone_peer;
pub mod policy;
pub mod pools;
pub mod request_ids;
pub mod routes;
pub mod service;
pub mod story;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use balancer_http::headers::{self, Origin};
use balancer_http::max_forwards::{self, MaxForwards};
use balancer_http::message::{BodyLength, Reason, RequestHead, Version};
use balancer_importance::Importance;
use balancer_limiter::identity::ClientKey;
use balancer_pool::retry::Failure;

use crate::error::Reject;
use crate::log::record::LimitRecord;
use account::{Accounts, RequestSummary};
use admit::{Admit, LimitFields};
use exchange::Answer;
use forward::{Forward, ForwardRequest};
use routes::{ActiveRoute, PasswordLane, Rewritten, RouteRequest};

/// Everything that the requests of all clients share.
pub struct Proxy {
    /// Decides whether a request may go on.
    pub admit: Admit,
    /// Decides which endpoint it is sent to.
    pub forward: Forward,
    /// Records how it ended.
    pub accounts: Arc<Accounts>,
    /// This instance's id, sent in `Via` or in a field of our own, by which loops are found.
    pub instance: String,
    /// Where passwords are checked.
    pub passwords: PasswordLane,
    /// `frontend.upgrades`: protocols that a client and a backend may agree on.
    pub upgrades: Vec<String>,
}

/// What is known of a request under way, beside its head and its body.
struct Admitted {
    summary: RequestSummary,
    /// Whether the TCP peer is a trusted proxy.
    peer_trusted: bool,
    /// `upstream.via`.
    via: bool,
    /// The key that the limiter counts the client by.
    counted_as: ClientKey,
    /// How soon it gets a place in its pool when all are taken.
    importance: Importance,
    /// The limiter's fields for the answer.
    fields: LimitFields,
    /// Its route, if there are routes and one takes it.
    route: Option<Arc<ActiveRoute>>,
    /// What the route changed of its target.
    rewritten: Rewritten,
}

impl Admitted {
    /// The answer to a request that we refuse.
    fn refusal(&self, reject: &Reject, head: &RequestHead) -> Answer {
        self.dress(reject.answer(&self.summary.ids.request_id), head)
    }

    /// Adds to a refusal what its route and the limiter set in it.
    fn dress(&self, answer: Answer, head: &RequestHead) -> Answer {
        dressed(answer, self.route.as_deref(), &self.fields, self.as_asked(head))
    }

    fn as_asked<'a>(&'a self, head: &'a RequestHead) -> RouteRequest<'a> {
        let RequestSummary { client_addr, ids, .. } = &self.summary;
        RouteRequest { head, client: *client_addr, request_id: &ids.request_id }
    }
}

fn dressed(
    answer: Answer,
    route: Option<&ActiveRoute>,
    fields: &LimitFields,
    asked: RouteRequest<'_>,
) -> Answer {
    fields.add_to(match route {
        Some(route) => route.dress(answer, asked),
        None => answer,
    })
}

/// What the refusal is made with that takes the place of a backend's answer, where the engine finds out late that this
/// one is broken.
pub struct LateRefusal {
    route: Option<Arc<ActiveRoute>>,
    fields: LimitFields,
    client_addr: IpAddr,
    request_id: String,
}

impl LateRefusal {
    /// The 502. Its date is that of the broken answer, whose ticket goes on to count.
    pub fn in_place_of(&self, broken: &Answer, cause: &str, head: &RequestHead) -> Answer {
        let reject = Reject::new(Reason::BadGateway, "the backend's answer broke off").because(cause);
        let asked = RouteRequest { head, client: self.client_addr, request_id: &self.request_id };
        let answer = reject.answer(&self.request_id);
        dressed(answer, self.route.as_deref(), &self.fields, asked)
            .with("Date", broken.fields.get("Date").unwrap_or_default())
            .with("X-Request-Id", &self.request_id)
    }
}

impl Proxy {
    fn request<'a>(&'a self, story: &'a Admitted, head: &'a RequestHead) -> ForwardRequest<'a> {
        let Admitted { summary, peer_trusted, via, counted_as, importance, .. } = story;
        let origin = Origin {
            peer: head.peer,
            trusted: *peer_trusted,
            host: head.host.as_deref().unwrap_or(""),
            is_secure: head.secure.is_some(),
            request_id: &summary.ids.request_id,
            instance: &self.instance,
            via: *via,
            max_forwards: match max_forwards::of(&head.method, &head.fields) {
                MaxForwards::Left(left) => Some(left),
                _ => None,
            },
        };
        let received_at = summary.received_at;
        ForwardRequest {
            client_id: summary.limit.as_ref().and_then(LimitRecord::client_id),
            head,
            client: summary.client_addr,
            counted_as: *counted_as,
            importance: *importance,
            origin,
            received_at,
        }
    }

    /// The protocol that a request asks to switch to, if `frontend.upgrades` has it (RFC 9110 §7.8). HTTP/1.0 has no
    /// upgrades, and a request with a body gets none, since its body would have to be read first.
    fn upgrade_to(&self, head: &RequestHead) -> Option<&str> {
        let is_plain = head.version == Version::Http11 && head.length == BodyLength::Empty;
        if is_plain { headers::upgrade(&head.fields, &self.upgrades) } else { None }
    }
}

/// Which kept connections a request may be sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Any that has not passed `upstream.idle_timeout`.
    Any,
    /// Only one that was idle under a second: the request could not be sent again if the connection turned out stale.
    Recent,
    /// None: a new one.
    Never,
}

/// Why no answer's head came.
#[derive(Debug)]
pub struct UpstreamError {
    /// How far it got; decides whether the request may be sent again and what the client is told.
    pub phase: Phase,
    /// For the log: which address, which system error or which rule of framing.
    pub cause: String,
}

/// How far a call got before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The connection was refused, or could not be made for another reason that took no time: nothing was sent.
    Connect,
    /// No connection within `upstream.connect_timeout`: nothing was sent.
    ConnectTimedOut,
    /// A kept connection broke before any byte of an answer came.
    Stale,
    /// A new connection broke after something was sent, before the answer's head was whole.
    Reset,
    /// No head within `upstream.response_timeout`, or within what was left of `upstream.request_timeout`.
    TimedOut,
    /// An answer that breaks RFC 9112 as `upstream.accept_invalid` does not allow, is ambiguous, or passes a bound.
    Malformed,
    /// The request's body could not be read from the client: [`crate::proxy::exchange::BodyFault`] says why.
    RequestBody(crate::proxy::exchange::BodyFault),
    /// The client left.
    Cancelled,
    /// This process has no descriptor, port or memory left for a connection. That is no failure of the backend.
    Shortage,
}

impl From<Phase> for Failure {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Connect => Self::Connect,
            Phase::ConnectTimedOut => Self::ConnectTimedOut,
            Phase::Stale => Self::Stale,
            Phase::Reset => Self::Reset,
            Phase::TimedOut => Self::TimedOut,
            Phase::Malformed => Self::Malformed,
            Phase::RequestBody(_) | Phase::Cancelled | Phase::Shortage => Self::Client,
        }
    }
}
