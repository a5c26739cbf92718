//! Refusals: one exhaustive table from what went wrong to what the client reads and what the operator reads.

use std::borrow::Cow;

use serde::Serialize;

use crate::exchange::Answer;

/// Why a request gets an answer of ours instead of a backend's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Malformed in a way that RFC 9110 or 9112 names, or bad input to our API.
    BadRequest,
    /// The API needs a token, or a right one.
    Unauthorized,
    /// The API is closed to this caller.
    Forbidden,
    /// Nothing of that name.
    NotFound,
    /// A method that this path does not have.
    MethodNotAllowed,
    /// The client was too slow.
    RequestTimeout,
    /// It exists already.
    Conflict,
    /// A condition of the caller (`If-Match`, `If-None-Match`) does not hold.
    PreconditionFailed,
    /// A body beyond its bound.
    ContentTooLarge,
    /// A target beyond its bound.
    UriTooLong,
    /// An `Expect` that is not `100-continue`.
    ExpectationFailed,
    /// A head beyond its bounds.
    HeadTooLarge,
    /// The client's bucket is empty.
    QuotaExceeded,
    /// Too many wrong tokens came from this address (RFC 6585 §4).
    TooManyRequests,
    /// A worker panicked.
    Internal,
    /// A transfer coding or method that we do not know.
    NotImplemented,
    /// No backend gave a usable answer.
    BadGateway,
    /// Nobody can answer now.
    Unavailable,
    /// A backend was too slow.
    GatewayTimeout,
    /// A major version other than 1.
    VersionNotSupported,
    /// The request came back to the instance that sent it.
    LoopDetected,
}

impl Reason {
    /// Status and title; the title is what [`Reject`] shows for every case of this reason.
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::RequestTimeout => (408, "Request Timeout"),
            Self::Conflict => (409, "Conflict"),
            Self::PreconditionFailed => (412, "Precondition Failed"),
            Self::ContentTooLarge => (413, "Content Too Large"),
            Self::UriTooLong => (414, "URI Too Long"),
            Self::ExpectationFailed => (417, "Expectation Failed"),
            Self::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Self::QuotaExceeded => (429, "Quota Exceeded"),
            Self::TooManyRequests => (429, "Too Many Requests"),
            Self::Internal => (500, "Internal Server Error"),
            Self::NotImplemented => (501, "Not Implemented"),
            Self::BadGateway => (502, "Bad Gateway"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::GatewayTimeout => (504, "Gateway Timeout"),
            Self::VersionNotSupported => (505, "HTTP Version Not Supported"),
            Self::LoopDetected => (508, "Loop Detected"),
        }
    }

    /// The problem type (RFC 9457 §3.1.1): a registered one where there is one.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            _ => "about:blank",
        }
    }
}

/// A refusal. `detail` and `errors` are for the client, `cause` is for the log alone.
#[derive(Clone, Debug)]
pub struct Reject {
    /// Decides status, title and type.
    pub reason: Reason,
    /// One sentence for the client, without any internal cause.
    pub detail: Cow<'static, str>,
    /// What the operator reads; empty when `detail` says it all.
    pub cause: String,
    /// Seconds, where waiting helps.
    pub retry_after_s: Option<u64>,
    /// The methods of a 405, as an `Allow` value.
    pub allow: Option<&'static str>,
    /// Faults of single fields of a body.
    pub errors: Vec<FieldFault>,
    /// The buckets that refused, for a 429.
    pub violated_policies: Vec<Cow<'static, str>>,
}

/// A fault of one field of a JSON body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    /// JSON pointer (RFC 6901): `/capacity`.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "<[FieldFault]>::is_empty")]
    errors: &'a [FieldFault],
    #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: &'a [Cow<'static, str>],
}

/// What most problems need, that of a 429 among them.
const USUAL_PROBLEM_BYTES: usize = 320;

impl Reject {
    /// A refusal with a sentence for the client.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            cause: String::new(),
            retry_after_s: None,
            allow: None,
            errors: Vec::new(),
            violated_policies: Vec::new(),
        }
    }

    /// The same with what the operator should read.
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = cause.to_string();
        self
    }

    /// The same with `Retry-After`, in seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same with one more faulty field.
    pub fn field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldFault { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// The status that it is answered with.
    pub fn status(&self) -> u16 {
        self.reason.status().0
    }

    /// The answer as `application/problem+json` (RFC 9457); `instance` is the request's id.
    pub fn answer(&self, instance: &str) -> Answer {
        let (status, title) = self.reason.status();
        let problem = Problem {
            kind: self.reason.kind(),
            title,
            status,
            detail: &self.detail,
            instance,
            errors: &self.errors,
            violated_policies: &self.violated_policies,
        };
        let mut body = Vec::with_capacity(USUAL_PROBLEM_BYTES);
        // Strings and integers alone, into memory: there is nothing to fail on.
        let _ = serde_json::to_writer(&mut body, &problem);
        let mut answer = Answer::new(status, body).with("Content-Type", "application/problem+json");
        if let Some(seconds) = self.retry_after_s {
            answer.fields.push("Retry-After", seconds.to_string().as_bytes());
        }
        if let Some(allow) = self.allow {
            answer.fields.push("Allow", allow.as_bytes());
        }
        match self.reason {
            Reason::Unauthorized => answer.fields.push("WWW-Authenticate", b"Bearer"),
            Reason::QuotaExceeded => answer.fields.push("Cache-Control", b"no-store"),
            _ => {}
        }
        answer
    }
}
