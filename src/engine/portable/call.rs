//! One call of a backend, by ureq's public interface. It blocks until the answer's head came. The relay reads the body.
//!
//! Every option is set: ureq's defaults follow redirects, take a proxy from the environment and add fields of their
//! own. Only those of its time-outs are set that look at the clock around each system call. The ones for a whole call
//! start a thread that resolves the address.
//!
//! ureq reads answers leniently (`5, 5` as a length, a length beside chunks). So every head is written out again and
//! read by our own strict parser. What is lost by then is in the table of cases × engines of docs/engines.md: reason
//! phrases, interim answers, the spelling of names, an answer that comes before the request was sent, and whether a
//! broken connection had been kept.

use std::io::{self, Read};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, Uri};
use ureq::{Agent, BodyReader, Error, SendBody, Timeout};

use super::body::Body;
use crate::clock::Clock;
use crate::engine::render;
use crate::proxy::story::{Call, Story};
use crate::proxy::{LateRefusal, Phase, Reuse, UpstreamError};
use balancer_http::fields::Fields;
use balancer_http::framing::response::{self, HeadRules};
use balancer_http::framing::write::standard_reason;
use balancer_http::message::{BodyLength, RequestHead};
use balancer_time::Nanos;

/// How many bytes ureq reads at once. An answer's head can't be longer, whatever `upstream.max_head_bytes` says.
const INPUT_BYTES: usize = 128 * 1024;
/// [`Reuse::Recent`] takes connections that were idle for less.
const RECENT: Duration = Duration::from_secs(1);
/// Connections idle for longer are closed with the next call, whatever `upstream.idle_timeout` says.
const MOST_IDLE: Duration = Duration::from_secs(60);
const LATE: &str = "the answer was not over in time (upstream.request_timeout)";

/// Calls backends and keeps their connections. Shared by all workers.
pub(super) struct BackendCaller {
    agent: Agent,
    clock: Clock,
}

/// An answer's body, which ureq still has to read. Read to its end it gives its connection back; dropped before that it
/// closes it.
pub(super) struct Incoming {
    /// In place of an answer that turns out to be broken before any of it was sent.
    pub refusal: LateRefusal,
    reader: BodyReader<'static>,
    length: BodyLength,
    came: u64,
    silence: Duration,
    deadline: Option<Nanos>,
    clock: Clock,
}

/// How long the parts of one call may take.
#[derive(Clone, Copy)]
struct Limits {
    connect: Duration,
    response: Duration,
    read: Duration,
    /// What is left of `upstream.request_timeout`.
    left: Option<Duration>,
}

