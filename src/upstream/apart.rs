//! A call in two steps: the request is sent, by ureq as always; its answer's head is read when the socket has something,
//! by whichever thread is told so. Nothing is held in between but the connection, so that a thousand slow answers cost no
//! thread and a quick one no switch between threads.

use std::net::SocketAddr;
use std::sync::Arc;

use super::call::Call;
use super::connection::Connection;
use super::pool::Stack;
use super::{UreqUpstream, Watched, failed, incoming};
use crate::proxy::exchange::{Abort, Awaitable, RequestBody};
use crate::proxy::{Awaited, Begun, Outgoing, Phase, Read, UpstreamError};
use balancer_pool::backends::Endpoint;
use balancer_time::Nanos;

/// A request that was sent.
struct Sent {
    call: Box<Call>,
    /// Where its connection goes afterwards.
    stack: Arc<Stack>,
    /// What came of a head that is not whole.
    partial: Vec<u8>,
    until: Nanos,
    until_deadline: bool,
    to_head: bool,
    address: SocketAddr,
}

impl UreqUpstream {
    /// Sends a request whose body is in memory. Waits for no more than a connection, and for the kernel to take a large body.
    pub(super) fn leave(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Begun, UpstreamError> {
        let ready = self.ready(endpoint, outgoing)?;
        let stack = self.pool.stack(endpoint.id);
        let connection = self.unwatched(endpoint, &stack, outgoing, abort)?;
        let mut call = self.exchange(connection, ready, outgoing, body, true)?;
        let to_head = outgoing.method == "HEAD";
        match call.outcome.take() {
            None if call.is_sent => {}
            // It was answered, or stopped, before all of it was sent.
            Some(Ok(head)) => return Ok(Begun::Answered(incoming(*call, head, to_head, stack))),
            Some(Err(error)) => return Err(error),
            None => return Err(failed(Phase::Reset, "no outcome")),
        }
        // Nothing, unless the answer began while a large body was sent.
        let (partial, address) = (call.buffers.input.clone(), endpoint.address);
        std::mem::take(&mut call.buffers).give_back();
        let (until, until_deadline) = call.head_due();
        Ok(Begun::Sent(Box::new(Sent { call, stack, partial, until, until_deadline, to_head, address })))
    }

    /// A kept connection, or a new one, which is waited for as always.
    fn unwatched(
        &self,
        endpoint: &Endpoint,
        stack: &Stack,
        outgoing: &Outgoing<'_>,
        abort: &Abort,
    ) -> Result<Connection, UpstreamError> {
        if let Some(kept) = self.kept(stack, outgoing, abort) {
            return Ok(kept);
        }
        abort.calling(endpoint.id);
        let _watched = Watched(abort);
        self.open(endpoint, outgoing, abort)
    }
}

impl Awaited for Sent {
    fn socket(&self) -> Awaitable<'_> {
        self.call.connection.awaitable()
    }

    fn until(&self) -> Nanos {
        self.until
    }

    fn read(mut self: Box<Self>) -> Result<Read, UpstreamError> {
        self.call.buffers = self.call.lend_buffers();
        self.call.buffers.input.append(&mut self.partial);
        let read = match self.call.poll_head() {
            Ok(None) if self.call.clock.now() >= self.until => Err(self.call.late(self.until_deadline)),
            read => read,
        };
        match read {
            Ok(Some(head)) => {
                let Self { call, stack, to_head, .. } = *self;
                Ok(Read::Head(incoming(*call, head, to_head, stack)))
            }
            Ok(None) => {
                let mut buffers = std::mem::take(&mut self.call.buffers);
                self.partial.extend_from_slice(&buffers.input);
                buffers.input.clear();
                buffers.give_back();
                Ok(Read::Later(self))
            }
            Err(mut error) => {
                std::mem::take(&mut self.call.buffers).give_back();
                error.cause = format!("{}: {}", self.address, error.cause);
                Err(error)
            }
        }
    }
}
