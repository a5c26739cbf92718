//! A backend as it is configured, and its addresses as name servers give them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One entry of `backends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// Its name in logs, metrics and the API; unique in its pool.
    pub name: String,
    /// The host in its URL, a name or an address. Of an `srv` URL: the name that has SRV records.
    pub host: String,
    /// The port in its URL, 80 or 443 by default. 0: SRV records give the port.
    pub port: u16,
    /// Whether it is called over TLS: its URL has `https`.
    pub is_tls: bool,
    /// Its share of the requests relative to the others, 1 to 1000; 0: it gets none.
    pub weight: u32,
    /// Whether it is used only if no other backend is left.
    pub backup: bool,
    /// In what time its share grows to the full one after it came up.
    pub slow_start: Duration,
    /// Most requests at once on all its addresses together; `None`: no bound.
    pub max_in_flight: Option<InFlightBound>,
}

/// A bound on the requests at once on a backend. In JSON a number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BoundDocument", into = "BoundDocument")]
pub enum InFlightBound {
    /// That number.
    Number(u32),
    /// The bound is measured, see [`crate::fair::AutoLimit`].
    Auto,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BoundDocument {
    Number(u32),
    Word(BoundWord),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BoundWord {
    Auto,
}

impl From<BoundDocument> for InFlightBound {
    fn from(document: BoundDocument) -> Self {
        match document {
            BoundDocument::Number(most) => Self::Number(most),
            BoundDocument::Word(BoundWord::Auto) => Self::Auto,
        }
    }
}

impl From<InFlightBound> for BoundDocument {
    fn from(bound: InFlightBound) -> Self {
        match bound {
            InFlightBound::Number(most) => Self::Number(most),
            InFlightBound::Auto => Self::Word(BoundWord::Auto),
        }
    }
}

impl BackendEntry {
    /// A backend of weight 1, with defaults for everything else.
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

    /// Whether SRV records (RFC 2782) give its addresses.
    pub fn is_srv(&self) -> bool {
        self.port == 0
    }

    /// The `Host` of requests that Balancer itself sends to it: `host:port`, an IPv6 address in brackets (RFC 3986
    /// §3.2.2). For SRV records it is the domain that offers the service, whichever target is called.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if self.is_srv() {
            // Behind `_service._proto.` (RFC 2782, "The format of the SRV RR").
            host.splitn(3, '.').last().unwrap_or(host).trim_end_matches('.').to_owned()
        } else if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// Its URL, with its port.
    pub fn url(&self) -> String {
        match (self.is_srv(), self.is_tls) {
            (true, _) => format!("srv://{}", self.host),
            (_, true) => format!("https://{}", self.authority()),
            (_, false) => format!("http://{}", self.authority()),
        }
    }
}

/// The [`Located::weight`] of an address that has the whole weight of its backend. The unit is that small so that
/// others can have a part of it.
pub const WHOLE: u32 = 10_000;

/// An address of a backend, and how it is used among the others. Ordered by tier first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// It is used only if no endpoint of a lower tier can be. 0 is the lowest.
    pub tier: u16,
    /// The address.
    pub address: SocketAddr,
    /// Its weight for each unit of its backend's weight, in ten-thousandths: [`WHOLE`] is all of it.
    pub weight: u32,
}

impl From<SocketAddr> for Located {
    /// An address of the lowest tier with the whole weight.
    fn from(address: SocketAddr) -> Self {
        Self { tier: 0, address, weight: WHOLE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_put_ipv6_in_brackets_and_of_srv_records_name_the_domain() {
        for (host, port, authority, url) in [
            ("::1", 9000, "[::1]:9000", "https://[::1]:9000"),
            ("[::1]", 9000, "[::1]:9000", "https://[::1]:9000"),
            ("127.0.0.1", 80, "127.0.0.1:80", "https://127.0.0.1:80"),
            ("a", 443, "a:443", "https://a:443"),
            ("_http._tcp.a.test", 0, "a.test", "srv://_http._tcp.a.test"),
            ("_http._tcp.test.", 0, "test", "srv://_http._tcp.test."),
        ] {
            let entry = BackendEntry { is_tls: port != 0, ..BackendEntry::new("a", host, port) };
            assert_eq!((entry.authority().as_str(), entry.url().as_str()), (authority, url));
            assert_eq!(entry.is_srv(), port == 0);
            let plain = BackendEntry { is_tls: false, ..entry };
            assert_eq!(plain.url(), url.replace("https", "http"));
        }
    }
}
