//! What has to be done now and then: full buckets forgotten, left-out log lines
//! told of, those that wait in line told to look (an ejection ends by time alone).

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::clock::Clock;
use crate::log::repeats::LogLimit;
use balancer_limiter::limiter::Limiter;
use balancer_pool::backends::Backends;

/// How often. An idle process wakes up no oftener for it.
const INTERVAL: Duration = Duration::from_secs(1);

/// The running thread; ends when this is dropped.
pub(super) struct Ticker(#[allow(dead_code)] Sender<Infallible>);

impl Ticker {
    /// Starts the thread.
    pub fn start(
        limiter: Arc<Limiter>,
        log_limit: Arc<LogLimit>,
        backends: Arc<Backends>,
        clock: Clock,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded::<Infallible>(0);
        thread::Builder::new().name("ticker".into()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                limiter.sweep(clock.moment());
                backends.queue().changed();
                for (key, lines) in log_limit.sweep(clock.now()) {
                    log::warn!("{lines} more like this were left out: {key}");
                }
            }
        })?;
        Ok(Self(stop))
    }
}
