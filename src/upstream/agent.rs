//! ureq's settings, and requests in its terms. Everything is passed explicitly: its defaults follow redirects, take a
//! proxy from the environment and add fields of their own. Its time-outs stay unset, because each costs a thread a
//! request; the transport keeps time itself.

use std::io::{self, Read};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use ureq::Agent;

use super::transport::{CallConnector, NoResolver};
use crate::proxy::Outgoing;
use crate::proxy::exchange::{BodyFault, RequestBody};
use balancer_http::fields::Fields;
use balancer_http::framing::bytes::{TOKEN, VALUE, is};
use balancer_http::message::BodyLength;
use balancer_pool::backends::Endpoint;

/// The agent that drives every request. Cheap to clone; its clones share everything.
pub(super) fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .user_agent("")
        .accept("")
        .accept_encoding("")
        .proxy(None)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .timeout_await_100(None)
        .build();
    Agent::with_parts(config, CallConnector, NoResolver)
}

/// Whether a request target reaches a backend byte for byte. ureq carries it in an [`http::Uri`], which takes `*` and
/// what begins with `/`; before the first `?` no control character, space, `#`, `<`, `>`, backtick or DEL, behind it
/// none of these but the backtick, and no `"`; in both no bytes but UTF-8; and at most 65,534 bytes. The engines refuse
/// other targets at the door.
pub fn can_carry(target: &str) -> bool {
    as_path_and_query(target).is_ok()
}

fn as_path_and_query(target: &str) -> Result<PathAndQuery, String> {
    if !target.starts_with('/') && target != "*" {
        return Err("the target is not in origin form".to_owned());
    }
    let parsed =
        PathAndQuery::try_from(target).map_err(|error| format!("the target can't be carried: {error}"))?;
    if parsed.as_str() != target {
        return Err("the target has a fragment".to_owned());
    }
    Ok(parsed)
}

/// A request, ready to be sent: what ureq writes of it, and what it does not.
pub(super) struct Prepared {
    /// Request line, Host, and how the body ends.
    pub request: Request<()>,
    /// The most that ureq writes of the head, in bytes.
    pub head_bytes: usize,
}

/// The request in ureq's terms, and all other fields as lines behind its head, in `lines`. Not through ureq, which would
/// put names in lower case, move repeated fields together and refuse credentials outside ASCII; and each field would
/// cost two allocations and a hash. Errors say what can't be sent; the frontends' parsers let none of it through.
pub(super) fn prepare(
    outgoing: &Outgoing<'_>,
    endpoint: &Endpoint,
    lines: &mut Vec<u8>,
) -> Result<Prepared, String> {
    /// `SP`, ` HTTP/1.1`, the names that ureq writes, a length, line ends.
    const OVERHEAD: usize = 128;
    let method = Method::from_bytes(outgoing.method.as_bytes()).map_err(|error| error.to_string())?;
    if method == Method::CONNECT {
        return Err("CONNECT is not forwarded".to_owned());
    }
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    // Never sent: Host is among the fields, and the call brings its connection along.
    parts.authority = Some(Authority::from_static("backend"));
    parts.path_and_query = Some(as_path_and_query(outgoing.target)?);
    let host = match write_fields(outgoing.fields, &[], lines)? {
        Some(host) => HeaderValue::from_bytes(host),
        None => HeaderValue::from_str(&endpoint.address.to_string()),
    };
    let host = host.map_err(|error| error.to_string())?;
    let head_bytes = outgoing.method.len() + outgoing.target.len() + host.len() + OVERHEAD;
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(HOST, host);
    if let Some((name, value)) = framing(outgoing.length, &method) {
        headers.insert(name, value);
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    *request.method_mut() = method;
    Ok(Prepared { request, head_bytes })
}

/// The field that says how the body ends.
fn framing(length: BodyLength, method: &Method) -> Option<(HeaderName, HeaderValue)> {
    match length {
        BodyLength::Known(bytes) => Some((CONTENT_LENGTH, bytes.into())),
        BodyLength::Chunked | BodyLength::UntilClose => {
            Some((TRANSFER_ENCODING, HeaderValue::from_static("chunked")))
        }
        // RFC 9110 §8.6: where a body is expected, its absence is said. ureq would send it chunked otherwise.
        BodyLength::Empty if [Method::POST, Method::PUT, Method::PATCH].contains(method) => {
            Some((CONTENT_LENGTH, HeaderValue::from_static("0")))
        }
        BodyLength::Empty => None,
    }
}

/// Appends a line for each field, in order and in its own spelling, without Host, which is returned, and without those
/// that are the transport's to say and would contradict it: of any name in `also_not` as well. Names and values are
/// checked once more, since whatever came through here would be believed.
pub(super) fn write_fields<'a>(
    fields: &'a Fields,
    also_not: &[&str],
    lines: &mut Vec<u8>,
) -> Result<Option<&'a [u8]>, String> {
    let mut host = None;
    let is_called = |name: &[u8], other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    for (name, value) in fields.lines() {
        if name.is_empty() || !name.iter().all(|byte| is(*byte, TOKEN)) {
            return Err(format!("a field is named {:?}", String::from_utf8_lossy(name)));
        }
        if !value.iter().all(|byte| is(*byte, VALUE)) {
            return Err(format!("{} holds a control character", String::from_utf8_lossy(name)));
        }
        match name.len() {
            4 if is_called(name, "host") => {
                if host.replace(value).is_some() {
                    return Err("more than one Host".to_owned());
                }
                continue;
            }
            6 if is_called(name, "expect") => continue,
            10 if is_called(name, "connection") => continue,
            14 if is_called(name, "content-length") => continue,
            17 if is_called(name, "transfer-encoding") => continue,
            _ if also_not.iter().any(|one| is_called(name, one)) => continue,
            _ => write_field(lines, name, value),
        }
    }
    Ok(host)
}

