//! A client for HTTP/2 that sends the frames that a test wants, and reads frames (RFC 9113 §4.1).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use rustls::{ClientConnection, StreamOwned};

use super::PATIENCE;

/// The preface of a client (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// The flag END_STREAM of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// The flag END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 §7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of an RST_STREAM or a GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status in the head of an answer. It must be the first answer of its connection, since no table is kept.
    pub fn status(&self) -> u16 {
        status(&self.payload)
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields without compression: each is a literal that is not indexed (RFC 7541 §6.2.2).
pub fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        // An integer with a prefix of seven bits (RFC 7541 §5.1).
        let mut left = text.len();
        if left < 127 {
            bytes.push(left as u8);
        } else {
            bytes.push(127);
            left -= 127;
            while left >= 128 {
                bytes.push((left % 128 + 128) as u8);
                left /= 128;
            }
            bytes.push(left as u8);
        }
        bytes.extend(text.as_bytes());
    };
    for (name, value) in all {
        bytes.push(0);
        text(&mut bytes, name);
        text(&mut bytes, value);
    }
    bytes
}

/// The pseudo-fields of a GET, and further fields.
pub fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.example"), (":path", path)];
    all.extend(more);
    fields(&all)
}

/// A connection.
pub struct Frames {
    pub stream: TcpStream,
    /// Its TLS session, if it has one.
    session: Option<Mutex<ClientConnection>>,
}

impl Frames {
    /// Connects, and sends the preface and empty settings.
    pub fn open(to: SocketAddr) -> Self {
        let own = Self::silent(to);
        own.greet();
        own
    }

    /// Connects and sends nothing.
    pub fn silent(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, session: None }
    }

    /// A connection over TLS; sends nothing.
    pub fn secured(tls: StreamOwned<ClientConnection, TcpStream>) -> Self {
        let (session, stream) = tls.into_parts();
        Self { stream, session: Some(Mutex::new(session)) }
    }

    /// Sends the preface and empty settings.
    pub fn greet(&self) {
        self.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    }

    /// Sends bytes; false when the other side takes no more.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let socket = &mut &self.stream;
        let Some(session) = &self.session else { return socket.write_all(bytes).is_ok() };
        let mut tls = rustls::Stream { conn: &mut *session.lock().unwrap(), sock: socket };
        tls.write_all(bytes).and_then(|()| tls.flush()).is_ok()
    }

    #[track_caller]
    fn read(&self, buffer: &mut [u8]) -> Option<()> {
        let socket = &mut &self.stream;
        let read = match &self.session {
            None => socket.read_exact(buffer),
            Some(session) => {
                rustls::Stream { conn: &mut *session.lock().unwrap(), sock: socket }.read_exact(buffer)
            }
        };
        let late =
            |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!read.as_ref().is_err_and(late), "neither a frame nor the end came within {PATIENCE:?}");
        read.ok()
    }

    /// The next frame; `None` when the connection has ended.
    #[track_caller]
    pub fn next(&self) -> Option<Frame> {
        let mut header = [0; 9];
        self.read(&mut header)?;
        let [a, b, c, kind, flags, id @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.read(&mut payload)?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(id), payload })
    }

    /// The next frame of that kind. Panics if the connection ends before.
    #[track_caller]
    pub fn wait(&self, kind: u8) -> Frame {
        loop {
            let next =
                self.next().unwrap_or_else(|| panic!("the connection ended before a frame of kind {kind}"));
            if next.kind == kind {
                return next;
            }
        }
    }

    /// Reads to the end of the connection. Returns the code of the last GOAWAY, if there was one.
    #[track_caller]
    pub fn end(&self) -> Option<u32> {
        let mut code = None;
        while let Some(next) = self.next() {
            if next.kind == GOAWAY {
                code = Some(next.error());
            }
        }
        code
    }

    /// Sends a request and reads the status of the answer. `Err`: the code with which the stream or the connection was ended.
    pub fn ask(&self, stream: u32, head: &[u8]) -> Result<u16, u32> {
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, head));
        self.status()
    }

    /// Reads the status of the next answer. `Err`: the code with which its stream or the connection was ended.
    pub fn status(&self) -> Result<u16, u32> {
        loop {
            let next = self.next().expect("an answer");
            match next.kind {
                HEADERS => return Ok(next.status()),
                RESET | GOAWAY => return Err(next.error()),
                _ => {}
            }
        }
    }
}

fn status(block: &[u8]) -> u16 {
    let mut at = 0;
    // A change of the table's size may come first (RFC 7541 §6.3).
    while block[at] & 0xe0 == 0x20 {
        at += 1;
    }
    match block[at] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // A literal whose name is `:status`.
        first if first & 0x3f == 8 || first & 0x0f == 8 => digits(&block[at + 1..]),
        first => panic!("no status at the beginning: {first:#x}"),
    }
}

/// Three digits, in Huffman's code or without (RFC 7541 appendix B).
fn digits(text: &[u8]) -> u16 {
    let length = usize::from(text[0] & 0x7f);
    let bytes = &text[1..=length];
    if text[0] & 0x80 == 0 {
        return std::str::from_utf8(bytes).unwrap().parse().unwrap();
    }
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let take = |at: usize, count: usize| {
        bits[at..at + count].iter().fold(0u16, |sum, bit| sum << 1 | u16::from(*bit))
    };
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        // The digits 0, 1 and 2 have five bits, the others six.
        let digit = match take(at, 5) {
            short @ 0..=2 => {
                at += 5;
                short
            }
            _ => {
                let long = take(at, 6) - 0b01_1001 + 3;
                at += 6;
                long
            }
        };
        number = number * 10 + digit;
    }
    number
}
