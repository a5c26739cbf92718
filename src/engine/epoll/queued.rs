//! Requests that their service has parked: no worker is at them until something happens elsewhere, a backend that has
//! room again. The client's socket is watched meanwhile, for its end alone.

use rustix::event::epoll::EventFlags;

use super::answer::{deliver, next_request};
use super::conn::{Conn, Next, Pending, Queued, State};
use super::core::Core;
use super::head::Source;
use super::table::{Taken, Token};
use super::timers::{Due, Pace, Phase};
use super::wire::descriptor;
use super::worker::Worker;
use crate::proxy::exchange::{Delivery, Parked};
use balancer_http::framing::chunk::ChunkDecoder;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

use super::answer::Asked;

impl Worker {
    /// Keeps a request that was served from this worker's own buffers.
    pub(super) fn park(
        &mut self,
        conn: &mut Conn,
        parked: Box<dyn Parked>,
        received_at: Nanos,
        keep_alive: bool,
        source: &Source,
    ) -> Next {
        let body = match *source {
            Source::Inbox(start, end) => self.inbox[start..end].to_vec(),
            Source::Body => std::mem::take(&mut self.desk.body),
        };
        let next = self.desk.spare_heads.pop().unwrap_or_else(|| RequestHead::blank(conn.peer));
        let head = std::mem::replace(&mut self.desk.head, next);
        let (decoder, pace) = (ChunkDecoder::new(), Pace::new(received_at));
        let pending = Pending { head, keep_alive, received_at, body, decoder, pace, place: None };
        let seat =
            parked.socket().is_some().then(|| conn.seat.take().unwrap_or_else(|| self.core.seats.take()));
        conn.state = State::Queued(Box::new(Queued {
            pending,
            parked,
            seat,
            is_watched: false,
            is_late: false,
            is_put_off: false,
        }));
        Next::Backend
    }

    /// Goes on with a parked request, or ends it when its client is gone.
    pub(super) fn go_on(&mut self, conn: &mut Conn, hangup: bool) -> Next {
        if hangup {
            abandon(conn);
            return Next::Reset;
        }
        if !self.attended {
            return self.put_off(conn);
        }
        let State::Queued(queued) = std::mem::replace(&mut conn.state, State::Head) else {
            return Next::Close;
        };
        let Queued { pending, parked, seat, is_late, .. } = *queued;
        let is_answered = seat.is_some() && !is_late;
        conn.seat = seat;
        if pending.place.is_some() {
            return self.stream(conn, pending, Some(parked));
        }
        let Pending { head, keep_alive, received_at, body, .. } = pending;
        let spare = std::mem::replace(&mut self.desk.head, head);
        if self.desk.spare_heads.len() < SPARE_HEADS {
            self.desk.spare_heads.push(spare);
        }
        self.desk.body = body;
        let have = conn.inbox.len();
        if have > 0 {
            self.inbox[..have].copy_from_slice(&conn.inbox);
            conn.inbox = Vec::new();
        }
        self.desk.now = self.core.clock.now();
        self.core.seats.moves(self.desk.now, is_answered);
        self.core.gate.begin_work(self.number, conn.token.0, self.desk.now);
        let step = self.serve_buffered(conn, received_at, keep_alive, Source::Body, (0, have), Some(parked));
        self.after_body(conn, step, have)
    }

    /// What comes next for a parked request that no worker is free for: its end, unless its answer has come.
    fn put_off(&mut self, conn: &mut Conn) -> Next {
        match &mut conn.state {
            State::Queued(queued) if queued.parked.socket().is_some() => {
                queued.is_put_off = true;
                Next::Backend
            }
            _ => self.give_up(conn),
        }
    }

