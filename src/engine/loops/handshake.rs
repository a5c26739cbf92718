//! TLS handshakes of clients. A key exchange or a signature takes a few tenths of a millisecond of its loop. So
//! handshakes wait in a queue of their own, and all other events have their turn between two of them.

use super::conn::{Client, Stage, Transport};
use super::secure::MOST_HANDSHAKE_BYTES;
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use crate::error::Reject;
use crate::proxy::exchange::{FrontendEvent, Handshake as Ended};
use crate::tls::session::session_of;
use balancer_http::message::{Reason, RequestHead};
use balancer_time::Nanos;
use std::sync::Arc;

/// Handshakes go on for so long in one turn, and by at least one step.
const SLICE: Nanos = 200_000;
/// The first byte of every TLS connection: the record type "handshake" (RFC 8446 §5.1).
pub(super) const HANDSHAKE_RECORD: u8 = 22;

/// A handshake under way.
pub(super) struct Handshake {
    /// When the connection was accepted.
    pub since: Nanos,
    /// How many bytes the client sent.
    pub bytes: usize,
    /// It is in the queue.
    is_queued: bool,
}

impl Handshake {
    pub fn begin(now: Nanos) -> Self {
        Self { since: now, bytes: 0, is_queued: false }
    }
}

impl Loop {
    /// Something came for a handshake: queues it behind those that wait already.
    pub(super) fn queue_handshake(&mut self, client: &mut Client) -> Go {
        if client.conn.broken {
            return self.end_handshake(client, Ended::Failed);
        }
        if let Stage::Handshake(handshake) = &mut client.stage
            && !std::mem::replace(&mut handshake.is_queued, true)
        {
            self.handshakes.push_back(client.conn.key);
        }
        Go::Wait
    }

    /// Goes on with some of the handshakes that wait.
    pub(super) fn shake_hands(&mut self, buffers: &mut Buffers) {
        let until = self.now.saturating_add(SLICE);
        while let Some(key) = self.handshakes.pop_front() {
            let mut is_over = false;
            self.with_client(key, buffers, |own, client, buffers| {
                let go = own.step_of_handshake(client, buffers);
                is_over = !matches!(client.stage, Stage::Handshake(_));
                go
            });
            if is_over {
                self.advance(key, buffers);
            }
            if self.shared.clock.now() >= until {
                return;
            }
        }
    }

    fn step_of_handshake(&mut self, client: &mut Client, buffers: &mut Buffers) -> Go {
        let Stage::Handshake(handshake) = &mut client.stage else { return Go::Wait };
        handshake.is_queued = false;
        let conn = &mut client.conn;
        let have = conn.inbox.len();
        let room = buffers.inbox.len() - have;
        buffers.inbox[..have].copy_from_slice(&conn.inbox);
        conn.inbox = Vec::new();
        // Some of our last messages may not be sent yet.
        match conn.flush(self.now) {
            Ok(true) => {}
            Ok(false) => self.tell_room(conn),
            Err(_) => return self.end_handshake(client, Ended::Failed),
        }
        let bytes = match conn.socket.receive(&mut buffers.inbox[have..]) {
            Got::Bytes(bytes) => bytes,
            Got::Nothing => {
                conn.readable = false;
                conn.inbox.extend_from_slice(&buffers.inbox[..have]);
                return Go::Wait;
            }
            Got::End | Got::Broken(_) => return self.end_handshake(client, Ended::Failed),
        };
        conn.readable = bytes == room || conn.ended;
        let have = have + bytes;
        let mut start = 0;
        if conn.expects_proxy {
            match self.proxy_header(client, have, buffers) {
                Ok(consumed) => start = consumed,
                // The PROXY header is not whole, and more can be read: it waits in the queue for that.
                Err(Go::On) => return self.queue_handshake(client),
                Err(go) => return go,
            }
        }
        self.take_handshake(client, &mut (start, have), buffers)
    }

    /// Gives what came to the session.
    fn take_handshake(
        &mut self,
        client: &mut Client,
        span: &mut (usize, usize),
        buffers: &mut Buffers,
    ) -> Go {
        let (start, have) = *span;
        let Stage::Handshake(handshake) = &mut client.stage else { return Go::Wait };
        let conn = &mut client.conn;
        let cipher = &buffers.inbox[start..have];
        if let Some(first) = cipher.first()
            && handshake.bytes == 0
            && *first != HANDSHAKE_RECORD
        {
            return self.not_tls(client, first.is_ascii_uppercase(), buffers);
        }
        handshake.bytes += cipher.len();
        let is_too_long = handshake.bytes > MOST_HANDSHAKE_BYTES;
        let Transport::Tls(secure) = &mut conn.transport else { return Go::Close };
        let taken = secure.shake_hands(&conn.socket, cipher);
        if let Err(error) = &taken {
            log::debug!("a TLS handshake with {} failed: {error}", conn.peer);
        }
        let is_under_way = secure.is_shaking_hands();
        // Requests may follow the last message at once: only while it is under way do the bytes count.
        if taken.is_err() || (is_too_long && is_under_way) {
            return self.end_handshake(client, Ended::Failed);
        }
        if !conn.is_flushed() {
            self.tell_room(conn);
        }
        if is_under_way {
            return if conn.readable { self.queue_handshake(client) } else { Go::Wait };
        }
        self.secured(client)
    }

    /// Ends a handshake that succeeded: requests may come.
    fn secured(&mut self, client: &mut Client) -> Go {
        let conn = &mut client.conn;
        let mut is_http2 = false;
        if let Transport::Tls(secure) = &conn.transport
            && let rustls::Connection::Server(session) = secure.session()
        {
            is_http2 = session.alpn_protocol() == Some(b"h2");
            conn.secured = Some(Arc::new(session_of(session)));
        }
        let go = self.end_handshake(client, Ended::Ok);
        let conn = &mut client.conn;
        // A request may have come with the last message of the handshake.
        conn.readable = true;
        (conn.head_since, conn.moved_at) = (self.now, self.now);
        client.stage = Stage::Head;
        if is_http2 { self.begin_http2(client, &[]) } else { go }
    }

    /// Answers a request that is not encrypted with 400. Anything else that is not TLS can't be answered.
    fn not_tls(&mut self, client: &mut Client, is_request: bool, buffers: &mut Buffers) -> Go {
        if !is_request {
            return self.end_handshake(client, Ended::Failed);
        }
        let _ = self.end_handshake(client, Ended::Plain);
        client.conn.transport = Transport::Plain;
        client.stage = Stage::Head;
        buffers.head = RequestHead::blank(client.conn.peer);
        self.refuse(
            client,
            &Reject::new(Reason::BadRequest, "this port speaks TLS: ask for https://"),
            buffers,
        )
    }

    /// Counts a handshake that is over.
    pub(super) fn end_handshake(&mut self, client: &Client, how: Ended) -> Go {
        if let Stage::Handshake(handshake) = &client.stage {
            let took = self.shared.clock.now().saturating_sub(handshake.since);
            self.shared.service.observe(FrontendEvent::Handshake(how, took));
        }
        if how == Ended::Ok { Go::On } else { Go::Close }
    }
}
