//! The line of requests that found every backend full. [`crate::fair::FairLine`] decides whose turn it is; this keeps
//! which requests are asleep and which are trying. A newcomer joins without trying. When a place is freed, exactly
//! one request gets a turn: it tries, and either leaves the line or waits on where it was.
//!
//! No wake-up is lost. A request that goes to sleep is in a line that is not empty. From then on each lease that ends
//! gives one request a turn; if none is asleep, that is remembered as *spare* for one that tries in vain or joins.
//! When more than one place may be free (a backend came up, or the first request joined), the line is *swept*:
//! requests get a turn one after another, as long as they find room, and never all at once.

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

/// Called when a request in line can go on. Called at most once, by the thread that causes it, so it must not block.
/// It may come late, when the request has already ended.
pub type Waker = Box<dyn FnOnce() + Send>;

/// Which request goes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOrder {
    /// One of the client that has had the least of the places.
    #[default]
    Fair,
    /// The one that came first.
    Fifo,
}

impl QueueOrder {
    /// Both orders, each with its name in the configuration.
    pub const ALL: [(&str, Self); 2] = [("fair", Self::Fair), ("fifo", Self::Fifo)];
}

/// How a pool's line is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Which request goes next.
    pub order: QueueOrder,
    /// Most requests that wait.
    pub size: usize,
    /// How long a request may wait if its client always has several waiting; `None`: as long as others. Without
    /// effect under [`QueueOrder::Fifo`].
    pub target: Option<Nanos>,
}

/// How a request came past the line. Has to be given back when the request ends.
#[must_use = "what was counted has to end"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    /// It is not counted.
    #[default]
    Uncounted,
    /// There was no line.
    Straight(Who),
    /// It waited.
    Waited {
        /// The client that it is counted for.
        who: Who,
        /// The number of the order in which it waited; each change of the order raises it.
        era: u32,
    },
}

/// What a request in line may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineStanding {
    /// It waits for its turn.
    Asleep,
    /// It has its turn, and may try to find a place.
    Trying,
    /// It is refused, and waits no longer.
    Refused(LineRefusal),
}

/// The line of a pool. Every call takes its lock, except [`Queue::is_empty`], [`Queue::len`], [`Queue::clients`] and,
/// if the line is empty, calls about room. The lock is never held across I/O, and wakers are called without it.
#[derive(Default)]
pub struct Queue {
    /// Number of requests in line, asleep or trying. Written under the lock.
    members: AtomicUsize,
    /// See [`Queue::clients`]. Written under the lock.
    clients: AtomicUsize,
    /// Made when the first request is counted, since a pool without bounds never needs it.
    straight: OnceLock<StraightCounts>,
    line: Mutex<LineState>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("members", &self.members).finish_non_exhaustive()
    }
}

/// A place in the line. Dropping it gives it up; if it had its turn, the next request gets one.
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

    /// How many requests are in line.
    pub fn len(&self) -> usize {
        self.members.load(Ordering::SeqCst)
    }

    /// How many clients have requests asleep; one with requests of two priorities counts twice. Under
    /// [`QueueOrder::Fifo`] all count as one.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Sets how the line is kept. If the order changes, requests in line wait on as if they had joined under the new
    /// one.
    pub fn configure(&self, policy: QueuePolicy) {
        self.locked(|line| line.configure(policy, |who| self.straight_of(who)));
    }

    /// Takes a place in the line.
    ///
    /// # Errors
    /// The line is full, and no other request is refused instead of this one.
    pub fn join(self: &Arc<Self>, member: LineMember, now: Nanos) -> Result<QueuePlace, LineRefusal> {
        let number = self.locked(|line| line.join(member, |who| self.straight_of(who), now))?;
        // Pairs with `ended`: if a lease that ends does not see this request, then this request's try sees that it
        // has ended.
        fence(Ordering::SeqCst);
        Ok(QueuePlace { queue: Arc::clone(self), number, has_left: false })
    }

    /// Counts a request that found no line and goes to a backend.
    pub fn went_straight(&self, who: Who) -> Passage {
        let counts = self.straight.get_or_init(StraightCounts::new);
        if counts.begin(who) { Passage::Straight(who) } else { Passage::Uncounted }
    }

    /// How many requests of that client are counted as in flight.
    #[cfg(test)]
    pub(crate) fn counted(&self, who: Who) -> u32 {
        self.straight_of(who) + self.line.lock().in_flight(who)
    }

    fn straight_of(&self, who: Who) -> u32 {
        self.straight.get().map_or(0, |counts| counts.of(who))
    }

    /// A lease has ended. Its counts must have been taken back before, with sequential consistency. `held`: how long
    /// the lease lasted; `now`: the present; `None`: not known. If there is no line, this is one load, unless the
    /// request had waited.
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

    /// A lease that goes on gave back a worker, so that there may be room for one request.
    pub fn freed(&self) {
        self.ended(Passage::Uncounted, None, None);
    }

    /// There may be room that no lease gave back: a backend came up, a bound was raised, or the pool was reconfigured.
    pub fn changed(&self) {
        if !self.is_empty() {
            self.locked(LineState::sweep);
        }
    }

    /// The line as it is shown, with at most `most_clients` clients. Looks at a few hundred requests at most.
    pub fn view(&self, most_clients: usize, now: Nanos) -> LineView {
        self.line.lock().view(most_clients, now)
    }

    /// Calls `act` under the lock. Updates the counts after it, and calls the wakers of requests that can go on.
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
    /// What the request may do now.
    pub fn standing(&self) -> LineStanding {
        self.queue.line.lock().standing(self.number)
    }

    /// The request tried in vain: it sleeps again in the same place. `choosy`: there may be room that this request
    /// can't take, so the next one gets a turn. False: something was freed meanwhile, so it has to try again.
    pub fn sleep(&mut self, choosy: bool, now: Nanos) -> bool {
        self.queue.locked(|line| line.sleep(self.number, choosy, |who| self.queue.straight_of(who), now))
    }

    /// Sets what is called once when the request has its turn or is refused. False: that is so already.
    pub fn on_turn(&self, waker: Waker) -> bool {
        self.queue.line.lock().set_waker(self.number, waker)
    }

    /// The request found room and leaves the line. `elsewhere`: perhaps other room than it was woken for, so that the
    /// next one gets a turn for that.
    pub fn leave(mut self, elsewhere: bool) -> Passage {
        self.has_left = true;
        self.queue.locked(|line| line.found(self.number, elsewhere))
    }

    /// Blocks until the request is no longer asleep. False: it still was at `until`. `now` tells the time.
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
            // May return early for no reason.
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
