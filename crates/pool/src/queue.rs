//! The line of requests that found every backend full. First come first served: a request in it has come before
//! every one that is not, and a newcomer joins its end without trying. What gives room wakes exactly one, the first that
//! sleeps; it tries, and either leaves the line or keeps its place in it.
//!
//! No wake-up is lost: a request that finds everything full and goes to sleep does so in a line that is not empty, and from
//! then on every lease that ends wakes a sleeper or, when there is none, is remembered as spare for one that tries in vain or
//! joins. When more than one place may have come up at once (a backend came up, the first one joined), the line is swept:
//! one after the other is woken for as long as they find room, never all at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(test)]
use std::{thread, time::Duration};

use parking_lot::Mutex;

#[cfg(test)]
use balancer_time::Nanos;

/// Tells the keeper of a request in line that it can go on. Called at most once, on the thread that made it so: must not
/// block. It may come late, when the request has ended already.
pub type Waker = Box<dyn FnOnce() + Send>;

/// See the module. Takes its lock in every call but [`Queue::is_empty`] and, with an empty line, [`Queue::freed`]; never
/// across I/O, and wakers are called outside of it.
#[derive(Debug, Default)]
pub struct Queue {
    /// Everybody in line, asleep or trying. Written under the lock.
    members: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// The next one's place.
    next: u64,
    /// Requests that sleep, by place, and how to wake them; the others in line are trying.
    asleep: BTreeMap<u64, Waker>,
    /// Leases that ended while none slept.
    spare: usize,
    /// There may be room for more than one: a request that finds some wakes the next, and one that joins tries at once.
    sweeping: bool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("asleep", &self.asleep.len()).finish_non_exhaustive()
    }
}

impl Line {
    /// Wakes the first that sleeps at `from` or behind it. `None`: none does. The waker is for after the lock.
    fn wake(&mut self, from: u64) -> Option<Waker> {
        let place = *self.asleep.range(from..).next()?.0;
        self.asleep.remove(&place)
    }
}

fn call(woken: Option<Waker>) {
    if let Some(waker) = woken {
        waker();
    }
}

/// Of one that has not said yet how to wake it: it asks before it sleeps.
fn unnamed() -> Waker {
    Box::new(|| ())
}

/// A place in the line. Dropped, it is given up, and a wake-up that it did not use goes to the next.
#[derive(Debug)]
#[must_use = "a dropped place is given up"]
pub struct QueuePlace {
    queue: Arc<Queue>,
    number: u64,
    found_room: bool,
}

impl Queue {
    /// Whether the line is empty, so that a newcomer may try.
    pub fn is_empty(&self) -> bool {
        self.members.load(Ordering::SeqCst) == 0
    }

    /// How many are in line.
    pub fn len(&self) -> usize {
        self.members.load(Ordering::SeqCst)
    }

    /// Takes the last place of a line of at most `most`; `None`: it is full.
    pub fn join(self: &Arc<Self>, most: usize) -> Option<QueuePlace> {
        let mut line = self.line.lock();
        let members = self.members.load(Ordering::SeqCst);
        if members >= most {
            return None;
        }
        let number = line.next;
        line.next += 1;
        // No request was told of what ended while there was no line.
        line.sweeping |= members == 0;
        if line.spare > 0 {
            line.spare -= 1;
        } else if !line.sweeping {
            line.asleep.insert(number, unnamed());
        }
        self.members.store(members + 1, Ordering::SeqCst);
        drop(line);
        // Pairs with the order in `freed`: a lease whose end did not see this member is seen to have ended by its try.
        fence(Ordering::SeqCst);
        Some(QueuePlace { queue: Arc::clone(self), number, found_room: false })
    }

    /// A lease has ended, its counts taken back (sequentially consistent) before this is called. Without a line that is
    /// one load.
    pub fn freed(&self) {
        if !self.is_empty() {
            self.wake_one(false);
        }
    }

    /// There may be room that no lease gave up: a backend came up, or may hold more, or the pool is another one.
    pub fn changed(&self) {
        if !self.is_empty() {
            self.wake_one(true);
        }
    }

    fn wake_one(&self, sweep: bool) {
        let mut line = self.line.lock();
        line.sweeping |= sweep;
        let woken = line.wake(0);
        if woken.is_none() {
            line.spare = (line.spare + 1).min(self.members.load(Ordering::SeqCst));
        }
        drop(line);
        call(woken);
    }

    /// One member less. Takes no lock; `line` is held by the caller.
    fn shrink(&self, line: &mut Line) {
        let members = self.members.load(Ordering::SeqCst).saturating_sub(1);
        self.members.store(members, Ordering::SeqCst);
        if members == 0 {
            (line.spare, line.sweeping) = (0, false);
        }
    }
}

impl QueuePlace {
    /// Whether it is this one's turn to try.
    pub fn may_try(&self) -> bool {
        !self.queue.line.lock().asleep.contains_key(&self.number)
    }

    /// Tried in vain: sleeps again in the same place, until woken. `choosy`: there may have been room that this one can't
    /// take, so the next may try. False: something was freed meanwhile, try again.
    pub fn sleep(&mut self, choosy: bool) -> bool {
        let mut line = self.queue.line.lock();
        let mut woken = None;
        if choosy {
            woken = line.wake(self.number + 1);
            // With none behind it the room is for the next that joins.
            line.sweeping |= woken.is_none();
        } else if line.spare > 0 {
            line.spare -= 1;
            return false;
        } else {
            line.sweeping = false;
        }
        line.asleep.insert(self.number, unnamed());
        drop(line);
        call(woken);
        true
    }

    /// Has `waker` called once, when it is this one's turn. False: it is already.
    pub fn on_turn(&self, waker: Waker) -> bool {
        match self.queue.line.lock().asleep.get_mut(&self.number) {
            Some(place) => {
                *place = waker;
                true
            }
            None => false,
        }
    }

    /// Blocks until it is this one's turn; false when that did not come before `until`. `now` tells the time.
    #[cfg(test)]
    pub fn wait(&self, until: Nanos, now: impl Fn() -> Nanos) -> bool {
        let thread = thread::current();
        if !self.on_turn(Box::new(move || thread.unpark())) {
            return true;
        }
        loop {
            let at = now();
            if self.may_try() {
                return true;
            }
            if at >= until {
                return false;
            }
            // Comes back early for no reason, too.
            thread::park_timeout(Duration::from_nanos(until - at));
        }
    }

    /// Found room and leaves the line.
    pub fn leave(mut self) {
        self.found_room = true;
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut line = self.queue.line.lock();
        let tried = line.asleep.remove(&self.number).is_none();
        self.queue.shrink(&mut line);
        // A turn that came to nothing is the next one's; so is the rest of a sweep.
        let pass_on = tried && (!self.found_room || line.sweeping);
        let mut woken = None;
        if pass_on {
            woken = line.wake(0);
            if woken.is_none() && !self.found_room && !self.queue.is_empty() {
                line.spare += 1;
            }
        }
        drop(line);
        call(woken);
    }
}

#[cfg(test)]
pub(super) mod tests;
