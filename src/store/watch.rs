//! The watch: one thread that brings the database up at the start, probes it when something is wrong, and follows what
//! other instances change while nothing is.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select};

use super::core::Core;
use super::threads::{StoreLane, Threads};
use crate::store::StoreError;
use balancer_time::Nanos;
use balancer_time::nanos;

/// Between two probes of a database that is down.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The longest that a database may go unasked: an idle balancer notices its loss, and the changes of other instances
/// even where no word of them comes.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest, whatever `cache.ttl` says.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What the watch needs.
pub struct Watch {
    pub core: Arc<Core>,
    pub threads: Arc<Threads>,
    /// Somebody is in doubt.
    pub wake: Receiver<()>,
    /// Somebody may have changed something.
    pub news: Receiver<()>,
    /// Its end is the sign to stop.
    pub end: Receiver<()>,
    /// `cache.ttl`.
    pub ttl: Duration,
    /// When the database was last asked whether it takes changes.
    pub tried: Nanos,
}

impl Watch {
    /// Runs until the end; tells `first` how the first probe went.
    pub fn run(mut self, first: &Sender<Result<(), StoreError>>) {
        let mut first = Some(first);
        let mut migrated = false;
        // Whether it has been said that the schema is wrong.
        let mut said = false;
        loop {
            let answers = self.core.breaker.answers();
            let result = self.look(&mut migrated);
            // A probe may find all connections taken by calls that the database did answer.
            let unlucky = migrated && self.core.breaker.answers() != answers;
            said = match &result {
                Ok(()) => false,
                // Whoever started this ends with that text.
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
                // Nobody listens any more if it took too long.
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

    /// Waits for the next round; false at the end.
    fn pause(&mut self, healthy: bool) -> bool {
        let interval = if healthy { self.interval() } else { PROBE_INTERVAL };
        let next = after(interval);
        loop {
            select! {
                recv(self.end) -> _ => return false,
                recv(next) -> _ => return true,
                // What is known to be down keeps to its interval.
                recv(self.wake) -> _ => if healthy { return true },
                recv(self.news) -> word => match word {
                    Ok(()) if healthy => return true,
                    Ok(()) => {}
                    // Nobody listens any more: the interval has to do, and a channel without an end never calls.
                    Err(_) => self.news = never(),
                },
            }
        }
    }

    fn look(&mut self, migrated: &mut bool) -> Result<(), StoreError> {
        if self.core.store.renew(self.core.within)? {
            // It may be an older one.
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
            // Without a slot the next round tries again.
            drop(self.threads.submit(StoreLane::Write, Box::new(move || core.settle())));
        }
        Ok(())
    }
}
