//! Decides what a client's connection does next, by what it is in the middle of.

use super::conn::{Client, Conn, Stage, Transport};
use super::counts::Kind;
use super::exchange::{Doing, Exchange};
use super::handshake::Handshake;
use super::keys::ClientSlot;
use super::state::Newcomer;
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use balancer_time::Nanos;

/// How long a closing connection may be silent, in nanoseconds.
pub(super) const LINGER_SILENCE: Nanos = 2_000_000_000;
/// How long closing may take in all, in nanoseconds.
pub(super) const LINGER_TOTAL: Nanos = 10_000_000_000;
/// How many bytes of a closing connection are read and dropped before it is reset. That is enough for bodies of a usual
/// size: a client that sends all of its body before it reads still finds the answer.
const LINGER_BYTES: usize = 32 * 1024 * 1024;
/// Reads of one closing connection before others have their turn.
const LINGER_READS: usize = 16;

impl Client {
    pub fn new(key: ClientSlot, newcomer: Newcomer, now: Nanos) -> Self {
        let Newcomer { socket, transport, secured, counted, peer, is_proxied, expects_proxy, fresh } =
            newcomer;
        let conn = Conn {
            key,
            socket,
            transport,
            secured,
            counted,
            peer,
            is_proxied,
            expects_proxy,
            fresh,
            readable: true,
            tells_room: false,
            ended: false,
            broken: false,
            inbox: Vec::new(),
            look_first: false,
            judged: 0,
            head_since: if fresh { now } else { 0 },
            moved_at: now,
            out: Vec::new(),
            out_at: 0,
            pace: None,
            due: 0,
            timer: Nanos::MAX,
            pinned: None,
        };
        let shakes_hands = matches!(&conn.transport, Transport::Tls(secure) if secure.is_shaking_hands());
        Self { conn, stage: if shakes_hands { Stage::Handshake(Handshake::begin(now)) } else { Stage::Head } }
    }

    /// How metrics count it.
    pub fn kind(&self) -> Kind {
        match &self.stage {
            Stage::Head if !self.conn.inbox.is_empty() => Kind::Reading,
            Stage::Head if self.conn.fresh => Kind::Silent,
            Stage::Head => Kind::Idle,
            Stage::Handshake(handshake) if handshake.bytes == 0 => Kind::Silent,
            Stage::Handshake(_) => Kind::Reading,
            Stage::Http2(http2) if http2.streams.is_empty() => Kind::IdleHttp2,
            Stage::Http2(_) => Kind::Http2,
            Stage::Linger { .. } => Kind::Closing,
            Stage::Busy(exchange) => match exchange.doing {
                Doing::Reading | Doing::Gathering(_) => Kind::Reading,
                Doing::Waiting(..) | Doing::InLane => Kind::Parked,
                Doing::Calling(_) => Kind::Calling,
                Doing::Answering(_) | Doing::Nothing => Kind::Answering,
                Doing::Tunnel(_) => Kind::Tunnel,
            },
        }
    }

    /// Ends our direction, and from then on drops what the client still sends.
    pub fn begin_linger(&mut self, now: Nanos) {
        self.conn.end_writing();
        self.conn.readable = true;
        self.conn.moved_at = now;
        self.stage = Stage::Linger { dropped: 0, since: now };
    }
}

impl Loop {
    /// One step of a client.
    pub(super) fn step(&mut self, client: &mut Client, buffers: &mut Buffers) -> Go {
        match &mut client.stage {
            Stage::Head => self.receive(client, buffers),
            Stage::Handshake(_) => self.queue_handshake(client),
            Stage::Http2(_) => self.serve_http2(client, buffers),
            Stage::Linger { dropped, .. } => self.drop_input(&mut client.conn, dropped, buffers),
            Stage::Busy(_) => {
                self.with_exchange(client, |own, conn, exchange| own.go_on(conn, exchange, buffers))
            }
        }
    }

    /// Lends out the request of a client that has one, while `handle` works on it.
    pub(super) fn with_exchange(
        &mut self,
        client: &mut Client,
        handle: impl FnOnce(&mut Self, &mut Conn, &mut Exchange) -> Go,
    ) -> Go {
        match std::mem::replace(&mut client.stage, Stage::Head) {
            Stage::Busy(mut exchange) => {
                let go = handle(self, &mut client.conn, &mut exchange);
                self.keep_exchange(client, exchange);
                go
            }
            other => {
                client.stage = other;
                Go::Wait
            }
        }
    }

    /// Gives a request back to its client, or recycles it when it is over.
    pub(super) fn keep_exchange(&mut self, client: &mut Client, exchange: Box<Exchange>) {
        if matches!(exchange.doing, Doing::Nothing) {
            self.recycle(exchange);
        } else {
            client.stage = Stage::Busy(exchange);
        }
    }

    /// Goes on with a request. It is over when it does [`Doing::Nothing`].
    fn go_on(&mut self, conn: &mut Conn, exchange: &mut Exchange, buffers: &mut Buffers) -> Go {
        if conn.broken {
            self.gone(conn, exchange);
            return Go::Close;
        }
        match &exchange.doing {
            Doing::Reading => self.read_ahead(conn, exchange, buffers),
            Doing::Gathering(most) => {
                let most = *most;
                self.gather_call(conn, exchange, most, buffers)
            }
            Doing::Waiting(..) | Doing::InLane => Go::Wait,
            Doing::Calling(_) => self.call(conn, exchange, buffers),
            Doing::Answering(_) => self.answer_on(conn, exchange, buffers),
            Doing::Tunnel(_) => self.relay_tunnel(conn, exchange, buffers),
            Doing::Nothing => Go::On,
        }
    }

    /// Drops what a client still sends after its last answer.
    fn drop_input(&mut self, conn: &mut Conn, dropped: &mut usize, buffers: &mut Buffers) -> Go {
        for _ in 0..LINGER_READS {
            match conn.socket.receive(&mut buffers.scratch) {
                Got::Bytes(bytes) => {
                    *dropped += bytes;
                    conn.moved_at = self.now;
                    if *dropped > LINGER_BYTES {
                        return Go::Reset;
                    }
                }
                Got::Nothing => return Go::Wait,
                Got::End | Got::Broken(_) => return Go::Close,
            }
        }
        self.again.push(conn.key);
        Go::Wait
    }
}
