//! The grammar of `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2.2).

use std::net::Ipv6Addr;

use super::bytes::{HEX, NAME, is};

/// The longest host that is accepted, in bytes. A DNS name has at most 253, an address fewer.
pub const MAX_HOST_BYTES: usize = 255;

/// Whether the text is a host with an optional port: a name, an IPv4 address or an IPv6 address in brackets.
///
/// Stricter than RFC 3986: no empty host, no user information, no IPv6 zone, no `[v1.…]` form (none is defined). Names
/// must not be percent-encoded: a backend may decode `%61.test` to `a.test`, and so serve a request that our rules for
/// `a.test` did not see. Nor may they have empty labels (RFC 1035 §2.3.1), except that one dot may end the name.
pub fn is_host_and_port(text: &[u8]) -> bool {
    let (host_len, host_valid) = match text.first() {
        Some(b'[') => match text.iter().position(|byte| *byte == b']') {
            Some(end) => (end + 1, is_ipv6(&text[1..end])),
            None => return false,
        },
        _ => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            (end, is_name(&text[..end]))
        }
    };
    host_valid && is_port(&text[host_len..])
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= MAX_HOST_BYTES
        && name.iter().all(|byte| is(*byte, NAME))
        && name.strip_suffix(b".").unwrap_or(name).split(|byte| *byte == b'.').all(|label| !label.is_empty())
}

/// Whether `rest` is empty, or a colon and a number up to 65535, which may be left out (RFC 3986 §3.2.3).
fn is_port(rest: &[u8]) -> bool {
    let Some((b':', digits)) = rest.split_first() else { return rest.is_empty() };
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= 65535
}

/// Whether two hexadecimal digits follow each `%` (RFC 3986 §2.1).
pub fn percent_encoding_is_whole(text: &[u8]) -> bool {
    let is_encoding =
        |behind: &[u8]| behind.get(..2).is_some_and(|two| two.iter().all(|digit| is(*digit, HEX)));
    text.split(|byte| *byte == b'%').skip(1).all(is_encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let rows = [
            ("example.com", true),
            ("example.com:80", true),
            ("example.com:", true),
            ("example.com:65535", true),
            ("example.com:65536", false),
            ("example.com:000080", false),
            ("example.com:8a", false),
            ("example.com:80:80", false),
            ("a_b.internal", true),
            ("127.0.0.1:8080", true),
            ("[::1]", true),
            ("[::1]:8080", true),
            ("[::1", false),
            ("[::1]8080", false),
            ("[::g]", false),
            ("[fe80::1%25eth0]", false),
            ("[v1.x]", false),
            ("::1", false),
            ("", false),
            (":80", false),
            ("user@example.com", false),
            ("a/b", false),
            ("a?b", false),
            ("a#b", false),
            ("a b", false),
            ("a,b", false),
            ("a\\b", false),
            ("example.com.", true),
            ("example.com.:80", true),
            ("127.0.0.1.", true),
            ("example.com..", false),
            ("example..com", false),
            (".example.com", false),
            (".", false),
            (".:80", false),
            ("..", false),
            ("a%41", false),
            ("a%4", false),
            ("a%zz", false),
            ("ex\u{e4}mple", false),
        ];
        for (text, valid) in rows {
            assert_eq!(is_host_and_port(text.as_bytes()), valid, "{text:?}");
        }
        assert!(is_host_and_port(&[b'a'; MAX_HOST_BYTES]));
        assert!(!is_host_and_port(&[b'a'; MAX_HOST_BYTES + 1]));
    }

    #[test]
    fn two_digits_follow_each_percent_sign_wherever_it_stands() {
        let rows = [
            ("", true),
            ("abc", true),
            ("abc%41", true),
            ("a%4Ab%c3%A9", true),
            ("%41", true),
            ("%", false),
            ("%4", false),
            ("a%4", false),
            ("a%4z", false),
            ("abc%z4", false),
            ("%41%4", false),
            ("%%41", false),
            ("%4%41", false),
            ("%41%", false),
        ];
        for (text, whole) in rows {
            assert_eq!(percent_encoding_is_whole(text.as_bytes()), whole, "{text:?}");
        }
    }
}
