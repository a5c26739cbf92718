//! Hosts as routes name them, and as requests do.

use std::fmt;
use std::io::{Cursor, Write};
use std::net::Ipv6Addr;

use smallvec::SmallVec;

use crate::framing::host::{MAX_HOST_BYTES, is_host_and_port};

/// Longer hosts are folded in memory that is asked for; a DNS name has at most 253 bytes.
type Folded = SmallVec<[u8; 256]>;

/// For which hosts a route is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every one, and requests that name none.
    #[default]
    Any,
    /// That one, in its plain form.
    Exact(Box<str>),
    /// All names below that one, by any number of labels, and not itself: `*.example.com`.
    Below(Box<str>),
}

/// Why a text is no [`HostPattern`]. Displays as what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// It is no name, IPv4 address or IPv6 address in brackets.
    NoHost,
    /// It names a port.
    Port,
    /// A `*` stands elsewhere than as the whole first label.
    Wildcard,
    /// It is `*` alone.
    Everything,
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHost => {
                "must be a host name, an IPv4 address, an IPv6 address in brackets, or *.NAME for all names below NAME"
            }
            Self::Port => "must be a host without a port: a route is for the host at every port",
            Self::Wildcard => "may hold a * as its whole first label alone, as in \"*.example.com\"",
            Self::Everything => "must be left out for a route that is for every host",
        })
    }
}

impl std::error::Error for HostFault {}

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com`, `[::1]`. Case and a dot at the end make no difference.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, HostFault> {
        if text == "*" {
            return Err(HostFault::Everything);
        }
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.contains('*') {
            return Err(HostFault::Wildcard);
        }
        let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
        if !is_host_and_port(name.as_bytes()) || (below && is_address) {
            return Err(HostFault::NoHost);
        }
        if name.len() > host_end(name) {
            return Err(HostFault::Port);
        }
        Ok(with_plain(Some(name), |plain| match plain {
            Some(plain) if below => Self::Below(plain.into()),
            Some(plain) => Self::Exact(plain.into()),
            None => Self::Any,
        }))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// How many labels a name has.
pub(super) fn labels(name: &str) -> usize {
    1 + name.bytes().filter(|byte| *byte == b'.').count()
}

/// Hands on a request's host in its plain form, `None` where there is none: in small letters, without port and without the dot
/// at its end, an IPv6 address as RFC 5952 writes it. Allocates nothing for a host of up to 256 bytes.
pub fn with_plain<T>(host: Option<&str>, then: impl FnOnce(Option<&str>) -> T) -> T {
    let Some(host) = host.map(|host| &host[..host_end(host)]) else { return then(None) };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        let mut memory = Cursor::new([0; MAX_HOST_BYTES]);
        // There is room for every address.
        let _ = write!(memory, "[{address}]");
        let (end, memory) = (usize::try_from(memory.position()).unwrap_or_default(), memory.into_inner());
        return then(std::str::from_utf8(&memory[..end]).ok());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return then(None);
    }
    if !has_capitals(host) {
        return then(Some(host));
    }
    let folded: Folded = host.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    then(std::str::from_utf8(&folded).ok())
}

/// Where the port of an authority begins, or its end.
fn host_end(authority: &str) -> usize {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => at,
        _ => authority.len(),
    }
}

/// Whether a text has letters that are not small; several bytes at once.
pub(super) fn has_capitals(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase())
}
