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
    /// Runs until `end` is closed. Sends the result of the first probe to `first`, a channel without room, so that what is
    /// sent was also received.
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
            // The process that is starting ends with such an error, and says it, unless it waits no longer.
            let told = matches!(result, Err(StoreError::Schema(_)))
                && first.take().is_some_and(|first| first.send(result.clone()).is_ok());
            said = match &result {
                Ok(()) => false,
                Err(_) if told => true,
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

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::store::breaker::Breaker;
    use crate::store::cache::Cache;
    use crate::store::core::CoreParts;
    use crate::store::ops::Keep;
    use crate::store::session::{Access, Store};
    use crate::store::sqlite::Sqlite;
    use balancer_limiter::limiter::Limiter;

    const WITHIN: Duration = Duration::from_secs(10);

    /// A core on a database that is not ours, and a watch of it that ends after one round.
    fn one_round() -> (Arc<Core>, Watch) {
        let store = Sqlite::in_memory(WITHIN);
        let strange = &mut |session: &mut dyn crate::store::session::Session| {
            session.batch("CREATE TABLE limits (speed integer)")
        };
        store.with(WITHIN, Access::Migrate, strange).unwrap();
        let (clock, (wake, woken)) = (Clock::manual(), bounded(1));
        let core = Core::new(CoreParts {
            store: Box::new(store),
            breaker: Breaker::new(wake),
            cache: Cache::new(10, WITHIN, 64, clock.clone()),
            limiter: Arc::new(Limiter::new(10)),
            default: None,
            ipv6_prefix: 64,
            metrics: Arc::new(Metrics::default()),
            clock,
            within: WITHIN,
            keep: Keep { age: WITHIN, rows: 10 },
        });
        let threads = Arc::new(Threads::start(1).unwrap());
        let (news, end) = (never(), bounded(0).1);
        let watch = Watch { core: Arc::clone(&core), threads, wake: woken, news, end, ttl: WITHIN, tried: 0 };
        (core, watch)
    }

    #[test]
    fn a_wrong_schema_is_told_to_the_start_and_said_where_that_no_longer_waits() {
        let is_wrong = |text: &str| text.contains("migration 1 can't be applied");
        let (core, watch) = one_round();
        let (tell, first) = bounded(0);
        let watching = thread::spawn(move || watch.run(&tell));
        let Err(StoreError::Schema(text)) = first.recv_timeout(WITHIN).unwrap() else { panic!("it fits") };
        watching.join().unwrap();
        assert!(is_wrong(&text) && !is_wrong(&core.breaker.cause()), "{text}");

        let (core, watch) = one_round();
        let (tell, _) = bounded(0);
        watch.run(&tell);
        assert!(is_wrong(&core.breaker.cause()), "{}", core.breaker.cause());
    }
}
