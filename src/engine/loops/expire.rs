//! Deadlines: when a client has to be looked at although no event came, and what happens to it then.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use super::client::{LINGER_SILENCE, LINGER_TOTAL};
use super::conn::{Client, Conn, Stage};
use super::exchange::{Calling, Delivery, Doing, Exchange, Upload};
use super::turn::{Buffers, Go, Loop};
use crate::error::Reject;
use crate::proxy::exchange::{BodyFault, DeliveryOutcome, Handshake};
use crate::proxy::{Phase, UpstreamError};
use balancer_http::message::{Reason, RequestHead};
use balancer_time::Nanos;
use std::time::Duration;

/// A client that has ended its side counts as gone when for so long there was nothing to send to it.
const ENDED_SILENCE: Nanos = 1_000_000_000;
/// How long a connection may still be idle when the engine drains.
pub(super) const DRAIN_IDLE: Nanos = 2_000_000_000;
/// How often a socket that takes nothing is tried, since the kernel is late to call it writable.
const TRY_AGAIN: Nanos = 1_000_000_000;

/// How far ahead the timer of a stream of HTTP/2 is set at most.
const NEAR: Nanos = 1_000_000_000;

impl Loop {
    /// When a client has to be looked at although nothing came.
    pub(super) fn due(&self, client: &Client) -> Nanos {
        let (conn, timeouts) = (&client.conn, &self.shared.timeouts);
        match &client.stage {
            Stage::Head if conn.inbox.is_empty() && conn.head_since == 0 => {
                let idle = conn.moved_at.saturating_add(timeouts.idle);
                let drained = |since: Nanos| since.max(conn.moved_at).saturating_add(DRAIN_IDLE);
                self.draining_since.map_or(idle, |since| idle.min(drained(since)))
            }
            Stage::Head => {
                let due = conn.head_since.saturating_add(timeouts.head);
                let drained = |since: Nanos| since.max(conn.head_since).saturating_add(DRAIN_IDLE);
                let is_silent = conn.inbox.is_empty();
                self.draining_since.filter(|_| is_silent).map_or(due, |since| due.min(drained(since)))
            }
            Stage::Handshake(handshake) => {
                let due = handshake.since.saturating_add(timeouts.handshake);
                let is_silent = handshake.bytes == 0;
                self.draining_since.filter(|_| is_silent).map_or(due, |since| due.min(since + DRAIN_IDLE))
            }
            Stage::Http2(http2) => self.due_of_http2(conn, http2),
            Stage::Linger { since, .. } => {
                conn.moved_at.saturating_add(LINGER_SILENCE).min(since.saturating_add(LINGER_TOTAL))
            }
            Stage::Busy(exchange) => self.due_of(conn, exchange),
        }
    }

    fn due_of(&self, conn: &Conn, exchange: &Exchange) -> Nanos {
        let timeouts = &self.shared.timeouts;
        let upload = &exchange.upload;
        let ended = self.left_at(conn, exchange);
        let due = match &exchange.doing {
            Doing::Reading | Doing::Gathering(_) => return upload.pace.due(timeouts.body, timeouts),
            Doing::Waiting(_, until) => *until,
            Doing::InLane | Doing::Nothing => Nanos::MAX,
            Doing::Calling(calling) => self.call_due(upload, calling).0,
            Doing::Answering(delivery) => self.answer_due(conn, delivery),
            Doing::Tunnel(tunnel) => return tunnel.last.saturating_add(timeouts.tunnel),
        };
        due.min(ended)
    }

    /// When a call is too late, and which time-out that is.
    fn call_due(&self, upload: &Upload, calling: &Calling) -> (Nanos, Late) {
        let Calling { call, since, back, .. } = calling;
        let policy = call.policy;
        let back = self.backs.by_key.get(*back);
        let (due, why) = if back.is_some_and(|back| back.is_connecting) {
            (since.saturating_add(policy.connect), Late::Connect)
        } else if back.is_some_and(|back| !back.is_flushed()) {
            ((*since).max(upload.pace.last()).saturating_add(policy.response), Late::Sending)
        } else if upload.is_under_way() {
            (upload.pace.due(self.shared.timeouts.body, &self.shared.timeouts), Late::Upload)
        } else {
            ((*since).max(upload.pace.last()).saturating_add(policy.response), Late::Head)
        };
        match call.deadline {
            // The deadline of a request whose client sends slowly is no failure of the backend.
            Some(deadline) if deadline < due && why == Late::Upload => (deadline, why),
            Some(deadline) if deadline < due => (deadline, Late::Deadline),
            _ => (due, why),
        }
    }

    /// When a client that takes nothing is tried again, or is too slow.
    pub(super) fn slow_due(&self, conn: &Conn) -> Nanos {
        let timeouts = &self.shared.timeouts;
        let slow = conn
            .pace
            .map_or(self.now.saturating_add(timeouts.write), |pace| pace.due(timeouts.write, timeouts));
        slow.min(self.now.saturating_add(TRY_AGAIN))
    }

