//! Finds the client's address: walks from the TCP peer towards the client, over the proxies that the operator trusts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use balancer_http::fields::{Fields, tokens};
use balancer_http::framing::bytes::{TOKEN, is};

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// The client's address; never v4-mapped.
    pub address: IpAddr,
    /// The TCP peer's port, if the peer itself is the client. The port of another hop is dropped, so that an `ip:port`
    /// entry matches only TCP peers.
    pub port: Option<u16>,
    /// Whether the peer is a trusted proxy, so that its forwarding fields count.
    pub peer_trusted: bool,
}

/// Finds the client's address. It is the peer's, unless the peer is a trusted proxy. Then it is the first address from
/// the right of `X-Forwarded-For` that is not a trusted proxy's; `Forwarded` (RFC 7239) is read only if there is no
/// `X-Forwarded-For`. An element without an address ends the walk: the hop before it is the client, at worst the peer.
///
/// A client outside of `trusted` has no influence on the result, if every trusted proxy appends to `X-Forwarded-For` or
/// removes it.
pub fn client_address(peer: SocketAddr, trusted: &[IpNet], fields: &Fields) -> ClientAddress {
    let origin = peer.ip().to_canonical();
    let peer_trusted = is_in(trusted, origin);
    let mut walk = Walk { trusted, last: None };
    if peer_trusted {
        if fields.has("x-forwarded-for") {
            walk.x_forwarded_for(fields);
        } else {
            walk.forwarded(fields);
        }
    }
    match walk.last {
        Some(address) => ClientAddress { address, port: None, peer_trusted },
        None => ClientAddress { address: origin, port: Some(peer.port()), peer_trusted },
    }
}

/// Whether an address lies in one of the networks; a v4-mapped one counts as its IPv4 address.
pub fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

struct Walk<'a> {
    trusted: &'a [IpNet],
    /// The last hop with an address.
    last: Option<IpAddr>,
}

impl Walk<'_> {
    fn x_forwarded_for(&mut self, fields: &Fields) {
        let values: Vec<&[u8]> = fields.all("x-forwarded-for").collect();
        for value in values.into_iter().rev() {
            let elements: Vec<&[u8]> = tokens(value).collect();
            for element in elements.into_iter().rev() {
                if !self.step(node_address(element)) {
                    return;
                }
            }
        }
    }

    fn forwarded(&mut self, fields: &Fields) {
        let values: Vec<&[u8]> = fields.all("forwarded").collect();
        for value in values.into_iter().rev() {
            // Split from the left, since from the right a comma inside a quoted string looks like any other. A client
            // that leaves a string open spoils the element that a proxy appends behind it, which ends the walk at once.
            let elements = split_unquoted(value, b',');
            for element in elements.into_iter().rev().filter(|element| !element.trim_ascii().is_empty()) {
                if !self.step(forwarded_for(element)) {
                    return;
                }
            }
        }
    }

    /// Takes one hop further. False: the walk ends here.
    fn step(&mut self, hop: Option<IpAddr>) -> bool {
        let Some(hop) = hop else { return false };
        self.last = Some(hop);
        is_in(self.trusted, hop)
    }
}

/// The address in the `for` parameter of one `forwarded-element` (RFC 7239 §4); `None` if there is not exactly one such
/// parameter, or the element is malformed.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_unquoted(element, b';') {
        let pair = pair.trim_ascii();
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], parameter_value(&pair[equals + 1..])?);
        if !is_token_with_colons(name) {
            return None;
        }
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
    }
    node_address(&found?)
}

/// Splits at a separator outside of quoted strings (RFC 9110 §5.6.4). A string without an end goes on to the end.
fn split_unquoted(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == separator && !quoted => {
                parts.push(&value[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&value[start..]);
    parts
}

/// A parameter's value: a token as it is, a quoted string without quotes and escapes; `None` for anything else.
fn parameter_value(value: &[u8]) -> Option<Vec<u8>> {
    let Some(inside) = value.strip_prefix(b"\"") else {
        return is_token_with_colons(value).then(|| value.to_vec());
    };
    let mut text = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(text),
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
}

/// A token (RFC 9110 §5.6.2), in which colons are allowed too, since some proxies write `1.2.3.4:80` without quotes.
fn is_token_with_colons(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is(*byte, TOKEN) || *byte == b':')
}

/// The address of one hop: `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`. The port is
/// ignored; it may be obfuscated (RFC 7239 §6.3: `_abc`), the address may not.
fn node_address(node: &[u8]) -> Option<IpAddr> {
    let node = std::str::from_utf8(node).ok()?;
    if let Some(bracketed) = node.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let port_fits = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        let address: Ipv6Addr = address.parse().ok()?;
        return port_fits.then(|| IpAddr::V6(address).to_canonical());
    }
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = node.split_once(':')?;
    let address: Ipv4Addr = address.parse().ok()?;
    is_port(port).then_some(IpAddr::V4(address))
}

fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(rest) => {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
