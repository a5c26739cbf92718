//! Types that requests and answers share: versions, how a body ends, a request's head, and why a request is refused.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use super::fields::Fields;

/// The protocol versions that a frontend speaks (RFC 9112 §2.3, RFC 9113), the older ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: one request per connection unless the client asks for more; no chunked coding.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2, with clients only; backends get HTTP/1.1.
    Http2,
}

/// How the end of a message's body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// No body at all: neither Content-Length nor Transfer-Encoding, or `Content-Length: 0` in a request.
    Empty,
    /// After that many bytes.
    Known(u64),
    /// Until the last chunk.
    Chunked,
    /// Until the connection ends. Responses only.
    UntilClose,
}

/// The connection that a request came on, for code that has to know more about the client.
pub trait ClientConnection: Send + Sync {
    /// The user id of the process at the other end, as the kernel of this machine knows it. Does not wait.
    ///
    /// # Errors
    /// Why it is not known, as a text for the log.
    fn peer_owner(&self) -> Result<u32, String>;
}

/// What a client and we agreed on in the TLS handshake of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite as IANA names it: `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The server name that the client asked for (RFC 6066 §3), in lower case.
    pub sni: Option<String>,
    /// The client's own certificate, if its chain was verified.
    pub certificate: Option<ClientCertificate>,
}

/// What a client's certificate says about who the client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The first 16 bytes of the SHA-256 of its DER form.
    pub fingerprint: [u8; 16],
    /// The first DNS name or URI among its alternative names (RFC 5280 §4.2.1.6).
    pub san: Option<String>,
}

/// A request's head as a frontend's parser leaves it: checked, its target in origin form, the fields about framing
/// removed.
#[derive(Debug)]
pub struct RequestHead {
    /// A token, its case as sent: `GET`.
    pub method: String,
    /// Origin form, `/path?query`, or `*` for OPTIONS. The parser splits absolute form into this and `host`.
    pub target: String,
    /// The version that the client speaks.
    pub version: Version,
    /// The authority that the request is for: that of the target in absolute form, else the Host field. `None` only in
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
    /// The connection began with a PROXY header, so a proxy is at its other end.
    pub is_proxied: bool,
    /// A field was dropped that a backend might take for one that a proxy sets (`X_Forwarded_For`).
    pub lost_claim: bool,
    /// The connection that it came on, while that is open. `None` where the engine knows nothing about it.
    pub connection: Option<Weak<dyn ClientConnection>>,
    /// The TLS session; `None` on a connection without TLS.
    pub secure: Option<Arc<TlsSession>>,
}

impl RequestHead {
    /// A head that holds only the peer, for a parser to fill. One value is filled again for each request of a
    /// connection, which saves allocations.
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

/// Why Balancer itself answers a request, instead of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request breaks a rule of RFC 9110 or RFC 9112, or is bad input to our API.
    BadRequest,
    /// The API asks for a token, and there is none or a wrong one.
    Unauthorized,
    /// The API is closed to this caller.
    Forbidden,
    /// There is nothing of that name.
    NotFound,
    /// A method that this path does not have.
    MethodNotAllowed,
    /// The client was too slow.
    RequestTimeout,
    /// It exists already.
    Conflict,
    /// A condition of the caller (`If-Match`, `If-None-Match`) does not hold.
    PreconditionFailed,
    /// A body over its bound.
    ContentTooLarge,
    /// A target over its bound.
    UriTooLong,
    /// An `Expect` that is not `100-continue`.
    ExpectationFailed,
    /// A head over one of its bounds.
    HeadTooLarge,
    /// The client's bucket is empty.
    QuotaExceeded,
    /// Too many wrong tokens came from this address (RFC 6585 §4).
    TooManyRequests,
    /// The code that handled the request panicked.
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
    /// Status and title. The title is the same for every refusal with this reason.
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

    /// The problem type (RFC 9457 §3.1.1): the registered one if there is one, else `about:blank`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            _ => "about:blank",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_and_what_follows_the_first_question_mark() {
        let mut head = RequestHead::blank(([127, 0, 0, 1], 80).into());
        for (target, path, query) in [
            ("/a/b", "/a/b", None),
            ("/a?", "/a", Some("")),
            ("/a?b=c?d", "/a", Some("b=c?d")),
            ("*", "*", None),
            ("", "", None),
        ] {
            head.target = target.into();
            assert_eq!((head.path(), head.query()), (path, query), "{target:?}");
        }
    }

    #[test]
    fn a_spent_quota_has_a_type_of_its_own() {
        let of = |reason: Reason| (reason.status().0, reason.kind().ends_with("#quota-exceeded"));
        assert_eq!(of(Reason::QuotaExceeded), (429, true));
        assert_eq!(of(Reason::TooManyRequests), (429, false));
        assert_eq!(Reason::NotFound.kind(), "about:blank");
    }
}
