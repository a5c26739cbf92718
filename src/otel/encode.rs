//! Spans as OTLP's JSON has them (OTLP 1.x, "JSON Protobuf Encoding"): ids in hexadecimal digits, 64-bit numbers as
//! strings, enums as numbers. Attributes are those of OpenTelemetry's semantic conventions for HTTP; what they have no
//! word for begins with `balancer.`.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use super::span::{AttemptSpan, RequestSpans};
use crate::metrics::method_label;

/// `SPAN_KIND_SERVER`.
const SERVER: u8 = 2;
/// `SPAN_KIND_CLIENT`.
const CLIENT: u8 = 3;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;
/// In a span's `flags`, above those of the trace: it is known whether the parent is another process's, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The body of one request to a collector (`ExportTraceServiceRequest`). `instance`: this process's own id, as `Via`
/// has it.
pub fn encode(requests: &[RequestSpans], instance: &str) -> Vec<u8> {
    let text = |key, value| Attribute { key, value: AnyValue::StringValue(Cow::Borrowed(value)) };
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let resource = Resource {
        attributes: vec![
            text("service.name", name),
            text("service.version", version),
            text("service.instance.id", instance),
        ],
    };
    let spans = requests.iter().flat_map(|request| {
        std::iter::once(server(request)).chain(request.attempts.iter().map(|one| client(request, one)))
    });
    let scope_spans = [ScopeSpans { scope: Scope { name, version }, spans: spans.collect() }];
    let all = ExportRequest { resource_spans: [ResourceSpans { resource, scope_spans }] };
    // Writing to a Vec can't fail, and nothing in there has keys that are no texts.
    serde_json::to_vec(&all).unwrap_or_default()
}

fn server(request: &RequestSpans) -> OtlpSpan<'_> {
    let RequestSpans { place, parent, asked, route, pool, status, error, .. } = request;
    let mut all = Attributes::of_method(&asked.method);
    all.texts([
        ("url.path", &asked.path),
        ("url.scheme", scheme(asked.is_secure)),
        ("network.protocol.version", asked.version.unwrap_or_default()),
        ("user_agent.original", &asked.agent),
        ("balancer.pool", pool.as_deref().unwrap_or_default()),
    ]);
    let mut target = pool.as_deref();
    if let Some((path, name)) = route {
        all.texts([("http.route", path), ("balancer.route", name)]);
        target = Some(path);
    }
    if let Some(host) = &asked.host {
        all.server(host_and_port(host));
    }
    if let Some(client) = asked.client {
        all.shown("client.address", client.to_canonical());
    }
    if let Some(peer) = asked.peer {
        all.peer(peer);
    }
    all.status(*status);
    let is_error = all.error(*error, status.filter(|status| *status >= 500));
    let flags = HAS_IS_REMOTE | if parent.is_some() { IS_REMOTE } else { 0 };
    OtlpSpan {
        span_id: Hex64(place.span),
        parent_span_id: parent.map(Hex64),
        name: span_name(&asked.method, target),
        kind: SERVER,
        start_time_unix_nano: Decimal(request.start),
        end_time_unix_nano: Decimal(request.end.max(request.start)),
        ..all.span(request, flags, is_error)
    }
}

fn client<'a>(request: &'a RequestSpans, attempt: &'a AttemptSpan) -> OtlpSpan<'a> {
    let AttemptSpan { id, to, host, is_secure, backend, resent, result, .. } = attempt;
    let method = &request.asked.method;
    let mut all = Attributes::of_method(method);
    all.texts([
        ("url.path", request.sent_path.as_deref().unwrap_or(&request.asked.path)),
        ("url.scheme", scheme(*is_secure)),
        ("balancer.pool", request.pool.as_deref().unwrap_or_default()),
        ("balancer.backend", backend),
    ]);
    all.server((host, Some(to.port())));
    all.peer(*to);
    if *resent > 0 {
        all.number("http.request.resend_count", (*resent).into());
    }
    // One that never ended was given up by an engine that failed.
    let result = result.unwrap_or(Err("_OTHER"));
    all.status(result.ok());
    let is_error = all.error(result.err(), result.ok().filter(|status| *status >= 400));
    OtlpSpan {
        span_id: Hex64(*id),
        parent_span_id: Some(Hex64(request.place.span)),
        name: span_name(method, Some(backend)),
        kind: CLIENT,
        start_time_unix_nano: Decimal(attempt.start),
        end_time_unix_nano: Decimal(attempt.end.max(attempt.start)),
        ..all.span(request, HAS_IS_REMOTE, is_error)
    }
}

