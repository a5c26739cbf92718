mod exact;

use super::*;
use proptest::prelude::*;

#[test]
fn what_is_encoded_is_one_segment() {
    assert_eq!(encoded("a/b?c#d%e f+🎉~-._"), "a%2Fb%3Fc%23d%25e%20f%2B%F0%9F%8E%89~-._");
}

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
        // Reserved characters keep their encoding, and so their meaning.
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2f..%2fb", "/a%2F..%2Fb"),
        ("/%25%36%43ogin", "/%256Cogin"),
        ("/Login", "/Login"),
        ("/login;v=1", "/login;v=1"),
        ("/login%3bv%3D1", "/login;v=1"),
        ("/v1%3Abatch", "/v1:batch"),
        ("/a[b]", "/a%5Bb%5D"),
        ("/a%5b|\\%5C", "/a%5B%7C%5C%5C"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz", "/%zz"),
        // What is not an encoding does not become one when the characters behind it are decoded.
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
fn without_dots_the_rest_stands_as_it_was_written() {
    let rows = [
        ("/a/../b%2Dc", "/b%2Dc"),
        ("/a/%2e%2E/.%2e/b//c", "/b/c"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/a/.", "/a/"),
        ("/a/./b/", "/a/b/"),
        ("/a//../b", "/b"),
        ("/x%2F/../y", "/y"),
    ];
    for (given, expected) in rows {
        assert_eq!(without_dots(given), expected, "{given}");
    }
    for same in ["/a//b/", "/..a/.../%2e%2e%2e", "/.a/b..;/..%2fc", "/", "", "/%2", "//"] {
        assert!(matches!(without_dots(same), Cow::Borrowed(path) if path == same), "{same}");
    }
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
        ("/\u{e9}", "/%", false),
    ];
    for (path, above, below) in rows {
        assert_eq!(is_below(path, above), below, "{path} {above}");
        assert_eq!(
            is_below_in_any_case(&path.to_uppercase(), above),
            below || path == "/A",
            "{path} {above}"
        );
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

fn readings(path: &str) -> Vec<String> {
    let mut all = Vec::new();
    assert!(each_reading(path, |reading| all.push(reading.to_owned())), "{path}");
    all
}

#[test]
fn what_a_backend_may_read_is_among_the_readings() {
    let rows = [
        // An encoded slash or a backslash is a slash.
        ("/static/..%2flogin", "/login"),
        ("/static/..%5Clogin", "/login"),
        ("/static/..\\login", "/login"),
        ("/static%2f..%2flogin", "/login"),
        // The backslash is a slash, the encoded slash is not (WHATWG URL).
        ("/a/x%2F..\\..\\login", "/a/login"),
        // Parameters are cut, before or after the rest is decoded.
        ("/login;v=1", "/login"),
        ("/login;a=b;c/x;y", "/login/x"),
        ("/static/..;/login", "/login"),
        ("/static/..;x=y/login", "/login"),
        ("/static/.;x/..;/login", "/login"),
        ("/static/..%3B/login", "/login"),
        ("/a%2Flogin;%2F..%2F..%2Fx", "/a/login"),
        ("/login;%2F..%2Fx", "/x"),
        // Blanks and dots at a segment's end.
        ("/login%20", "/login"),
        ("/login.", "/login"),
        ("/login%20.", "/login"),
        ("/login.%20%09. ", "/login"),
        ("/login./x", "/login/x"),
        ("/login%00", "/login"),
        ("/static/..%20/login", "/login"),
        ("/a/..%20/login", "/a/login"),
        ("/static/.../login", "/login"),
        ("/static/.../login", "/static/login"),
        // Several habits together.
        ("/static/..%5c..;%2flogin%20.", "/login"),
        ("/static/..%2f;/login.;x", "/login"),
        ("/static;/.%20%5C..;%2flogin;.%20", "/login"),
        // Encoded twice.
        ("/static/%252e%252e%252flogin", "/login"),
        ("/%256Cogin", "/login"),
        ("/static/..%255c..;/login%2520", "/login"),
        ("/login%252e%252e", "/login"),
        // A NUL ends the string.
        ("/login%00/../x", "/login"),
        ("/login%00.png", "/login"),
        ("/static/..%2flogin%00", "/login"),
        // A path that is decoded before it is split ends at `?` and `#`.
        ("/login%3fx", "/login"),
        ("/login%23/../x", "/login"),
        ("/login%23x%3Fy", "/login"),
        ("/login%3f%23", "/login%3F"),
        ("/static/..%2flogin%3F/../a", "/login"),
        ("/login%253f", "/login"),
        ("/login.%3fx", "/login"),
        ("/login.%00x", "/login"),
        ("/%3f", "/"),
        // `..` removes an empty segment.
        ("/a//../login", "/a/login"),
        ("/a//../login", "/login"),
        ("/a/;/../login", "/a/login"),
        ("/a/%2f../login", "/a/login"),
        // A host follows two slashes.
        ("//host/login", "/login"),
        ("/\\host/login", "/login"),
        ("//host", "/"),
        ("//login", "/login"),
    ];
    for (path, reading) in rows {
        let all = readings(path);
        assert!(all.iter().any(|one| one == reading), "{path}: {reading} is not in {all:?}");
        assert_eq!(all[0], normal(path), "{path}");
    }
}

#[test]
fn an_ordinary_path_has_one_reading() {
    for path in [
        "/",
        "/login",
        "/a/b.css",
        "/v1/users:batch",
        "/a-b_c~d/(e)+f,g",
        "/a/",
        "/.well-known/x",
        "/%C3%A9",
        "/../a/./b",
    ] {
        assert_eq!(readings(path), [normal(path)], "{path}");
    }
    // Mostly it is the path itself, and nothing is allocated.
    for path in ["/", "/a/b.css", "/a-b_c~d/(e)+f,g", "/a/", "/a..b/c.d"] {
        assert!(each_reading(path, |reading| assert!(std::ptr::eq(reading, path), "{path}")));
    }
}

#[test]
fn what_is_no_trick_reads_as_one_path_in_the_end() {
    // Encodings and dots that do not move the path to another place.
    for path in ["/static/a%2Fb", "/static/a;v=1.css", "/static/a.", "/static/a%20", "/static/x/%2e%2e;/a"] {
        assert!(readings(path).iter().all(|reading| is_below(reading, "/static/")), "{path}");
    }
}

#[test]
fn a_path_with_too_many_readings_has_none() {
    let many = "/a;%3B%2f%5c\\. /%00%2500/..";
    assert!(!each_reading(many, |_| panic!("handed over")));
    let long = format!("/{}/..%2f..;/x.", "a".repeat(8_000));
    assert!(!each_reading(&long, |_| panic!("handed over")));
    // A long path with one reading is fine.
    let plain = format!("/{}%20a", "a".repeat(100_000));
    assert_eq!(readings(&plain).len(), 1);
}

/// How backends read a path, each in a few lines that share nothing with the code under test. Segments are decoded.
mod backends {
    type Segments = Vec<Vec<u8>>;

    fn decoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let code = (text[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
            let byte = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).unwrap(), 16).ok());
            out.push(byte.unwrap_or(text[at]));
            at += if byte.is_some() { 3 } else { 1 };
        }
        out
    }

    fn walked(segments: impl Iterator<Item = Vec<u8>>, empty_counts: bool) -> Segments {
        let mut out = Segments::new();
        for segment in segments {
            match &segment[..] {
                b"." => {}
                b"" if !empty_counts => {}
                b".." => drop(out.pop()),
                _ => out.push(segment),
            }
        }
        out.retain(|segment| !segment.is_empty());
        out
    }

    fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        path.split(|byte| *byte == b'/').skip(1).map(<[u8]>::to_vec)
    }

    /// Cuts parameters, then decodes, then takes backslashes for slashes.
    pub fn servlet(path: &str) -> Segments {
        let cut: Vec<&str> = path.split('/').map(|part| part.split(';').next().unwrap()).collect();
        let plain = decoded(cut.join("/").as_bytes());
        let plain: Vec<u8> = plain.into_iter().map(|byte| if byte == b'\\' { b'/' } else { byte }).collect();
        walked(parts(&plain), false)
    }

    /// Decodes, takes backslashes for slashes, then cuts blanks and dots at the ends of segments.
    pub fn windows(path: &str) -> Segments {
        let plain: Vec<u8> = decoded(path.as_bytes())
            .into_iter()
            .map(|byte| if byte == b'\\' { b'/' } else { byte })
            .collect();
        let trim = |segment: Vec<u8>| {
            let end = segment.iter().rposition(|byte| *byte > b' ' && *byte != b'.');
            match (end, &segment[..]) {
                (_, b"" | b"." | b"..") => segment,
                (Some(last), _) => segment[..=last].to_vec(),
                (None, all) if all.windows(2).any(|two| two == b"..") => b"..".to_vec(),
                (None, _) => b".".to_vec(),
            }
        };
        walked(parts(&plain).map(trim), false)
    }

    /// `new URL(target, base)`, then decodes each segment.
    pub fn whatwg(path: &str) -> Segments {
        let plain = path.replace('\\', "/");
        let rest = match plain.strip_prefix("//") {
            Some(rest) => rest.trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest),
            None => &plain[1..],
        };
        let dots = |part: &str| part.to_ascii_lowercase().replace("%2e", ".");
        let part = |part: &str| match &*dots(part) {
            dots @ ("." | "..") => dots.as_bytes().to_vec(),
            _ => part.as_bytes().to_vec(),
        };
        walked(rest.split('/').map(part), true).iter().map(|segment| decoded(segment)).collect()
    }

    /// Decodes, and ends the path at the first NUL.
    pub fn c_string(path: &str) -> Segments {
        let plain = decoded(path.as_bytes());
        walked(parts(plain.split(|byte| *byte == 0).next().unwrap()), true)
    }

    /// Decodes, then splits at `?` and `#`.
    pub fn decodes_first(path: &str) -> Segments {
        let plain = decoded(path.as_bytes());
        walked(parts(plain.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap()), false)
    }

    /// Decodes twice: a proxy in front does it once.
    pub fn twice(path: &str) -> Segments {
        walked(parts(&decoded(&decoded(path.as_bytes()))), false)
    }
}

