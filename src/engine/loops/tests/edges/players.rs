//! The clients and backends around the loop, and what they may send.

use std::io::{Read, Write};
use std::net::TcpStream;

use fastrand::Rng;

/// The other end of a connection.
pub(super) struct Peer {
    pub stream: TcpStream,
    script: Vec<u8>,
    at: usize,
}

impl Peer {
    pub fn new(stream: TcpStream, script: Vec<u8>) -> Self {
        stream.set_nonblocking(true).expect("set");
        Self { stream, script, at: 0 }
    }

    pub fn write(&mut self, random: &mut Rng) {
        let rest = self.script.len() - self.at;
        let piece = if random.u8(..4) == 0 { rest } else { rest.min(random.usize(1..4_000)) };
        if let Ok(sent) = self.stream.write(&self.script[self.at..self.at + piece]) {
            self.at += sent;
        }
    }

    pub fn read(&mut self, random: &mut Rng) {
        let mut buffer = vec![0; random.usize(1..100_000)];
        let _ = self.stream.read(&mut buffer);
    }
}

/// What a client may send, in any order.
pub(super) fn request(random: &mut Rng) -> Vec<u8> {
    let body = "x".repeat(20_000);
    let text = match random.u8(..17) {
        0..=3 => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        4 => "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        5 => "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
        6 => "GET / HTTP/1.0\r\n\r\n".into(),
        7 => "GET /now HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40),
        8 => format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{body}"),
        9 => format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n{body}\r\n0\r\n\r\n"
        ),
        10 => "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody".into(),
        11 => "GET /lane HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        12 => format!("POST /lane HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n{}", &body[..6_000]),
        13 => format!(
            "POST /lane HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n{}\r\nx",
            &body[..5_000]
        ),
        14 => format!("POST /lane HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n{body}"),
        15 => {
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nsome bytes".into()
        }
        _ => "GET / HTTP/1.1\r\nno host\r\n\r\n".into(),
    };
    text.into_bytes()
}

/// What a backend may answer.
pub(super) fn answer(random: &mut Rng) -> Vec<u8> {
    let body = "y".repeat(150_000);
    let text = match random.u8(..14) {
        0..=3 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        4 => format!("HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n{body}"),
        5 => format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n249f0\r\n{body}\r\n0\r\n\r\n"),
        6 => format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
        7 => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        8 => "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        9 => "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes".into(),
        10 => "HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM\r\nContent-Length: 2\r\n\r\nno".into(),
        11 => "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno".into(),
        12 => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz".into(),
        _ => "nonsense\r\n\r\n".into(),
    };
    text.into_bytes()
}
