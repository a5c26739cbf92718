//! From received bytes to a request: finds out what is spoken, parses heads, and begins or refuses requests.

use super::conn::{Client, Conn, Stage, Transport};
use super::exchange::{Doing, Exchange, Upload};
use super::handshake::HANDSHAKE_RECORD;
use super::http2::PREFACE;
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use crate::error::Reject;
use crate::proxy::exchange::{BodyFault, Handshake, Rejection};
use balancer_http::framing::FramingRefusal;
use balancer_http::framing::proxy;
use balancer_http::framing::request::{HeadVerdict, parse};
use balancer_http::message::{BodyLength, Reason, RequestHead};

impl Loop {
    /// Reads what the client sent, and begins a request once its head is whole.
    pub(super) fn receive(&mut self, client: &mut Client, buffers: &mut Buffers) -> Go {
        let conn = &mut client.conn;
        if conn.broken {
            return Go::Close;
        }
        let mut have = conn.inbox.len();
        buffers.inbox[..have].copy_from_slice(&conn.inbox);
        // Gives the memory back: an idle connection has none.
        conn.inbox = Vec::new();
        if !std::mem::take(&mut conn.look_first) {
            if !conn.readable {
                return keep(conn, &buffers.inbox[..have], Go::Wait);
            }
            match conn.receive(&mut buffers.inbox[have..], &mut buffers.cipher) {
                Got::Bytes(bytes) => have += bytes,
                Got::Nothing => {
                    return keep(conn, &buffers.inbox[..have], Go::Wait);
                }
                Got::End => return self.judge_beginning(client, have, buffers).unwrap_or(Go::Close),
                Got::Broken(_) => return Go::Close,
            }
        }
        // Also where the bytes came behind the last request.
        if conn.head_since == 0 {
            conn.head_since = self.now;
        }
        let mut start = 0;
        if conn.expects_proxy {
            match self.proxy_header(client, have, buffers) {
                Ok(consumed) => start = consumed,
                Err(go) => return go,
            }
        }
        let conn = &mut client.conn;
        if start == have {
            conn.judged = 0;
            return if conn.readable { Go::On } else { Go::Wait };
        }
        let bytes = &buffers.inbox[start..have];
        match beginning(conn, bytes, self.shared.h2c) {
            Beginning::Http1 => self.request(client, start, have, buffers),
            Beginning::Http2 => {
                let came = bytes.to_vec();
                self.begin_http2(client, &came)
            }
            Beginning::MaybeHttp2 => {
                let go = if conn.readable { Go::On } else { Go::Wait };
                keep(conn, bytes, go)
            }
            Beginning::Tls => {
                self.shared.reject(Rejection::Tls);
                Go::Close
            }
        }
    }

    /// Reads the PROXY header that must come first. `Err`: it is not whole, or wrong.
    pub(super) fn proxy_header(
        &mut self,
        client: &mut Client,
        have: usize,
        buffers: &mut Buffers,
    ) -> Result<usize, Go> {
        let conn = &mut client.conn;
        match proxy::parse(&buffers.inbox[..have]) {
            proxy::ProxyVerdict::Incomplete => {
                let go = if conn.readable { Go::On } else { Go::Wait };
                Err(keep(conn, &buffers.inbox[..have], go))
            }
            proxy::ProxyVerdict::Complete { consumed, client } => {
                conn.expects_proxy = false;
                conn.peer = client.unwrap_or(conn.peer);
                conn.is_proxied = true;
                Ok(consumed)
            }
            proxy::ProxyVerdict::Refused(detail) => {
                self.shared.reject(Rejection::ProxyProtocol);
                if matches!(client.stage, Stage::Handshake(_)) {
                    // Nothing can be sent before there are keys.
                    return Err(self.end_handshake(client, Handshake::Failed));
                }
                // The buffer still has the head of another request.
                buffers.head = RequestHead::blank(conn.peer);
                Err(self.refuse(client, &Reject::new(Reason::BadRequest, detail), buffers))
            }
        }
    }

    /// The refusal for the beginning of a head behind which nothing comes any more, if the beginning breaks a rule. It
    /// may not have been parsed yet, see [`worth_judging`]. `None`: it breaks none, and there is no request to answer.
    fn judge_beginning(&mut self, client: &mut Client, have: usize, buffers: &mut Buffers) -> Option<Go> {
        let conn = &client.conn;
        if conn.expects_proxy || have <= conn.judged {
            return None;
        }
        match parse(&buffers.inbox[..have], &self.shared.bounds, &mut buffers.head) {
            HeadVerdict::Refused(refusal) => Some(self.refuse(client, &reject(refusal), buffers)),
            HeadVerdict::Incomplete | HeadVerdict::Complete { .. } => None,
        }
    }

    /// The same for a head whose deadline has passed, which is in the connection's inbox.
    pub(super) fn judge_overdue(&mut self, client: &mut Client, buffers: &mut Buffers) -> Option<Go> {
        let conn = &client.conn;
        let have = conn.inbox.len();
        buffers.inbox[..have].copy_from_slice(&conn.inbox);
        self.judge_beginning(client, have, buffers)
    }

