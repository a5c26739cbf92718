//! Waits that are not for a backend: for the database, for a reload. A thread that others count on says so before it begins
//! one, so that another can take its place.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Told, on the worker's own thread, when a blocking backend call begins and ends.
pub trait CallObserver: Send + Sync {
    /// The worker is about to wait for that endpoint ([`balancer_pool::backends::Endpoint::id`]; 0 when unknown).
    fn began(&self, endpoint: u64);

    /// It waits no longer.
    fn ended(&self);

    /// A kept connection to a backend, which nobody waits on, is about to be looked at: what was known of it before is past.
    fn looking(&self, _socket: BorrowedFd<'_>) {}
}

thread_local! {
    static OBSERVER: RefCell<Option<Arc<dyn CallObserver>>> = const { RefCell::new(None) };
}

/// Who is told of this thread's waits from now on.
pub fn observe(observer: Arc<dyn CallObserver>) {
    OBSERVER.set(Some(observer));
}

/// Waits by `wait`, and lets the thread's observer know. Costs next to nothing where there is none.
pub fn during<T>(wait: impl FnOnce() -> T) -> T {
    let observer = OBSERVER.with_borrow(Clone::clone);
    if let Some(observer) = &observer {
        observer.began(0);
    }
    let _ended = Ended(observer);
    wait()
}

/// Tells of the end, also of a wait that panics.
struct Ended(Option<Arc<dyn CallObserver>>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(observer) = &self.0 {
            observer.ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Depth(AtomicI32);

    impl CallObserver for Depth {
        fn began(&self, endpoint: u64) {
            assert_eq!(endpoint, 0);
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        fn ended(&self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_observer_of_the_thread_hears_of_it_and_no_other() {
        assert_eq!(during(|| 7), 7, "nobody observes it");
        let (mine, other) = (Arc::new(Depth::default()), Arc::new(Depth::default()));
        let depths = || (mine.0.load(Ordering::SeqCst), other.0.load(Ordering::SeqCst));
        observe(mine.clone());
        during(|| {
            assert_eq!(depths(), (1, 0));
            let elsewhere = other.clone();
            std::thread::spawn(move || {
                observe(elsewhere.clone());
                during(|| assert_eq!(elsewhere.0.load(Ordering::SeqCst), 1));
            })
            .join()
            .expect("counted");
            assert_eq!(depths(), (1, 0));
        });
        assert_eq!(depths(), (0, 0));
    }
}