    /// Whether a client takes nothing, or too little. The kernel says "writable" only when a third of its buffer is
    /// free, so only trying to write tells a client that reads slowly, but fast enough, from a silent one.
    pub(super) fn is_too_slow(&self, conn: &mut Conn) -> bool {
        let timeouts = &self.shared.timeouts;
        conn.flush(self.now).is_err()
            || (!conn.is_flushed()
                && conn.pace.is_some_and(|pace| pace.due(timeouts.write, timeouts) <= self.now))
    }

    fn answer_due(&self, conn: &Conn, delivery: &Delivery) -> Nanos {
        let origin = delivery.source.as_ref();
        let deadline = origin.and_then(|origin| origin.deadline).unwrap_or(Nanos::MAX);
        let due = match (&conn.pace, origin) {
            _ if !conn.is_flushed() => self.slow_due(conn),
            (_, Some(origin)) => origin.last.saturating_add(origin.read),
            (_, None) => Nanos::MAX,
        };
        due.min(deadline)
    }

    /// Sets the client's deadline, and adds a timer if it has none that is early enough.
    pub(super) fn arm(&mut self, conn: &mut Conn, due: Nanos) {
        conn.due = due;
        // Most streams end soon, and their entries would stay in the heap until their time. So the entry is near, and
        // is made anew while the stream is there.
        let at = if conn.is_stream() { due.min(self.now.saturating_add(NEAR)) } else { due };
        if at < conn.timer {
            conn.timer = at;
            self.timers.push(Reverse((at, conn.key)));
        }
    }

