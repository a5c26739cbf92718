//! ureq's settings, and requests in its terms. Everything is passed explicitly: its defaults follow redirects, take a
//! proxy from the environment and add fields of their own. Its time-outs stay unset, because each costs a thread a
//! request; the transport keeps time itself.

use std::io::{self, Read};

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use ureq::Agent;

use super::transport::{CallConnector, NoResolver};
use crate::exchange::{BodyFault, BodyLength, RequestBody};
use crate::proxy::Outgoing;
use crate::state::backends::Endpoint;

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
/// none of these but the backtick, and no `"`; in both no bytes but UTF-8; and at most 65,534 bytes. Everything that
/// the grammar of [`crate::rules::framing::request`] lets pass is carried; a test beside this says so.
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

/// The request in ureq's terms. Errors say what it can't carry; the frontends' parsers let none of it through.
pub(super) fn request(outgoing: &Outgoing<'_>, endpoint: &Endpoint) -> Result<Request<()>, String> {
    let method = Method::from_bytes(outgoing.method.as_bytes()).map_err(|error| error.to_string())?;
    if method == Method::CONNECT {
        return Err("CONNECT is not forwarded".to_owned());
    }
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    // Never sent: Host is among the fields, and the call brings its connection along.
    parts.authority = Some(Authority::from_static("backend"));
    parts.path_and_query = Some(as_path_and_query(outgoing.target)?);
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    *request.headers_mut() = headers(outgoing, &method, endpoint)?;
    *request.method_mut() = method;
    Ok(request)
}

fn headers(outgoing: &Outgoing<'_>, method: &Method, endpoint: &Endpoint) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(outgoing.fields.len() + 2);
    for (name, value) in outgoing.fields.iter() {
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("a field is named {name:?}"))?;
        // The transport's own; from anybody else they would contradict what is sent.
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, EXPECT].contains(&key) {
            continue;
        }
        let is_extra = key == AUTHORIZATION && !value.is_ascii();
        let value =
            HeaderValue::from_bytes(value).map_err(|_| format!("{name} holds a control character"))?;
        if is_extra {
            continue;
        }
        headers.try_append(key, value).map_err(|error| error.to_string())?;
    }
    if !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(&endpoint.address.to_string()).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
    }
    match outgoing.length {
        BodyLength::Known(bytes) => {
            headers.insert(CONTENT_LENGTH, bytes.into());
        }
        BodyLength::Chunked | BodyLength::UntilClose => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // RFC 9110 §8.6: where a body is expected, its absence is said. ureq would send it chunked otherwise.
        BodyLength::Empty if [Method::POST, Method::PUT, Method::PATCH].contains(method) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        BodyLength::Empty => {}
    }
    Ok(headers)
}

/// The field lines that ureq refuses though RFC 9110 §5.5 lets them stand, as they go out: `Authorization` with bytes
/// outside ASCII, as Digest user names have them. Only for what [`request`] took.
pub(super) fn extra_lines(outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    for value in outgoing.fields.all("authorization") {
        if !value.is_ascii() {
            lines.extend_from_slice(b"authorization: ");
            lines.extend_from_slice(value);
            lines.extend_from_slice(b"\r\n");
        }
    }
    lines
}

/// The longest line of a request's head, in bytes: what ureq needs as room at once.
pub(super) fn longest_line(outgoing: &Outgoing<'_>) -> usize {
    /// `: `, ` HTTP/1.1` and line ends.
    const OVERHEAD: usize = 32;
    let request_line = outgoing.method.len() + outgoing.target.len();
    let fields = outgoing.fields.iter().map(|(name, value)| name.len() + value.len());
    fields.max().unwrap_or(0).max(request_line) + OVERHEAD
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
    use crate::rules::framing::bytes::{PATH, QUERY, is};

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

    #[test]
    fn every_target_that_the_parser_takes_is_carried() {
        for byte in 0..=255_u8 {
            let char = char::from(byte);
            assert!(!is(byte, PATH) || can_carry(&format!("/{char}")), "{char:?} in a path");
            assert!(!is(byte, QUERY) || can_carry(&format!("/?{char}")), "{char:?} in a query");
        }
    }
}
