//! A backend as it is configured.

use std::time::Duration;

/// One entry of `backends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// Unique; what logs, metrics and the API call it.
    pub name: String,
    /// Host of its URL: a name or an address.
    pub host: String,
    /// Port of its URL, 80 or 443 when it names none.
    pub port: u16,
    /// It is spoken to by TLS: `https` in its URL.
    pub is_tls: bool,
    /// Share relative to the others; 1 to 1000 (0: no traffic).
    pub weight: u32,
    /// Used only when no other is left.
    pub backup: bool,
    /// How long it takes to its full share after it came up.
    pub slow_start: Duration,
    /// Most requests at once on all its addresses together.
    pub max_in_flight: Option<u32>,
}

impl BackendEntry {
    /// One of weight 1 with nothing special about it.
    pub fn new(name: &str, host: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            port,
            is_tls: false,
            weight: 1,
            backup: false,
            slow_start: Duration::ZERO,
            max_in_flight: None,
        }
    }
}
