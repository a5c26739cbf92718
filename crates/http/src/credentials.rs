//! User name and password in `Authorization: Basic` (RFC 7617 §2).

/// The user name before the first colon, for the access log. It may be anything, since no password is checked here; the
/// password is never decoded. `None`: another scheme, no colon, or not Base64 (RFC 4648 §4) up to there.
pub fn user(authorization: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    for byte in decoded(authorization)? {
        match byte? {
            b':' => return Some(name),
            byte => name.push(byte),
        }
    }
    None
}

/// User name and password. `None`: another scheme, not Base64, or no colon between them.
pub fn basic(authorization: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut name = decoded(authorization)?.collect::<Option<Vec<u8>>>()?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon + 1);
    name.truncate(colon);
    Some((name, password))
}

/// Decodes the bytes behind the scheme, one by one; an element is `None` where there is no Base64. `None`: another
/// scheme.
fn decoded(authorization: &[u8]) -> Option<impl Iterator<Item = Option<u8>>> {
    let (scheme, rest) = authorization.split_at_checked("Basic".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic") || !rest.starts_with(b" ") {
        return None;
    }
    let text = rest.trim_ascii();
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let (mut bits, mut count) = (0u32, 0);
    Some(text.iter().filter_map(move |byte| {
        let Some(sextet) = sextet(*byte) else { return Some(None) };
        bits = bits << 6 | u32::from(sextet);
        count += 6;
        if count < 8 {
            return None;
        }
        count -= 8;
        Some(Some((bits >> count) as u8))
    }))
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
        let rows: [(&str, Option<&str>); 13] = [
            // RFC 7617 §2, and §2.1 with the name in UTF-8.
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some("Aladdin")),
            ("Basic dGVzdDoxMjPCow==", Some("test")),
            ("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", Some("Aladdin")),
            ("Basic   dTpwOnE=", Some("u")),
            ("Basic OnA=", Some("")),
            ("Basic w7w6cA==", Some("ü")),
            ("Basic Pz8/Og==", Some("???")),
            ("Basic Pj4+Og==", Some(">>>")),
            // No colon, not Base64, another scheme, no space, nothing.
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

    #[test]
    fn the_password_is_all_that_follows() {
        let rows: [(&str, Option<(&str, &str)>); 7] = [
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("basic dTpwOnE=", Some(("u", "p:q"))),
            ("Basic OnA=", Some(("", "p"))),
            ("Basic dTo=", Some(("u", ""))),
            ("Basic QWxhZGRpbg==", None),
            ("Basic dTpw!", None),
            ("Bearer dTpw", None),
        ];
        for (authorization, expected) in rows {
            let expected =
                expected.map(|(name, password)| (name.as_bytes().to_vec(), password.as_bytes().to_vec()));
            assert_eq!(basic(authorization.as_bytes()), expected, "{authorization:?}");
        }
    }
}
