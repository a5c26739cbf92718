//! A request's story: admit → forward → relay. Uses rules and state; the world comes in through the traits here, which
//! `edge` implements.

pub mod account;

use std::sync::Arc;

use crate::exchange::{Abort, BodyLength, RequestBody, Stream};
use crate::rules::fields::Fields;
use crate::rules::retry::Failure;
use crate::state::backends::Endpoint;

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
    /// 200 to 599.
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
    /// No connection: nothing was sent.
    Connect,
    /// A kept connection broke before any byte of an answer came.
    Stale,
    /// A new connection broke after something was sent, before the answer's head was whole.
    Reset,
    /// No head within `upstream.response_timeout`.
    TimedOut,
    /// An answer that breaks RFC 9112, is ambiguous, or passes a bound.
    Malformed,
    /// The request's body could not be read from the client: [`crate::exchange::BodyFault`] says why.
    RequestBody(crate::exchange::BodyFault),
    /// The client left; the call was ended by [`Abort::cancel`].
    Cancelled,
}

impl From<Phase> for Failure {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Connect => Self::Connect,
            Phase::Stale => Self::Stale,
            Phase::Reset => Self::Reset,
            Phase::TimedOut => Self::TimedOut,
            Phase::Malformed => Self::Malformed,
            Phase::RequestBody(_) | Phase::Cancelled => Self::Client,
        }
    }
}
