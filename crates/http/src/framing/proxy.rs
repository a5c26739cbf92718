//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt, 2020-03-05): a header in which a proxy in
//! front of us names its client. Where it is configured, trusted peers must send it and others may not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVerdict {
    /// The beginning of a valid header; more bytes are needed.
    Incomplete,
    /// A whole header.
    Complete {
        /// Its length in bytes; the first request starts behind it.
        consumed: usize,
        /// The client; `None` if the header names none (`LOCAL`, `UNKNOWN`, a family that is not TCP over IP). Then the
        /// peer itself is the client.
        client: Option<SocketAddr>,
    },
    /// Not a valid PROXY header. The text is for the peer.
    Refused(&'static str),
}

/// Longest header of version 1, with its CRLF (§2.1).
const MAX_V1_BYTES: usize = 107;
/// Most bytes of addresses and TLVs that are accepted in version 2. Addresses need 36 bytes; the rest is dropped.
const MAX_V2_BYTES: usize = 2048;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a header from the beginning of `bytes`. The verdict is the same however the stream is cut into reads.
pub fn parse(bytes: &[u8]) -> ProxyVerdict {
    if starts_alike(bytes, V1_START) {
        return version_1(bytes);
    }
    if starts_alike(bytes, V2_START) {
        return version_2(bytes);
    }
    ProxyVerdict::Refused("a PROXY protocol header is expected from this peer")
}

/// Whether the bytes start with `start`, or are a beginning of it.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

fn version_1(bytes: &[u8]) -> ProxyVerdict {
    let line = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        let full = line.len() == MAX_V1_BYTES;
        return if full {
            ProxyVerdict::Refused("the PROXY header is too long")
        } else {
            ProxyVerdict::Incomplete
        };
    };
    let text = std::str::from_utf8(&line[..end]).ok().and_then(|text| text.strip_suffix('\r'));
    match text.and_then(client_of_line) {
        Some(client) => ProxyVerdict::Complete { consumed: end + 1, client },
        None => ProxyVerdict::Refused("a malformed PROXY header"),
    }
}

/// Reads `PROXY TCP4|TCP6 SOURCE DESTINATION SOURCE-PORT DESTINATION-PORT`, or `PROXY UNKNOWN` and any text behind it.
/// The outer `None`: it is neither; the inner one: it names no client.
fn client_of_line(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let addresses: [IpAddr; 2] = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
    let ports: [u16; 2] = [port(words.next()?)?, port(words.next()?)?];
    let fits = |address: &IpAddr| match family {
        "TCP4" => address.is_ipv4(),
        "TCP6" => address.is_ipv6(),
        _ => false,
    };
    (words.next().is_none() && addresses.iter().all(fits))
        .then(|| Some(SocketAddr::new(addresses[0], ports[0])))
}

fn port(digits: &str) -> Option<u16> {
    let canonical =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if canonical { digits.parse().ok() } else { None }
}

