//! How many requests may wait for their backends' answers: as many as there are workers, or as many as have an answer
//! within half of `frontend.worker_wait`, by what was seen lately, if that is more. They hold no worker, but with that many waiting nothing
//! new is begun, so that backends that hang are not given ever more, and slow ones that answer are given what they can take.
//! Connections with something to say wait here, unread, first come first served, until an answer comes; when none has come
//! for `frontend.worker_wait`, they are told so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::conn::{Conn, Next};
use super::core::Core;
use super::table::Token;
use super::timers::{Due, Phase};
use balancer_time::Nanos;

/// See the module.
pub(super) struct Seats {
    most: usize,
    taken: Arc<AtomicUsize>,
    /// When a request last went on.
    moved_at: AtomicU64,
    flow: Flow,
    /// How long the queue is; written under its lock.
    queued: AtomicUsize,
    /// Waiting connections, and some that wait no longer.
    queue: Mutex<VecDeque<Token>>,
}

/// A request that waits for its answer, counted while this lives.
pub(super) struct Seat(Arc<AtomicUsize>);

/// How many requests had an answer in a window of time: the last whole one, or the one under way if that has more.
/// Counted by whoever goes on, without a lock: one that falls into the wrong window changes nothing.
struct Flow {
    window: Nanos,
    /// When the window under way began.
    began: AtomicU64,
    count: AtomicUsize,
    /// In the window before it.
    before: AtomicUsize,
}

impl Flow {
    fn new(window: Nanos) -> Self {
        Self { window, began: AtomicU64::new(0), count: AtomicUsize::new(0), before: AtomicUsize::new(0) }
    }

    fn one_more(&self, now: Nanos) {
        let began = self.began.load(Ordering::Relaxed);
        let age = now.saturating_sub(began);
        if age >= self.window
            && self.began.compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let count = self.count.swap(0, Ordering::Relaxed);
            self.before.store(if age < 2 * self.window { count } else { 0 }, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn in_a_window(&self, now: Nanos) -> usize {
        let age = now.saturating_sub(self.began.load(Ordering::Relaxed));
        if age < self.window {
            self.before.load(Ordering::Relaxed).max(self.count.load(Ordering::Relaxed))
        } else if age < 2 * self.window {
            self.count.load(Ordering::Relaxed)
        } else {
            0
        }
    }
}

/// Windows in `frontend.worker_wait`.
const WINDOWS: u64 = 4;

/// Below this many the queue is left as it is.
const FORGET_FROM: usize = 1024;

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Seats {
    /// For that many workers, and what `frontend.worker_wait` says.
    pub fn new(workers: usize, worker_wait: Nanos) -> Self {
        Self {
            most: workers,
            taken: Arc::default(),
            moved_at: AtomicU64::new(0),
            flow: Flow::new(worker_wait / WINDOWS),
            queued: AtomicUsize::new(0),
            queue: Mutex::default(),
        }
    }

    /// A request goes on. `is_answered`: because something came from its backend.
    pub fn moves(&self, now: Nanos, is_answered: bool) {
        self.moved_at.store(now, Ordering::Relaxed);
        if is_answered {
            self.flow.one_more(now);
        }
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

    fn is_full(&self, now: Nanos) -> bool {
        let taken = self.taken();
        taken >= self.most && taken >= self.flow.in_a_window(now).saturating_mul(WINDOWS as usize / 2)
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
    pub fn must_wait(&self, conn: &Conn, now: Nanos) -> bool {
        conn.seat.is_none() && (self.seats.is_full(now) || self.seats.queued.load(Ordering::SeqCst) > 0)
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
        while self.seats.queued.load(Ordering::SeqCst) > 0 && !self.seats.is_full(now) {
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
        let seats = Seats::new(2, 400);
        let (one, two) = (seats.take(), seats.take());
        assert!(seats.is_full(1));
        drop(one);
        assert!(!seats.is_full(1));
        drop(two);
        assert_eq!(seats.taken(), 0);
    }

    #[test]
    fn there_are_more_while_answers_come_and_no_more_when_none_does() {
        let seats = Seats::new(2, 400);
        let taken: Vec<Seat> = (0..7).map(|_| seats.take()).collect();
        (1000..1003).for_each(|now| seats.moves(now, true));
        (1000..1003).for_each(|now| seats.moves(now, false));
        assert!(seats.is_full(1003), "three in a window of 100: six go on in half of 400");
        seats.moves(1003, true);
        assert!(!seats.is_full(1003), "and now eight");
        assert!(!seats.is_full(1100));
        seats.moves(1100, true);
        assert!(!seats.is_full(1199));
        assert!(seats.is_full(1200), "one in the next window");
        let _eighth = seats.take();
        assert!(seats.is_full(1150));
        drop(taken);
        (1200..1204).for_each(|now| seats.moves(now, true));
        let _more: Vec<Seat> = (0..6).map(|_| seats.take()).collect();
        assert!(!seats.is_full(1399));
        assert!(seats.is_full(1400), "nothing has come for a whole window");
    }

    #[test]
    fn without_a_wait_there_are_as_many_as_workers() {
        let seats = Seats::new(1, 0);
        (0..100).for_each(|now| seats.moves(now, true));
        let _one = seats.take();
        assert!(seats.is_full(100));
    }
}
