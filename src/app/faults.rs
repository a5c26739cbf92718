//! Faults that tests can't cause in another way. In debug builds, with `BALANCER_TEST_FAULTS` in the environment, a
//! request on the public port for `/test/spin/MILLISECONDS` keeps its loop busy for so long, one for `/test/panic`
//! panics, and after one for `/test/panic/THREAD` that thread panics once.

use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use balancer_time::nanos;

/// The thread that is to panic.
static THREAD: Mutex<Option<String>> = Mutex::new(None);

/// Commits the fault that a request asks for, if it asks for one.
pub(super) fn commit(target: &str, clock: &Clock) {
    static ON: LazyLock<bool> = LazyLock::new(|| std::env::var_os("BALANCER_TEST_FAULTS").is_some());
    if !target.starts_with("/test/") || !*ON {
        return;
    }
    assert_ne!(target, "/test/panic", "a test asked for this panic");
    if let Some(thread) = target.strip_prefix("/test/panic/") {
        *THREAD.lock() = Some(thread.to_owned());
    }
    let spin = target.strip_prefix("/test/spin/").and_then(|span| span.parse().ok());
    if let Some(span) = spin.map(Duration::from_millis) {
        let until = clock.now().saturating_add(nanos(span));
        while clock.now() < until {
            std::hint::spin_loop();
        }
    }
}

/// Panics if a request has asked for a panic of that thread.
pub(super) fn strike(thread: &str) {
    let asked = THREAD.lock().take_if(|asked| asked == thread);
    assert_eq!(asked, None, "a test asked for this panic");
}
