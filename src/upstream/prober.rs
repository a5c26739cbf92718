//! Health checks: every endpoint of the pool is asked once an interval, on a fixed number of threads, and one that hangs
//! delays nobody else's check. They follow the pool: new endpoints have their first check at once, and what a check of a
//! removed one finds is not written down.
//!
//! - `schedule`: which endpoint is checked when.
//! - `check`: one check, as bytes in and result out.
//! - `state`: what the checks of an endpoint come to, and the lines about it.
//! - `epoll`, `blocking`: what makes the checks; `wire`: a connection of the first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Engine, HealthCheck};
use crate::tls::upstream::BackendTls;
use balancer_pool::backends::Backends;
use balancer_pool::health::Status;
use balancer_time::nanos;

mod blocking;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "ureq has a state machine of its own"))]
mod check;
mod check_state;
#[cfg(target_os = "linux")]
mod epoll;
mod schedule;
#[cfg(test)]
mod tests;
#[cfg(target_os = "linux")]
mod wire;

/// What makes the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDriver {
    /// One thread that waits for all of them (Linux).
    #[cfg(target_os = "linux")]
    Epoll,
    /// ureq, on a few threads that wait for one each.
    Blocking,
}

impl CheckDriver {
    /// What fits that frontend engine.
    pub const fn of(engine: Engine) -> Self {
        match engine {
            #[cfg(target_os = "linux")]
            Engine::Auto | Engine::Epoll => Self::Epoll,
            _ => Self::Blocking,
        }
    }
}

/// The running health checks; they end when this is dropped, and no endpoint's health is changed any more.
#[derive(Debug)]
pub struct Prober {
    backends: Arc<Backends>,
    clock: Clock,
    _running: RunningProber,
}

/// The driver's threads, which end with it.
#[derive(Debug)]
#[allow(dead_code, reason = "held to be dropped")]
enum RunningProber {
    #[cfg(target_os = "linux")]
    Epoll(epoll::EpollProber),
    Blocking(blocking::BlockingProber),
}

impl Prober {
    /// Starts checking every endpoint of the pool, now and as they come; those with `https://` by `tls`. Fails only when no thread or descriptor can be had.
    pub fn start(
        backends: Arc<Backends>,
        settings: HealthCheck,
        driver: CheckDriver,
        tls: &Arc<BackendTls>,
        clock: Clock,
    ) -> io::Result<Self> {
        let (pool, settings, own) = (Arc::clone(&backends), Arc::new(settings), clock.clone());
        let running = match driver {
            #[cfg(target_os = "linux")]
            CheckDriver::Epoll => RunningProber::Epoll(epoll::start(pool, settings, Arc::clone(tls), own)?),
            CheckDriver::Blocking => RunningProber::Blocking(blocking::start(pool, settings, own)?),
        };
        Ok(Self { backends, clock, _running: running })
    }

    /// Waits until every endpoint that the pool now has was checked once, at most `timeout`. Whether all were.
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
