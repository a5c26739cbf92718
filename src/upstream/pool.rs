//! Kept connections: a stack for each endpoint, so that the ones used last are used first and the others can grow old.
//! ureq's own pool probes each socket twice a request and looks through all of them under one lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::connection::{Connection, Look};
use crate::proxy::Reuse;
use balancer_time::Nanos;
use balancer_time::nanos;

/// Most idle connections of one endpoint; more are closed instead of kept. As many as workers that a large
/// configuration has, so that each may have had one.
pub(super) const MAX_IDLE: usize = 512;
/// [`Reuse::Recent`] takes connections that were idle for less.
const RECENT: Duration = Duration::from_secs(1);
/// How often old connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All kept connections.
#[derive(Debug)]
pub(super) struct Pool {
    /// Nanoseconds.
    max_idle: AtomicU64,
    stacks: RwLock<HashMap<u64, Arc<Stack>>>,
    next_sweep: AtomicU64,
}

/// The kept connections of one endpoint, the one used last on top.
#[derive(Debug, Default)]
pub(super) struct Stack {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Nanos,
}

impl Pool {
    pub fn new(idle_timeout: Duration) -> Self {
        Self {
            max_idle: AtomicU64::new(nanos(idle_timeout)),
            stacks: RwLock::new(HashMap::new()),
            next_sweep: AtomicU64::new(0),
        }
    }

    /// Connections that are kept already grow old by it, too.
    pub fn set_idle_timeout(&self, idle_timeout: Duration) {
        self.max_idle.store(nanos(idle_timeout), Ordering::Relaxed);
    }

    fn max_idle(&self) -> Nanos {
        self.max_idle.load(Ordering::Relaxed)
    }

    /// The stack of an endpoint. Takes the lock of the table.
    pub fn stack(&self, endpoint: u64) -> Arc<Stack> {
        if let Some(stack) = self.stacks.read().get(&endpoint) {
            return Arc::clone(stack);
        }
        Arc::clone(self.stacks.write().entry(endpoint).or_default())
    }

    /// A kept connection that is open and quiet; `looking` hears of each before it is looked at. The others that it meets
    /// are closed. Takes the stack's lock, never across a system call.
    pub fn take(
        &self,
        stack: &Stack,
        reuse: Reuse,
        now: Nanos,
        looking: impl Fn(&Connection),
    ) -> Option<Connection> {
        let max_idle = match reuse {
            Reuse::Any => self.max_idle(),
            Reuse::Recent => self.max_idle().min(nanos(RECENT)),
            Reuse::Never => return None,
        };
        loop {
            let mut connection = stack.pop(now, max_idle)?;
            looking(&connection);
            if connection.look() == Look::Quiet {
                connection.kept = true;
                return Some(connection);
            }
        }
    }

    /// Closes connections that are too old and forgets endpoints that have none, unless that was done within the last
    /// second. Takes the table's lock and each stack's; sockets are closed outside of them.
    pub fn sweep(&self, now: Nanos) {
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(nanos(SWEEP_INTERVAL));
        if now < due
            || self.next_sweep.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let (mut old, max_idle) = (Vec::new(), self.max_idle());
        let mut any_empty = false;
        for stack in self.stacks.read().values() {
            let mut idle = stack.idle.lock();
            // Oldest first; a clock read on another thread may stand a little out of order, which costs a second.
            let count = idle.iter().take_while(|one| one.age(now) >= max_idle).count();
            old.extend(idle.drain(..count));
            any_empty |= idle.is_empty();
        }
        if any_empty {
            // An exchange under way holds its stack.
            self.stacks
                .write()
                .retain(|_, stack| Arc::strong_count(stack) > 1 || !stack.idle.lock().is_empty());
        }
        drop(old);
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.stacks.read().is_empty()
    }
}

impl Stack {
    /// Keeps a connection for the next request. Takes the lock; a connection too many is closed outside of it.
    pub fn put(&self, connection: Connection, now: Nanos) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: now });
            return;
        }
        drop(idle);
    }

    fn pop(&self, now: Nanos, max_idle: Nanos) -> Option<Connection> {
        let mut idle = self.idle.lock();
        // The newest is on top: when it is too old, so are all.
        if idle.last()?.age(now) >= max_idle {
            return None;
        }
        idle.pop().map(|one| one.connection)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.idle.lock().len()
    }
}

impl Idle {
    fn age(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.since)
    }
}
