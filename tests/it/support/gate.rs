//! A gate at which threads wait until a test opens it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::PATIENCE;

/// Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Waits until it is open; gives up after [`PATIENCE`], so that a failed test leaves no thread behind.
    pub fn wait(&self) {
        let (open, opened) = &*self.0;
        let guard = open.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = opened.wait_timeout_while(guard, PATIENCE, |open| !*open);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it for good.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}
