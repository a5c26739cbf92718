//! Checks passwords on threads of their own, a few at a time, because one check takes from milliseconds to a second of
//! a processor. A request waits for it as it waits for the database. A verdict is kept for a while, under a keyed hash
//! of what was asked, so that a page with thirty pictures is one check, and no password stays in memory.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};
use lru::LruCache;
use parking_lot::Mutex;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::clock::Clock;
use crate::config::{PasswordHash, Users};
use balancer_pool::queue::Waker;
use balancer_time::Nanos;

/// Checks that wait for a thread. One of the usual cost takes 50 ms.
const MAX_WAITING: usize = 64;
/// The longest that a request waits for a check. An older check is dropped, since no request waits for it any more:
/// otherwise a flood of guesses would keep the threads busy with those of a minute ago.
pub(in crate::proxy) const MAX_CHECK: Nanos = 10 * 1_000_000_000;
/// The pause after no thread could be started.
const START_AGAIN: Nanos = 1_000_000_000;
/// How long a verdict is kept.
const KEPT: Nanos = 60 * 1_000_000_000;
/// Most verdicts that are kept, counted apart for right and wrong passwords: a flood of wrong ones does not evict the
/// right ones.
const MAX_KEPT: NonZero<usize> = NonZero::new(10_000).expect("not zero");

/// A keyed hash of a user's name, the password and the stored hash. It tells checks apart, and reveals nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question(u128);

/// A password that is being checked.
pub struct PasswordTicket {
    table: Arc<Mutex<Verdicts>>,
    question: Question,
}

impl PasswordTicket {
    /// Has `waker` called when the check ends. False: it has ended, and `waker` is dropped.
    pub fn on_end(&self, waker: Waker) -> bool {
        match self.table.lock().asked.get_mut(&self.question) {
            Some(wakers) => {
                wakers.push(waker);
                true
            }
            None => false,
        }
    }
}

/// What is known of a password.
pub(super) enum PasswordVerdict {
    /// Whether it is right.
    Is(bool),
    /// It is being checked.
    Soon(PasswordTicket),
    /// Too many checks wait already.
    Busy,
}

/// See the module.
pub struct PasswordLane {
    clock: Clock,
    keys: RandomState,
    table: Arc<Mutex<Verdicts>>,
    threads: Mutex<Threads>,
}

/// The threads that check, started with the first password.
#[derive(Default)]
struct Threads {
    jobs: Option<Sender<Job>>,
    /// When they may be started again, if none could be.
    start_again_at: Nanos,
}

impl Threads {
    /// Where to send jobs. Starts the threads if there are none. `None`: none could be started lately.
    fn jobs(&mut self, now: Nanos, start: impl FnOnce() -> Option<Sender<Job>>) -> Option<&Sender<Job>> {
        if self.jobs.is_none() && now >= self.start_again_at {
            self.jobs = start();
            self.start_again_at = now.saturating_add(START_AGAIN);
        }
        self.jobs.as_ref()
    }
}

struct Verdicts {
    right: LruCache<Question, Nanos>,
    wrong: LruCache<Question, Nanos>,
    /// Checks that wait or run, and what wakes the requests that wait for them.
    asked: HashMap<Question, Vec<Waker>>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { right: LruCache::new(MAX_KEPT), wrong: LruCache::new(MAX_KEPT), asked: HashMap::new() }
    }
}

impl Verdicts {
    fn known(&mut self, question: &Question, now: Nanos) -> Option<bool> {
        let is_kept = |until: Option<&Nanos>| until.is_some_and(|until| now < *until);
        if is_kept(self.right.get(question)) {
            return Some(true);
        }
        is_kept(self.wrong.get(question)).then_some(false)
    }
}

struct Job {
    question: Question,
    hash: PasswordHash,
    password: Vec<u8>,
    /// Whether there is a user of that name. If not, `hash` only makes the check take as long as if there were.
    exists: bool,
    /// When it came.
    since: Nanos,
}

