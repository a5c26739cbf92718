//! A gate at which threads wait until a test opens it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::PATIENCE;

/// Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Waits until it is open. Gives up at last, so that a failed test leaves no thread behind, but after all that a test
    /// waits for has failed: what goes on without the gate must not look as if it had been opened.
    pub fn wait(&self) {
        let (open, opened) = &*self.0;
        let guard = open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(opened.wait_timeout_while(guard, PATIENCE * 4, |open| !*open));
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
