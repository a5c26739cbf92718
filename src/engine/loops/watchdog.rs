//! A thread that looks whether every loop goes on. The log names a loop that is stuck, which is a bug of ours, by its
//! number. A stuck loop gets no new connections until it goes on.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::shared::LoopsShared;
use balancer_time::{Nanos, nanos};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// A loop is stuck when a turn takes longer. Turns take microseconds, and some milliseconds with many events.
const STUCK: Duration = Duration::from_millis(750);

/// The running thread. It ends when this is dropped.
pub(super) struct Watchdog(#[allow(dead_code)] Sender<Infallible>);

impl Watchdog {
    pub fn start(shared: &Arc<LoopsShared>) -> io::Result<Self> {
        let (end, ended) = bounded::<Infallible>(0);
        let shared = Arc::clone(shared);
        thread::Builder::new().name("watchdog".into()).spawn(move || {
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                look(&shared, shared.clock.now());
            }
        })?;
        Ok(Self(end))
    }
}

fn look(shared: &LoopsShared, now: Nanos) {
    for (number, one) in shared.loops.iter().enumerate() {
        let is_stuck = one.is_late(now, nanos(STUCK));
        if one.set_stuck(is_stuck) {
            if is_stuck {
                log::error!("loop {number} is stuck: it gets no new connections until it goes on");
            } else {
                log::warn!("loop {number} goes on");
            }
        }
    }
}
