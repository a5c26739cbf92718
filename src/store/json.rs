//! What the store writes as JSON.

use serde::Serialize;

/// A value as text. It holds nothing that JSON has no form for.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        log::error!("store: not written as JSON: {error}");
        "null".to_owned()
    })
}
