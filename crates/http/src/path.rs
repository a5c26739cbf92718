//! Paths as rules compare them with requests. `/%6Cogin`, `//login` and `/a/../login` mean `/login` to every backend,
//! which is their normal form. Other spellings mean `/login` to some backends and something else to others: a path has
//! several [readings](each_reading).

mod readings;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use readings::{each_reading, stays_inside};

/// The normal form (RFC 3986 §6.2.2) of a path without its query (§3.3). `.` and `..` are resolved (§6.2.2.3),
/// encodings are in capitals (§6.2.2.1), and characters that mean the same encoded and plain are plain (§6.2.2.2).
/// Beyond the RFC, the last holds for punctuation too, since backends decode it like letters (`/v1%3Abatch` is
/// `/v1:batch`); several slashes become one, and bytes that a path may not have are encoded. Letters keep their case.
/// Allocates nothing for a path that is in its normal form and has neither an encoding nor a segment that begins with a
/// dot.
pub fn normal(path: &str) -> Cow<'_, str> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    readings::read(path, readings::AS_SENT, &mut String::with_capacity(path.len()), &mut out);
    Cow::Owned(out)
}

/// A path with its `.` and `..` segments resolved, plain or encoded (RFC 3986 §5.2.4). The other segments stay as they
/// were written, and the normal form is the same; several slashes become one. A path without dot segments is returned
/// unchanged, without an allocation.
pub fn without_dots(path: &str) -> Cow<'_, str> {
    if path.split('/').skip(1).all(|segment| dots(segment) == 0) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut is_open = false;
    for segment in path.split('/').skip(1) {
        let dots = dots(segment);
        is_open = dots > 0 || segment.is_empty();
        if dots == 2 {
            out.truncate(out.rfind('/').unwrap_or(0));
        } else if !is_open {
            out.extend(["/", segment]);
        }
    }
    if is_open {
        out.push('/');
    }
    Cow::Owned(out)
}

/// How many dots a dot segment has, 1 or 2; 0 for other segments.
fn dots(segment: &str) -> usize {
    let mut rest = segment;
    let mut number = 0;
    while let Some(behind) =
        rest.strip_prefix('.').or_else(|| rest.strip_prefix("%2e")).or_else(|| rest.strip_prefix("%2E"))
    {
        rest = behind;
        number += 1;
    }
    if rest.is_empty() && number <= 2 { number } else { 0 }
}

/// Whether a path is the path `above` or lies below it, both in their normal form: `/a/b` lies below `/a` and `/a/`,
/// `/ab` does not.
pub fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || above.ends_with('/') || rest.starts_with('/'))
}

/// Like [`is_below`], but ignores the case of ASCII letters.
pub fn is_below_in_any_case(path: &str, above: &str) -> bool {
    let (path, above) = (path.as_bytes(), above.as_bytes());
    path.split_at_checked(above.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(above)
            && (rest.is_empty() || above.ends_with(b"/") || rest.starts_with(b"/"))
    })
}

/// All but unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one segment of a path, or as a value in a query: everything but unreserved characters is encoded.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Whether a path is in its normal form, as far as one look at each byte can tell; see [`normal`].
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut after_slash = false;
    let fits = |byte: &u8| match std::mem::replace(&mut after_slash, *byte == b'/') {
        true => !matches!(byte, b'/' | b'.') && means_itself(*byte),
        false => *byte == b'/' || means_itself(*byte),
    };
    bytes.first() == Some(&b'/') && bytes.iter().all(fits)
}

/// Whether a byte of a segment (RFC 3986 §3.3) means the same encoded and plain.
fn means_itself(byte: u8) -> bool {
    MEANS_ITSELF[usize::from(byte)]
}

/// A table, because every byte of every path is looked up.
const MEANS_ITSELF: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut punctuation: &[u8] = b"-._~!$&'()*+,;=:@";
    while let [byte, rest @ ..] = punctuation {
        table[*byte as usize] = true;
        punctuation = rest;
    }
    table
};

#[cfg(test)]
mod tests;
