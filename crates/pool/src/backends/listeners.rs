//! Who hears of changes of the pool.

use std::fmt;

use parking_lot::Mutex;

/// Called after a change; whether it wants to hear of the next one.
type Tell = Box<dyn Fn() -> bool + Send>;

/// See the module. The lock is held over the calls.
#[derive(Default)]
pub(super) struct Listeners(pub(super) Mutex<Vec<Tell>>);

impl Listeners {
    /// Calls it at once, since it knows nothing yet, and after every change.
    pub fn add(&self, tell: Tell) {
        // Locked first: a change meanwhile waits, and is told.
        let mut all = self.0.lock();
        if tell() {
            all.push(tell);
        }
    }

    /// Calls each, and forgets those that want no more.
    pub fn tell(&self) {
        self.0.lock().retain(|tell| tell());
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Listeners").field(&self.0.lock().len()).finish()
    }
}
