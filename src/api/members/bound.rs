//! A member that is a number or a word.

use serde_json::{Value, json};

use super::{Members, described};

impl Members<'_, '_> {
    /// A whole number, that word (`Some(None)`), or `null` as if it were not there.
    pub(in crate::api) fn whole_or_word(
        &mut self,
        name: &'static str,
        (min, max): (u32, u32),
        word: &'static str,
        about: &str,
    ) -> Option<Option<u32>> {
        self.declare(name, false, || {
            let number = json!({ "type": "integer", "minimum": min, "maximum": max });
            described(json!({ "anyOf": [number, { "const": word }, { "type": "null" }] }), about)
        });
        match self.raw(name)?.get() {
            "null" => None,
            raw if serde_json::from_str::<Value>(raw).is_ok_and(|value| value == word) => Some(None),
            raw if raw.starts_with('"') => {
                self.fault(name, format!("must be a whole number from {min} to {max}, {word:?} or null"));
                None
            }
            _ => self.whole_of(name, min, max).map(Some),
        }
    }
}
