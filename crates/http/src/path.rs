//! Paths as rules compare them with requests. One that writes `/%6Cogin`, `//login` or `/a/../login` means `/login` to every
//! backend, and is taken at that: the normal form. Other spellings mean `/login` to some backends alone; those are the
//! [readings](each_reading) of a path.

mod readings;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use readings::{each_reading, stays_inside};

/// A path in origin form (RFC 3986 §3.3, without its query) as its normal form (§6.2.2): `.` and `..` are gone (§6.2.2.3),
/// encodings are written in capitals (§6.2.2.1), and what means the same encoded and plain is written plain (§6.2.2.2). Beyond
/// the RFC that holds for punctuation too, since backends decode it like letters (`/v1%3Abatch` is `/v1:batch`); several
/// slashes count as one, and bytes that a path may not have are encoded. Letters keep their case. Allocates nothing for a
/// path that is in its normal form and has neither an encoding nor a segment that begins with a dot.
pub fn normal(path: &str) -> Cow<'_, str> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    readings::read(path, readings::AS_SENT, &mut String::with_capacity(path.len()), &mut out);
    Cow::Owned(out)
}

/// A path without `.` and `..` segments, plain or encoded (RFC 3986 §5.2.4, with several slashes as one): what is left stands as
/// it was written, and has the same normal form. A path without such segments stays as it is, and costs no allocation.
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

/// How many dots a dot segment has; 0: it is none.
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

/// Whether a path is another one or lies below it, both in their normal form: `/a/b` lies below `/a` and `/a/`, `/ab`
/// does not.
pub fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || above.ends_with('/') || rest.starts_with('/'))
}

/// The same where the case of ASCII letters does not count.
pub fn is_below_in_any_case(path: &str, above: &str) -> bool {
    let (path, above) = (path.as_bytes(), above.as_bytes());
    path.split_at_checked(above.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(above)
            && (rest.is_empty() || above.ends_with(b"/") || rest.starts_with(b"/"))
    })
}

/// All but unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one segment of a path, or as a value of a query: all but unreserved characters encoded.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Nothing in it could have another form.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut after_slash = false;
    let fits = |byte: &u8| match std::mem::replace(&mut after_slash, *byte == b'/') {
        true => !matches!(byte, b'/' | b'.') && means_itself(*byte),
        false => *byte == b'/' || means_itself(*byte),
    };
    bytes.first() == Some(&b'/') && bytes.iter().all(fits)
}

/// A byte of a segment (RFC 3986 §3.3) that means the same encoded and plain.
fn means_itself(byte: u8) -> bool {
    MEANS_ITSELF[usize::from(byte)]
}

/// Looked up, since every byte of every path is.
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