impl BackendCaller {
    /// Opens no connection yet. `max_head_bytes`: the bound for a request's head.
    pub fn new(max_head_bytes: usize, workers: usize, clock: Clock) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .proxy(None)
            .timeout_await_100(None)
            .max_idle_connections(workers)
            .max_idle_connections_per_host(workers)
            .max_idle_age(MOST_IDLE)
            .input_buffer_size(INPUT_BYTES)
            // One field line has to fit. A byte that is not text becomes three in `X-Forwarded-For`.
            .output_buffer_size((3 * max_head_bytes + 4096).max(64 * 1024))
            .build();
        Self { agent: Agent::new_with_config(config), clock }
    }

    /// Sends the request and waits for the answer's head.
    pub fn call(
        &self,
        story: &Story,
        call: &Call,
        head: &RequestHead,
        body: &mut Body<'_>,
    ) -> Result<(response::Head, Incoming), UpstreamError> {
        self.exchange(story, call, head, body).map_err(|error| match body.fault() {
            Some(fault) => failed(Phase::RequestBody(fault), fault),
            None => failed(error.phase, format_args!("{}: {}", call.endpoint.address, error.cause)),
        })
    }

    fn exchange(
        &self,
        story: &Story,
        call: &Call,
        head: &RequestHead,
        body: &mut Body<'_>,
    ) -> Result<(response::Head, Incoming), UpstreamError> {
        let limits = Limits::of(call, self.clock.now());
        if limits.left.is_some_and(|left| left.is_zero()) {
            return Err(failed(Phase::TimedOut, "no time is left (upstream.request_timeout)"));
        }
        // Only a stored backend can be one: the configuration refuses it with this engine.
        if call.endpoint.group.is_tls {
            return Err(failed(Phase::Connect, "the tiny_http engine speaks no TLS to backends"));
        }
        // If ureq can't express the request, that is no failure of the backend. `target` refuses such requests before.
        let request = request(story, call, head).map_err(|error| failed(Phase::Shortage, error))?;
        let answer = match head.length {
            BodyLength::Empty | BodyLength::Known(0) => {
                self.run(request.map(|()| SendBody::none()), call, limits)
            }
            _ => {
                body.rewind();
                self.run(request.map(|()| SendBody::from_reader(body)), call, limits)
            }
        };
        let answer = answer.map_err(|error| failure(error, &limits))?;
        let (parts, body) = answer.into_parts();
        let rules = HeadRules {
            max_head_bytes: call.policy.max_head_bytes,
            max_headers: call.policy.max_headers,
            accept_invalid: call.policy.accept_invalid,
        };
        let answer = judged(&Response::from_parts(parts, ()), &rules)?;
        let incoming = Incoming {
            refusal: story.late_refusal(),
            reader: body.into_reader(),
            length: answer.body_length(head.method == "HEAD"),
            came: 0,
            silence: limits.silence(),
            deadline: call.deadline,
            clock: self.clock.clone(),
        };
        Ok((answer, incoming))
    }

    fn run(
        &self,
        request: Request<SendBody<'_>>,
        call: &Call,
        limits: Limits,
    ) -> Result<Response<ureq::Body>, Error> {
        let within = |limit: Duration| Some(limits.left.map_or(limit, |left| left.min(limit)));
        let idle = Duration::from_nanos(call.policy.idle);
        let request = self
            .agent
            .configure_request(request)
            .timeout_connect(within(limits.connect))
            .timeout_send_body(limits.left)
            .timeout_recv_response(within(limits.response))
            .timeout_recv_body(limits.left)
            .timeout_per_read(Some(limits.silence()))
            .timeout_per_write(Some(limits.response))
            .max_response_header_size(call.policy.max_head_bytes.min(INPUT_BYTES - 1))
            .max_idle_age(match call.reuse {
                Reuse::Any => idle,
                Reuse::Recent => idle.min(RECENT),
                Reuse::Never => Duration::ZERO,
            })
            .build();
        self.agent.run(request)
    }
}

impl Incoming {
    /// The next bytes of the body; 0 at its end. `Err`: why it breaks off, for the log.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        if self.deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
            return Err(LATE.to_owned());
        }
        let bytes = self.reader.read(buffer).map_err(|error| self.broke(&error))?;
        self.came += bytes as u64;
        Ok(bytes)
    }

    fn broke(&self, error: &io::Error) -> String {
        match (error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()), self.length) {
            (Some(Error::Timeout(Timeout::PerRead)), _) => format!(
                "the backend was silent for {:?} in the middle of its answer (upstream.read_timeout)",
                self.silence
            ),
            (Some(Error::Timeout(_)), _) => LATE.to_owned(),
            (None, BodyLength::Known(bytes)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("closed after {} of {bytes} bytes of the body", self.came)
            }
            (None, BodyLength::Chunked) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "closed before the last chunk of the body".to_owned()
            }
            _ => format!("broke off inside the body: {error}"),
        }
    }
}

impl Limits {
    fn of(call: &Call, now: Nanos) -> Self {
        Self {
            connect: Duration::from_nanos(call.policy.connect),
            response: Duration::from_nanos(call.policy.response),
            read: Duration::from_nanos(call.policy.read),
            left: call.deadline.map(|deadline| Duration::from_nanos(deadline.saturating_sub(now))),
        }
    }

