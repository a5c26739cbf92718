//! Reads a client's key out of a field or a cookie as tolerantly as any backend does. A client that is held to a limit
//! by its key must not get around it by writing the key so that a backend reads it and we read another one, or none.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// There are several different values, or one that backends read in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several;

/// One value, or [`Several`] if backends read it in different ways.
pub(super) type KeyValue<'a> = Result<Cow<'a, [u8]>, Several>;

/// The value of all of these, without blanks around it; empty ones are ignored. `None`: there is none.
///
/// # Errors
/// There are several different values.
pub(super) fn only<'a>(values: impl Iterator<Item = KeyValue<'a>>) -> Result<Option<Cow<'a, [u8]>>, Several> {
    let mut found: Option<Cow<'a, [u8]>> = None;
    for value in values {
        let value = trimmed(value?);
        match &found {
            _ if value.is_empty() => {}
            Some(first) if *first != value => return Err(Several),
            _ => found = Some(value),
        }
    }
    Ok(found)
}

fn trimmed(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let trim = |bytes: Vec<u8>| Cow::Owned(bytes.trim_ascii().to_vec());
    match value {
        Cow::Borrowed(bytes) => match with_plain_blanks(bytes) {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.trim_ascii()),
            Cow::Owned(bytes) => trim(bytes),
        },
        Cow::Owned(bytes) => trim(with_plain_blanks(&bytes).into_owned()),
    }
}

/// Replaces blanks outside of ASCII by spaces. Backends that read text trim and split at U+00A0 as at a space, whether
/// it comes in UTF-8 or as the single byte of Latin-1.
fn with_plain_blanks(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.is_ascii() {
        return bytes.into();
    }
    let is_blank = |letter: char| !letter.is_ascii() && (letter.is_whitespace() || letter == '\u{feff}');
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().replace(is_blank, " ").as_bytes());
        out.extend(chunk.invalid().iter().map(|byte| if matches!(byte, 0x85 | 0xa0) { b' ' } else { *byte }));
    }
    out.into()
}

/// The tokens of `Bearer TOKEN` (RFC 6750 §2.1) in a value of `Authorization`: whatever follows the word, in any case
/// (RFC 9110 §11.1), and blanks, up to a comma or a blank. Backends find the word by splitting or by searching, and a
/// proxy may have joined several fields.
pub(super) fn bearer(value: &[u8]) -> impl Iterator<Item = KeyValue<'_>> {
    let (value, others) = match with_plain_blanks(value) {
        Cow::Borrowed(value) => (value, Vec::new()),
        Cow::Owned(value) => (&[][..], bearer_in(&value).map(owned).collect()),
    };
    bearer_in(value).chain(others)
}

fn bearer_in(mut rest: &[u8]) -> impl Iterator<Item = KeyValue<'_>> {
    std::iter::from_fn(move || {
        loop {
            rest = behind_bearer(rest)?;
            let blanks = rest.iter().position(|byte| !is_blank(*byte)).unwrap_or(rest.len());
            if blanks > 0 {
                let token = rest[blanks..].split(|byte| *byte == b',' || is_blank(*byte)).next()?;
                return Some(Ok(token.into()));
            }
        }
    })
}

/// Whether a value of `Authorization` has the word `Bearer` without a token behind it.
pub(super) fn is_bare_bearer(value: &[u8]) -> bool {
    let value = with_plain_blanks(value);
    let mut parts = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    parts.any(|credentials| credentials.eq_ignore_ascii_case(b"bearer"))
}

fn behind_bearer(text: &[u8]) -> Option<&[u8]> {
    const WORD: &[u8] = b"bearer";
    let at = text.windows(WORD.len()).position(|word| word.eq_ignore_ascii_case(WORD))?;
    Some(&text[at + WORD.len()..])
}

