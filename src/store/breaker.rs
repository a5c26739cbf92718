//! Knows whether the database can be asked. At the first sign of trouble, requests stop asking it. Then a probe decides
//! whether the database is really down. Only that is logged: once when it goes down, and once when it is back.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::StoreState;

/// Nothing is known yet: the process has just started.
const STARTING: u8 = 0;
/// The database answers.
const UP: u8 = 1;
/// Something went wrong or took too long, and a probe was asked for.
const SUSPECT: u8 = 2;
/// A probe failed.
const DOWN: u8 = 3;

/// See the module.
pub struct Breaker {
    state: AtomicU8,
    /// Counts jobs that the database answered. A probe that fails while others succeed does not mean that the database is down.
    answers: AtomicU64,
    /// What the database did with the last change: any [`StoreState`] but `Down`.
    changes: Mutex<StoreState>,
    /// Why it is down.
    cause: Mutex<String>,
    /// Wakes the watch, which probes. Bounded at 1, since one pending call is as good as many.
    wake: Sender<()>,
}

impl Breaker {
    /// A breaker that knows nothing yet.
    pub fn new(wake: Sender<()>) -> Self {
        let cause = Mutex::new("it has not answered yet".to_owned());
        let changes = Mutex::new(StoreState::Up);
        Self { state: AtomicU8::new(STARTING), answers: AtomicU64::new(0), changes, cause, wake }
    }

    /// Whether the database counts as up, which it does until a probe has failed.
    pub fn up(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), UP | SUSPECT)
    }

    /// The state of the database. Takes a lock for a moment.
    pub fn what(&self) -> StoreState {
        if self.up() { *self.changes.lock() } else { StoreState::Down }
    }

    /// The database did not take a change: it is read-only or full. Logs it unless that is known.
    pub fn refuses(&self, state: StoreState, cause: &str) {
        if std::mem::replace(&mut *self.changes.lock(), state) != state {
            log::warn!(
                "store: the database is {}: {cause}; what it holds stays in force, and nothing can be changed",
                state.word()
            );
        }
    }

    /// The database took a change. Logs it if it refused the last one.
    pub fn takes_changes(&self) {
        if std::mem::replace(&mut *self.changes.lock(), StoreState::Up) != StoreState::Up {
            log::info!("store: the database takes changes again");
        }
    }

    /// Whether requests may wait for the database.
    pub fn trusted(&self) -> bool {
        self.state.load(Ordering::Acquire) == UP
    }

    /// Why the database is down. Takes a lock for a copy.
    pub fn cause(&self) -> String {
        self.cause.lock().clone()
    }

    /// Something went wrong, or took longer than it may. Requests ask no more until the database answers something.
    pub fn suspect(&self, cause: &str) {
        if self.state.compare_exchange(UP, SUSPECT, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            log::debug!("store: in doubt: {cause}");
        }
        // Full: the watch will be woken already.
        let _ = self.wake.try_send(());
    }

    /// The database has answered something, which ends a suspicion but not the state `DOWN`.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if self.state.load(Ordering::Acquire) == SUSPECT {
            let _ = self.state.compare_exchange(SUSPECT, UP, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// How often [`Breaker::answered`] was called.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A probe succeeded, and everything that is kept in memory was read. Logs it if the database was down.
    pub fn close(&self) {
        if self.state.swap(UP, Ordering::AcqRel) == DOWN {
            log::info!("store: the database is back");
        }
    }

    /// A probe failed. Logs it unless that is known; returns whether it was news.
    pub fn open(&self, cause: String) -> bool {
        *self.cause.lock() = cause.clone();
        let news = self.state.swap(DOWN, Ordering::AcqRel) != DOWN;
        if news {
            say_down(&cause);
        }
        news
    }

    /// The process that starts waits no longer for the first probe. Does nothing if that has ended meanwhile.
    pub fn open_at_start(&self) {
        if self.state.compare_exchange(STARTING, DOWN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            say_down(&self.cause());
        }
    }
}

fn say_down(cause: &str) {
    log::warn!(
        "store: the database is down: {cause}; clients in the cache keep their limits, \
         others get their range's or the default"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sign_of_trouble_stops_the_request_path_and_an_answer_or_a_probe_reopens_it() {
        let (wake, woken) = crossbeam_channel::bounded(1);
        let breaker = Breaker::new(wake);
        assert!(!breaker.up() && !breaker.trusted());
        breaker.close();
        assert!(breaker.up() && breaker.trusted());
        breaker.suspect("slow");
        breaker.suspect("slow again");
        assert!(breaker.up() && !breaker.trusted());
        assert_eq!((woken.len(), breaker.answers()), (1, 0));
        breaker.answered();
        breaker.answered();
        assert_eq!((breaker.trusted(), breaker.answers()), (true, 2));
        breaker.suspect("slow");
        assert!(breaker.open("gone".into()), "that is news");
        assert!(!breaker.up());
        // The late answer of a call that was under way does not count as a probe.
        breaker.answered();
        assert!(!breaker.up());
        assert_eq!(breaker.cause(), "gone");
        breaker.close();
        assert!(breaker.trusted());
    }

    #[test]
    fn a_start_that_waits_no_longer_does_not_undo_what_a_probe_found() {
        let breaker = Breaker::new(crossbeam_channel::bounded(1).0);
        breaker.close();
        breaker.open_at_start();
        assert!(breaker.trusted(), "the database answered at the last moment");
        let breaker = Breaker::new(crossbeam_channel::bounded(1).0);
        breaker.open_at_start();
        assert!(!breaker.up() && !breaker.open("gone".into()), "that it is down was said");
        assert_eq!(breaker.cause(), "gone");
        breaker.open_at_start();
        assert_eq!(breaker.cause(), "gone");
    }

    #[test]
    fn what_it_does_is_one_word_and_being_away_comes_first() {
        let breaker = Breaker::new(crossbeam_channel::bounded(1).0);
        assert_eq!(breaker.what(), StoreState::Down);
        breaker.close();
        assert_eq!(breaker.what(), StoreState::Up);
        breaker.refuses(StoreState::Full, "no space left");
        assert!(breaker.trusted() && breaker.what() == StoreState::Full);
        breaker.open("gone".into());
        assert_eq!(breaker.what(), StoreState::Down);
        breaker.close();
        assert_eq!(breaker.what().word(), "full", "a probe only reads");
        breaker.refuses(StoreState::ReadOnly, "a standby");
        assert_eq!(breaker.what().word(), "read-only");
        breaker.takes_changes();
        assert_eq!(breaker.what(), StoreState::Up);
    }
}
