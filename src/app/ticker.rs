//! What is done once a second or so: full buckets are forgotten, suppressed log lines are counted in the log, requests
//! in line are woken (an ejection ends by time alone), renewed certificates are read, the history gets its next step,
//! and measured bounds are moved.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::guarded;
use super::tls::Tls;
use crate::clock::Clock;
use crate::history::{History, backends_now};
use crate::log::repeats::LogLimit;
use crate::metrics::Metrics;
use crate::proxy::policy::{PolicyInForce, ProxyPolicy};
use balancer_limiter::limiter::Limiter;
use balancer_time::{Nanos, nanos};

/// How often, unless bounds are measured. An idle process does not wake up more often.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often measured bounds of backends are moved, if there are any.
const MEASURING: Duration = Duration::from_millis(500);

/// How often the files of TLS are looked at. Certificates are renewed days before they expire.
const LOOK_AT_FILES: Duration = Duration::from_secs(60);

/// What the thread works on.
pub(super) struct Ticked {
    pub metrics: Arc<Metrics>,
    pub limiter: Arc<Limiter>,
    pub log_limit: Arc<LogLimit>,
    pub policy: Arc<PolicyInForce>,
    pub history: Arc<History>,
    pub tls: Tls,
}

/// The running thread. It ends when this is dropped.
pub(super) struct Ticker(#[allow(dead_code)] Sender<Infallible>);

impl Ticker {
    /// Starts the thread.
    pub fn start(ticked: Ticked, clock: Clock) -> io::Result<Self> {
        let (stop, stopped) = bounded::<Infallible>(0);
        thread::Builder::new().name("ticker".into()).spawn(move || {
            let (mut looked_at, mut done_at) = (clock.now(), clock.now());
            let mut wait = INTERVAL;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                guarded("ticker", &ticked.metrics, || {
                    let measures = measure(&ticked.policy.load(), clock.now());
                    wait = if measures { MEASURING } else { INTERVAL };
                    // After a measuring step less than a second may have passed. A sleep may end a little early.
                    if clock.now().saturating_sub(done_at) >= nanos(INTERVAL - MEASURING / 2) {
                        done_at = clock.now();
                        ticked.tick(&clock, &mut looked_at);
                    }
                });
            }
        })?;
        Ok(Self(stop))
    }
}

impl Ticked {
    /// What is done once a second. `looked_at`: when the files of TLS were looked at.
    fn tick(&self, clock: &Clock, looked_at: &mut Nanos) {
        #[cfg(debug_assertions)]
        super::faults::strike("ticker");
        self.limiter.sweep(clock.moment());
        let pools = self.policy.load_full();
        pools.pools.iter().for_each(|pool| pool.backends.queue().changed());
        let backends = pools.pools.iter().flat_map(|pool| backends_now(&pool.backends.snapshot()));
        self.history.tick(backends, clock.now());
        if clock.now().saturating_sub(*looked_at) >= nanos(LOOK_AT_FILES) {
            *looked_at = clock.now();
            self.tls.look(clock);
        }
        for (key, lines) in self.log_limit.sweep(clock.now()) {
            log::warn!("{lines} more like this were left out: {key}");
        }
    }
}

/// Moves measured bounds. True: there are some.
fn measure(policy: &ProxyPolicy, now: Nanos) -> bool {
    let measuring = policy.pools.iter().filter(|pool| pool.backends.snapshot().measures());
    measuring.map(|pool| pool.backends.measure(now)).count() > 0
}
