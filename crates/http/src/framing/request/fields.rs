//! The field lines of a request's head (RFC 9112 §5) and what they say about its framing (§6) and its connection (§9).

use super::super::bytes::{CLASS, TOKEN, UNDERSCORE, VALUE, is};
use super::super::host::is_host_and_port;
use super::super::{FramingRefusal, bad, content_length, end_of_line, is_token};
use super::{HEAD_TOO_LARGE, Stop, as_text};
use crate::fields::tokens;
use crate::headers::is_claim;
use crate::message::Reason;
use crate::message::{BodyLength, RequestHead, Version};

/// What the field lines say about the head as a whole.
pub(super) struct Summary {
    pub end: usize,
    pub length: BodyLength,
    pub expects_continue: bool,
    pub keep_alive: bool,
}

/// Names that must not come with an underscore for a hyphen: a backend that makes a variable of each field (CGI,
/// RFC 3875 §4.1.18) would take `Content_Length` for `Content-Length`. Such a field is dropped; so is one whose
/// hyphened name [`is_claim`].
const OURS: &[&str] = &[
    "content-length",
    "content-type",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "x-api-key",
    "x-request-id",
];

/// The transfer codings of all lines so far.
#[derive(Default)]
struct Codings {
    count: usize,
    chunked: usize,
    chunked_is_last: bool,
}

/// State while the fields of one head are read.
struct FieldReader<'a> {
    head: &'a mut RequestHead,
    /// The text of the last request's Host, whose memory is used again.
    host_memory: String,
    /// The authority of an absolute target.
    authority: Option<&'a [u8]>,
    hosts: usize,
    content_length: Option<u64>,
    codings: Codings,
    close: bool,
    keep: bool,
    expects_continue: bool,
}

/// Reads the field lines and the empty line behind them.
pub(super) fn read(
    bytes: &[u8],
    start: usize,
    max_headers: usize,
    authority: Option<&[u8]>,
    head: &mut RequestHead,
) -> Result<Summary, Stop> {
    let host_memory = head.host.take().unwrap_or_default();
    let mut reader = FieldReader {
        head,
        host_memory,
        authority,
        hosts: 0,
        content_length: None,
        codings: Codings::default(),
        close: false,
        keep: false,
        expects_continue: false,
    };
    let mut at = start;
    let mut lines = 0;
    loop {
        match bytes.get(at) {
            None => return Err(Stop::Incomplete),
            Some(b'\r' | b'\n') => return Ok(reader.finish(end_of_line(bytes, at, bad)?)?),
            Some(b' ' | b'\t') => return Err(bad("a header line starts with whitespace").into()),
            Some(_) if lines == max_headers => return Err(HEAD_TOO_LARGE.into()),
            Some(_) => {}
        }
        at = reader.line(bytes, at)?;
        lines += 1;
    }
}

