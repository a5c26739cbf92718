//! The line of requests that found every backend full. [`crate::fair::FairLine`] says whose turn it is; here is who sleeps and who tries.
//! A newcomer joins without trying. What gives room gives exactly one a turn; it tries, and either leaves the line or waits on
//! where it was.
//!
//! No wake-up is lost: a request that finds everything full and goes to sleep does so in a line that is not empty, and from
//! then on every lease that ends gives a turn or, when nobody sleeps, is remembered as spare for one that tries in vain or
//! joins. When more than one place may have come up at once (a backend came up, the first one joined), the line is swept:
//! one after the other has a turn for as long as they find room, never all at once.

mod line;
mod members;

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(test)]
use std::{thread, time::Duration};

use parking_lot::Mutex;

use crate::fair::{LineRefusal, StraightCounts, Who};
use balancer_time::Nanos;
use line::LineState;
pub use members::{BusyClient, LineMember, LineView};

/// Tells the keeper of a request in line that it can go on. Called at most once, on the thread that made it so: must not
/// block. It may come late, when the request has ended already.
pub type Waker = Box<dyn FnOnce() + Send>;

/// Who goes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOrder {
    /// Whose client has had the least of the places.
    #[default]
    Fair,
    /// Who came first.
    Fifo,
}

impl QueueOrder {
    /// Both, with what the configuration calls them.
    pub const ALL: [(&str, Self); 2] = [("fair", Self::Fair), ("fifo", Self::Fifo)];
}

/// How a pool's line is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Who goes next.
    pub order: QueueOrder,
    /// Most requests that wait.
    pub size: usize,
    /// How long one waits whose client always has others waiting; `None`: as long as any. Of no meaning to
    /// [`QueueOrder::Fifo`].
    pub target: Option<Nanos>,
}

/// How a request came past the line: what has to be told when it ends.
#[must_use = "what was counted has to end"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    /// Nobody counts it.
    #[default]
    Uncounted,
    /// There was no line.
    Straight(Who),
    /// It waited.
    Waited {
        /// Whose it is.
        who: Who,
        /// Which of the line's orders it waited in.
        era: u32,
    },
}

/// What a request in line may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStanding {
    /// It waits for its turn.
    Asleep,
    /// It is its turn: it may try to find a place.
    Trying,
    /// It waits no longer, and is refused.
    Refused(LineRefusal),
}

/// See the module. Takes its lock in every call but [`Queue::is_empty`], [`Queue::len`], [`Queue::clients`] and, with an empty
/// line, those that say that there is room; never across I/O, and wakers are called outside of it.
#[derive(Default)]
pub struct Queue {
    /// Everybody in line, asleep or trying. Written under the lock.
    members: AtomicUsize,
    /// See [`Queue::clients`]. Written under the lock.
    clients: AtomicUsize,
    /// Made when the first request is counted: a pool without bounds has no line.
    straight: OnceLock<StraightCounts>,
    line: Mutex<LineState>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("members", &self.members).finish_non_exhaustive()
    }
}

/// A place in the line. Dropped, it is given up, and a turn that it did not use goes to the next.
#[derive(Debug)]
#[must_use = "a dropped place is given up"]
pub struct QueuePlace {
    queue: Arc<Queue>,
    number: u64,
    has_left: bool,
}

impl Queue {
    /// Whether the line is empty, so that a newcomer may try.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are in line.
    pub fn len(&self) -> usize {
        self.members.load(Ordering::SeqCst)
    }

    /// How many clients have requests asleep, for each priority; under [`QueueOrder::Fifo`] all count as one.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// How the line is kept from now on. Under another order everybody in it waits on as if it had been so from the start.
    pub fn configure(&self, policy: QueuePolicy) {
        self.locked(|line| line.configure(policy, |who| self.straight_of(who)));
    }

    /// Takes a place in the line.
    ///
    /// # Errors
    /// It is full, and nobody else is refused in this one's place.
    pub fn join(self: &Arc<Self>, member: LineMember, now: Nanos) -> Result<QueuePlace, LineRefusal> {
        let number = self.locked(|line| line.join(member, |who| self.straight_of(who), now))?;
        // Pairs with the order in `ended`: a lease whose end did not see this member is seen to have ended by its try.
        fence(Ordering::SeqCst);
        Ok(QueuePlace { queue: Arc::clone(self), number, has_left: false })
    }

