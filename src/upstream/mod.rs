//! How requests reach backends: [`UreqUpstream`] implements the proxy's [`Upstream`].
//!
//! ureq writes the request and drives the exchange up to the answer's head, behind a transport of ours. The parts:
//!
//! - `agent`: ureq's settings, and requests in its terms.
//! - `transport`: what ureq sees; the answer stays with us.
//! - `call`: one request on one connection: sending, early answers, the strict look at the head.
//! - `apart`: the same in two steps, so that nobody waits for the answer in between.
//! - `body`: the answer's body, read straight from the socket.
//! - `connection`, `pool`: sockets, and those that are kept.
//! - `upgrade`: the same with a 101, which ureq can't do.
//! - [`resolve`]: backends' names, on an interval.
//!
//! Why ureq judges no answer: it drops reason phrases, takes Transfer-Encoding together with Content-Length, `5, 5` and
//! bare LF, swallows endless 1xx, takes a reset for the end of a close-delimited body, and never reads while it sends.
//! [`balancer_http::framing::response`] judges instead. Why connections are opened here and not by ureq's connector: the
//! handle that can end a blocked call is borrowed from the exchange, and no borrow passes through ureq.
//!
//! An exchange on a kept connection costs three system calls: a look for bytes that nobody asked for, send, receive.
//! `benches/upstream.rs` measures it.
//!
//! What this can't do: go on sending a request while its answer is relayed. A backend that answers before it has read
//! everything is served as far as the kernel's buffers go (`call` says how).

mod agent;
mod apart;
mod body;
mod call;
mod connection;
mod pool;
pub mod prober;
pub mod resolve;
mod spare;
#[cfg(test)]
mod tests;
mod transport;
mod upgrade;

use std::sync::Arc;

use arc_swap::ArcSwap;
use ureq::{Agent, SendBody};

use crate::clock::Clock;
use crate::config::UpstreamConfig;
use crate::proxy::exchange::{Abort, RequestBody};
use crate::proxy::{Answered, Begun, Incoming, Outgoing, Phase, Upstream, UpstreamError};
use balancer_http::framing::response::{Finder, Head, HeadRules};
use balancer_http::message::BodyLength;
use balancer_pool::backends::Endpoint;
use body::{Body, Source};
use call::{Call, Limits};
use connection::Connection;
use pool::{Pool, Stack};
use spare::Buffers;

/// Calls backends over ureq and keeps their connections. Shared by all workers.
#[derive(Debug)]
pub struct UreqUpstream {
    agent: Agent,
    config: ArcSwap<UpstreamConfig>,
    clock: Clock,
    pool: Pool,
}

/// Takes the socket from the exchange's handle again, whichever way the call ends.
struct Watched<'a>(&'a Abort);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn failed(phase: Phase, cause: impl std::fmt::Display) -> UpstreamError {
    UpstreamError { phase, cause: cause.to_string() }
}

fn unconnected(error: std::io::Error) -> UpstreamError {
    let timed_out = error.kind() == std::io::ErrorKind::TimedOut;
    failed(if timed_out { Phase::ConnectTimedOut } else { Phase::Connect }, error)
}

impl UreqUpstream {
    /// Opens nothing yet.
    pub fn new(config: &UpstreamConfig, clock: Clock) -> Self {
        let pool = Pool::new(config.idle_timeout);
        Self { agent: agent::agent(), config: ArcSwap::from_pointee(config.clone()), clock, pool }
    }

    /// Puts other times in force, for calls that begin from now on and for kept connections.
    pub fn reconfigure(&self, config: &UpstreamConfig) {
        self.config.store(Arc::new(config.clone()));
        self.pool.set_idle_timeout(config.idle_timeout);
    }

    /// Closes kept connections that are past `upstream.idle_timeout`. Happens by itself while there is traffic; for
    /// whoever keeps house when there is none. Does nothing when called again within a second.
    pub fn sweep(&self) {
        self.pool.sweep(self.clock.now());
    }

    /// How long the rest of a call may take.
    fn limits(&self, outgoing: &Outgoing<'_>) -> Limits {
        Limits { timeout: self.config.load().response_timeout, deadline: outgoing.deadline }
    }

    /// How answers' heads are read.
    fn head_rules(&self) -> HeadRules {
        self.config.load().head_rules()
    }

    /// A kept connection or a new one, watched by `abort`.
    fn connection(
        &self,
        endpoint: &Endpoint,
        stack: &Stack,
        outgoing: &Outgoing<'_>,
        abort: &Abort,
    ) -> Result<Connection, UpstreamError> {
        if let Some(kept) = self.kept(stack, outgoing, abort) {
            abort.watch(kept.socket());
            return Ok(kept);
        }
        self.open(endpoint, outgoing, abort)
    }

    /// A kept connection, if there is one that this request may go on.
    fn kept(&self, stack: &Stack, outgoing: &Outgoing<'_>, abort: &Abort) -> Option<Connection> {
        let now = self.clock.now();
        self.pool.sweep(now);
        self.pool.take(stack, outgoing.reuse, now, |kept| abort.looking(kept.socket()))
    }

    /// A new connection, watched by `abort`.
    fn open(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing<'_>,
        abort: &Abort,
    ) -> Result<Connection, UpstreamError> {
        let (limit, is_deadline) =
            self.limits(outgoing).left(self.config.load().connect_timeout, &self.clock);
        if limit.is_zero() {
            return Err(failed(Phase::TimedOut, "no time is left to connect (upstream.request_timeout)"));
        }
        Connection::open(endpoint.address, limit, abort).map_err(unconnected).map_err(|error| {
            match error.phase {
                Phase::ConnectTimedOut if is_deadline => failed(
                    Phase::TimedOut,
                    format_args!("no connection within {limit:?} (upstream.request_timeout)"),
                ),
                _ => error,
            }
        })
    }

