//! Time for requests from before a reload to reach the backends that it takes away from their pools.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::pool::RunningPool;
use crate::clock::Clock;
use crate::proxy::policy::ProxyPolicy;
use balancer_time::nanos;

/// The longest that backends stay for them. Limits and passwords are looked up in less, unless all is overloaded.
const MOST: Duration = Duration::from_secs(5);
/// How often it is checked whether they have got there.
const LOOK: Duration = Duration::from_millis(1);

/// Waits until no request that was routed by `old` is on its way to a backend of its pool, and until the lines of pools
/// that are to have no backend at all are empty. The log says when time ran out.
pub(super) fn wait(old: Arc<ProxyPolicy>, pools: &[RunningPool], clock: &Clock) {
    // A request holds its policy until it has a backend or waits in line.
    let is_awaited = || Arc::strong_count(&old) > 1 || pools.iter().any(RunningPool::has_a_lost_line);
    let until = clock.now().saturating_add(nanos(MOST));
    while is_awaited() {
        if clock.now() >= until {
            log::warn!(
                "some requests from before the reload still wait; backends of their pools are taken away"
            );
            return;
        }
        thread::sleep(LOOK);
    }
}
