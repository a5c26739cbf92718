//! Look-ups that wait by a waker, on a store whose only thread is held.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::super::cache::Known;
use super::super::{CallOutcome, Limits, StoreError, StoreState};
use super::{PATIENCE, Setup, find_key};
use crate::config::DatabaseUrl;
use crate::metrics::StoreOp;
use balancer_limiter::answer::EntryKind;

/// Holds the store's only thread while `during` runs.
fn held(limits: &Arc<Limits>, during: impl FnOnce()) {
    let ((begun, begins), (release, released)) = (channel(), channel::<()>());
    let thread = thread::spawn({
        let limits = Arc::clone(limits);
        move || {
            limits.change(move |_| {
                begun.send(()).unwrap();
                let _ = released.recv();
                Ok(())
            })
        }
    });
    begins.recv_timeout(PATIENCE).unwrap();
    during();
    drop(release);
    thread.join().unwrap().unwrap();
}

fn one_thread() -> Setup {
    Setup { pool_size: 1, ..Setup::new(DatabaseUrl::Memory) }
}

#[test]
fn a_look_up_parks_without_blocking_and_is_woken_by_the_store_thread() {
    let limits = one_thread().start().unwrap();
    let (word, words) = channel();
    let mut parked = None;
    held(&limits, || {
        let pending = limits.find("1.2.3.4".parse().unwrap(), None, 1, None).unwrap_err();
        let word = word.clone();
        let wake = move || word.send(thread::current().name().map(str::to_owned)).unwrap();
        assert!(pending.on_end(Box::new(wake)));
        assert!(words.try_recv().is_err());
        parked = Some(pending);
    });
    assert_eq!(words.recv_timeout(PATIENCE).unwrap().as_deref(), Some("store-0"));
    let found = limits.find("1.2.3.4".parse().unwrap(), None, 1, parked).unwrap();
    assert_eq!(found.source, EntryKind::Default);
    let counters = limits.cache_counters();
    assert_eq!((counters.misses, counters.hits, counters.timeouts), (1, 0, 0));
}

#[test]
fn a_wait_in_vain_counts_and_look_ups_park_again_when_the_database_answers() {
    let limits = Setup { load_timeout: Duration::from_millis(1), ..one_thread() }.start().unwrap();
    held(&limits, || {
        let pending = limits.find_key("tenant=a", 1, None).unwrap_err();
        pending.wait(limits.load_timeout());
        let known = limits.find_key("tenant=a", 1, Some(pending)).unwrap();
        assert!(matches!(known, Known::Unknown), "{known:?}");
        assert_eq!(limits.cache_counters().timeouts, 1);
    });
    super::until("it answers again", || limits.find_key("tenant=c", 1, None).err());
    assert_eq!(limits.state(), StoreState::Up);
}

#[test]
fn a_call_that_panics_is_told_as_that_and_casts_no_doubt_on_the_database() {
    let limits = one_thread().start().unwrap();
    let told = |result: Result<(), StoreError>| match result {
        Err(StoreError::Unavailable { cause, outcome }) => (cause.contains("panic"), outcome),
        other => panic!("{other:?}"),
    };
    let read = limits.read(StoreOp::Get, |_, _| panic!("a test's"));
    assert_eq!(told(read), (true, CallOutcome::Question));
    let change = limits.change(|_| panic!("a test's"));
    assert_eq!(told(change), (true, CallOutcome::Unknown));
    // While the database is in doubt, no look-up asks it.
    let known = find_key(&limits, "tenant=a");
    assert!(matches!(known, Known::Absent), "{known:?}");
}
