//! Events that the kernel has given out and that no worker is at yet. With nobody else waiting, a worker takes several in
//! one call; whoever is free next goes on with them before it asks the kernel again. They wait no longer here than they
//! would have in the kernel: nobody was free.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::event::epoll::EventFlags;

use super::core::Source;
use super::wake::Wake;

/// Most events that a worker takes in one call.
pub(super) const AT_ONCE: usize = 8;

/// What is ready, and how.
pub(super) type Event = (Source, EventFlags);

/// See the module. At most [`AT_ONCE`] for each worker.
pub(super) struct Ready {
    events: Mutex<VecDeque<Event>>,
    /// How many there are; written under the lock.
    count: AtomicUsize,
    /// Wakes one worker that waits in the kernel.
    pub nudge: Wake,
}

impl Ready {
    pub fn new() -> io::Result<Self> {
        Ok(Self { events: Mutex::default(), count: AtomicUsize::new(0), nudge: Wake::new()? })
    }

    /// The one that has waited longest. Takes the lock, if there is any.
    pub fn pop(&self) -> Option<Event> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut events = self.events.lock();
        let event = events.pop_front();
        self.count.store(events.len(), Ordering::SeqCst);
        event
    }

    /// Adds some. Whoever then sees another worker waiting in the kernel has to nudge it: it may have looked here before.
    /// Takes the lock.
    pub fn extend(&self, more: impl Iterator<Item = Event>) {
        let mut events = self.events.lock();
        events.extend(more);
        self.count.store(events.len(), Ordering::SeqCst);
    }
}