/// The values of one cookie in a line of `Cookie`. Pairs are separated by `;` (RFC 6265 §4.2.1); older parsers also
/// split at commas and blanks, so the name counts wherever it comes before a `=`. Looks at each byte a bounded number
/// of times.
pub(super) fn cookies<'a>(line: &'a [u8], name: &'a str) -> impl Iterator<Item = KeyValue<'a>> {
    let (line, others) = match with_plain_blanks(line) {
        Cow::Borrowed(line) => (line, Vec::new()),
        Cow::Owned(line) => (&[][..], cookies_in(&line, name).map(owned).collect()),
    };
    cookies_in(line, name).chain(others)
}

fn owned<'a>(value: KeyValue<'_>) -> KeyValue<'a> {
    value.map(|value| Cow::Owned(value.into_owned()))
}

fn cookies_in<'a>(line: &'a [u8], name: &'a str) -> impl Iterator<Item = KeyValue<'a>> {
    let mut at = 0;
    // Start and end of what may be a name: everything since the last `;`, or the last word.
    let (mut pair, mut word) = (None, None);
    std::iter::from_fn(move || {
        while let Some(byte) = line.get(at) {
            at += 1;
            match byte {
                b';' => (pair, word) = (None, None),
                b',' => word = None,
                b'=' => {
                    let names = [pair, word].into_iter().flatten();
                    word = None;
                    if names.map(|(start, end)| &line[start..end]).any(|found| is_name(found, name)) {
                        return Some(cookie_value(&line[at..]));
                    }
                }
                blank if is_blank(*blank) => {}
                _ => {
                    let start = at - 1;
                    word = Some(
                        word.filter(|(_, end)| *end == start).map_or((start, at), |(first, _)| (first, at)),
                    );
                    pair = Some((pair.map_or(start, |(first, _)| first), at));
                }
            }
        }
        None
    })
}

/// Whether a backend may read a cookie's name as that one: some decode it, end it at a NUL or ignore its case, and PHP
/// turns `.`, space and `[` into `_`. Looks no further than the name is long.
fn is_name(found: &[u8], name: &str) -> bool {
    let letter = |byte: u8| if matches!(byte, b'.' | b' ' | b'[') { b'_' } else { byte.to_ascii_lowercase() };
    percent_decode(found).take_while(|byte| *byte != 0).map(letter).eq(name.bytes().map(letter))
}

/// The value behind a cookie's `=`, without quotes and escapes (RFC 2109 §4.1), percent-decoded. Other quotes than a
/// pair around the whole value, and a NUL, are [`Several`]: some backends keep such a quote and others remove it, and a
/// NUL ends the value for some.
fn cookie_value(behind: &[u8]) -> KeyValue<'_> {
    let behind = behind.trim_ascii_start();
    let value = match behind.strip_prefix(b"\"") {
        Some(quoted) => {
            let (value, rest) = unquoted_cookie(quoted)?;
            if !matches!(rest.trim_ascii_start().first(), None | Some(b';' | b',')) {
                return Err(Several);
            }
            value
        }
        None => {
            let end = behind.iter().position(|byte| matches!(byte, b';' | b',') || is_blank(*byte));
            let value = &behind[..end.unwrap_or(behind.len())];
            if value.contains(&b'"') {
                return Err(Several);
            }
            value.into()
        }
    };
    let value = percent_decoded(value);
    if value.contains(&0) { Err(Several) } else { Ok(value) }
}

/// The text before the closing quote, without escapes (`\"` is a quote, `\101` an A), and what is behind it.
fn unquoted_cookie(quoted: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Several> {
    let end = quoted.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Several)?;
    if quoted[end] == b'"' {
        return Ok((quoted[..end].into(), &quoted[end + 1..]));
    }
    let mut value = quoted[..end].to_vec();
    let mut rest = &quoted[end..];
    loop {
        match rest {
            [] | [b'\\'] => return Err(Several),
            [b'"', behind @ ..] => return Ok((value.into(), behind)),
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..] => {
                value.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = behind;
            }
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                value.push(*byte);
                rest = behind;
            }
        }
    }
}

fn percent_decoded(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => percent_decode(text).into(),
        Cow::Owned(text) => percent_decode(&text).collect(),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