    /// The longest silence of any read: ureq has one limit for reads of the head and of the body.
    fn silence(&self) -> Duration {
        self.read.max(self.response)
    }

    /// Whether the time of the whole request ends before a part that may take so long.
    fn is_cut(&self, limit: Duration) -> bool {
        self.left.is_some_and(|left| left < limit)
    }
}

fn failed(phase: Phase, cause: impl std::fmt::Display) -> UpstreamError {
    UpstreamError { phase, cause: cause.to_string() }
}

/// The request as ureq takes it.
fn request(story: &Story, call: &Call, head: &RequestHead) -> Result<Request<()>, http::Error> {
    let mut written = HeaderMap::new();
    let mut result = Ok(());
    story.outgoing(head, &call.endpoint, |fields| result = write(fields, &mut written));
    result?;
    let method = Method::from_bytes(head.method.as_bytes())?;
    match head.length {
        BodyLength::Known(bytes) => written.insert(CONTENT_LENGTH, bytes.into()),
        BodyLength::Chunked | BodyLength::UntilClose => {
            written.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
        }
        // RFC 9110 §8.6: where a body is expected, its absence is said.
        BodyLength::Empty if [Method::POST, Method::PUT, Method::PATCH].contains(&method) => {
            written.insert(CONTENT_LENGTH, HeaderValue::from_static("0"))
        }
        BodyLength::Empty => None,
    };
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(call.endpoint.address.to_string())
        .path_and_query(PathAndQuery::try_from(story.target(head))?)
        .build()?;
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, written);
    Ok(request)
}

fn write(fields: &Fields, out: &mut HeaderMap) -> Result<(), http::Error> {
    for (name, value) in fields.lines() {
        out.try_append(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?)?;
    }
    Ok(())
}

