//! The request target: origin form, absolute form, asterisk form (RFC 9112 §3.2). Authority form belongs to CONNECT,
//! which is refused before this.

use percent_encoding::percent_encode_byte;

use super::super::bytes::{HIGH, TARGET, is};
use super::super::host::{is_host_and_port, percent_encoding_is_whole};
use super::super::{FramingRefusal, bad};
use super::{Bounds, Stop, as_text};
use crate::message::Reason;
use crate::message::RequestHead;

/// Finds the space behind the target. Returns its position, and whether two hexadecimal digits follow each `%` of the
/// path. In a query a lone `%` is accepted, because browsers send it.
pub(super) fn scan(bytes: &[u8], start: usize, bounds: &Bounds) -> Result<(usize, bool), Stop> {
    let allowed = if bounds.accept_invalid { TARGET | HIGH } else { TARGET };
    let mut at = start;
    while bytes.get(at).is_some_and(|byte| is(*byte, allowed)) {
        at += 1;
        if at - start > bounds.max_target_bytes {
            let detail = "the request target is too long";
            return Err(FramingRefusal { reason: Reason::UriTooLong, detail }.into());
        }
    }
    match bytes.get(at) {
        None => Err(Stop::Incomplete),
        Some(b' ') if at > start => {
            let path = bytes[start..at].split(|byte| *byte == b'?').next().unwrap_or_default();
            Ok((at, percent_encoding_is_whole(path)))
        }
        Some(b' ') => Err(bad("the request line holds an empty target").into()),
        Some(_) => Err(bad("the request target holds a byte that may not stand in it").into()),
    }
}

/// Writes the target into `head` in origin form, or as `*`. Returns the authority of a target in absolute form.
pub(super) fn resolve<'a>(
    target: &'a [u8],
    head: &mut RequestHead,
) -> Result<Option<&'a [u8]>, FramingRefusal> {
    if target[0] == b'/' {
        push(&mut head.target, target);
        return Ok(None);
    }
    if target == b"*" {
        if head.method != "OPTIONS" {
            return Err(bad("the target `*` is for OPTIONS alone"));
        }
        head.target.push('*');
        return Ok(None);
    }
    let after_scheme = strip_scheme(target).ok_or(bad("the request target is in no form that we take"))?;
    let end = after_scheme.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(end);
    if !is_host_and_port(authority) {
        return Err(bad("the request target holds no valid host"));
    }
    match rest.first() {
        // RFC 9112 §3.2.4: an empty path is `*` to OPTIONS, and `/` to everything else.
        None if head.method == "OPTIONS" => head.target.push('*'),
        None => head.target.push('/'),
        Some(first) => {
            if *first == b'?' {
                head.target.push('/');
            }
            push(&mut head.target, rest);
        }
    }
    Ok(Some(authority))
}

/// Appends bytes to a target. UTF-8 text stays as it is, except for blanks and control characters above ASCII: these,
/// and bytes that are not UTF-8, are percent-encoded. Otherwise a backend might end the target at one of them, as
/// Python's `http.server` does at A0, which is a blank in ISO 8859-1.
fn push(target: &mut String, bytes: &[u8]) {
    if bytes.is_ascii() {
        target.push_str(as_text(bytes));
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_whitespace() || char.is_control() {
                encode(target, char.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                target.push(char);
            }
        }
        encode(target, chunk.invalid());
    }
}

fn encode(target: &mut String, bytes: &[u8]) {
    bytes.iter().for_each(|byte| target.push_str(percent_encode_byte(*byte)));
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{HeadVerdict, parse};
    use super::*;

    #[test]
    fn bytes_above_ascii_pass_where_they_are_accepted_and_what_goes_on_is_a_line_of_text() {
        let bounds =
            Bounds { max_head_bytes: 256, max_headers: 8, max_target_bytes: 64, accept_invalid: true };
        let mut head = RequestHead::blank("192.0.2.1:5".parse().expect("an address"));
        let rows: [(&[u8], Result<&str, u16>); 12] = [
            (b"/\xC3\xA4?\xE2\x82\xAC", Ok("/\u{e4}?\u{20ac}")),
            (b"http://b/\xC3\xA4", Ok("/\u{e4}")),
            // ISO 8859-1, cut off, overlong, a surrogate.
            (b"/\xE4?\xE4\xC3\xA4", Ok("/%E4?%E4\u{e4}")),
            (b"/\xC3", Ok("/%C3")),
            (b"/\xC0\xAF", Ok("/%C0%AF")),
            (b"/\xED\xA0\x80", Ok("/%ED%A0%80")),
            // No-break space, next line, line separator, byte order mark.
            (b"/a\xA0", Ok("/a%A0")),
            (b"/a\xC2\xA0\xC2\x85\xE2\x80\xA8", Ok("/a%C2%A0%C2%85%E2%80%A8")),
            (b"/\xEF\xBB\xBF", Ok("/\u{feff}")),
            (b"http://\xC3\xA4/", Err(400)),
            (b"/\xC3\xA4#", Err(400)),
            (b"/\x7F\xC3\xA4", Err(400)),
        ];
        for (target, expected) in rows {
            let text = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let found = match parse(&text, &bounds, &mut head) {
                HeadVerdict::Complete { .. } => Ok(head.target.as_str()),
                HeadVerdict::Refused(refusal) => Err(refusal.reason.status().0),
                HeadVerdict::Incomplete => Err(0),
            };
            assert_eq!(found, expected, "{}", target.escape_ascii());
        }
    }
}