    /// Answers a parked request that has waited long enough, or that no worker is free for. Never waits.
    pub(super) fn give_up(&mut self, conn: &mut Conn) -> Next {
        let State::Queued(queued) = std::mem::replace(&mut conn.state, State::Head) else {
            return Next::Close;
        };
        let Queued { pending, parked, .. } = *queued;
        let answer = parked.give_up(&pending.head, false);
        let mut asked = Asked::of(&pending.head, pending.keep_alive);
        asked.unread = pending.place.is_some();
        drop(pending);
        self.core.admit_uploads();
        let behind = std::mem::take(&mut conn.inbox);
        let next = deliver(&self.core, &mut self.desk, conn, answer, asked, &behind);
        conn.inbox = behind;
        next.unwrap_or_else(|| next_request(conn))
    }
}

/// Ends a parked request whose client is gone.
pub(super) fn abandon(conn: &mut Conn) {
    let State::Queued(queued) = std::mem::replace(&mut conn.state, State::Head) else { return };
    let Queued { pending, parked, .. } = *queued;
    let answer = parked.give_up(&pending.head, true);
    if let Some(ticket) = answer.ticket {
        ticket.settle(0, Delivery::ClientGone);
    }
}

/// Heads whose memory a worker keeps for requests to come.
const SPARE_HEADS: usize = 64;

/// A backend's answer that takes longer than this has its client looked at: the kernel is asked to tell when it leaves. For
/// the others that would be a system call each.
const WATCH_AFTER_NS: Nanos = 200_000_000;

impl Core {
    /// Puts a request away that was sent, until its answer comes.
    fn await_answer(&self, mut conn: Box<Conn>, now: Nanos) {
        let State::Queued(queued) = &mut conn.state else { return self.close(conn) };
        let until = queued.parked.until();
        let watch_at = now.saturating_add(WATCH_AFTER_NS);
        let is_put_off = std::mem::take(&mut queued.is_put_off);
        let is_watched = queued.is_watched;
        let due = if is_watched && !is_put_off { until } else { until.min(watch_at) };
        let back = self.table.put(conn, Due::new(Phase::Answer, due), true, |conn| {
            if is_put_off {
                // The keeper looks at it again, and then what came counts.
                if let Some(backend) = conn.backend() {
                    self.sockets.came(descriptor(backend.socket));
                }
                return;
            }
            if is_watched {
                self.watch_client(conn);
            }
            self.await_socket(conn);
        });
        if let Some(conn) = back {
            self.abandon(conn, Delivery::ClientGone);
        }
    }

    /// Puts a parked request away until it can go on, its client is gone, or it has waited long enough.
    pub(super) fn await_backend(&self, conn: Box<Conn>, now: Nanos) {
        let State::Queued(queued) = &conn.state else { return self.close(conn) };
        if queued.parked.socket().is_some() {
            return self.await_answer(conn, now);
        }
        let due = Due::new(Phase::Backend, queued.parked.until());
        let back = self.table.put(conn, due, true, |conn| {
            let (core, token) = (self.me.clone(), conn.token);
            let State::Queued(queued) = &mut conn.state else { return };
            let waker = move || {
                if let Some(core) = core.upgrade() {
                    core.woken(token);
                }
            };
            // Under the slot's lock, so that a waker that is called at once finds the connection.
            let asleep = queued.parked.on_wake(Box::new(waker));
            conn.hangup_armed = asleep;
            let flags = match asleep {
                false => EventFlags::IN | EventFlags::OUT,
                true if self.abort_on_close => EventFlags::RDHUP,
                true => EventFlags::empty(),
            };
            self.arm_client(conn, flags);
        });
        if let Some(conn) = back {
            self.abandon(conn, Delivery::ClientGone);
        }
    }

    /// A parked request can go on, as soon as any worker is free. Never blocks.
    fn woken(&self, token: Token) {
        // Busy: whoever has it finds out. In another state by now: it looks at its socket once more for nothing.
        if let Taken::Conn(conn) = self.table.take(token, false) {
            self.settle(conn, Next::Again);
        }
    }
}
