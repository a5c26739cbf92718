//! The values at a key's place, each as the backends that read the most into it read it: one that is throttled by a key must
//! not come through by writing the same key so that we see another one, or none.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// There are several values that differ, or one that backends read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several;

/// One value, or the lack of any sense in it.
pub(super) type KeyValue<'a> = Result<Cow<'a, [u8]>, Several>;

/// The one value among those that are not empty, without the blanks around it.
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

/// With a space for each other blank than ASCII's: backends that read text cut and split at U+00A0 as at a space, as a
/// character of UTF-8 or as the lone byte that it is in Latin-1.
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

/// The tokens of `Bearer token` (RFC 6750 §2.1) in a value of `Authorization`: what follows any `bearer` and blanks, in
/// any case (RFC 9110 §11.1), up to a comma or a blank. Backends look for the word by splitting, by searching, or in what a
/// proxy has put together from several fields.
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

/// Whether a value of `Authorization` has the word and no token behind it.
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

/// The values of one cookie in a line of `Cookie`. Pairs are parted by `;` (RFC 6265 §4.2.1); older parsers take commas
/// and blanks too, so whatever has that name before a `=` counts. Looks at each byte a bounded number of times.
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
    // What may be a name: everything since the last `;`, or the last word.
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

/// Whether a cookie's name may be read as that one: some backends decode it, end it at a NUL or take it without its case, and
/// PHP makes one letter of several. Looks no further than the name is long.
fn is_name(found: &[u8], name: &str) -> bool {
    let letter = |byte: u8| if matches!(byte, b'.' | b' ' | b'[') { b'_' } else { byte.to_ascii_lowercase() };
    percent_decode(found).take_while(|byte| *byte != 0).map(letter).eq(name.bytes().map(letter))
}

/// What follows a cookie's `=`: its quotes and escapes (RFC 2109 §4.1) taken off, percent-decoded. A quote that is not
/// one of a pair around the whole value is left in by some backends, and taken off with its neighbour by others; a NUL ends
/// the value to some.
fn cookie_value(behind: &[u8]) -> KeyValue<'_> {
    let behind = behind.trim_ascii_start();
    let value = match behind.strip_prefix(b"\"") {
        Some(quoted) => {
            let (value, rest) = unquoted(quoted)?;
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

/// What comes before the closing quote, and what behind it: `\"` is a quote, `\101` an A.
fn unquoted(quoted: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Several> {
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
