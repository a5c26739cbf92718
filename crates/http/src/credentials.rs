//! The user's name in `Authorization: Basic` (RFC 7617 §2), for the access log alone: it is not checked. The password
//! leaves nothing behind.

/// The name before the first colon. `None`: another scheme, or what is no Base64 (RFC 4648 §4).
pub fn user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_at_checked("Basic".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic") || !rest.starts_with(b" ") {
        return None;
    }
    let text = rest.trim_ascii();
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut name = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text {
        bits = bits << 6 | u32::from(sextet(*byte)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            match (bits >> count) as u8 {
                b':' => return Some(name),
                byte => name.push(byte),
            }
        }
    }
    None
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_what_stands_before_the_first_colon() {
        let rows: [(&str, Option<&str>); 11] = [
            // RFC 7617 §2, and §2.1 with the name in UTF-8.
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some("Aladdin")),
            ("Basic dGVzdDoxMjPCow==", Some("test")),
            ("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", Some("Aladdin")),
            ("Basic   dTpwOnE=", Some("u")),
            ("Basic OnA=", Some("")),
            ("Basic w7w6cA==", Some("ü")),
            // No colon, no Base64, another scheme, nothing.
            ("Basic QWxhZGRpbg==", None),
            ("Basic QWxh!GRpbjpv", None),
            ("Bearer QWxhZGRpbjpv", None),
            ("BasicQWxhZGRpbjpv", None),
            ("", None),
        ];
        for (authorization, name) in rows {
            let expected = name.map(|name| name.as_bytes().to_vec());
            assert_eq!(user(authorization.as_bytes()), expected, "{authorization:?}");
        }
    }
}
