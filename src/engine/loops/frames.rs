//! What a loop does with an HTTP/2 connection: reads, polls the `h2` crate, writes, and makes a client of each request.

use std::net::IpAddr;
use std::sync::Arc;

use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;

use super::conn::{Client, Conn, Stage, Transport};
use super::counts::{Counted, CountedStream, Full, Kind};
use super::expire::DRAIN_IDLE;
use super::http2::{Http2, NewStream, Polled, Stream, write_head};
use super::keys::ClientSlot;
use super::state::Newcomer;
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use crate::proxy::exchange::{FrontendEvent, Http2Flood, Rejection};
use balancer_time::Nanos;

/// Reads of one connection before others have their turn.
const ROUNDS: usize = 8;
const MOST_OPENED: usize = 32;

impl Loop {
    /// Begins HTTP/2 on a connection: after ALPN, or after the preface. `came`: what the client has sent so far.
    pub(super) fn begin_http2(&mut self, client: &mut Client, came: &[u8]) -> Go {
        let mut http2 = Http2::new(self.woken.waker(client.conn.key), self.now);
        let flood = http2.take_in(came, self.now);
        self.count_flood(flood);
        client.stage = Stage::Http2(Box::new(http2));
        Go::On
    }

    /// Reads, polls and writes until nothing moves any more.
    pub(super) fn serve_http2(&mut self, client: &mut Client, buffers: &mut Buffers) -> Go {
        let Client { conn, stage: Stage::Http2(http2) } = client else { return Go::Wait };
        if conn.broken {
            return Go::Close;
        }
        if self.draining_since.is_some() {
            http2.leave();
        }
        let mut opened = 0;
        for _ in 0..ROUNDS {
            // Nothing is read from a client that does not take what we write.
            match conn.flush(self.now) {
                Err(_) => return Go::Close,
                Ok(true) => {}
                Ok(false) => {
                    self.tell_room(conn);
                    return Go::Wait;
                }
            }
            if http2.is_over {
                // Lingers, so that the frame that says why it is over is not lost by a reset.
                return Go::Linger;
            }
            let has_read = self.read_frames(conn, http2, buffers);
            let mut is_behind = false;
            loop {
                match http2.poll() {
                    Polled::Nothing => break,
                    Polled::Over => http2.is_over = true,
                    Polled::Flooded => {
                        http2.is_over = true;
                        self.count_flood(http2.found_by_crate());
                    }
                    Polled::Opened(request) => {
                        self.open_stream(conn, http2, request);
                        opened += 1;
                        is_behind = opened >= MOST_OPENED;
                    }
                }
                if is_behind || http2.is_over {
                    break;
                }
            }
            http2.drop_unread();
            buffers.out.clear();
            let is_full = http2.take_out(&mut buffers.out);
            let has_written = !buffers.out.is_empty();
            if conn.emit(&[&buffers.out], &mut buffers.together, self.now).is_err() {
                return Go::Close;
            }
            buffers.out.clear();
            http2.rest();
            if is_behind {
                break;
            }
            // Nothing was read in this round if the crate still had to read what came before. No event tells of the rest
            // again.
            let may_read = conn.readable && http2.is_drained();
            if !(has_read || may_read || is_full || http2.is_over || (has_written && !conn.is_flushed())) {
                return Go::Wait;
            }
        }
        self.again.push(conn.key);
        Go::Wait
    }

    /// Reads what came, if the crate has read all that came before. True: something came.
    fn read_frames(&mut self, conn: &mut Conn, http2: &mut Http2, buffers: &mut Buffers) -> bool {
        if !conn.readable || !http2.is_drained() {
            return false;
        }
        match conn.receive(&mut buffers.scratch[..buffers.piece], &mut buffers.cipher) {
            Got::Bytes(bytes) => {
                let flood = http2.take_in(&buffers.scratch[..bytes], self.now);
                self.count_flood(flood);
                true
            }
            Got::Nothing => false,
            Got::End | Got::Broken(_) => {
                conn.readable = false;
                http2.end_input();
                true
            }
        }
    }

    /// Counts a flood that a connection is ended for.
    fn count_flood(&self, flood: Option<Http2Flood>) {
        if let Some(flood) = flood {
            self.shared.service.observe(FrontendEvent::Http2Flooded(flood));
        }
    }

    /// Counts a request. It can't wait for another loop, so at the bound only a connection of this loop ends for it.
    /// Where this one has none that can, another loop is asked for room, and the request is refused: the client may
    /// send it again.
    fn count_stream(&mut self, address: IpAddr) -> Option<Counted> {
        let shared = Arc::clone(&self.shared);
        loop {
            match Counted::enter(&shared.counts, self.number, address) {
                Ok(counted) => return Some(counted),
                Err(Full::All) if self.evict() => {}
                Err(Full::All) => {
                    if let Some(other) = self.loop_to_evict_in().filter(|other| *other != self.number) {
                        shared.loops[other].ask_for_room();
                    }
                    shared.reject(Rejection::MaxConnections);
                    return None;
                }
                Err(Full::Address) => {
                    shared.reject(Rejection::MaxConnectionsPerIp);
                    return None;
                }
            }
        }
    }

