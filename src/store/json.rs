//! JSON texts that the store writes.

use serde::Serialize;

/// A value as JSON text. It must contain nothing that JSON has no form for, such as a map whose keys are not texts.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        log::error!("store: not written as JSON: {error}");
        "null".to_owned()
    })
}
