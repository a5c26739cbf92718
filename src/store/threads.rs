//! The store threads, which do all jobs for requests and for the API. Jobs wait in three lanes, so that a flood of unknown
//! clients takes at most half of the slots and of the threads. One thread does all writes, so that memory learns of them in
//! the order in which they were committed.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use crate::store::StoreError;

/// A piece of work for a store thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// Most jobs that wait in all lanes together.
pub const SLOTS: usize = 1024;

/// The lane in which a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreLane {
    /// Jobs that change something. A quarter of the slots; only the first thread takes them.
    Write,
    /// Reads for the API, and for clients in the cache whose entry grows old. A quarter of the slots.
    Read,
    /// Reads for clients that are not in the cache. Half of the slots; at most half of the threads take them.
    Unknown,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// The work failed.
    Store(StoreError),
    /// Every slot of the lane is taken, or the threads are ending.
    Refused(&'static str),
    /// The work ended in a panic.
    Panicked,
    /// It took too long.
    TimedOut {
        /// A store thread had begun with it.
        begun: bool,
    },
}

/// The threads and their lanes.
pub struct Threads {
    lanes: [Sender<Job>; 3],
    /// Dropped to stop the threads, at the latest with this.
    life: Mutex<Option<Sender<()>>>,
    stopping: AtomicBool,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

impl Threads {
    /// Starts `count` threads, at least one.
    pub fn start(count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let (write, writes) = bounded(SLOTS / 4);
        let (read, reads) = bounded(SLOTS / 4);
        let (unknown, unknowns) = bounded(SLOTS / 2);
        let (life, end) = bounded(0);
        let threads = Self {
            lanes: [write, read, unknown],
            life: Mutex::new(Some(life)),
            stopping: AtomicBool::new(false),
            handles: Mutex::new(Vec::new()),
        };
        for number in 0..count {
            let mut lanes: Vec<Receiver<Job>> = Vec::with_capacity(3);
            if number == 0 {
                lanes.push(writes.clone());
            }
            lanes.push(reads.clone());
            // The second half of the threads; if there is only one, that one.
            if number >= count.div_ceil(2) || count == 1 {
                lanes.push(unknowns.clone());
            }
            let end = end.clone();
            let handle = Builder::new().name(format!("store-{number}")).spawn(move || serve(&lanes, &end))?;
            threads.handles.lock().push(handle);
        }
        Ok(threads)
    }

    /// Puts a job in its lane and returns at once.
    ///
    /// # Errors
    /// The job, if there is no slot or the threads are ending.
    pub fn submit(&self, lane: StoreLane, job: Job) -> Result<(), Job> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(job);
        }
        self.lanes[lane as usize].try_send(job).map_err(crossbeam_channel::TrySendError::into_inner)
    }

    /// Has work done and waits at most `wait` for its result. If it has not begun by then, it never begins; if it has, it
    /// is done to its end.
    pub fn call<T: Send + 'static>(
        &self,
        lane: StoreLane,
        wait: Duration,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, CallError> {
        let (reply, result) = bounded(1);
        let stage = Arc::new(AtomicU8::new(WAITING));
        let seen = Arc::clone(&stage);
        let job = Box::new(move || {
            if seen.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                // Fails when the caller no longer waits, which does no harm: the work itself changes memory.
                let _ = reply.send(work());
            }
        });
        if self.submit(lane, job).is_err() {
            let stopping = self.stopping.load(Ordering::Acquire);
            return Err(CallError::Refused(if stopping {
                "the store is closing"
            } else {
                "the store is overloaded"
            }));
        }
        match result.recv_timeout(wait) {
            Ok(result) => result.map_err(CallError::Store),
            Err(RecvTimeoutError::Disconnected) if stage.load(Ordering::Acquire) == BEGUN => {
                Err(CallError::Panicked)
            }
            // The threads ended just before the job came to its lane.
            Err(RecvTimeoutError::Disconnected) => Err(CallError::Refused("the store is closing")),
            Err(RecvTimeoutError::Timeout) => {
                let left = stage.compare_exchange(WAITING, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
                match result.try_recv() {
                    Ok(result) => result.map_err(CallError::Store),
                    Err(_) => Err(CallError::TimedOut { begun: left.is_err() }),
                }
            }
        }
    }

    /// Takes no more jobs, has those done that wait, and waits for the threads to end. The time of each job is bounded.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        drop(self.life.lock().take());
        let handles = std::mem::take(&mut *self.handles.lock());
        for handle in handles {
            if handle.join().is_err() {
                log::error!("store: a thread ended in a panic");
            }
        }
    }
}

