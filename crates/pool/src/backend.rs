//! A backend as it is configured, and where name servers say that it is.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One entry of `backends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// Unique; what logs, metrics and the API call it.
    pub name: String,
    /// Host of its URL: a name or an address; of an `srv` URL, the name that has SRV records.
    pub host: String,
    /// Port of its URL, 80 or 443 when it names none; 0 where SRV records say it.
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
    pub max_in_flight: Option<InFlightBound>,
}

/// A bound on the requests at once of a backend. In JSON a number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BoundDocument", into = "BoundDocument")]
pub enum InFlightBound {
    /// So many.
    Number(u32),
    /// As many as are measured to be of use.
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

    /// Whether SRV records (RFC 2782) say where it is.
    pub fn is_srv(&self) -> bool {
        self.port == 0
    }

    /// What requests of ours to it name as their Host: `host:port`, an IPv6 address in brackets (RFC 3986 §3.2.2). Of SRV
    /// records it is the domain that offers the service, whichever target is called.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if self.is_srv() {
            // `_service._proto.` stands before it (RFC 2782, "The format of the SRV RR").
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

/// What an endpoint weighs that has the whole weight of its backend, for each unit of that; so that there is room for less.
pub const WHOLE: u32 = 10_000;

/// An address of a backend, and how it is used among the others. In the order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// 0, or higher: used only when no endpoint of a lower tier can be.
    pub tier: u16,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it weighs for each unit of its backend's weight, in ten-thousandths: [`WHOLE`] is all of it.
    pub weight: u32,
}

impl From<SocketAddr> for Located {
    /// One among equals.
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
