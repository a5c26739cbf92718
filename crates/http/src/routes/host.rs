//! Hosts in routes, and hosts of requests in a form that can be compared with these.

use std::fmt;
use std::io::{Cursor, Write};
use std::net::Ipv6Addr;

use smallvec::SmallVec;

use crate::framing::host::{MAX_HOST_BYTES, is_host_and_port};

/// A host in small letters. Only one of more than 256 bytes needs an allocation; a DNS name has at most 253.
type Folded = SmallVec<[u8; 256]>;

/// Which hosts a route is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, and requests without one.
    #[default]
    Any,
    /// That host, in its plain form ([`with_plain`]).
    Exact(Box<str>),
    /// All names below that one, however many labels deep, but not the name itself: `*.example.com`.
    Below(Box<str>),
}

/// Why a text is not a [`HostPattern`]. Displays as what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// It is not a name, an IPv4 address or an IPv6 address in brackets.
    NoHost,
    /// It names a port.
    Port,
    /// It has a `*` that is not the whole first label.
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
    /// What is wrong with the text.
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

/// Calls `then` with a request's host in its plain form, or with `None` if there is no host. The plain form is in small
/// letters, without port and without a dot at the end; an IPv6 address is as RFC 5952 writes it. A function to call,
/// and not a text returned, since a host of up to 256 bytes then needs no allocation.
pub fn with_plain<T>(host: Option<&str>, then: impl FnOnce(Option<&str>) -> T) -> T {
    let Some(host) = host.map(|host| &host[..host_end(host)]) else { return then(None) };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
        let mut memory = Cursor::new([0; MAX_HOST_BYTES]);
        // Can't fail: there is room for every address.
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

/// The position of the colon before an authority's port; its length if it has no port.
fn host_end(authority: &str) -> usize {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => at,
        _ => authority.len(),
    }
}

/// Whether a text has capital letters. Looks at every byte, because the compiler makes that look at several at once.
pub(super) fn has_capitals(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase())
}
