//! Functions that are called after changes of the pool.

use std::fmt;

use parking_lot::Mutex;

/// Called after a change. False: it is not to be called any more.
type Tell = Box<dyn Fn() -> bool + Send>;

/// The functions. The lock is held while they are called.
#[derive(Default)]
pub(super) struct Listeners(pub(super) Mutex<Vec<Tell>>);

impl Listeners {
    /// Calls it at once, and after every change.
    pub fn add(&self, tell: Tell) {
        // Locks first, so that a change in between calls it too.
        let mut all = self.0.lock();
        if tell() {
            all.push(tell);
        }
    }

    /// Calls all functions, and forgets those that return false.
    pub fn tell(&self) {
        self.0.lock().retain(|tell| tell());
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listeners").field(&self.0.lock().len()).finish()
    }
}
