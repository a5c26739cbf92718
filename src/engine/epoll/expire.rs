//! What the keeper does when a deadline has passed.

use super::answer::after_push;
use super::conn::{Conn, Next, State};
use super::deliver::Pushed;
use super::head::nobody_free;
use super::keeper::Keeper;
use super::timers::{Due, Phase};
use crate::error::Reject;
use crate::proxy::exchange::{BodyFault, Delivery as Outcome};
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

impl Keeper {
    /// Walks all connections and ends what waits no longer. When the next answer is due.
    pub(super) fn expire(&mut self, now: Nanos) -> Nanos {
        let drain_idle_since = self.drain_idle_since(now);
        let idle = self.core.spans.idle;
        let mut passed: Vec<(u32, Due)> = Vec::new();
        let mut soonest = Nanos::MAX;
        self.core.table.walk(|index, due| {
            let drained = drain_idle_since.is_some_and(|since| match due.phase {
                Phase::Idle => due.at.saturating_sub(idle) <= since,
                Phase::Head => true,
                _ => false,
            });
            if due.at <= now || drained {
                passed.push((index, due));
            } else if due.phase == Phase::Answer {
                soonest = soonest.min(due.at);
            }
        });
        for (index, due) in passed {
            let Some(token) = self.core.table.token(index) else { continue };
            let until = self.core.seat_due();
            if due.phase == Phase::Seat && until.at > now {
                // In place: taken out for a moment, it would miss its turn.
                self.core.table.prolong(token, due, until);
                continue;
            }
            // Only if nothing has happened since the walk.
            let Some(conn) = self.core.table.take_due(token, due) else { continue };
            self.pass(conn, due, now);
        }
        soonest
    }

    fn pass(&mut self, mut conn: Box<Conn>, due: Due, now: Nanos) {
        let next = match due.phase {
            Phase::Vacant | Phase::Busy | Phase::Idle | Phase::Linger | Phase::Relay => Next::Close,
            Phase::Head if conn.inbox.is_empty() => Next::Close,
            // Drained, and in the middle of a head: it has until its own deadline.
            Phase::Head if due.at > now => Next::Readable,
            Phase::Head if conn.look_first => self.refuse(&mut conn, &nobody_free()),
            Phase::Head => match self.worker.judge_overdue(&mut conn) {
                Some(next) => next,
                None => self.refuse(&mut conn, &too_slow("the request's head did not arrive in time")),
            },
            Phase::Body => self.worker.refuse_pending(&mut conn, &too_slow(&BodyFault::TimedOut.to_string())),
            Phase::UploadPlace => {
                let reject = Reject::new(Reason::Unavailable, "too many uploads at once").retry_after(5);
                self.worker.refuse_pending(&mut conn, &reject)
            }
            // Nobody was free: what can be had without waiting, else 503.
            Phase::Seat => self.worker.advance(&mut conn, false),
            Phase::Answer => match self.waited(&mut conn, now) {
                Some(next) => next,
                None => self.worker.give_up(&mut conn),
            },
            Phase::Backend => self.worker.give_up(&mut conn),
            Phase::ClientWritable => return self.client_is_slow(conn, now),
            Phase::UpstreamReadable => {
                let cause = match &conn.state {
                    State::Answer(delivery) => delivery.stream.as_ref().map(|stream| stream.too_late()),
                    _ => None,
                };
                return self.core.abandon(conn, Outcome::BackendBroke(cause.unwrap_or_default()));
            }
        };
        self.core.settle(conn, next);
    }

    /// What comes next for a request that waits for its answer. `None`: its end.
    fn waited(&self, conn: &mut Conn, now: Nanos) -> Option<Next> {
        let State::Queued(queued) = &mut conn.state else { return Some(Next::Close) };
        if now < queued.parked.until() {
            queued.is_watched = true;
            return Some(Next::Backend);
        }
        if queued.is_late {
            return None;
        }
        // A worker may send it to somebody else.
        queued.is_late = true;
        Some(Next::Again)
    }

    fn refuse(&mut self, conn: &mut Conn, reject: &Reject) -> Next {
        self.worker.desk.head = RequestHead::blank(conn.peer);
        self.worker.refuse(conn, reject)
    }

    /// The kernel says "writable" only when a third of its buffer is free. A client that reads slowly but fast enough is
    /// told from a silent one by trying.
    fn client_is_slow(&mut self, mut conn: Box<Conn>, now: Nanos) {
        let State::Answer(delivery) = &mut conn.state else { return self.core.close(conn) };
        let pushed = delivery.push(&conn.link.wire, &[], &mut self.worker.desk.scratch, now);
        if matches!(pushed, Pushed::ClientFull | Pushed::Yield)
            && delivery.client_due(&self.core.spans, now) <= now
        {
            // Both may be late: what the whole request may take comes first.
            let late =
                delivery.stream.as_ref().filter(|stream| stream.deadline().is_some_and(|at| at <= now));
            let why = late.map_or(Outcome::ClientGone, |stream| Outcome::BackendBroke(stream.too_late()));
            return self.core.abandon(conn, why);
        }
        let next = after_push(&mut conn, pushed);
        self.core.settle(conn, next);
    }

    /// Closes everything that is left when the engine stops.
    pub(super) fn close_all(&mut self) {
        let mut left: Vec<u32> = Vec::new();
        self.core.table.walk(|index, _| left.push(index));
        for index in left {
            let Some(token) = self.core.table.token(index) else { continue };
            if let super::table::Taken::Conn(conn) = self.core.table.take(token, true) {
                self.core.abandon(conn, Outcome::ClientGone);
            }
        }
    }
}

fn too_slow(detail: &str) -> Reject {
    Reject::new(Reason::RequestTimeout, detail.to_owned())
}
