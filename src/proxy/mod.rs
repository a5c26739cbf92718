//! A request's story: admit → forward → relay. The libraries decide and count; the world comes in through the traits here,
//! which `upstream`, `store` and `log` implement.

pub mod account;
pub mod admit;
pub mod exchange;
pub mod forward;
pub mod identify;
pub mod lone_peer;
pub mod marks;
mod own;
pub mod policy;
mod relay;
pub mod service;
pub mod story;

use std::sync::Arc;

use crate::proxy::exchange::{
    Abort, Answer, Awaitable, Exchange, Parked, RequestBody, Served, Stream, Upgrade,
};
use balancer_http::fields::Fields;
use balancer_http::headers::{self, Origin};
use balancer_http::max_forwards::{self, MaxForwards};
use balancer_http::message::{BodyLength, RequestHead, Version};
use balancer_limiter::identity::{self, ClientKey};
use balancer_pool::backends::Endpoint;
use balancer_pool::queue::Waker;
use balancer_pool::retry::Failure;
use balancer_time::seconds;
use balancer_time::{Moment, Nanos};

use account::{Accounts, Entry};
use admit::{Admission, Admit, LimitFields};
use forward::{Effort, Forward, Forwarded, Outcome, Request, Way};
use marks::Marks;

/// What happens to a request that is not ours.
pub struct Proxy {
    /// May it?
    pub admit: Admit,
    /// Who answers it?
    pub forward: Forward,
    /// What is left of it.
    pub accounts: Arc<Accounts>,
    /// This instance's id, in `Via` or a field of ours.
    pub instance: String,
    /// `frontend.upgrades`: protocols that a client and a backend may agree on.
    pub upgrades: Vec<String>,
}

/// A request that was admitted, beside its head and its body.
struct Admitted {
    entry: Entry,
    /// Whether the TCP peer is a trusted proxy.
    peer_trusted: bool,
    /// `upstream.via`.
    via: bool,
    /// Whom the limiter takes the client for.
    counted_as: ClientKey,
    /// The limiter's fields for the answer.
    fields: LimitFields,
}

impl Proxy {
    /// Answers one exchange: admit → forward → relay.
    pub fn serve(self: &Arc<Self>, exchange: Exchange<'_>) -> Served {
        let snapshot = self.forward.backends.snapshot();
        let policy = self.accounts.policy.load();
        identity::drop_lookalikes(&policy.keys, &mut exchange.head.fields);
        let (head, received_at) = (&*exchange.head, exchange.received_at);
        let client = identity::client_address(head.peer, &policy.trusted_proxies, &head.fields);
        let wall = self.accounts.clock.wall();
        let marks = Marks::of(&head.fields, client.peer_trusted, wall);
        let mut entry = Entry {
            client_addr: client.address,
            received_at,
            effort: Effort::default(),
            limit: None,
            lease: None,
            seat: None,
            client_gone: false,
            failed: false,
            in_flight: self.accounts.metrics.begin(),
            marks,
        };
        if let Some(answer) = own::answer(head, &self.instance, &policy.keys, &entry.marks.request_id) {
            return self.accounts.close(answer, head, entry).into();
        }
        let when = Moment { now: received_at, wall_s: seconds(wall) };
        let mut waited = None;
        let admission = loop {
            match self.admit.admit(head, &client, when, &policy, waited) {
                Ok(admission) => break admission,
                Err(waiting) => waited = Some(waiting.block(&self.admit.limits)),
            }
        };
        let Admission { refused, why: _, fields, record, client: counted_as, seat } = admission;
        (entry.limit, entry.seat) = (record, seat);
        if let Some(reject) = refused {
            let mut answer = fields.add_to(reject.answer(&entry.marks.request_id));
            if let Some(cors) = &policy.cors {
                cors.open(&head.fields, admit::has_legacy(policy.headers), &mut answer.fields);
            }
            return self.accounts.close(answer, head, entry).into();
        }
        let story = Admitted {
            entry,
            peer_trusted: client.peer_trusted,
            via: snapshot.policy().via,
            counted_as,
            fields,
        };
        let in_memory = exchange.body.buffered().is_some();
        let course = self.forward.begin(&self.request(&story, head, false), snapshot, in_memory);
        self.send(exchange, story, Way::Before(course))
    }