    /// A request found no line, and goes on to a backend.
    pub fn went_straight(&self, who: Who) -> Passage {
        let counts = self.straight.get_or_init(StraightCounts::new);
        if counts.begin(who) { Passage::Straight(who) } else { Passage::Uncounted }
    }

    /// How many requests of that client are in flight, however they came.
    #[cfg(test)]
    pub(crate) fn counted(&self, who: Who) -> u32 {
        self.straight_of(who) + self.line.lock().in_flight(who)
    }

    fn straight_of(&self, who: Who) -> u32 {
        self.straight.get().map_or(0, |counts| counts.of(who))
    }

    /// A lease has ended, its counts taken back (sequentially consistent) before this is called. `held`: for how long it was;
    /// `now`: the present; `None`: unknown. Without a line that is one load, unless the request waited.
    pub fn ended(&self, passage: Passage, held: Option<Nanos>, now: Option<Nanos>) {
        if let (Passage::Straight(who), Some(counts)) = (passage, self.straight.get()) {
            counts.end(who);
        }
        let has_waited = matches!(passage, Passage::Waited { .. });
        if self.is_empty() && !has_waited {
            return;
        }
        let now = now.unwrap_or(0);
        self.locked(|line| {
            match passage {
                Passage::Straight(who) => line.straight_ended(who, self.straight_of(who), held, now),
                Passage::Waited { who, era } => line.ended(who, era, held, now),
                Passage::Uncounted => {}
            }
            line.freed(now);
        });
    }

    /// A lease that goes on gave up a part of what bounds others.
    pub fn freed(&self) {
        self.ended(Passage::Uncounted, None, None);
    }

    /// There may be room that no lease gave up: a backend came up, or may hold more, or the pool is another one.
    pub fn changed(&self) {
        if !self.is_empty() {
            self.locked(LineState::sweep);
        }
    }

    /// Who waits, and who of them has the most places: at most so many clients, and at no more than a few hundred requests.
    pub fn view(&self, most_clients: usize, now: Nanos) -> LineView {
        self.line.lock().view(most_clients, now)
    }

    /// Does something under the lock. Afterwards everybody reads how many there are now, and who was woken is told.
    fn locked<T>(&self, act: impl FnOnce(&mut LineState) -> T) -> T {
        let mut line = self.line.lock();
        let result = act(&mut line);
        line.collect_refusals();
        self.members.store(line.members(), Ordering::SeqCst);
        self.clients.store(line.clients(), Ordering::Relaxed);
        let woken = line.take_woken();
        drop(line);
        woken.into_iter().for_each(|waker| waker());
        result
    }
}

impl QueuePlace {
    /// What this one may do now.
    pub fn standing(&self) -> LineStanding {
        self.queue.line.lock().standing(self.number)
    }

    /// Tried in vain: sleeps again in the same place, until it is its turn. `choosy`: there may have been room that this one
    /// can't take, so the next may try. False: something was freed meanwhile, try again.
    pub fn sleep(&mut self, choosy: bool, now: Nanos) -> bool {
        self.queue.locked(|line| line.sleep(self.number, choosy, |who| self.queue.straight_of(who), now))
    }

    /// Has `waker` called once, when this one waits no longer or it is its turn. False: it is so already.
    pub fn on_turn(&self, waker: Waker) -> bool {
        self.queue.line.lock().set_waker(self.number, waker)
    }

    /// Found room and leaves the line. `elsewhere`: maybe other room than what it was woken for, which is the next one's then.
    pub fn leave(mut self, elsewhere: bool) -> Passage {
        self.has_left = true;
        self.queue.locked(|line| line.found(self.number, elsewhere))
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
            if self.standing() != LineStanding::Asleep {
                return true;
            }
            if at >= until {
                return false;
            }
            // Comes back early for no reason, too.
            thread::park_timeout(Duration::from_nanos(until - at));
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        if !self.has_left {
            self.queue.locked(|line| line.given_up(self.number));
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
