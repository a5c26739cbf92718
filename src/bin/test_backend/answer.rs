//! Answers: the echo as JSON, or text of a given size, and how they are written to the wire.

use std::io::{self, Write};
use std::time::Duration;

use balancer_http::message::{RequestHead, Version};
use serde::de::IgnoredAny;

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// `X-Backend`.
    pub name: String,
    /// Before each answer that is not on the health path.
    pub delay: Duration,
    /// Exactly this path, before `?`, may fail.
    pub health_path: String,
    /// 200 to 599.
    pub status: u16,
    /// Chunked to HTTP/1.1.
    pub chunked: bool,
    /// Text of that many bytes instead of the echo.
    pub size: Option<u64>,
    /// Say `Connection: close` and do it.
    pub close: bool,
}

/// An answer before it is framed.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// Content-Type.
    pub media_type: &'static str,
    /// What comes back.
    pub body: Body,
}

/// What comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// These bytes.
    Bytes(Vec<u8>),
    /// That many bytes of text.
    Text(u64),
}

impl Body {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Text(len) => *len,
        }
    }
}

/// A block of text that repeats itself without a seam: the byte at position n is the letter n mod 26.
const BLOCK_BYTES: usize = 26 * 2520;

/// Text that explains a refusal.
pub fn refusal(status: u16, detail: &str) -> Answer {
    Answer { status, media_type: "text/plain", body: Body::Bytes(format!("{detail}\n").into_bytes()) }
}

/// `{"http_method":…,"request_uri":…,"your_message":…}`. A body that is JSON is put in as it came, whatever its
/// numbers. Any other body becomes a string, in which bytes that are not UTF-8 are U+FFFD; no body becomes null.
pub fn echo(method: &str, target: &str, body: &[u8]) -> Vec<u8> {
    // `serde_json` writes strings and cannot fail on them.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let text = String::from_utf8_lossy(body);
    let message = match &text {
        text if text.is_empty() => "null".to_owned(),
        std::borrow::Cow::Borrowed(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => {
            text.trim_ascii().to_owned()
        }
        text => quoted(text),
    };
    format!(
        "{{\"http_method\":{},\"request_uri\":{},\"your_message\":{message}}}",
        quoted(method),
        quoted(target)
    )
    .into_bytes()
}

impl Answer {
    /// Writes head and body; small ones in one piece. `close`: the connection ends after it.
    pub fn write(
        &self,
        to: &mut impl Write,
        behaviour: &Behaviour,
        head: &RequestHead,
        close: bool,
    ) -> io::Result<()> {
        let bodiless = matches!(self.status, 204 | 304);
        let chunked = behaviour.chunked && head.version == Version::Http11 && !bodiless;
        let reason =
            http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut out = Vec::with_capacity(1024);
        write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or("Unknown"))?;
        write!(out, "Content-Type: {}\r\nX-Backend: {}\r\n", self.media_type, behaviour.name)?;
        if chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if !bodiless {
            write!(out, "Content-Length: {}\r\n", self.body.len())?;
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if head.version == Version::Http10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && head.method != "HEAD" {
            self.body.write(to, &mut out, chunked)?;
        }
        to.write_all(&out)
    }
}

impl Body {
    /// Writes through `out`, which has the head. Afterwards `out` may have the end of the body, which is not written
    /// yet.
    fn write(&self, to: &mut impl Write, out: &mut Vec<u8>, chunked: bool) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                for piece in bytes.chunks(BLOCK_BYTES) {
                    flush_before(to, out, piece.len())?;
                    push(out, piece, chunked)?;
                }
            }
            Self::Text(len) => {
                let block: Vec<u8> = (b'a'..=b'z').cycle().take(BLOCK_BYTES).collect();
                let mut left = *len;
                while left > 0 {
                    let piece = &block[..usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES)];
                    flush_before(to, out, piece.len())?;
                    push(out, piece, chunked)?;
                    left -= piece.len() as u64;
                }
            }
        }
        if chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(())
    }
}

/// Writes `out` first if it would grow beyond a block.
fn flush_before(to: &mut impl Write, out: &mut Vec<u8>, next: usize) -> io::Result<()> {
    if out.len() + next > BLOCK_BYTES {
        to.write_all(out)?;
        out.clear();
    }
    Ok(())
}

fn push(out: &mut Vec<u8>, piece: &[u8], chunked: bool) -> io::Result<()> {
    if !chunked {
        out.extend_from_slice(piece);
        return Ok(());
    }
    write!(out, "{:x}\r\n", piece.len())?;
    out.extend_from_slice(piece);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_is_and_everything_else_as_a_string() {
        for (body, message) in [
            (&b""[..], "null"),
            (b"null", "null"),
            (b"{\"exaple\":123}", "{\"exaple\":123}"),
            (b" [1, 2]\n", "[1, 2]"),
            (b"12345678901234567890.10", "12345678901234567890.10"),
            (b"1e400", "1e400"),
            (b"{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":2}"),
            (b"\"\\ud83d\\ude00\"", "\"\\ud83d\\ude00\""),
            (b"hello", "\"hello\""),
            (b"{\"a\":", "\"{\\\"a\\\":\""),
            (b"1 2", "\"1 2\""),
            (b"01", "\"01\""),
            (b"NaN", "\"NaN\""),
            (b" ", "\" \""),
            ("ü\u{1f600}\n\0".as_bytes(), "\"ü\u{1f600}\\n\\u0000\""),
            (b"\xff", "\"\u{fffd}\""),
            (b"\"\xff\"", "\"\\\"\u{fffd}\\\"\""),
        ] {
            let expected = format!(
                "{{\"http_method\":\"POST\",\"request_uri\":\"/a?b=%22\",\"your_message\":{message}}}"
            );
            let answer = String::from_utf8(echo("POST", "/a?b=%22", body)).unwrap();
            assert_eq!(answer, expected);
            assert!(serde_json::from_str::<IgnoredAny>(&answer).is_ok(), "{answer}");
        }
    }

    #[test]
    fn json_of_any_depth_does_no_harm() {
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(echo("POST", "/", deep.as_bytes()).len() > deep.len());
    }
}