    /// The second and the third step, or the rest of them.
    fn send(self: &Arc<Self>, exchange: Exchange<'_>, mut story: Admitted, way: Way) -> Served {
        let Exchange { head, body, abort, can_upgrade, may_park, .. } = exchange;
        let head = &*head;
        let request = self.request(&story, head, can_upgrade);
        let protocol = request.protocol.unwrap_or_default();
        let answer = match self.forward.forward(way, &request, body, abort, may_park) {
            Outcome::Waits(way) => {
                return Served::Parked(Box::new(Held { proxy: Arc::clone(self), story, way }));
            }
            Outcome::Answered(Forwarded { answered, lease, effort, set_cookie }) => {
                let is_head = head.method == "HEAD";
                let mut answer = relay::relay(answered, is_head, protocol);
                if let Some(set_cookie) = set_cookie {
                    answer.fields.push("Set-Cookie", set_cookie.as_bytes());
                }
                (story.entry.lease, story.entry.effort) = (Some(lease), effort);
                answer
            }
            Outcome::Failed(failed) => {
                // The rest of a body that could not be read is in the way of the next request.
                let close = failed.client_gone || body.consumed();
                story.entry.refuse(failed, close)
            }
        };
        self.accounts.close(story.fields.add_to(answer), head, story.entry).into()
    }

    fn request<'a>(&'a self, story: &'a Admitted, head: &'a RequestHead, can_upgrade: bool) -> Request<'a> {
        let Admitted { entry, peer_trusted, via, counted_as, .. } = story;
        let origin = Origin {
            peer: head.peer,
            trusted: *peer_trusted,
            host: head.host.as_deref().unwrap_or(""),
            request_id: &entry.marks.request_id,
            instance: &self.instance,
            via: *via,
            max_forwards: match max_forwards::of(&head.method, &head.fields) {
                MaxForwards::Left(left) => Some(left),
                _ => None,
            },
        };
        let protocol = if can_upgrade { self.upgrade_to(head) } else { None };
        let received_at = entry.received_at;
        Request { head, client: entry.client_addr, counted_as: *counted_as, origin, protocol, received_at }
    }

    /// The protocol that a request asks to go on in and that may be (RFC 9110 §7.8). In HTTP/1.0 there is none, and a
    /// body would have to be read first.
    fn upgrade_to(&self, head: &RequestHead) -> Option<&str> {
        let is_plain = head.version == Version::Http11 && head.length == BodyLength::Empty;
        if is_plain { headers::upgrade(&head.fields, &self.upgrades) } else { None }
    }
}

/// A request that waits for a backend with room, or for its answer.
struct Held {
    proxy: Arc<Proxy>,
    story: Admitted,
    way: Way,
}

impl Parked for Held {
    fn until(&self) -> Nanos {
        match &self.way {
            Way::Before(course) => course.waits_until(),
            Way::Sent(flight) => flight.until(),
        }
    }

    fn socket(&self) -> Option<Awaitable<'_>> {
        match &self.way {
            Way::Before(_) => None,
            Way::Sent(flight) => Some(flight.socket()),
        }
    }

    fn on_wake(&mut self, waker: Waker) -> bool {
        match &self.way {
            Way::Before(course) => course.on_turn(waker),
            Way::Sent(_) => false,
        }
    }

    fn resume(self: Box<Self>, exchange: Exchange<'_>) -> Served {
        let Self { proxy, story, way } = *self;
        proxy.send(exchange, story, way)
    }

    fn give_up(self: Box<Self>, head: &RequestHead, client_gone: bool) -> Answer {
        let Self { proxy, mut story, way } = *self;
        let failed = proxy.forward.too_late(way, client_gone);
        let answer = story.entry.refuse(failed, client_gone);
        proxy.accounts.close(story.fields.add_to(answer), head, story.entry)
    }
}

