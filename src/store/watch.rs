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
    /// What it remembers from round to round.
    pub state: WatchState,
}

/// What the watch remembers from round to round.
#[derive(Default)]
pub struct WatchState {
    /// The database was found to have the schema that this program knows.
    migrated: bool,
    /// That the schema is wrong was logged.
    said: bool,
    /// When the database was last asked whether it takes changes.
    tried: Nanos,
}

impl WatchState {
    /// Whether a failed round has to be logged, which it has to be once for each wrong schema. `news`: the breaker has
    /// just logged it.
    fn has_to_be_said(&mut self, wrong: bool, news: bool) -> bool {
        let said = self.said;
        self.said = wrong || said;
        wrong && !news && !said
    }
}

/// Where the result of the first probe is sent: a channel without room, so that what is sent was also received.
type First<'a> = Option<&'a Sender<Result<(), StoreError>>>;

impl Watch {
    /// Runs until `end` is closed. Sends the result of the first probe to `first`, a channel without room.
    pub fn run(mut self, first: &Sender<Result<(), StoreError>>) {
        let mut first = Some(first);
        loop {
            let ok = self.round(&mut first);
            if !self.pause(ok) {
                return;
            }
        }
    }

    /// One look at the database, and what follows from it. False when something is wrong.
    fn round(&mut self, first: &mut First<'_>) -> bool {
        let answers = self.core.breaker.answers();
        let result = self.look();
        // A probe may fail because all connections are taken by other calls, which the database answers.
        let unlucky = self.state.migrated && self.core.breaker.answers() != answers;
        // The process that is starting ends with such an error, and says it, unless it waits no longer.
        let told = matches!(result, Err(StoreError::Schema(_)))
            && first.take().is_some_and(|first| first.send(result.clone()).is_ok());
        match &result {
            Ok(()) => self.state.said = false,
            Err(_) if told => self.state.said = true,
            Err(StoreError::Unavailable { .. } | StoreError::Refused { .. }) if unlucky => {}
            Err(fault) => {
                let news = self.core.breaker.open(fault.to_string());
                if self.state.has_to_be_said(matches!(fault, StoreError::Schema(_)), news) {
                    log::error!("store: {fault}");
                }
            }
        }
        let ok = result.is_ok();
        if let Some(first) = first.take() {
            // Fails when the probe took so long that the caller no longer waits.
            let _ = first.send(result);
        }
        ok
    }

    fn interval(&self) -> Duration {
        self.ttl.clamp(MIN_INTERVAL, MAX_INTERVAL)
    }

    /// Whether the database was fine in the last round, and no write is in doubt.
    fn is_healthy(&self, ok: bool) -> bool {
        ok && !self.core.has_doubts()
    }

