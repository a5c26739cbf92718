//! How many requests may wait for their backends' answers: as many as there are workers. They hold none, but with that many
//! waiting nothing new is begun, so that backends that hang are not given ever more. Connections with something to say wait
//! here, unread, first come first served, until an answer comes; when none has come for `frontend.worker_wait`, they are
//! told so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::conn::{Conn, Next};
use super::core::Core;
use super::table::Token;
use super::timers::{Due, Phase};
use crate::rules::Nanos;

/// See the module.
pub(super) struct Seats {
    most: usize,
    taken: Arc<AtomicUsize>,
    /// When a request last went on.
    moved_at: AtomicU64,
    /// How long the queue is; written under its lock.
    queued: AtomicUsize,
    /// Waiting connections, and some that wait no longer.
    queue: Mutex<VecDeque<Token>>,
}

/// A request that waits for its answer, counted while this lives.
pub(super) struct Seat(Arc<AtomicUsize>);

/// Below this many the queue is left as it is.
const FORGET_FROM: usize = 1024;

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Seats {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
            moved_at: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }

    /// A request goes on.
    pub fn moves(&self, now: Nanos) {
        self.moved_at.store(now, Ordering::Relaxed);
    }

    /// Counts one more. A few more than allowed, when several workers take the last one at once.
    pub fn take(&self) -> Seat {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Seat(Arc::clone(&self.taken))
    }

    /// Requests that wait for their answers.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    fn is_full(&self) -> bool {
        self.taken() >= self.most
    }

    /// Takes the queue's lock.
    fn pop(&self) -> Option<Token> {
        let mut queue = self.queue.lock();
        let token = queue.pop_front();
        self.queued.store(queue.len(), Ordering::SeqCst);
        token
    }
}

impl Core {
    /// Whether a connection with something to say has to wait for an answer to somebody else.
    pub fn must_wait(&self, conn: &Conn) -> bool {
        conn.seat.is_none() && (self.seats.is_full() || self.seats.queued.load(Ordering::SeqCst) > 0)
    }

    /// Puts a connection away, unread and disarmed, until there is a seat.
    pub fn queue_for_seat(&self, conn: Box<Conn>, now: Nanos) {
        let (token, due) = (conn.token, Due::new(Phase::Seat, now.saturating_add(self.spans.worker_wait)));
        drop(self.table.put(conn, due, false, |_| {}));
        {
            let mut queue = self.seats.queue.lock();
            queue.push_back(token);
            self.seats.queued.store(queue.len(), Ordering::SeqCst);
        }
        self.admit_waiting(now);
    }

    /// Takes connections that wait no longer out of a queue that has grown long.
    pub fn forget_seatless(&self) {
        if self.seats.queued.load(Ordering::SeqCst) < FORGET_FROM {
            return;
        }
        let mut queue = self.seats.queue.lock();
        queue.retain(|token| self.table.waits(*token, Phase::Seat));
        self.seats.queued.store(queue.len(), Ordering::SeqCst);
    }

    /// Until when a connection may wait, others having gone on meanwhile; in the past when none has.
    pub fn seat_due(&self) -> Due {
        let moved_at = self.seats.moved_at.load(Ordering::Relaxed);
        Due::new(Phase::Seat, moved_at.saturating_add(self.spans.worker_wait))
    }

    /// Lets connections go on for which there are seats. Takes the queue's lock and slots' locks, one after the other.
    pub fn admit_waiting(&self, now: Nanos) {
        while self.seats.queued.load(Ordering::SeqCst) > 0 && !self.seats.is_full() {
            let Some(token) = self.seats.pop() else { return };
            if let Some(mut conn) = self.table.take_waiting(token, Phase::Seat) {
                conn.seat = Some(self.seats.take());
                self.settle_at(conn, Next::Again, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_given_back_when_dropped() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take(), seats.take());
        assert!(seats.is_full());
        drop(one);
        assert!(!seats.is_full());
        drop(two);
        assert_eq!(seats.taken(), 0);
    }
}
