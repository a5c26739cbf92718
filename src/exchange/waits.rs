//! Waits that are not for a backend: for the database, for a reload. A thread that others count on says so before it begins
//! one, so that another can take its place.

use std::cell::RefCell;
use std::sync::Arc;

use super::CallObserver;

thread_local! {
    static OBSERVER: RefCell<Option<Arc<dyn CallObserver>>> = const { RefCell::new(None) };
}

/// Who is told of this thread's waits from now on.
pub fn observe(observer: Arc<dyn CallObserver>) {
    OBSERVER.set(Some(observer));
}

/// A wait, while this lives.
pub struct Waiting(Option<Arc<dyn CallObserver>>);

/// This thread is about to wait. Costs next to nothing where nobody observes it.
pub fn begin() -> Waiting {
    let observer = OBSERVER.with_borrow(Clone::clone);
    if let Some(observer) = &observer {
        observer.began(0);
    }
    Waiting(observer)
}

impl Drop for Waiting {
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
        drop(begin());
        let (mine, other) = (Arc::new(Depth::default()), Arc::new(Depth::default()));
        observe(mine.clone());
        let waiting = begin();
        let elsewhere = other.clone();
        std::thread::spawn(move || {
            observe(elsewhere.clone());
            let _waiting = begin();
            assert_eq!(elsewhere.0.load(Ordering::SeqCst), 1);
        })
        .join()
        .expect("counted");
        assert_eq!((mine.0.load(Ordering::SeqCst), other.0.load(Ordering::SeqCst)), (1, 0));
        drop(waiting);
        assert_eq!(mine.0.load(Ordering::SeqCst), 0);
    }
}