impl PasswordLane {
    /// A lane that has no threads yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, keys: RandomState::new(), table: Arc::default(), threads: Mutex::default() }
    }

    /// Whether that is the user's password. For an unknown user the check takes as long as for a known one, so that its
    /// time does not tell them apart. Does not wait for the check.
    pub(super) fn ask(&self, users: &Users, name: &[u8], password: &[u8], now: Nanos) -> PasswordVerdict {
        let (hash, exists) = users.hash_of(name);
        let question = self.question(hash, name, password);
        let soon = || PasswordVerdict::Soon(PasswordTicket { table: Arc::clone(&self.table), question });
        let mut table = self.table.lock();
        if let Some(verdict) = table.known(&question, now) {
            return PasswordVerdict::Is(verdict);
        }
        if table.asked.contains_key(&question) {
            return soon();
        }
        let job = Job { question, hash: hash.clone(), password: password.to_vec(), exists, since: now };
        // Inserted before the job is sent: a thread that ends it at once has to find the entry.
        table.asked.insert(question, Vec::new());
        let mut threads = self.threads.lock();
        let jobs = threads.jobs(now, || start(&self.table, &self.clock));
        if jobs.is_some_and(|jobs| jobs.try_send(job).is_ok()) {
            return soon();
        }
        table.asked.remove(&question);
        PasswordVerdict::Busy
    }

    fn question(&self, hash: &PasswordHash, name: &[u8], password: &[u8]) -> Question {
        // The keys of `RandomState` are random and leave no trace outside: the hashes can't be computed by others.
        let (one, other) = (self.keys.hash_one(0u8), self.keys.hash_one(1u8));
        let mut hasher = SipHasher24::new_with_keys(one, other);
        for part in [hash.reveal().as_bytes(), name, password] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        Question(hasher.finish128().as_u128())
    }
}

/// Starts threads for half of the processors, so that the loops have the rest. `None`: no thread could be started.
fn start(table: &Arc<Mutex<Verdicts>>, clock: &Clock) -> Option<Sender<Job>> {
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let (jobs, todo) = crossbeam_channel::bounded(MAX_WAITING);
    let mut started = 0;
    for number in 0..threads {
        let (todo, table, clock) = (todo.clone(), Arc::clone(table), clock.clone());
        let thread = thread::Builder::new().name(format!("passwords-{number}"));
        match thread.spawn(move || check_all(&todo, &table, &clock)) {
            Ok(_) => started += 1,
            Err(error) => log::error!("passwords: a thread can't be started: {error}"),
        }
    }
    (started > 0).then_some(jobs)
}