/// Sends one request to one endpoint and reads the answer's head.
pub trait Upstream: Send + Sync {
    /// Blocks until the head of the final answer is there, at most `upstream.response_timeout` after the request was
    /// sent. 1xx answers are read and dropped (at most 8), 101 is an error here.
    fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Incoming, UpstreamError>;

    /// The first half of [`Upstream::send`], for a request whose body is in memory: sends it, and does not wait for the
    /// answer.
    fn begin(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Begun, UpstreamError>;

    /// Asks one endpoint to switch to `protocol` (a token, as it stands in `Upgrade`), on a new connection that is never
    /// shared. The request has no body; `request.reuse` does not matter. Blocks as [`Upstream::send`] does.
    fn upgrade(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &Outgoing<'_>,
        protocol: &str,
        abort: &Abort,
    ) -> Result<Answered, UpstreamError>;
}

/// What became of a request that was sent without waiting for its answer.
pub enum Begun {
    /// It was answered before it was sent to its end.
    Answered(Incoming),
    /// It was sent.
    Sent(Box<dyn Awaited>),
}

/// A request that was sent and not yet answered. Dropped, it closes its connection.
pub trait Awaited: Send {
    /// Where the answer comes.
    fn socket(&self) -> Awaitable<'_>;

    /// When the head must be there: [`Awaited::read`] is [`Phase::TimedOut`] from then on.
    fn until(&self) -> Nanos;

    /// Reads what has come, without waiting.
    fn read(self: Box<Self>) -> Result<Read, UpstreamError>;
}

/// What has come of an answer.
pub enum Read {
    /// Its head.
    Head(Incoming),
    /// Less than that.
    Later(Box<dyn Awaited>),
}

/// What a backend answered.
pub enum Answered {
    /// 101, where an upgrade was asked for: the connection speaks the new protocol from here on.
    Switched {
        /// The reason phrase as it came; may be empty.
        reason: Vec<u8>,
        /// All fields in order, `Connection` and `Upgrade` among them.
        fields: Fields,
        /// The connection.
        connection: Upgrade,
    },
    /// Anything else: the backend stays with HTTP.
    Http(Incoming),
}

impl Answered {
    /// 101, or 200 to 999.
    fn status(&self) -> u16 {
        match self {
            Self::Switched { .. } => 101,
            Self::Http(incoming) => incoming.status,
        }
    }
}

/// A request as it goes upstream: everything is written anew from this.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// A token.
    pub method: &'a str,
    /// Origin form.
    pub target: &'a str,
    /// End-to-end fields in order, `Host` among them; no `Content-Length`, `Transfer-Encoding` or `Connection`.
    pub fields: &'a Fields,
    /// [`BodyLength::Known`] goes out with Content-Length, [`BodyLength::Chunked`] chunked.
    pub length: BodyLength,
    /// Which kept connections may be taken.
    pub reuse: Reuse,
    /// When all of it must be over, the answer's body too: `upstream.request_timeout`. Passing it before the answer's
    /// head is [`Phase::TimedOut`].
    pub deadline: Option<Nanos>,
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

/// An answer's head, checked strictly, and its body, unread.
pub struct Incoming {
    /// 200 to 599; up to 999 with `upstream.accept_invalid`.
    pub status: u16,
    /// The reason phrase as it came; may be empty.
    pub reason: Vec<u8>,
    /// All fields in order except `Content-Length` and `Transfer-Encoding`.
    pub fields: Fields,
    /// How its body ends. For HEAD and 304 that is the length that a GET would have had; `body` is then at its end.
    pub length: BodyLength,
    /// The body. Read to its end it gives its connection back to the pool, dropped before it closes it.
    pub body: Box<dyn Stream>,
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
    /// The client left; the call was ended by [`Abort::cancel`].
    Cancelled,
    /// This process has no descriptor, port or memory left for a connection: nobody's failure but ours.
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