    /// Waits for the next round; false when `end` is closed. `ok`: nothing was wrong in the last one.
    fn pause(&mut self, ok: bool) -> bool {
        let healthy = self.is_healthy(ok);
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

    fn look(&mut self) -> Result<(), StoreError> {
        if self.core.store.renew(self.core.within)? {
            // The new file may have an older schema.
            self.state.migrated = false;
            self.core.doubt_all();
        }
        if self.core.breaker.trusted() && self.state.migrated {
            self.core.follow()?;
        } else {
            self.core.probe(self.state.migrated)?;
        }
        self.state.migrated = true;
        self.core.breaker.close();
        let now = self.core.clock.now();
        // The clock begins with an hour, so that the first look is always late enough.
        if now.saturating_sub(self.state.tried) >= nanos(self.interval()) {
            self.state.tried = now;
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
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::thread;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::clock::Clock;
    use crate::store::StoreState;
    use crate::store::cache::CacheGroup;
    use crate::store::tests::bench::{BenchStore, WITHIN};

    /// A core on that database, a watch of it that ends after one round, and their clock.
    fn watch_on(store: &BenchStore) -> (Arc<Core>, Watch, Clock) {
        let clock = Clock::manual();
        let (core, wake) = store.core(&clock);
        let (threads, state) = (Arc::new(Threads::start(1).unwrap()), WatchState::default());
        let (news, end, ttl) = (never(), bounded(0).1, Duration::from_secs(3));
        (Arc::clone(&core), Watch { core, threads, wake, news, end, ttl, state }, clock)
    }

    #[test]
    fn a_wrong_schema_is_told_to_the_start_and_said_where_that_no_longer_waits() {
        let is_wrong = |text: &str| text.contains("migration 1 can't be applied");
        // A database that is not ours.
        let one_round = || {
            let store = BenchStore::empty();
            store.by_hand("CREATE TABLE limits (speed integer)");
            watch_on(&store)
        };
        let (core, watch, _) = one_round();
        let (tell, first) = bounded(0);
        let watching = thread::spawn(move || watch.run(&tell));
        let Err(StoreError::Schema(text)) = first.recv_timeout(WITHIN).unwrap() else { panic!("it fits") };
        watching.join().unwrap();
        assert!(is_wrong(&text) && !is_wrong(&core.breaker.cause()), "{text}");

        let (core, watch, _) = one_round();
        let (tell, _) = bounded(0);
        watch.run(&tell);
        assert!(is_wrong(&core.breaker.cause()), "{}", core.breaker.cause());
    }

    #[test]
    fn a_wrong_schema_is_logged_once() {
        let said = |rounds: &[(bool, bool)]| {
            let mut state = WatchState::default();
            rounds.iter().map(|(wrong, news)| state.has_to_be_said(*wrong, *news)).collect::<Vec<_>>()
        };
        let (wrong, down) = (true, false);
        // The breaker says that the database is down, and why.
        assert_eq!(said(&[(wrong, true), (wrong, false)]), [false, false]);
        // It was down before, and is there now, but wrong.
        assert_eq!(said(&[(down, true), (wrong, false), (wrong, false)]), [false, true, false]);
        assert_eq!(said(&[(wrong, true), (down, false), (wrong, false)]), [false, false, false]);
    }

    #[test]
    fn a_round_that_fails_while_others_are_answered_is_no_outage() {
        const FINE: u8 = 0;
        const BUSY: u8 = 1;
        const GONE: u8 = 2;
        let (mood, answer) =
            (Arc::new(AtomicU8::new(BUSY)), Arc::new(std::sync::OnceLock::<Arc<Core>>::new()));
        let store = {
            let (mood, core) = (Arc::clone(&mood), Arc::clone(&answer));
            BenchStore::empty().with_before(move |_| match mood.load(Ordering::SeqCst) {
                FINE => Ok(()),
                now => {
                    if now == BUSY {
                        core.get().unwrap().breaker.answered();
                    }
                    Err(StoreError::down("no connection"))
                }
            })
        };
        let (core, mut watch, _) = watch_on(&store);
        assert!(answer.set(Arc::clone(&core)).is_ok());
        for (now, up, what) in [
            (BUSY, false, "it never answered a probe"),
            (FINE, true, "it answers"),
            (BUSY, true, "it answers others"),
            (FINE, true, "it answers"),
            (GONE, false, "it answers nobody"),
            (FINE, true, "it answers again"),
        ] {
            mood.store(now, Ordering::SeqCst);
            assert_eq!(watch.round(&mut None), now == FINE, "{what}");
            assert_eq!(core.breaker.up(), up, "{what}");
        }
    }

    #[test]
    fn only_a_database_that_is_trusted_and_migrated_is_not_probed() {
        let store = BenchStore::empty();
        let (core, mut watch, _) = watch_on(&store);
        // Trusted, but its file may have been replaced by one without tables.
        core.breaker.close();
        assert_eq!(watch.look(), Ok(()));
        store.by_hand("ALTER TABLE audit RENAME TO elsewhere");
        assert_eq!(watch.look(), Ok(()), "nothing of this is read in a round");
        core.breaker.suspect("a test");
        let Err(StoreError::Schema(text)) = watch.look() else { panic!("it was not probed") };
        assert!(text.contains("audit."), "{text}");
    }

    #[test]
    fn whether_changes_are_taken_is_tried_once_in_an_interval() {
        let (core, mut watch, clock) = watch_on(&BenchStore::empty());
        for (wait, state) in [
            (Duration::ZERO, StoreState::Up),
            (Duration::ZERO, StoreState::Full),
            (watch.interval() - Duration::from_nanos(1), StoreState::Full),
            (Duration::from_nanos(1), StoreState::Up),
        ] {
            clock.advance(wait);
            core.breaker.refuses(StoreState::Full, "a test");
            assert_eq!(watch.look(), Ok(()));
            assert_eq!(core.breaker.what(), state, "{wait:?}");
        }
    }

    #[test]
    fn rounds_come_once_in_the_time_of_an_entry_within_bounds() {
        let (_, mut watch, _) = watch_on(&BenchStore::empty());
        for (ttl_ms, interval_ms) in [(1, 100), (100, 100), (700, 700), (5_000, 5_000), (60_000, 5_000)] {
            watch.ttl = Duration::from_millis(ttl_ms);
            assert_eq!(watch.interval(), Duration::from_millis(interval_ms));
        }
    }

    #[test]
    fn a_write_in_doubt_is_no_health() {
        let (core, watch, _) = watch_on(&BenchStore::empty());
        assert!(watch.is_healthy(true) && !watch.is_healthy(false));
        core.doubt([CacheGroup::Id("tenant=a".into())]);
        assert!(!watch.is_healthy(true) && !watch.is_healthy(false));
    }
}
