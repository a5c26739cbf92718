//! Paths in their normal form, by which rules are compared with requests: whoever writes `/%6Cogin`, `//login` or
//! `/a/../login` means `/login`, and is taken at that.

use std::borrow::Cow;

/// A path in origin form (RFC 3986 §3.3, without its query) as its normal form (§6.2.2): encoded letters, digits and `-._~`
/// are decoded and all other encodings are written in capitals (§6.2.2.1, §6.2.2.2), `.` and `..` are gone (§6.2.2.3).
/// Beyond the RFC, several slashes count as one, and bytes that may not stand in a path are encoded. Letters keep their
/// case. Allocates nothing for a path that is in its normal form and has neither `%` nor a segment that begins with a
/// dot.
pub fn normal(path: &str) -> Cow<'_, str> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
    let mut out = String::with_capacity(decoded.len());
    for (place, segment) in decoded.split('/').enumerate() {
        match segment {
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            // Origin form begins with a slash; a path that does not is no path, and stays as distinct as it was.
            _ if place == 0 => out.push_str(segment),
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    let last = decoded.rsplit('/').next().unwrap_or_default();
    if out.is_empty() || matches!(last, "" | "." | "..") {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Whether a path is another one or lies below it, both in their normal form: `/a/b` lies below `/a` and `/a/`, `/ab`
/// does not.
pub fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || above.ends_with('/') || rest.starts_with('/'))
}

/// Nothing in it could have another form.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.first() == Some(&b'/')
        && bytes.iter().all(|byte| may_stand(*byte) && *byte != b'%')
        && bytes.windows(2).all(|pair| pair[0] != b'/' || !matches!(pair[1], b'/' | b'.'))
}

/// Printable ASCII without space.
fn may_stand(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~')
}

fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    // Where a `%` stands that begins no encoding. What was decoded must not become one together with it: `%a%30` is not
    // `%A0`, and `%2%65` is no dot.
    let mut stray = None;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let encoded = match (first, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        match encoded {
            Some(byte) => {
                rest = &behind[2..];
                let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
                let completes = byte.is_ascii_hexdigit() && stray.is_some_and(|at| out.len() - at <= 2);
                push(&mut out, byte, unreserved && !completes);
            }
            None => {
                if *first == b'%' {
                    stray = Some(out.len());
                }
                push(&mut out, *first, may_stand(*first));
            }
        }
    }
    out
}

/// A byte as itself or encoded.
fn push(out: &mut String, byte: u8, plain: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if plain {
        out.push(char::from(byte));
    } else {
        let digit = |value: u8| char::from(HEX[usize::from(value % 16)]);
        out.extend(['%', digit(byte / 16), digit(byte)]);
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_path_has_one_normal_form_however_it_is_written() {
        let rows = [
            ("/login", "/login"),
            ("/%6Cogin", "/login"),
            ("/%6cog%69n", "/login"),
            ("//login", "/login"),
            ("/./login", "/login"),
            ("/a/../login", "/login"),
            ("/a/%2e%2E/login", "/login"),
            ("/../../login", "/login"),
            ("/login/.", "/login/"),
            ("/login/x/..", "/login/"),
            ("/login//", "/login/"),
            ("/", "/"),
            ("//", "/"),
            ("/..", "/"),
            ("", "/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/...", "/a..b/..."),
            // What is reserved keeps its encoding, and its meaning with it.
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2f..%2fb", "/a%2F..%2Fb"),
            ("/%25%36%43ogin", "/%256Cogin"),
            ("/Login", "/Login"),
            ("/login;v=1", "/login;v=1"),
            ("/%", "/%"),
            ("/%4", "/%4"),
            ("/%zz", "/%zz"),
            // What is no encoding becomes none by what stands behind it.
            ("/%a%30", "/%a%30"),
            ("/%2%65%2%65/login", "/%2%65%2%65/login"),
            ("/%%61b", "/%%61b"),
            ("/%%%6c", "/%%l"),
            ("/é", "/%C3%A9"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a b", "/a%20b"),
            ("a/b", "a/b"),
        ];
        for (given, expected) in rows {
            assert_eq!(normal(given), expected, "{given}");
        }
        assert!(matches!(normal("/api/v1/things"), Cow::Borrowed(_)));
    }

    #[test]
    fn below_means_by_whole_segments() {
        let rows = [
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/a/", false),
            ("/a/b", "/a/", true),
            ("/a", "/", true),
            ("/A", "/a", false),
        ];
        for (path, above, below) in rows {
            assert_eq!(is_below(path, above), below, "{path} {above}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(path in "(/|\\.|%|%2[eEfF]|%[0-9a-fA-F]{2}|[a-c]|é| ){0,12}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(normal(&once), once.as_str());
            let segments = || once.split('/').skip(1);
            prop_assert!(segments().all(|segment| segment != "." && segment != ".."), "{}", once);
            prop_assert!(!once.contains("//"), "{}", once);
        }

        #[test]
        fn encoding_what_needs_none_changes_nothing(path in "(/[a-z0-9._~-]{1,6}){1,4}", which in any::<u64>()) {
            let encoded: String = path.bytes().enumerate().map(|(place, byte)| {
                if byte != b'/' && which >> (place % 64) & 1 == 1 { format!("%{byte:02x}") }
                else { char::from(byte).to_string() }
            }).collect();
            prop_assert_eq!(normal(&encoded), normal(&path));
        }
    }
}