/// A method that everybody knows, with what it is about, of which there are few.
fn span_name(method: &str, target: Option<&str>) -> String {
    let method = known(method).unwrap_or("HTTP");
    target.map_or_else(|| method.to_owned(), |target| format!("{method} {target}"))
}

fn known(method: &str) -> Option<&'static str> {
    // A client may call its method as our label calls all others.
    Some(method_label(method)).filter(|label| *label == method && *label != "other")
}

fn scheme(is_secure: bool) -> &'static str {
    if is_secure { "https" } else { "http" }
}

/// `Host` taken apart (RFC 9110 §7.2); an IPv6 address without its brackets.
fn host_and_port(text: &str) -> (&str, Option<u16>) {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    (host, port.and_then(|port| port.parse().ok()))
}

/// What a span says, one after the other.
#[derive(Default)]
struct Attributes<'a>(Vec<Attribute<'a>>);

impl<'a> Attributes<'a> {
    fn of_method(method: &'a str) -> Self {
        let mut all = Self(Vec::with_capacity(16));
        match known(method) {
            Some(method) => all.texts([("http.request.method", method)]),
            None => all.texts([("http.request.method", "_OTHER"), ("http.request.method_original", method)]),
        }
        all
    }

    /// An empty one is not known.
    fn texts<const N: usize>(&mut self, texts: [(&'static str, &'a str); N]) {
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        self.0.extend(
            texts.map(|(key, text)| Attribute { key, value: AnyValue::StringValue(Cow::Borrowed(text)) }),
        );
    }

    fn shown(&mut self, key: &'static str, value: impl fmt::Display) {
        self.0.push(Attribute { key, value: AnyValue::StringValue(Cow::Owned(value.to_string())) });
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.0.push(Attribute { key, value: AnyValue::IntValue(Decimal(value)) });
    }

    fn server(&mut self, (host, port): (&'a str, Option<u16>)) {
        self.texts([("server.address", host)]);
        if let Some(port) = port {
            self.number("server.port", port.into());
        }
    }

    fn peer(&mut self, peer: SocketAddr) {
        self.shown("network.peer.address", peer.ip().to_canonical());
        self.number("network.peer.port", peer.port().into());
    }

    fn status(&mut self, status: Option<u16>) {
        if let Some(status) = status {
            self.number("http.response.status_code", status.into());
        }
    }

    /// `error.type`: a word, or the status where that is an error. Whether there is one.
    fn error(&mut self, word: Option<&'a str>, status: Option<u16>) -> bool {
        match (word, status) {
            (Some(word), _) => self.texts([("error.type", word)]),
            (None, Some(status)) => self.shown("error.type", status),
            (None, None) => return false,
        }
        true
    }

    /// A span with all of them, whose ids, name and times are still to come.
    fn span(self, request: &'a RequestSpans, flags: u32, is_error: bool) -> OtlpSpan<'a> {
        OtlpSpan {
            trace_id: Hex128(request.place.trace),
            span_id: Hex64(0),
            parent_span_id: None,
            trace_state: &request.state,
            name: String::new(),
            kind: 0,
            start_time_unix_nano: Decimal(0),
            end_time_unix_nano: Decimal(0),
            attributes: self.0,
            status: is_error.then_some(SpanStatus { code: ERROR }),
            flags: flags | u32::from(request.place.flags),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportRequest<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<OtlpSpan<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan<'a> {
    trace_id: Hex128,
    span_id: Hex64,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<Hex64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    name: String,
    kind: u8,
    start_time_unix_nano: Decimal,
    end_time_unix_nano: Decimal,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<SpanStatus>,
    flags: u32,
}

#[derive(Serialize)]
struct SpanStatus {
    code: u8,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(Cow<'a, str>),
    IntValue(Decimal),
}

struct Hex128(u128);

impl Serialize for Hex128 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:032x}", self.0))
    }
}

struct Hex64(u64);

impl Serialize for Hex64 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:016x}", self.0))
    }
}

/// A 64-bit number: a string.
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
