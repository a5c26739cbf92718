//! What is wrong with a call, collected: a caller reads all of it at once, each fault with its JSON pointer.

use crate::error::{FieldFault, Reject};
use balancer_http::message::Reason;

/// At most this many faults are named in one answer; a body full of nonsense is not answered by one as long.
pub(super) const MAX_FAULTS: usize = 32;

/// Faults found so far.
#[derive(Debug, Default)]
pub(super) struct BodyFaults(Vec<FieldFault>);

impl BodyFaults {
    /// One more, at the top-level member of that name.
    pub(super) fn add(&mut self, name: &str, detail: impl Into<String>) {
        self.at(pointer(name), detail);
    }

    /// One more, at a JSON pointer.
    pub(super) fn at(&mut self, pointer: String, detail: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(FieldFault { pointer, detail: detail.into() });
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// These, before those from that number on.
    pub(super) fn insert(&mut self, at: usize, faults: Vec<FieldFault>) {
        self.0.splice(at..at, faults);
        self.0.truncate(MAX_FAULTS);
    }

    /// An error if there is any fault.
    pub(super) fn check(self) -> Result<(), Reject> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let more = match self.0.len() {
            1 => String::new(),
            faults => format!(" (and {} more, see errors)", faults - 1),
        };
        let mut reject = Reject::new(
            Reason::BadRequest,
            format!("{}: {}{more}", first.pointer.trim_start_matches('/'), first.detail),
        );
        reject.errors = self.0;
        Err(reject)
    }
}

/// The JSON pointer of a top-level member (RFC 6901 §3).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Names, as a fault says which there are.
pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}
