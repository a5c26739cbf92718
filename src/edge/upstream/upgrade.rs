//! Upgrades (RFC 9110 §7.8): a request that ureq can't make, since it knows no way to go on after a 101. The head is
//! written here, from the same parts; it is sent, and the answer read, by the same [`Call`].

use rustix::io::Errno;

use super::call::Call;
use super::connection::Connection;
use super::spare::Buffers;
use super::{UreqUpstream, Watched, agent, failed};
use crate::exchange::{Abort, BodyLength, Upgrade};
use crate::proxy::{Outgoing, Phase, Upgraded, UpstreamError};
use crate::rules::framing::bytes::{TOKEN, VALUE, is};
use crate::rules::framing::response::{Finder, Head};
use crate::state::backends::Endpoint;

impl UreqUpstream {
    pub(super) fn switch(
        &self,
        endpoint: &Endpoint,
        request: &Outgoing<'_>,
        protocol: &str,
        abort: &Abort,
    ) -> Result<Upgraded, UpstreamError> {
        let head =
            request_head(endpoint, request, protocol).map_err(|cause| failed(Phase::Malformed, cause))?;
        let _watched = Watched(abort);
        let connection = Connection::open(endpoint.address, self.config.connect_timeout, abort)
            .map_err(super::unconnected)?;
        let buffers = Buffers::lend(head.len(), false);
        let timeout = self.config.response_timeout;
        let mut call =
            Call::new(connection, buffers, head.len(), self.clock.clone(), timeout, Finder::new(true));
        call.room()[..head.len()].copy_from_slice(&head);
        // Whether it was sent or stopped, `conclude` goes on from there.
        let _ = call.written(head.len());
        if call.outcome.is_none() {
            call.conclude();
        }
        match call.outcome.take() {
            Some(Ok(head)) if head.status == 101 => {
                // Before the socket changes hands: the exchange's handle must not end it any more.
                abort.release();
                switched(call, head, protocol)
            }
            Some(Ok(head)) => {
                let stack = self.pool.stack(endpoint.id);
                Ok(Upgraded::Refused(self.incoming(call, head, request.method == "HEAD", stack)))
            }
            Some(Err(error)) => Err(error),
            None => Err(failed(Phase::Reset, Errno::NOTCONN)),
        }
    }
}

fn switched(call: Call, head: Head, protocol: &str) -> Result<Upgraded, UpstreamError> {
    // RFC 9110 §15.2.2: a 101 says what it switches to.
    if !head.fields.has_token("Upgrade", protocol) || !head.fields.has_token("Connection", "upgrade") {
        return Err(failed(Phase::Malformed, format!("a 101 that does not switch to {protocol}")));
    }
    let early = call.buffers.input.clone();
    let backend = call.connection.into_stream().map_err(|error| failed(Phase::Reset, error))?;
    call.buffers.give_back();
    let connection = Upgrade { backend, early };
    Ok(Upgraded::Switched { reason: head.reason, fields: head.fields, connection })
}

/// The head, written anew. Errors say what may not stand in one; the frontends' parsers let none of it through.
fn request_head(endpoint: &Endpoint, request: &Outgoing<'_>, protocol: &str) -> Result<Vec<u8>, String> {
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| is(byte, TOKEN));
    if !is_token(request.method) || !is_token(protocol) || request.method == "CONNECT" {
        return Err("no method or protocol for an upgrade".to_owned());
    }
    if !agent::can_carry(request.target) {
        return Err("the target can't be carried".to_owned());
    }
    if !matches!(request.length, BodyLength::Empty | BodyLength::Known(0)) {
        return Err("a request for an upgrade has a body".to_owned());
    }
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in request.fields.iter() {
        let ours = ["content-length", "transfer-encoding", "connection", "upgrade", "expect"];
        if ours.iter().any(|one| one.eq_ignore_ascii_case(name)) {
            continue;
        }
        if !is_token(name) || !value.iter().all(|byte| is(*byte, VALUE)) {
            return Err(format!("a field that may not stand in a head: {name:?}"));
        }
        field(&mut head, name, value);
    }
    if !request.fields.has("host") {
        field(&mut head, "host", endpoint.address.to_string().as_bytes());
    }
    field(&mut head, "connection", b"Upgrade");
    field(&mut head, "upgrade", protocol.as_bytes());
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

fn field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}
