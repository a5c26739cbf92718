//! The watch: one thread that migrates the database at start, probes it when something is wrong, and otherwise follows what
//! other instances change.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select};

use super::core::Core;
use super::threads::{StoreLane, Threads};
use crate::store::StoreError;
use balancer_time::Nanos;
use balancer_time::nanos;

/// Time between two probes of a database that is down.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Longest time between two rounds, so that an idle balancer notices when the database is gone, and notices changes of
/// other instances also when no word of them comes.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// Shortest time between two rounds, whatever `cache.ttl` is.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What the watch needs.
pub struct Watch {
    pub core: Arc<Core>,
    pub threads: Arc<Threads>,
    /// A signal that the database may be down.
    pub wake: Receiver<()>,
    /// A signal that another instance may have changed something.
    pub news: Receiver<()>,
    /// Closed to stop the watch.
    pub end: Receiver<()>,
    /// `cache.ttl`.
    pub ttl: Duration,
    /// When the database was last asked whether it takes changes.
    pub tried: Nanos,
}

impl Watch {
    /// Runs until `end` is closed. Sends the result of the first probe to `first`.
    pub fn run(mut self, first: &Sender<Result<(), StoreError>>) {
        let mut first = Some(first);
        let mut migrated = false;
        // Whether it was logged that the schema is wrong.
        let mut said = false;
        loop {
            let answers = self.core.breaker.answers();
            let result = self.look(&mut migrated);
            // A probe may fail because all connections are taken by other calls, which the database answers.
            let unlucky = migrated && self.core.breaker.answers() != answers;
            said = match &result {
                Ok(()) => false,
                // Not logged here: the process that is starting ends with this error.
                Err(StoreError::Schema(_)) if first.is_some() => true,
                Err(StoreError::Unavailable { .. } | StoreError::Refused { .. }) if unlucky => said,
                Err(fault) => {
                    let news = self.core.breaker.open(fault.to_string());
                    let wrong = matches!(fault, StoreError::Schema(_));
                    if wrong && !news && !said {
                        log::error!("store: {fault}");
                    }
                    wrong || said
                }
            };
            let healthy = result.is_ok() && !self.core.has_doubts();
            if let Some(first) = first.take() {
                // Fails when the probe took so long that the caller no longer waits.
                let _ = first.send(result);
            }
            if !self.pause(healthy) {
                return;
            }
        }
    }

    fn interval(&self) -> Duration {
        self.ttl.clamp(MIN_INTERVAL, MAX_INTERVAL)
    }

    /// Waits for the next round; false when `end` is closed.
    fn pause(&mut self, healthy: bool) -> bool {
        let interval = if healthy { self.interval() } else { PROBE_INTERVAL };
        let next = after(interval);
        loop {
            select! {
                recv(self.end) -> _ => return false,
                recv(next) -> _ => return true,
                // A database that is known to be down is probed at its interval.
                recv(self.wake) -> _ => if healthy { return true },
                recv(self.news) -> word => match word {
                    Ok(()) if healthy => return true,
                    Ok(()) => {}
                    // The listener has ended, so only the interval is left.
                    Err(_) => self.news = never(),
                },
            }
        }
    }

    fn look(&mut self, migrated: &mut bool) -> Result<(), StoreError> {
        if self.core.store.renew(self.core.within)? {
            // The new file may have an older schema.
            *migrated = false;
            self.core.doubt_all();
        }
        if self.core.breaker.trusted() && *migrated {
            self.core.follow()?;
        } else {
            self.core.probe(*migrated)?;
        }
        *migrated = true;
        self.core.breaker.close();
        let now = self.core.clock.now();
        if self.tried == 0 || now.saturating_sub(self.tried) >= nanos(self.interval()) {
            self.tried = now;
            self.core.try_change();
        }
        if self.core.has_doubts() {
            let core = Arc::clone(&self.core);
            // If there is no slot, the next round tries again.
            drop(self.threads.submit(StoreLane::Write, Box::new(move || core.settle())));
        }
        Ok(())
    }
}