/// The loop of one thread: it takes a job from the first lane that has one. It ends when there is none and `end` is closed.
fn serve(lanes: &[Receiver<Job>], end: &Receiver<()>) {
    loop {
        if let Some(job) = lanes.iter().find_map(|lane| lane.try_recv().ok()) {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!("store: a job ended in a panic; its thread goes on");
            }
            continue;
        }
        if end.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        let mut select = Select::new();
        for lane in lanes {
            select.recv(lane);
        }
        select.recv(end);
        select.ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_unknown_clients_leaves_slots_and_threads_to_the_rest() {
        let threads = Threads::start(2).unwrap();
        let (hold, held) = bounded::<()>(0);
        let (begun, first) = bounded::<()>(1);
        let gate = held.clone();
        let job = move || {
            begun.send(()).unwrap();
            let _ = gate.recv();
        };
        threads.submit(StoreLane::Unknown, Box::new(job)).map_err(drop).unwrap();
        first.recv_timeout(Duration::from_secs(10)).expect("a thread takes it");
        // The only thread for this lane is held, so jobs fill the slots.
        let room =
            (0..SLOTS).take_while(|_| threads.submit(StoreLane::Unknown, Box::new(|| ())).is_ok()).count();
        assert_eq!(room, SLOTS / 2);
        let answer = threads.call(StoreLane::Read, Duration::from_secs(10), || Ok(1)).unwrap();
        let answer = answer + threads.call(StoreLane::Write, Duration::from_secs(10), || Ok(2)).unwrap();
        assert_eq!(answer, 3);
        drop(hold);
        threads.stop();
        assert!(threads.submit(StoreLane::Read, Box::new(|| ())).is_err());
    }

    #[test]
    fn each_lane_has_its_share_of_the_slots() {
        let threads = Threads::start(1).unwrap();
        let (hold, held) = bounded::<()>(0);
        let (begun, first) = bounded::<()>(1);
        let job = move || {
            begun.send(()).unwrap();
            let _ = held.recv();
        };
        threads.submit(StoreLane::Write, Box::new(job)).map_err(drop).unwrap();
        first.recv_timeout(Duration::from_secs(10)).expect("the thread takes it");
        for (lane, slots) in [(StoreLane::Write, 256), (StoreLane::Read, 256), (StoreLane::Unknown, 512)] {
            let room = (0..=SLOTS).take_while(|_| threads.submit(lane, Box::new(|| ())).is_ok()).count();
            assert_eq!(room, slots, "{lane:?}");
        }
        drop(hold);
        threads.stop();
    }

    #[test]
    fn a_call_whose_threads_end_before_it_begins_is_refused_and_did_not_panic() {
        // Without a thread: the test takes the job from its lane and drops it, as the lane does when the last thread
        // ends.
        let (lane, jobs) = bounded::<Job>(1);
        let threads = Threads {
            lanes: [lane.clone(), lane.clone(), lane],
            life: Mutex::new(None),
            stopping: AtomicBool::new(false),
            handles: Mutex::new(Vec::new()),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| drop(jobs.recv()));
            let result = threads.call(StoreLane::Read, Duration::from_secs(10), || Ok(()));
            assert!(matches!(result, Err(CallError::Refused("the store is closing"))), "{result:?}");
        });
    }

    #[test]
    fn a_call_that_timed_out_knows_whether_it_was_begun_and_is_not_begun_later() {
        let threads = Threads::start(1).unwrap();
        let (hold, held) = bounded::<()>(0);
        let gate = held.clone();
        let result = threads.call(StoreLane::Write, Duration::from_millis(20), move || {
            let _ = gate.recv();
            Ok(())
        });
        assert!(matches!(result, Err(CallError::TimedOut { begun: true })), "{result:?}");
        let ran = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&ran);
        let result = threads.call(StoreLane::Write, Duration::from_millis(20), move || {
            late.store(true, Ordering::SeqCst);
            Ok(())
        });
        assert!(matches!(result, Err(CallError::TimedOut { begun: false })), "{result:?}");
        drop(hold);
        threads.stop();
        assert!(!ran.load(Ordering::SeqCst));
    }

    #[test]
    fn a_panic_costs_its_own_job_alone() {
        let threads = Threads::start(1).unwrap();
        let result = threads.call(StoreLane::Read, Duration::from_secs(10), || -> Result<(), StoreError> {
            panic!("a test's")
        });
        assert!(matches!(result, Err(CallError::Panicked)), "{result:?}");
        assert_eq!(threads.call(StoreLane::Read, Duration::from_secs(10), || Ok(7)).unwrap(), 7);
    }
}
