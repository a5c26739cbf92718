//! Health checks. Every endpoint is checked once in each interval of its pool, by a fixed number of threads for all
//! pools. An endpoint that hangs delays no other check. The checks follow the pools: a new endpoint has its first check
//! at once, and the result for a removed one is dropped.
//!
//! - `schedule`: which endpoint is checked when.
//! - `check`: one check, as bytes in and result out.
//! - `check_state`: what the checks of an endpoint have found, and the log lines about it.
//! - `epoll`, `blocking`: the two drivers, which make the checks; `wire`: a connection of the first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::{Engine, HealthCheck};
use crate::tls::upstream::BackendTls;
use balancer_pool::backends::Backends;
use balancer_pool::health::Status;
use balancer_time::nanos;

use schedule::Schedule;

mod blocking;
#[cfg_attr(
    not(all(target_os = "linux", feature = "epoll")),
    allow(dead_code, reason = "ureq has a state machine of its own")
)]
mod check;
mod check_state;
#[cfg(all(target_os = "linux", feature = "epoll"))]
mod epoll;
mod schedule;
#[cfg(test)]
mod tests;
#[cfg(all(target_os = "linux", feature = "epoll"))]
mod wire;

/// What makes the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDriver {
    /// One thread that waits for all of them (Linux).
    #[cfg(all(target_os = "linux", feature = "epoll"))]
    Epoll,
    /// ureq, on a few threads that wait for one each.
    Blocking,
}

impl CheckDriver {
    /// The driver that goes with that engine.
    pub const fn of(engine: Engine) -> Self {
        match engine {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Engine::Auto | Engine::Epoll => Self::Epoll,
            _ => Self::Blocking,
        }
    }
}

/// Starts the health checks of pools, which share its driver.
pub struct Prober {
    driver: CheckDriver,
    #[cfg_attr(
        not(all(target_os = "linux", feature = "epoll")),
        allow(dead_code, reason = "the portable engine calls no backend by TLS")
    )]
    tls: Arc<BackendTls>,
    clock: Clock,
    /// `None`: no pool was to be checked yet, or no thread could be started.
    running: Mutex<Option<Arc<RunningProber>>>,
}

/// The health checks of a pool. They end when this is dropped, and then change no endpoint's health any more.
pub struct PoolChecks {
    running: Arc<RunningProber>,
    /// The pool's number in the schedule.
    number: u64,
    backends: Arc<Backends>,
    clock: Clock,
}

/// Has the thread of the checks look at the schedule. It may be called under any lock.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// The thread that asks the schedule what to check. It ends when this is dropped.
struct RunningProber {
    /// The lock is not held during I/O.
    schedule: Arc<Mutex<Schedule>>,
    wake: Wake,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Without pools and without threads. `tls`: how backends with `https://` are checked.
    pub fn new(driver: CheckDriver, tls: &Arc<BackendTls>, clock: Clock) -> Self {
        Self { driver, tls: Arc::clone(tls), clock, running: Mutex::new(None) }
    }

    /// Starts checking the pool's endpoints, those that it has now and those to come.
    ///
    /// # Errors
    /// No thread could be started, or no descriptor is left. Nothing has begun then; the next call tries again.
    pub fn check(&self, backends: &Arc<Backends>, settings: HealthCheck) -> io::Result<PoolChecks> {
        let running = self.running()?;
        let changed = Arc::new(AtomicBool::new(true));
        let number = running.schedule.lock().watch(backends, settings, &changed);
        // Weak, since this is called under the pool's lock: if it held the thread last, dropping that would wait for
        // its end.
        let (changed, wake) = (Arc::downgrade(&changed), Arc::downgrade(&running.wake));
        backends.on_change(move || {
            let (Some(changed), Some(wake)) = (changed.upgrade(), wake.upgrade()) else { return false };
            changed.store(true, Ordering::Release);
            wake();
            true
        });
        Ok(PoolChecks { running, number, backends: Arc::clone(backends), clock: self.clock.clone() })
    }

    fn running(&self) -> io::Result<Arc<RunningProber>> {
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            return Ok(Arc::clone(running));
        }
        let clock = self.clock.clone();
        let new = Arc::new(match self.driver {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            CheckDriver::Epoll => epoll::start(Arc::clone(&self.tls), clock)?,
            CheckDriver::Blocking => blocking::start(clock)?,
        });
        *running = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl PoolChecks {
    /// Waits until every endpoint that the pool has now was checked once, at most `timeout`. True: all were.
    pub fn wait_first(&self, timeout: Duration) -> bool {
        let changes = self.backends.changes();
        let deadline = self.clock.now().saturating_add(nanos(timeout));
        loop {
            let snapshot = self.backends.snapshot();
            if snapshot.endpoints().iter().all(|endpoint| endpoint.health() != Status::Unknown) {
                return true;
            }
            let left = Duration::from_nanos(deadline.saturating_sub(self.clock.now()));
            if changes.recv_timeout(left).is_err() {
                return false;
            }
        }
    }
}

impl Drop for PoolChecks {
    fn drop(&mut self) {
        self.running.schedule.lock().forget(self.number);
        // So that the thread closes the connections of its checks.
        (self.running.wake)();
    }
}

impl Drop for RunningProber {
    fn drop(&mut self) {
        self.schedule.lock().end();
        (self.wake)();
        if let Some(thread) = self.thread.take() {
            // This does not take long: the thread waits for no check.
            let _ = thread.join();
        }
    }
}