/// Appends one field line.
pub(super) fn write_field(lines: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    lines.extend_from_slice(name);
    lines.extend_from_slice(b": ");
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
}

/// A request's body as ureq reads it: no longer than was announced, and an error when it is shorter.
pub(super) struct Reader<'a> {
    body: &'a mut dyn RequestBody,
    /// Bytes to come; `None` when the length is not known.
    left: Option<u64>,
    /// Bytes taken of a body that lies in memory.
    taken: usize,
    in_memory: bool,
    /// Why the body could not be read.
    pub fault: Option<BodyFault>,
}

impl<'a> Reader<'a> {
    pub fn new(body: &'a mut dyn RequestBody, length: BodyLength) -> Self {
        let in_memory = body.buffered().is_some();
        let left = match length {
            BodyLength::Known(bytes) => Some(bytes),
            _ => None,
        };
        Self { body, left, taken: 0, in_memory, fault: None }
    }

    pub fn in_memory(&self) -> bool {
        self.in_memory
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.in_memory {
            return self.body.read(buffer);
        }
        let rest = self.body.buffered().and_then(|bytes| bytes.get(self.taken..)).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        self.taken += bytes;
        Ok(bytes)
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self
            .left
            .map_or(buffer.len(), |left| buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let read = match self.read_some(&mut buffer[..most]) {
            Ok(0) if self.left.is_some_and(|left| left > 0) => Err(BodyFault::ClientGone),
            Ok(read) => Ok(read.min(most)),
            Err(error) => Err(BodyFault::of(&error).unwrap_or(BodyFault::ClientGone)),
        };
        match read {
            Ok(read) => {
                self.left = self.left.map(|left| left - read as u64);
                Ok(read)
            }
            Err(fault) => {
                self.fault = Some(fault);
                Err(io::Error::other(fault))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_that_a_target_cannot_hold_are_known() {
        let refused = |before: &str, behind: &str| -> String {
            let holds = |char: &char| !can_carry(&format!("{before}{char}{behind}"));
            (0..=0x7F_u8).map(char::from).filter(holds).collect()
        };
        let controls: String = (0..=0x20_u8).map(char::from).collect();
        assert_eq!(refused("/a", "b"), format!("{controls}#<>`\x7f"));
        assert_eq!(refused("/?a", "b"), format!("{controls}\"#<>\x7f"));
        for target in ["", "a", "?a", "http://h/", "**", "*/", "//h:80"] {
            assert_eq!(can_carry(target), target == "//h:80", "{target}");
        }
        assert!(can_carry("*") && can_carry("/\u{e9}"));
        assert!(
            can_carry(&format!("/{}", "a".repeat(65_533))) && !can_carry(&format!("/{}", "a".repeat(65_534)))
        );
    }
}