proptest! {
    #[test]
    fn every_backend_reads_one_of_the_readings(
        path in "/(/|/|\\.|\\.\\.|/\\.\\./|;|\\\\|%2[fFeE0]|%3b|%5[cC]|%00|%3[fF]|%23|%25(2[fe]|3f|5c|00|61)|\
                 [ab\"<>^`{|}é]|=|b%20){0,9}",
    ) {
        let mut all = Vec::new();
        if each_reading(&path, |reading| all.push(reading.trim_end_matches('/').to_owned())) {
            use backends::{c_string, decodes_first, servlet, twice, whatwg, windows};
            for backend in [servlet, windows, whatwg, c_string, decodes_first, twice] {
                let written = |byte: &u8| match means_itself(*byte) {
                    true => char::from(*byte).to_string(),
                    false => format!("%{byte:02X}"),
                };
                let segment = |one: &Vec<u8>| format!("/{}", one.iter().map(written).collect::<String>());
                let read: String = backend(&path).iter().map(segment).collect();
                prop_assert!(all.contains(&read), "{} is read as {:?}, not among {:?}", path, read, all);
            }
        }
    }

    #[test]
    fn every_reading_is_in_its_normal_form(
        path in "/(/|\\.|;|\\\\|%2[fe053]|%3[bf]|%5c|%00|%[0-9a-f]{2}|[a-c]|é| ){0,9}",
    ) {
        each_reading(&path, |reading| assert_eq!(normal(reading), reading, "{path}"));
    }
}