    /// Parses the head that begins at `start` of the buffers' inbox, if that may bring a new verdict.
    fn request(&mut self, client: &mut Client, start: usize, have: usize, buffers: &mut Buffers) -> Go {
        let conn = &mut client.conn;
        let bytes = &buffers.inbox[start..have];
        let more = if conn.readable { Go::On } else { Go::Wait };
        let is_full = bytes.len() >= self.shared.bounds.max_head_bytes;
        if conn.judged > 0 && !is_full && !worth_judging(bytes, conn.judged) {
            return keep(conn, bytes, more);
        }
        match parse(bytes, &self.shared.bounds, &mut buffers.head) {
            HeadVerdict::Incomplete => {
                conn.judged = bytes.len();
                keep(conn, bytes, more)
            }
            HeadVerdict::Refused(refusal) => self.refuse(client, &reject(refusal), buffers),
            HeadVerdict::Complete { consumed, keep_alive } => {
                conn.sign(&mut buffers.head);
                self.begin_exchange(client, (start + consumed, have), keep_alive, buffers)
            }
        }
    }

    /// Begins a request whose head is whole. Its body begins at the first position of the buffers' inbox; what was
    /// received ends at the second.
    fn begin_exchange(
        &mut self,
        client: &mut Client,
        (start, have): (usize, usize),
        keep_alive: bool,
        buffers: &mut Buffers,
    ) -> Go {
        let conn = &mut client.conn;
        let length = buffers.head.length;
        if matches!(length, BodyLength::Known(bytes) if bytes > self.shared.max_body_bytes) {
            return self.refuse(client, &too_large(), buffers);
        }
        let mut exchange = self.exchange(conn, buffers);
        exchange.keep_alive = keep_alive;
        exchange.upload = Upload::new(length, self.now);
        exchange.upload.owes_continue = exchange.head.expects_continue;
        exchange.doing = Doing::Reading;
        let here = &buffers.inbox[start..have];
        let used = match exchange.upload.add(here, self.shared.max_body_bytes) {
            Ok(used) => used,
            Err(fault) => {
                let go = self.refuse_body(conn, &mut exchange, fault, buffers);
                self.keep_exchange(client, exchange);
                return go;
            }
        };
        if used < here.len() {
            conn.inbox.extend_from_slice(&here[used..]);
        }
        client.stage = Stage::Busy(exchange);
        Go::On
    }

    /// Answers a request that the engine itself refuses, and closes. Takes the head from the buffers.
    pub(super) fn refuse(&mut self, client: &mut Client, reject: &Reject, buffers: &mut Buffers) -> Go {
        let conn = &mut client.conn;
        conn.sign(&mut buffers.head);
        let mut exchange = self.exchange(conn, buffers);
        // A body that never becomes whole: nothing behind the head is read as a request.
        exchange.upload = Upload::new(BodyLength::Chunked, self.now);
        let go = self.refuse_exchange(conn, &mut exchange, reject, buffers);
        self.keep_exchange(client, exchange);
        go
    }

    /// A request with the head that is in the buffers.
    fn exchange(&mut self, conn: &Conn, buffers: &mut Buffers) -> Box<Exchange> {
        let mut exchange = self.spare.pop().unwrap_or_else(|| Exchange::blank(RequestHead::blank(conn.peer)));
        std::mem::swap(&mut exchange.head, &mut buffers.head);
        exchange.received_at = self.now;
        exchange
    }

    /// Answers a request whose body is at fault, and closes.
    pub(super) fn refuse_body(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        fault: BodyFault,
        buffers: &mut Buffers,
    ) -> Go {
        let reject = Reject::new(fault.reason(), fault.to_string());
        self.refuse_exchange(conn, exchange, &reject, buffers)
    }

    /// Answers a request that the engine refuses, and closes.
    pub(super) fn refuse_exchange(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        reject: &Reject,
        buffers: &mut Buffers,
    ) -> Go {
        let answer = self.shared.service.refuse(&exchange.head, reject, exchange.received_at);
        exchange.keep_alive = false;
        self.deliver(conn, exchange, answer, None, buffers)
    }
}

/// What a client's first bytes are.
enum Beginning {
    Http1,
    Http2,
    /// More has to come.
    MaybeHttp2,
    Tls,
}

fn beginning(conn: &Conn, bytes: &[u8], h2c: bool) -> Beginning {
    if !conn.fresh || !matches!(conn.transport, Transport::Plain) {
        Beginning::Http1
    } else if bytes.first() == Some(&HANDSHAKE_RECORD) {
        Beginning::Tls
    } else if h2c && bytes.starts_with(PREFACE) {
        Beginning::Http2
    } else if h2c && PREFACE.starts_with(bytes) {
        Beginning::MaybeHttp2
    } else {
        Beginning::Http1
    }
}

/// Keeps unparsed bytes with the connection.
fn keep(conn: &mut Conn, bytes: &[u8], go: Go) -> Go {
    conn.inbox.extend_from_slice(bytes);
    go
}

/// Whether enough bytes were added to a proper beginning to parse it again: a line ended, or there are a quarter more.
/// Otherwise a head that comes byte by byte would be parsed from its start for every byte.
fn worth_judging(bytes: &[u8], judged: usize) -> bool {
    let new = bytes.get(judged..).unwrap_or(&[]);
    new.contains(&b'\n') || new.len() >= 64 + judged / 4
}

fn reject(refusal: FramingRefusal) -> Reject {
    let mut reject = Reject::new(refusal.reason, refusal.detail);
    if refusal.reason == Reason::MethodNotAllowed {
        reject.allow = Some(balancer_http::framing::request::ALLOW);
    }
    reject
}

fn too_large() -> Reject {
    Reject::new(Reason::ContentTooLarge, BodyFault::TooLarge.to_string())
}