impl FieldReader<'_> {
    /// Reads `field-name ":" OWS field-value OWS CRLF` (RFC 9112 §5). Returns where the next line begins.
    fn line(&mut self, bytes: &[u8], start: usize) -> Result<usize, Stop> {
        let mut at = start;
        let mut flags = 0;
        loop {
            let byte = *bytes.get(at).ok_or(Stop::Incomplete)?;
            let class = CLASS[byte as usize];
            if class & TOKEN == 0 {
                break;
            }
            flags |= class;
            at += 1;
        }
        let name = &bytes[start..at];
        match bytes[at] {
            b':' if !name.is_empty() => at += 1,
            b':' => return Err(bad("a header field has an empty name").into()),
            b' ' | b'\t' => return Err(bad("whitespace before the colon of a header field").into()),
            _ => return Err(bad("a header field's name holds a byte that may not stand in it").into()),
        }
        let value_at = at;
        while is(*bytes.get(at).ok_or(Stop::Incomplete)?, VALUE) {
            at += 1;
        }
        let value = bytes[value_at..at].trim_ascii();
        if !matches!(bytes[at], b'\r' | b'\n') {
            return Err(bad("a header field's value holds a control character").into());
        }
        let next = end_of_line(bytes, at, bad)?;
        self.take(as_text(name), value, flags & UNDERSCORE != 0)?;
        Ok(next)
    }

    fn take(&mut self, name: &str, value: &[u8], has_underscore: bool) -> Result<(), FramingRefusal> {
        if has_underscore {
            let hyphened = name.replace('_', "-");
            let is_claim = is_claim(hyphened.as_bytes());
            self.head.lost_claim |= is_claim;
            if is_claim || OURS.iter().any(|ours| ours.eq_ignore_ascii_case(&hyphened)) {
                return Ok(());
            }
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => return self.host(value),
            6 if name.eq_ignore_ascii_case("expect") => return self.expect(value),
            7 if name.eq_ignore_ascii_case("trailer") => return Ok(()),
            10 if name.eq_ignore_ascii_case("connection") => self.connection(value),
            14 if name.eq_ignore_ascii_case("content-length") => return self.length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => return self.coding(value),
            _ => {}
        }
        self.head.fields.push(name, value);
        Ok(())
    }

    /// RFC 9112 §3.2: one valid Host. The authority of an absolute target replaces its value.
    fn host(&mut self, value: &[u8]) -> Result<(), FramingRefusal> {
        self.hosts += 1;
        if self.hosts > 1 {
            return Err(bad("more than one Host"));
        }
        if !is_host_and_port(value) {
            return Err(bad("the Host is not a valid host"));
        }
        let host = self.authority.unwrap_or(value);
        self.keep_host(host);
        Ok(())
    }

    fn keep_host(&mut self, host: &[u8]) {
        self.head.fields.push("Host", host);
        let mut text = std::mem::take(&mut self.host_memory);
        text.clear();
        text.push_str(as_text(host));
        self.head.host = Some(text);
    }

    /// RFC 9110 §10.1.1.
    fn expect(&mut self, value: &[u8]) -> Result<(), FramingRefusal> {
        if tokens(value).all(|one| one.eq_ignore_ascii_case(b"100-continue")) && !value.is_empty() {
            self.expects_continue = true;
            return Ok(());
        }
        let detail = "the only expectation that this server meets is 100-continue";
        Err(FramingRefusal { reason: Reason::ExpectationFailed, detail })
    }

    /// RFC 9112 §9.3.
    fn connection(&mut self, value: &[u8]) {
        for option in tokens(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9110 §8.6: one value of digits. A second field is refused even if it has the same value, which RFC 9112 §6.3
    /// would allow.
    fn length(&mut self, value: &[u8]) -> Result<(), FramingRefusal> {
        if self.content_length.is_some() {
            return Err(bad("more than one Content-Length"));
        }
        if self.codings.count > 0 {
            return Err(bad("both Content-Length and Transfer-Encoding"));
        }
        let no_number = bad("the Content-Length is not a number");
        let too_large = bad("the Content-Length is too large for any message");
        self.content_length = Some(content_length(value, no_number, too_large)?);
        Ok(())
    }

    /// RFC 9112 §6.1, §7: a list of tokens, not in HTTP/1.0. Several lines make one list (RFC 9110 §5.2).
    fn coding(&mut self, value: &[u8]) -> Result<(), FramingRefusal> {
        if self.head.version == Version::Http10 {
            return Err(bad("Transfer-Encoding in HTTP/1.0"));
        }
        if self.content_length.is_some() {
            return Err(bad("both Content-Length and Transfer-Encoding"));
        }
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if !is_token(coding) {
                return Err(bad("a malformed Transfer-Encoding"));
            }
            let codings = &mut self.codings;
            codings.count += 1;
            codings.chunked_is_last = coding.eq_ignore_ascii_case(b"chunked");
            codings.chunked += usize::from(codings.chunked_is_last);
        }
        Ok(())
    }

    /// Whether the body is chunked. RFC 9112 §6.1, §6.3: `chunked` comes once and last, else the end of the body is
    /// unknown.
    fn is_chunked(&self) -> Result<bool, FramingRefusal> {
        let Codings { count, chunked, chunked_is_last } = self.codings;
        match (count, chunked) {
            (0, _) => Ok(false),
            _ if !chunked_is_last => Err(bad("the last transfer coding is not chunked")),
            (_, 2..) => Err(bad("chunked stands more than once in Transfer-Encoding")),
            (1, _) => Ok(true),
            _ => {
                let detail = "the only transfer coding that this server knows is chunked";
                Err(FramingRefusal { reason: Reason::NotImplemented, detail })
            }
        }
    }

    fn finish(mut self, end: usize) -> Result<Summary, FramingRefusal> {
        let is_http11 = self.head.version == Version::Http11;
        if self.hosts == 0 {
            if is_http11 {
                return Err(bad("no Host"));
            }
            if let Some(authority) = self.authority {
                self.keep_host(authority);
            }
        }
        let length = match self.content_length {
            _ if self.is_chunked()? => BodyLength::Chunked,
            None | Some(0) => BodyLength::Empty,
            Some(length) => BodyLength::Known(length),
        };
        Ok(Summary {
            end,
            length,
            // RFC 9110 §10.1.1: ignored in HTTP/1.0, and where there is no body to wait for.
            expects_continue: self.expects_continue && is_http11 && length != BodyLength::Empty,
            keep_alive: !self.close && (is_http11 || self.keep),
        })
    }
}
