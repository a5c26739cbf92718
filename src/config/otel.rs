//! What `otel` says.

use std::fmt;

/// `otel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtelConfig {
    /// Where spans are posted.
    pub endpoint: CollectorUrl,
}

/// Where a collector takes spans by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorUrl {
    /// It is spoken to by TLS.
    pub is_tls: bool,
    /// A name or an address; of IPv6 without brackets.
    pub host: String,
    /// At that host.
    pub port: u16,
    /// The whole path of what is posted.
    pub path: String,
}

impl CollectorUrl {
    /// Host and port, as a URL and a Host field have them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}