    /// Handles every client whose time has come.
    pub(super) fn expire(&mut self, buffers: &mut Buffers) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > self.now {
                return;
            }
            self.timers.pop();
            let Some(Some(client)) = self.clients.get_mut(key) else { continue };
            let conn = &mut client.conn;
            if conn.timer != at {
                // It has an earlier entry.
                continue;
            }
            conn.timer = Nanos::MAX;
            if conn.due > self.now {
                let due = conn.due;
                // A client without a deadline gets no entry, which would stay for ever.
                if due < Nanos::MAX {
                    conn.timer = due;
                    self.timers.push(Reverse((due, key)));
                }
                continue;
            }
            self.with_client(key, buffers, Self::pass);
            self.advance(key, buffers);
        }
    }

    /// Does what a client's deadline asks for.
    fn pass(&mut self, client: &mut Client, buffers: &mut Buffers) -> Go {
        match &mut client.stage {
            Stage::Linger { .. } => Go::Close,
            Stage::Http2(_) => self.late_http2(client, buffers),
            Stage::Handshake(_) => self.end_handshake(client, Handshake::Timeout),
            Stage::Head if client.conn.inbox.is_empty() => Go::Close,
            Stage::Head => match self.judge_overdue(client, buffers) {
                Some(go) => go,
                None => {
                    buffers.head = RequestHead::blank(client.conn.peer);
                    let reject =
                        Reject::new(Reason::RequestTimeout, "the request's head did not arrive in time");
                    client.conn.inbox = Vec::new();
                    self.refuse(client, &reject, buffers)
                }
            },
            Stage::Busy(exchange) if matches!(exchange.doing, Doing::Waiting(..)) => {
                if self.is_left(&client.conn, exchange) {
                    return Go::Reset;
                }
                self.resume(client, true, buffers)
            }
            Stage::Busy(_) => {
                self.with_exchange(client, |own, conn, exchange| own.too_late(conn, exchange, buffers))
            }
        }
    }

    /// When a client counts as gone. It has ended its side, its request is whole, and there is nothing to send to it.
    fn left_at(&self, conn: &Conn, exchange: &Exchange) -> Nanos {
        let may_be_gone = conn.ended && self.shared.abort_on_close;
        if may_be_gone && conn.is_flushed() && !exchange.upload.is_under_way() {
            conn.moved_at.saturating_add(ENDED_SILENCE)
        } else {
            Nanos::MAX
        }
    }

    fn is_left(&self, conn: &Conn, exchange: &Exchange) -> bool {
        self.left_at(conn, exchange) <= self.now
    }

    fn too_late(&mut self, conn: &mut Conn, exchange: &mut Exchange, buffers: &mut Buffers) -> Go {
        match &exchange.doing {
            Doing::Reading => return self.refuse_body(conn, exchange, BodyFault::TimedOut, buffers),
            Doing::Gathering(_) => {
                self.ungather(exchange);
                return self.refuse_body(conn, exchange, BodyFault::TimedOut, buffers);
            }
            Doing::Tunnel(_) => {
                self.gone(conn, exchange);
                return Go::Close;
            }
            _ => {}
        }
        if self.is_left(conn, exchange) {
            self.gone(conn, exchange);
            return Go::Reset;
        }
        match &exchange.doing {
            Doing::Calling(calling) => {
                let (due, why) = self.call_due(&exchange.upload, calling);
                if due > self.now {
                    return Go::Wait;
                }
                let error = self.late(exchange, why);
                self.failed(conn, exchange, error, buffers)
            }
            Doing::Answering(_) => self.answer_late(conn, exchange),
            _ => Go::Wait,
        }
    }

    fn late(&self, exchange: &Exchange, why: Late) -> UpstreamError {
        let Doing::Calling(Calling { call, .. }) = &exchange.doing else {
            return UpstreamError { phase: Phase::TimedOut, cause: String::new() };
        };
        let timed_out = |cause: String| UpstreamError { phase: Phase::TimedOut, cause };
        let response = Duration::from_nanos(call.policy.response);
        match why {
            Late::Connect => UpstreamError {
                phase: Phase::ConnectTimedOut,
                cause: format!("no connection within {:?}", Duration::from_nanos(call.policy.connect)),
            },
            Late::Sending => timed_out(format!(
                "nothing of the request was taken for {response:?} (upstream.response_timeout)"
            )),
            Late::Head => timed_out("no answer's head in time (upstream.response_timeout)".to_owned()),
            Late::Deadline => timed_out("no answer's head in time (upstream.request_timeout)".to_owned()),
            Late::Upload => UpstreamError {
                phase: Phase::RequestBody(BodyFault::TimedOut),
                cause: BodyFault::TimedOut.to_string(),
            },
        }
    }

    /// A delivery is late: the client takes nothing, or the backend sends nothing.
    fn answer_late(&mut self, conn: &mut Conn, exchange: &mut Exchange) -> Go {
        let Doing::Answering(delivery) = &mut exchange.doing else { return Go::Wait };
        let origin = delivery.source.as_ref();
        let is_over = origin.is_some_and(|origin| origin.deadline.is_some_and(|at| at <= self.now));
        // Nothing is read from the backend while the client has not taken what came: then it is no fault of the
        // backend.
        let is_clients_fault = is_over && !conn.is_flushed();
        let cause = match origin {
            Some(_) if is_over && !is_clients_fault => {
                Some("the answer was not over in time (upstream.request_timeout)".to_owned())
            }
            Some(origin) if conn.is_flushed() && origin.last.saturating_add(origin.read) <= self.now => {
                Some(format!(
                    "the backend was silent for {:?} in the middle of its answer (upstream.read_timeout)",
                    Duration::from_nanos(origin.read)
                ))
            }
            _ => None,
        };
        if let Some(cause) = cause {
            let go = self.broke(conn, delivery, &cause);
            exchange.doing = Doing::Nothing;
            return go;
        }
        let unsent = conn.out.len() - conn.out_at;
        if is_clients_fault || self.is_too_slow(conn) {
            let Doing::Answering(delivery) = &mut exchange.doing else { return Go::Wait };
            if let Some(origin) = delivery.source.take() {
                self.backs.close(origin.back);
            }
            delivery.settle(DeliveryOutcome::ClientGone, unsent);
            exchange.doing = Doing::Nothing;
            return Go::Reset;
        }
        Go::On
    }

    /// What is done after each turn, mostly by the time that has passed.
    pub(super) fn keep_house(&mut self) {
        self.backs.sweep(self.now);
        self.balance();
        if self.accepts_again_at > 0 && self.now >= self.accepts_again_at {
            self.accepts_again_at = 0;
            // Fails only when memory is short: then other loops accept.
            let _ = self.watch_listeners();
        }
    }

    /// Follows what has changed in [`super::shared::LoopsShared`]: the engine drains.
    pub(super) fn look(&mut self) {
        if self.shared.draining.load(Ordering::SeqCst) && self.draining_since.is_none() {
            self.draining_since = Some(self.now);
            self.unwatch_listeners();
            let keys: Vec<_> = self.clients.keys().collect();
            for key in keys {
                let Some(Some(client)) = self.clients.get(key) else { continue };
                if matches!(client.stage, Stage::Http2(_)) {
                    // Its next step tells the client.
                    self.again.push(key);
                }
                let due = self.due(client);
                if let Some(mut client) = self.clients.get_mut(key).and_then(Option::take) {
                    self.arm(&mut client.conn, due);
                    self.clients[key] = Some(client);
                }
            }
        }
    }

    /// Closes everything that is left.
    pub(super) fn end_all(&mut self) {
        let keys: Vec<_> = self.clients.keys().collect();
        for key in keys {
            if let Some(Some(mut client)) = self.clients.remove(key) {
                if !client.conn.is_stream() {
                    client.conn.socket.reset_on_close();
                }
                self.end(&mut client);
            }
        }
        // Mail that came since is dropped with its connections.
        drop(self.state().open_mail());
    }
}

/// Which time-out of a call has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    Connect,
    Sending,
    Upload,
    Head,
    Deadline,
}