/// Judges the answer's head by our own rules. It gets the standard reason phrase, since ureq drops the backend's.
fn judged(answer: &Response<()>, rules: &HeadRules) -> Result<response::Head, UpstreamError> {
    let status = answer.status().as_u16();
    let minor = u8::from(answer.version() != http::Version::HTTP_10);
    let mut text = format!("HTTP/1.{minor} {status} {}\r\n", standard_reason(status)).into_bytes();
    for (name, value) in answer.headers() {
        render::field(&mut text, name.as_str(), value.as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    // The standard phrase may be longer than the one that came.
    let rules = HeadRules { max_head_bytes: text.len().max(rules.max_head_bytes), ..*rules };
    match response::parse(&text, &rules) {
        Ok(Some((head, _))) => Ok(head),
        Ok(None) => Err(failed(Phase::Malformed, "the head is not whole")),
        Err(fault) => Err(failed(Phase::Malformed, fault)),
    }
}

/// Makes our error of ureq's, for a call without an answer's head.
fn failure(error: Error, limits: &Limits) -> UpstreamError {
    match error {
        Error::Timeout(Timeout::Connect) if limits.is_cut(limits.connect) => {
            failed(Phase::TimedOut, "no connection in time (upstream.request_timeout)")
        }
        Error::Timeout(Timeout::Connect) => {
            failed(Phase::ConnectTimedOut, format_args!("no connection within {:?}", limits.connect))
        }
        Error::Timeout(Timeout::PerWrite) => {
            let limit = limits.response;
            let cause = format!("nothing of the request was taken for {limit:?} (upstream.response_timeout)");
            failed(Phase::TimedOut, cause)
        }
        Error::Timeout(Timeout::SendBody) => {
            failed(Phase::TimedOut, "the request was not sent in time (upstream.request_timeout)")
        }
        Error::Timeout(_) => {
            let of_all = limits.is_cut(limits.response);
            let key = if of_all { "upstream.request_timeout" } else { "upstream.response_timeout" };
            failed(Phase::TimedOut, format_args!("no answer's head in time ({key})"))
        }
        Error::Io(error) => broken(&error),
        Error::LargeResponseHeader(..) => {
            failed(Phase::Malformed, "the head is larger than upstream.max_head_bytes")
        }
        Error::Protocol(error) => failed(Phase::Malformed, error),
        // The other errors are about what we ask of ureq, not about the backend.
        error => failed(Phase::Shortage, error),
    }
}

fn broken(error: &io::Error) -> UpstreamError {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable, OutOfMemory,
        PermissionDenied, TimedOut, UnexpectedEof,
    };
    /// EMFILE, ENFILE and ENOBUFS, by their numbers on Linux.
    const SHORT: [i32; 3] = [24, 23, 105];
    match error.kind() {
        UnexpectedEof => failed(Phase::Reset, "closed before the answer's head was whole"),
        ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable | PermissionDenied => {
            failed(Phase::Connect, error)
        }
        // The kernel gave up before we did.
        TimedOut => failed(Phase::ConnectTimedOut, error),
        AddrNotAvailable | OutOfMemory => failed(Phase::Shortage, format_args!("{UNOPENED}: {error}")),
        _ if error.raw_os_error().is_some_and(|number| SHORT.contains(&number)) => {
            failed(Phase::Shortage, format_args!("{UNOPENED}: {error}"))
        }
        _ => failed(Phase::Reset, error),
    }
}

const UNOPENED: &str = "no connection to a backend could be opened";

#[cfg(test)]
mod tests {
    use super::*;
    /// Version, status, fields; how the body ends, if it may be taken.
    type Row = (http::Version, u16, &'static [(&'static str, &'static str)], Option<BodyLength>);

    fn answer(version: http::Version, status: u16, fields: &[(&str, &str)]) -> Response<()> {
        let mut builder = Response::builder().version(version).status(status);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_malformed_though_ureq_takes_it() {
        use http::Version;
        const LENGTH: (&str, &str) = ("Content-Length", "2");
        const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");
        let rows: [Row; 9] = [
            (Version::HTTP_11, 200, &[LENGTH], Some(BodyLength::Known(2))),
            (Version::HTTP_11, 200, &[CHUNKED], Some(BodyLength::Chunked)),
            (Version::HTTP_10, 200, &[], Some(BodyLength::UntilClose)),
            (Version::HTTP_11, 200, &[LENGTH, CHUNKED], None),
            (Version::HTTP_11, 200, &[LENGTH, LENGTH], None),
            (Version::HTTP_11, 200, &[("Content-Length", "2, 2")], None),
            (Version::HTTP_11, 200, &[("Transfer-Encoding", "gzip, chunked")], None),
            (Version::HTTP_10, 200, &[CHUNKED], None),
            (Version::HTTP_11, 600, &[LENGTH], None),
        ];
        for (version, status, fields, expected) in rows {
            let judged = judged(&answer(version, status, fields), &HeadRules::SHIPPED);
            let length = judged.as_ref().map(|head| head.body_length(false)).map_err(|error| error.phase);
            assert_eq!(length, expected.ok_or(Phase::Malformed), "{version:?} {status} {fields:?}");
        }
        let doubled = answer(Version::HTTP_11, 207, &[("x", "1"), ("x", "2")]);
        let head = judged(&doubled, &HeadRules::SHIPPED).unwrap();
        assert_eq!(head.reason, b"Multi-Status");
        assert_eq!(head.fields.all("X").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn a_break_says_how_far_the_request_got() {
        use io::ErrorKind::*;
        for (kind, phase) in [
            (ConnectionRefused, Phase::Connect),
            (NetworkUnreachable, Phase::Connect),
            (TimedOut, Phase::ConnectTimedOut),
            (AddrNotAvailable, Phase::Shortage),
            (UnexpectedEof, Phase::Reset),
            (ConnectionReset, Phase::Reset),
            (BrokenPipe, Phase::Reset),
        ] {
            assert_eq!(broken(&kind.into()).phase, phase, "{kind:?}");
        }
        assert_eq!(broken(&io::Error::from_raw_os_error(24)).phase, Phase::Shortage);
    }
}
