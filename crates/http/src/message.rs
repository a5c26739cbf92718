//! What both directions speak of: versions, how a body ends, a request's head, and why a request is refused.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use super::fields::Fields;

/// The protocol versions that a frontend speaks (RFC 9112 §2.3, RFC 9113), the older ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: one request a connection unless it asks for more, no chunked coding.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, to clients alone: a backend is spoken to in HTTP/1.1.
    Http2,
}

/// How the end of a message's body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// No body at all: neither Content-Length nor Transfer-Encoding, or `Content-Length: 0` in a request.
    Empty,
    /// Exactly that many bytes.
    Known(u64),
    /// Until the last chunk.
    Chunked,
    /// Until the connection ends. Responses only.
    UntilClose,
}

/// The connection that a request came on, for code that has to know more of its other end.
pub trait ClientConnection: Send + Sync {
    /// The user of the process whose socket the TCP peer is, as the kernel of this machine tells it; else why that can't
    /// be told, for the log. Asks the kernel, and waits for nothing.
    fn peer_owner(&self) -> Result<u32, String>;
}

/// What the TLS handshake of a client's connection settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite as IANA names it: `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The server name that the client asked for (RFC 6066 §3), in lower case.
    pub sni: Option<String>,
    /// The client's own certificate; only one whose chain was verified.
    pub certificate: Option<ClientCertificate>,
}

/// A client's certificate, as far as it names the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The first 16 bytes of the SHA-256 of its DER form.
    pub fingerprint: [u8; 16],
    /// The first DNS name or URI among its alternative names (RFC 5280 §4.2.1.6).
    pub san: Option<String>,
}

/// A request's head as a frontend's parser left it: checked, in origin form, with framing taken out of the fields.
#[derive(Debug)]
pub struct RequestHead {
    /// A token in its own case: `GET`.
    pub method: String,
    /// Origin form, `/path?query`, or `*` for OPTIONS. Absolute form has been taken apart.
    pub target: String,
    /// As the client speaks it.
    pub version: Version,
    /// The authority that the request is for: the target's own in absolute form, else the Host field. `None` only in
    /// HTTP/1.0.
    pub host: Option<String>,
    /// All fields in order, Host among them, without `Content-Length`, `Transfer-Encoding`, `Trailer` and `Expect`.
    pub fields: Fields,
    /// How the body ends.
    pub length: BodyLength,
    /// The client waits for `100 Continue` before it sends its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The TCP peer, or the client that a trusted PROXY header named.
    pub peer: SocketAddr,
    /// A PROXY header stood before the connection's first request: whatever `peer` is, a proxy says so.
    pub is_proxied: bool,
    /// A field that passes for one of a proxy's (`X_Forwarded_For`) was dropped.
    pub lost_claim: bool,
    /// The connection that it came on, while that is open. `None` where an engine can tell nothing of it.
    pub connection: Option<Weak<dyn ClientConnection>>,
    /// How the connection is secured; `None`: it is not.
    pub secure: Option<Arc<TlsSession>>,
}

impl RequestHead {
    /// A head with nothing in it but the peer, for a parser to fill; its memory is used again request after request.
    pub fn blank(peer: SocketAddr) -> Self {
        Self {
            method: String::new(),
            target: String::new(),
            version: Version::Http11,
            host: None,
            fields: Fields::new(),
            length: BodyLength::Empty,
            expects_continue: false,
            peer,
            is_proxied: false,
            lost_claim: false,
            connection: None,
            secure: None,
        }
    }

    /// The target before `?`.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    /// The target after the first `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

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
    /// No backend, worker or database can answer now.
    Unavailable,
    /// A backend was too slow.
    GatewayTimeout,
    /// A major version other than 1.
    VersionNotSupported,
    /// The request came back to the instance that sent it.
    LoopDetected,
}

impl Reason {
    /// Status and title; the title is what a refusal shows for every case of this reason.
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