    /// Takes a request in, as a client of its own.
    fn open_stream(&mut self, conn: &Conn, http2: &mut Http2, (request, mut answer): NewStream) {
        let shared = Arc::clone(&self.shared);
        http2.is_used = true;
        let Some(mut counted) = self.count_stream(conn.counted.address()) else {
            answer.send_reset(Reason::REFUSED_STREAM);
            return;
        };
        // It has a request already, so it is not silent.
        counted.set_kind(Kind::Reading);
        let counted_stream = CountedStream::enter(&shared.counts);
        let (parts, body) = request.into_parts();
        let mut text = Vec::with_capacity(512);
        let is_chunked = write_head(&mut text, &parts, !body.is_end_stream());
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let (parent, woken, now) = (conn.key, &self.woken, self.now);
        let key = self.clients.insert_with_key(|key| {
            let stream =
                Stream::new(parent, woken.waker(key), body, answer, (is_chunked, length), counted_stream);
            let newcomer = Newcomer {
                socket: Arc::clone(&conn.socket),
                transport: Transport::Stream(stream),
                secured: conn.secured.clone(),
                counted,
                peer: conn.peer,
                is_proxied: conn.is_proxied,
                expects_proxy: false,
                fresh: false,
            };
            let mut client = Client::new(key, newcomer, now);
            client.conn.take_text(text, now);
            Some(Box::new(client))
        });
        http2.streams.push(key);
        self.again.push(key);
    }

    /// Advances the clients that the crate has woken.
    pub(super) fn woken(&mut self, buffers: &mut Buffers) {
        // These may wake others, which are advanced, too, but not for ever.
        for _ in 0..ROUNDS {
            let mut keys = self.woken.take();
            if keys.is_empty() {
                return;
            }
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                if let Some(Some(client)) = self.clients.get_mut(key)
                    && let Transport::Stream(stream) = &mut client.conn.transport
                {
                    client.conn.broken |= stream.is_reset();
                    client.conn.readable = true;
                }
                self.advance(key, buffers);
            }
        }
    }

    /// Ends the requests of a connection that is over.
    pub(super) fn end_streams(&mut self, http2: &mut Http2) {
        for key in std::mem::take(&mut http2.streams) {
            if let Some(Some(mut client)) = self.clients.remove(key) {
                self.end(&mut client);
            }
        }
    }

    /// Tells a connection that one of its requests is over: it may be idle now.
    pub(super) fn leave_connection(
        &mut self,
        parent: ClientSlot,
        key: ClientSlot,
        unread: Option<RecvStream>,
    ) {
        let now = self.now;
        let has_rest = unread.is_some();
        if let Some(Some(client)) = self.clients.get_mut(parent)
            && let Stage::Http2(http2) = &mut client.stage
            && (http2.forget(key, unread, now) || has_rest)
        {
            self.again.push(parent);
        }
    }

    /// Tells a client that its idle connection ends.
    pub(super) fn say_goodbye(&mut self, client: &mut Client) {
        if let Stage::Http2(http2) = &mut client.stage {
            let mut out = Vec::new();
            http2.abort(Reason::NO_ERROR);
            drop(http2.poll());
            http2.take_out(&mut out);
            let _ = client.conn.emit(&[&out], &mut Vec::new(), self.now);
        }
        client.conn.say_end();
    }

    /// When a connection has to be looked at although nothing came.
    pub(super) fn due_of_http2(&self, conn: &Conn, http2: &Http2) -> Nanos {
        let timeouts = &self.shared.timeouts;
        if !conn.is_flushed() {
            return self.slow_due(conn);
        }
        if !http2.streams.is_empty() {
            return Nanos::MAX;
        }
        let most = if http2.is_used { timeouts.idle } else { timeouts.head };
        let drained = self.draining_since.map(|since| since.max(http2.idle_since).saturating_add(DRAIN_IDLE));
        http2.idle_since.saturating_add(most).min(drained.unwrap_or(Nanos::MAX))
    }

    /// A connection's deadline has passed: it takes nothing, or it has been idle for too long.
    pub(super) fn late_http2(&mut self, client: &mut Client, buffers: &mut Buffers) -> Go {
        let conn = &mut client.conn;
        if !conn.is_flushed() {
            return if self.is_too_slow(conn) { Go::Reset } else { Go::On };
        }
        let Stage::Http2(http2) = &mut client.stage else { return Go::Wait };
        if !http2.streams.is_empty() {
            return Go::Wait;
        }
        http2.abort(Reason::NO_ERROR);
        let _ = self.serve_http2(client, buffers);
        Go::Linger
    }
}