/// Reads signature, version and command, family and protocol, length, addresses, TLVs (§2.2).
fn version_2(bytes: &[u8]) -> ProxyVerdict {
    const FIXED: usize = 16;
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return ProxyVerdict::Incomplete };
    let (command, family) = (fixed[12], fixed[13]);
    if command != 0x20 && command != 0x21 {
        return ProxyVerdict::Refused("a PROXY header of an unknown version or command");
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > MAX_V2_BYTES {
        return ProxyVerdict::Refused("the PROXY header is too long");
    }
    let Some(body) = rest.get(..length) else { return ProxyVerdict::Incomplete };
    let consumed = FIXED + length;
    if command == 0x20 {
        return ProxyVerdict::Complete { consumed, client: None };
    }
    let client = match family {
        0x11 => body.first_chunk::<12>().map(|body| {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *body;
            Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low]))))
        }),
        0x21 => body.first_chunk::<36>().and_then(|body| {
            let address: [u8; 16] = *body.first_chunk()?;
            Some(Some(SocketAddr::from((Ipv6Addr::from(address), u16::from_be_bytes([body[32], body[33]])))))
        }),
        _ => Some(None),
    };
    match client {
        Some(client) => ProxyVerdict::Complete { consumed, client },
        None => ProxyVerdict::Refused("a PROXY header that is too short for its addresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [V2_START, &[command, family], &length, body].concat()
    }

    /// `Err` is a refusal, `Ok(None)` a header that names no client.
    type Named = Result<Option<&'static str>, ()>;

    fn rows() -> Vec<(Vec<u8>, Named)> {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 80];
        let mut v6 = [0; 36];
        (v6[0], v6[15], v6[33]) = (0x20, 1, 7);
        let mut rows: Vec<(Vec<u8>, Named)> = vec![
            (v2(0x21, 0x11, &v4), Ok(Some("192.0.2.1:4660"))),
            (v2(0x21, 0x11, &[&v4[..], b"\x04\0\x01x"].concat()), Ok(Some("192.0.2.1:4660"))),
            (v2(0x21, 0x21, &v6), Ok(Some("[2000::1]:7"))),
            (v2(0x20, 0x11, &v4), Ok(None)),
            (v2(0x20, 0, b""), Ok(None)),
            (v2(0x21, 0x31, &[0; 216]), Ok(None)),
            (v2(0x21, 0x11, &v4[..11]), Err(())),
            (v2(0x22, 0x11, &v4), Err(())),
            (v2(0x11, 0x11, &v4), Err(())),
            (v2(0x21, 0x31, &[0; MAX_V2_BYTES]), Ok(None)),
            (v2(0x21, 0x31, &[0; MAX_V2_BYTES + 1]), Err(())),
        ];
        let lines: [(&str, Named); 17] = [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 4660 80\r\n", Ok(Some("192.0.2.1:4660"))),
            ("PROXY TCP6 2000::1 ::1 7 80\r\n", Ok(Some("[2000::1]:7"))),
            ("PROXY UNKNOWN\r\n", Ok(None)),
            ("PROXY UNKNOWN whatever it says\r\n", Ok(None)),
            ("PROXY TCP4 2000::1 ::1 7 80\r\n", Err(())),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 7 80\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 4660\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 4660 80 1\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 80\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 80\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 0 80\r\n", Ok(Some("192.0.2.1:0"))),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 00 80\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 01 80\r\n", Err(())),
            ("PROXY TCP4  192.0.2.1 198.51.100.2 1 80\r\n", Err(())),
            ("PROXY UDP4 192.0.2.1 198.51.100.2 1 80\r\n", Err(())),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 1 80\n", Err(())),
            ("GET / HTTP/1.1\r\n", Err(())),
        ];
        rows.extend(lines.map(|(line, client)| (line.as_bytes().to_vec(), client)));
        rows
    }

    #[test]
    fn every_row_has_its_client_however_it_is_cut() {
        for (bytes, client) in rows() {
            let client =
                client.map(|client| client.map(|text| text.parse::<SocketAddr>().expect("an address")));
            let mut decided = None;
            for end in 0..=bytes.len() {
                let now = match parse(&bytes[..end]) {
                    ProxyVerdict::Incomplete => None,
                    ProxyVerdict::Complete { consumed, client } => {
                        assert_eq!(consumed, bytes.len());
                        Some(Ok(client))
                    }
                    ProxyVerdict::Refused(_) => Some(Err(())),
                };
                assert!(
                    decided.is_none() || now == decided,
                    "{:?} at {end}",
                    String::from_utf8_lossy(&bytes)
                );
                decided = now;
            }
            assert_eq!(decided, Some(client), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused_at_its_bound() {
        let endless = [V1_START, &[b'x'; MAX_V1_BYTES]].concat();
        assert!(matches!(parse(&endless[..MAX_V1_BYTES - 1]), ProxyVerdict::Incomplete));
        assert!(matches!(parse(&endless), ProxyVerdict::Refused(_)));
    }
}
