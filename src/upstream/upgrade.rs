//! Upgrades (RFC 9110 §7.8): a request that ureq can't make, since it knows no way to go on after a 101. The head is
//! written here, from the same parts; it is sent, and the answer read, by the same [`Call`].

use rustix::io::Errno;

use super::call::Call;
use super::spare::Buffers;
use super::{UreqUpstream, Watched, agent, failed, incoming};
use crate::proxy::exchange::{Abort, Upgrade};
use crate::proxy::{Answered, Outgoing, Phase, UpstreamError};
use balancer_http::framing::bytes::{TOKEN, is};
use balancer_http::framing::response::{Finder, Head};
use balancer_http::message::BodyLength;
use balancer_pool::backends::Endpoint;

impl UreqUpstream {
    pub(super) fn switch(
        &self,
        endpoint: &Endpoint,
        request: &Outgoing<'_>,
        protocol: &str,
        abort: &Abort,
    ) -> Result<Answered, UpstreamError> {
        let finder = Finder::new(true, self.head_rules());
        let mut buffers = Buffers::lend(finder.rules().max_head_bytes);
        let line = write_head(endpoint, request, protocol, &mut buffers.lines)
            .map_err(|cause| failed(Phase::Malformed, cause))?;
        let _watched = Watched(abort);
        let connection = self.open(endpoint, request, abort)?;
        buffers.make_room(line.len() + buffers.lines.len(), false);
        let limits = self.limits(request);
        let mut call = Call::new(connection, buffers, self.clock.clone(), limits, finder);
        call.room()[..line.len()].copy_from_slice(line.as_bytes());
        // Whether it was sent or stopped, `conclude` goes on from there.
        let _ = call.written(line.len());
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
                abort.release();
                let stack = self.pool.stack(endpoint.id);
                Ok(Answered::Http(incoming(call, head, request.method == "HEAD", stack)))
            }
            Some(Err(error)) => Err(error),
            None => Err(failed(Phase::Reset, Errno::NOTCONN)),
        }
    }
}

fn switched(call: Call, head: Head, protocol: &str) -> Result<Answered, UpstreamError> {
    // RFC 9110 §15.2.2: a 101 says what it switches to.
    if !head.fields.has_token("Upgrade", protocol) || !head.fields.has_token("Connection", "upgrade") {
        return Err(failed(Phase::Malformed, format!("a 101 that does not switch to {protocol}")));
    }
    let early = call.buffers.input[call.body_at..].to_vec();
    let backend = call.connection.into_stream().map_err(|error| failed(Phase::Reset, error))?;
    call.buffers.give_back();
    let connection = Upgrade { backend, early };
    Ok(Answered::Switched { reason: head.reason, fields: head.fields, connection })
}

/// Writes the fields into `lines` and returns the request line and the empty line that they go between. Errors say what
/// may not stand in a head; the frontends' parsers let none of it through.
fn write_head(
    endpoint: &Endpoint,
    request: &Outgoing<'_>,
    protocol: &str,
    lines: &mut Vec<u8>,
) -> Result<String, String> {
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
    match agent::write_fields(request.fields, &["upgrade"], lines)? {
        Some(host) => agent::write_field(lines, b"host", host),
        None => agent::write_field(lines, b"host", endpoint.address.to_string().as_bytes()),
    }
    agent::write_field(lines, b"connection", b"Upgrade");
    agent::write_field(lines, b"upgrade", protocol.as_bytes());
    Ok(format!("{} {} HTTP/1.1\r\n\r\n", request.method, request.target))
}