/// Checks passwords until the lane is dropped.
fn check_all(todo: &Receiver<Job>, table: &Mutex<Verdicts>, clock: &Clock) {
    for Job { question, hash, password, exists, since } in todo {
        let is_awaited = clock.now() < since.saturating_add(MAX_CHECK);
        // A check that panics counts as a wrong password.
        let check = || hash.is_of(&password) && exists;
        let verdict = is_awaited.then(|| catch_unwind(AssertUnwindSafe(check)).unwrap_or(false));
        let until = clock.now().saturating_add(KEPT);
        let mut verdicts = table.lock();
        match verdict {
            Some(true) => drop(verdicts.right.put(question, until)),
            Some(false) => drop(verdicts.wrong.put(question, until)),
            None => {}
        }
        let wakers = verdicts.asked.remove(&question).unwrap_or_default();
        drop(verdicts);
        wakers.into_iter().for_each(|waker| waker());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_could_not_be_started_are_started_later() {
        let (mut threads, (jobs, _todo)) = (Threads::default(), crossbeam_channel::bounded(1));
        assert!(threads.jobs(1, || None).is_none());
        assert!(threads.jobs(START_AGAIN, || panic!("not yet")).is_none());
        assert!(threads.jobs(1 + START_AGAIN, || Some(jobs)).is_some());
        assert!(threads.jobs(9 * START_AGAIN, || panic!("they run")).is_some());
    }

    fn users() -> Users {
        let hash = |password: &str| bcrypt::hash_with_salt(password, 4, [9; 16]).unwrap().to_string();
        Users::parse(&format!("alice:{}\nbob:{}\n", hash("wonderland"), hash("builder"))).unwrap()
    }

    /// Waits for the verdict.
    fn verdict(lane: &PasswordLane, users: &Users, name: &str, password: &str, now: Nanos) -> bool {
        loop {
            match lane.ask(users, name.as_bytes(), password.as_bytes(), now) {
                PasswordVerdict::Is(verdict) => return verdict,
                PasswordVerdict::Busy => panic!("nobody else asks"),
                PasswordVerdict::Soon(ticket) => {
                    let (tell, told) = crossbeam_channel::bounded(1);
                    if ticket.on_end(Box::new(move || tell.send(()).unwrap())) {
                        told.recv().unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn a_verdict_comes_once_and_is_kept_for_a_while() {
        let clock = Clock::manual();
        let (lane, users, now) = (PasswordLane::new(clock.clone()), users(), clock.now());
        let rows = [
            ("alice", "wonderland", true),
            ("alice", "builder", false),
            ("bob", "builder", true),
            ("mallory", "wonderland", false),
            ("alice", "", false),
            ("", "", false),
        ];
        for (name, password, expected) in rows {
            assert_eq!(verdict(&lane, &users, name, password, now), expected, "{name} {password}");
            let known = |now| {
                let question =
                    lane.question(users.hash_of(name.as_bytes()).0, name.as_bytes(), password.as_bytes());
                lane.table.lock().known(&question, now)
            };
            assert_eq!(
                (known(now + KEPT - 1), known(now + KEPT)),
                (Some(expected), None),
                "{name} {password}"
            );
        }
        assert!(lane.table.lock().asked.is_empty());
    }

    #[test]
    fn where_a_name_ends_and_a_password_begins_is_told_apart() {
        let (lane, users) = (PasswordLane::new(Clock::manual()), users());
        let (hash, _) = users.hash_of(b"alice");
        assert_ne!(lane.question(hash, b"ab", b"c"), lane.question(hash, b"a", b"bc"));
        assert_ne!(
            lane.question(hash, b"a", b"b"),
            PasswordLane::new(Clock::manual()).question(hash, b"a", b"b")
        );
    }

    #[test]
    fn the_queue_is_bounded_and_one_question_takes_one_place() {
        let (lane, users) = (PasswordLane::new(Clock::manual()), users());
        // No thread takes jobs from it.
        let (jobs, todo) = crossbeam_channel::bounded(2);
        lane.threads.lock().jobs = Some(jobs);
        let ask = |password: &str| lane.ask(&users, b"alice", password.as_bytes(), 0);
        for password in ["a", "a", "b", "a", "b"] {
            assert!(matches!(ask(password), PasswordVerdict::Soon(_)), "{password}");
        }
        assert!(matches!(ask("c"), PasswordVerdict::Busy) && matches!(ask("a"), PasswordVerdict::Soon(_)));
        assert_eq!((todo.len(), lane.table.lock().asked.len()), (2, 2));
    }

    #[test]
    fn what_nobody_waits_for_any_more_is_not_checked() {
        let clock = Clock::manual();
        let (lane, users) = (PasswordLane::new(clock.clone()), users());
        let (jobs, todo) = crossbeam_channel::bounded(2);
        lane.threads.lock().jobs = Some(jobs);
        let ask = |password: &str| lane.ask(&users, b"alice", password.as_bytes(), clock.now());
        let PasswordVerdict::Soon(old) = ask("wonderland") else { panic!("nobody has checked it") };
        clock.advance(std::time::Duration::from_nanos(MAX_CHECK));
        assert!(matches!(ask("builder"), PasswordVerdict::Soon(_)));
        let (tell, told) = crossbeam_channel::bounded(1);
        assert!(old.on_end(Box::new(move || tell.send(()).unwrap())));
        // The lane's end is the end of its work.
        let (table, keys) = (Arc::clone(&lane.table), lane.keys.clone());
        let PasswordLane { threads, .. } = lane;
        drop(threads);
        check_all(&todo, &table, &clock);
        assert!(told.try_recv().is_ok(), "a request that still waits is woken");
        let lane = PasswordLane { clock: clock.clone(), keys, table, threads: Mutex::default() };
        let known = |password: &str| {
            let question = lane.question(users.hash_of(b"alice").0, b"alice", password.as_bytes());
            lane.table.lock().known(&question, clock.now())
        };
        assert_eq!((known("wonderland"), known("builder")), (None, Some(false)));
    }
}
