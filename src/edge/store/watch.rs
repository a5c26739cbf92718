//! The watch: one thread that brings the database up at the start, probes it when something is wrong, and keeps the
//! ranges fresh while nothing is.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, select};

use super::core::Core;
use super::session::Fault;

/// Between two probes of a database that is down.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// The longest that a database may go unasked: an idle balancer notices its loss, and ranges follow other instances.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest, whatever `cache.ttl` says.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// What the watch needs.
pub struct Watch {
    pub core: Arc<Core>,
    /// Somebody is in doubt.
    pub wake: Receiver<()>,
    /// Its end is the sign to stop.
    pub end: Receiver<()>,
    /// `cache.ttl`.
    pub ttl: Duration,
}

impl Watch {
    /// Runs until the end; tells `first` how the first probe went.
    pub fn run(self, first: &Sender<Result<(), Fault>>) {
        let mut migrated = false;
        let mut refused = false;
        let mut first = Some(first);
        loop {
            let result = self.look(&mut migrated);
            if let Err(Fault::Schema(cause)) = &result
                && !std::mem::replace(&mut refused, true)
                && first.is_none()
            {
                log::error!("store: {cause}");
            }
            refused &= result.is_err();
            let healthy = result.is_ok();
            if let Some(first) = first.take() {
                // Whoever started this waits only so long.
                let _ = first.send(result);
            }
            let pause = if healthy { self.ttl.clamp(MIN_INTERVAL, MAX_INTERVAL) } else { PROBE_INTERVAL };
            select! {
                recv(self.end) -> _ => return,
                recv(self.wake) -> _ => if !healthy {
                    // It is known to be down: keeps to the interval.
                    select! { recv(self.end) -> _ => return, recv(after(PROBE_INTERVAL)) -> _ => {} }
                },
                recv(after(pause)) -> _ => {}
            }
        }
    }

    fn look(&self, migrated: &mut bool) -> Result<(), Fault> {
        let breaker = &self.core.breaker;
        let answers = breaker.answers();
        let result = if breaker.trusted() { self.core.refresh_ranges() } else { self.core.probe(*migrated) };
        match &result {
            Ok(()) => {
                *migrated = true;
                breaker.close();
            }
            // All its connections were taken by calls that it did answer.
            Err(Fault::Down { .. } | Fault::Refused(_)) if *migrated && breaker.answers() != answers => {}
            Err(fault) => breaker.open(fault.to_string()),
        }
        result
    }
}
