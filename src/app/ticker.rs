//! What has to be done now and then: full buckets forgotten, left-out log lines
//! told of, those that wait in line told to look (an ejection ends by time alone), certificates that were renewed read, the history
//! taken down, bounds moved that are measured.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::tls::Tls;
use crate::clock::Clock;
use crate::history::{History, backends_now};
use crate::log::repeats::LogLimit;
use crate::proxy::policy::{PolicyInForce, ProxyPolicy};
use balancer_limiter::limiter::Limiter;
use balancer_time::{Nanos, nanos};

/// How often. An idle process wakes up no oftener for it.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often bounds of backends move that are measured, where there are some.
const MEASURING: Duration = Duration::from_millis(500);

/// How often files of TLS are looked at: whoever renews certificates does it days before they expire.
const LOOK_AT_FILES: Duration = Duration::from_secs(60);

/// What is done something about.
pub(super) struct Ticked {
    pub limiter: Arc<Limiter>,
    pub log_limit: Arc<LogLimit>,
    pub policy: Arc<PolicyInForce>,
    pub history: Arc<History>,
    pub tls: Tls,
}

/// The running thread; ends when this is dropped.
pub(super) struct Ticker(#[allow(dead_code)] Sender<Infallible>);

impl Ticker {
    /// Starts the thread.
    pub fn start(ticked: Ticked, clock: Clock) -> io::Result<Self> {
        let Ticked { limiter, log_limit, policy, history, tls } = ticked;
        let (stop, stopped) = bounded::<Infallible>(0);
        thread::Builder::new().name("ticker".into()).spawn(move || {
            let (mut looked_at, mut done_at) = (clock.now(), clock.now());
            let mut wait = INTERVAL;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let measures = measure(&policy.load(), clock.now());
                wait = if measures { MEASURING } else { INTERVAL };
                // A sleep may end a little early.
                if clock.now().saturating_sub(done_at) < nanos(INTERVAL - MEASURING / 2) {
                    continue;
                }
                done_at = clock.now();
                limiter.sweep(clock.moment());
                let pools = policy.load_full();
                pools.pools.iter().for_each(|pool| pool.backends.queue().changed());
                let backends = pools.pools.iter().flat_map(|pool| backends_now(&pool.backends.snapshot()));
                history.tick(backends, clock.now());
                if clock.now().saturating_sub(looked_at) >= nanos(LOOK_AT_FILES) {
                    looked_at = clock.now();
                    tls.look(&clock);
                }
                for (key, lines) in log_limit.sweep(clock.now()) {
                    log::warn!("{lines} more like this were left out: {key}");
                }
            }
        })?;
        Ok(Self(stop))
    }
}

/// Whether there are measured bounds.
fn measure(policy: &ProxyPolicy, now: Nanos) -> bool {
    let measuring = policy.pools.iter().filter(|pool| pool.backends.snapshot().measures());
    measuring.map(|pool| pool.backends.measure(now)).count() > 0
}
