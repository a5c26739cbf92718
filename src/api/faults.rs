//! What is wrong with a call: a caller reads all of it at once, each fault with its JSON pointer.

use crate::declare::Fault;
use crate::error::{FieldFault, Reject};
use balancer_http::message::Reason;

/// At most this many faults are named in one answer, so that a body full of faults does not make an answer as long.
pub(super) const MAX_FAULTS: usize = 32;

/// An error if there is any fault.
pub(super) fn check(faults: Vec<Fault>) -> Result<(), Reject> {
    let Some(first) = faults.first() else { return Ok(()) };
    let more = match faults.len() {
        1 => String::new(),
        faults => format!(" (and {} more, see errors)", faults - 1),
    };
    let text = format!("{}: {}{more}", first.path.trim_start_matches('/'), first.text);
    let mut reject = Reject::new(Reason::BadRequest, text);
    reject.errors =
        faults.into_iter().map(|fault| FieldFault { pointer: fault.path, detail: fault.text }).collect();
    Err(reject)
}
