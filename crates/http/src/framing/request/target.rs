//! The request target: origin form, absolute form, asterisk form (RFC 9112 §3.2). Authority form belongs to CONNECT,
//! which is refused before.

use super::super::bytes::{PATH, QUERY, is};
use super::super::host::{is_host_and_port, percent_encoding_is_whole};
use super::super::{Refusal, bad};
use super::{Stop, as_text};
use crate::message::Reason;
use crate::message::RequestHead;

/// Finds the space behind the target. Returns its position and whether each `%` before the query starts two
/// hexadecimal digits; in a query browsers send a lone `%` as it is, so there it passes.
pub(super) fn scan(bytes: &[u8], start: usize, max_bytes: usize) -> Result<(usize, bool), Stop> {
    let mut allowed = PATH;
    let mut query_at = None;
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => break,
            Some(byte) if is(*byte, allowed) => {}
            Some(b'?') if query_at.is_none() => {
                allowed = QUERY;
                query_at = Some(at);
            }
            Some(_) => break,
        }
        at += 1;
        if at - start > max_bytes {
            let detail = "the request target is too long";
            return Err(Refusal { reason: Reason::UriTooLong, detail }.into());
        }
    }
    match bytes.get(at) {
        None => Err(Stop::Incomplete),
        Some(b' ') if at > start => {
            Ok((at, percent_encoding_is_whole(&bytes[start..query_at.unwrap_or(at)])))
        }
        Some(b' ') => Err(bad("the request line holds an empty target").into()),
        Some(_) => Err(bad("the request target holds a byte that may not stand in it").into()),
    }
}

/// Writes the target in origin form, or `*`, and returns absolute form's authority.
pub(super) fn resolve<'a>(target: &'a [u8], head: &mut RequestHead) -> Result<Option<&'a [u8]>, Refusal> {
    if target[0] == b'/' {
        head.target.push_str(as_text(target));
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
            head.target.push_str(as_text(rest));
        }
    }
    Ok(Some(authority))
}

fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    schemes.iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}