    /// Sends the request and reads the answer's head; the call comes back with its outcome. `leaves`: it comes back when
    /// it is sent.
    fn exchange(
        &self,
        connection: Connection,
        ready: Ready,
        outgoing: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        leaves: bool,
    ) -> Result<Box<Call>, UpstreamError> {
        let Ready { request, buffers, finder } = ready;
        let has_body = !matches!(outgoing.length, BodyLength::Empty | BodyLength::Known(0));
        let limits = self.limits(outgoing);
        let mut call = Box::new(Call::new(connection, buffers, self.clock.clone(), limits, finder));
        let mut reader = agent::Reader::new(body, outgoing.length);
        call.streaming = has_body && !reader.in_memory();
        call.leaves = leaves;
        let (call, result) = transport::run(call, || {
            if has_body {
                self.agent.run(request.map(|()| SendBody::from_reader(&mut reader))).map(drop)
            } else {
                self.agent.run(request.map(|()| SendBody::none())).map(drop)
            }
        });
        let mut call = call.ok_or_else(|| failed(Phase::Reset, "ureq kept the transport"))?;
        if let Some(fault) = reader.fault {
            return Err(failed(Phase::RequestBody(fault), fault));
        }
        if call.outcome.is_none() && !call.is_sent {
            match result {
                // Sending was stopped: the backend has said why, or has gone.
                Err(_) if call.cut_short => call.conclude(),
                Err(error) => return Err(failed(Phase::Malformed, error)),
                Ok(()) => return Err(failed(Phase::Malformed, "ureq did not ask for the answer")),
            }
        }
        Ok(call)
    }

    /// What is needed before a connection is.
    fn ready(&self, endpoint: &Endpoint, outgoing: &Outgoing<'_>) -> Result<Ready, UpstreamError> {
        let finder = Finder::new(false, self.head_rules());
        let mut buffers = Buffers::lend(finder.rules().max_head_bytes);
        // Not the backend's fault, but it can't be sent either.
        let prepared = agent::prepare(outgoing, endpoint, &mut buffers.lines)
            .map_err(|cause| failed(Phase::Malformed, cause))?;
        let is_chunked = matches!(outgoing.length, BodyLength::Chunked | BodyLength::UntilClose);
        buffers.make_room(prepared.head_bytes + buffers.lines.len(), is_chunked);
        Ok(Ready { request: prepared.request, buffers, finder })
    }

    fn call(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Incoming, UpstreamError> {
        let ready = self.ready(endpoint, outgoing)?;
        let _watched = Watched(abort);
        let stack = self.pool.stack(endpoint.id);
        let connection = self.connection(endpoint, &stack, outgoing, abort)?;
        let mut call = self.exchange(connection, ready, outgoing, body, false)?;
        match call.outcome.take() {
            Some(Ok(head)) => {
                // Before the connection can go home: whoever takes it there must not lose it to this exchange's client.
                abort.release();
                Ok(incoming(*call, head, outgoing.method == "HEAD", stack))
            }
            Some(Err(error)) => Err(error),
            None => Err(failed(Phase::Reset, "no outcome")),
        }
    }
}

/// A request in ureq's terms, the memory that it is sent with, and how its answer is looked for.
struct Ready {
    request: http::Request<()>,
    buffers: Buffers,
    finder: Finder,
}

/// The answer as the proxy gets it. The call is over.
fn incoming(mut call: Call, head: Head, to_head: bool, stack: Arc<Stack>) -> Incoming {
    let length = head.body_length(to_head);
    let may_keep = head.keep_alive && !call.cut_short && length != BodyLength::UntilClose;
    let source = Source { connection: call.connection, home: may_keep.then_some(stack), clock: call.clock };
    let body = Body::new(length, &mut call.buffers.input, call.body_at, source, call.limits);
    call.buffers.give_back();
    Incoming {
        status: head.status,
        length: if to_head || head.status == 304 { head.declared_length() } else { length },
        reason: head.reason,
        fields: head.fields,
        body: Box::new(body),
    }
}

/// What every call does around itself: nothing for a client that has left, and causes that name the address.
fn guarded<T>(
    endpoint: &Endpoint,
    abort: &Abort,
    call: impl FnOnce() -> Result<T, UpstreamError>,
) -> Result<T, UpstreamError> {
    let result = if abort.cancelled() { Err(failed(Phase::Cancelled, "before it was sent")) } else { call() };
    result.map_err(|mut error| {
        if abort.cancelled() {
            error.phase = Phase::Cancelled;
        }
        error.cause = format!("{}: {}", endpoint.address, error.cause);
        error
    })
}

impl Upstream for UreqUpstream {
    fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Incoming, UpstreamError> {
        guarded(endpoint, abort, || {
            abort.calling(endpoint.id);
            self.call(endpoint, request, body, abort)
        })
    }

    fn begin(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Begun, UpstreamError> {
        guarded(endpoint, abort, || self.leave(endpoint, request, body, abort))
    }

    fn upgrade(
        &self,
        endpoint: &Arc<Endpoint>,
        request: &Outgoing<'_>,
        protocol: &str,
        abort: &Abort,
    ) -> Result<Answered, UpstreamError> {
        guarded(endpoint, abort, || {
            abort.calling(endpoint.id);
            self.switch(endpoint, request, protocol, abort)
        })
    }
}
