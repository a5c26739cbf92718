//! Looks at what memory knows that are none of a client's requests.

use std::net::IpAddr;

use super::Limits;
use crate::store::cache::{Found, Known};

impl Limits {
    /// [`Limits::find`], but that nothing is counted or loaded. `None`: memory does not know.
    pub fn peek(&self, client: IpAddr) -> Option<Found> {
        let known = self.core.cache.peek(client, None);
        // While the database is down, its range or the default decides about such a client.
        let has_to_be_loaded = matches!(known, Known::Unknown) && self.up();
        (!has_to_be_loaded).then(|| self.core.found(known, client))
    }

    /// The same for an opaque id; `None`: memory has no entry of it.
    pub fn peek_key(&self, id: &str) -> Option<Found> {
        match self.core.cache.peek_id(id) {
            Known::Entry(hit) => Some(self.core.of_entry(hit)),
            Known::Absent | Known::Unknown => None,
        }
    }
}
