//! A client for exact bytes: it sends what a test wants and reads answers strictly, so that an answer which a lenient
//! client would take fails the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;
use super::response::parse;
pub use super::response::{Fault, Framing, Response};

/// A connection. `S` is a socket, or a TLS stream.
pub struct Conn<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl Conn {
    /// Connects from 127.0.0.1.
    #[track_caller]
    pub fn open(to: SocketAddr) -> Self {
        Self::from(IpAddr::V4(Ipv4Addr::LOCALHOST), to)
    }

    /// Connects from one of this machine's addresses (127/8): another client to the limiter.
    #[track_caller]
    pub fn from(source: IpAddr, to: SocketAddr) -> Self {
        Self::try_from(source, to).expect("it connects")
    }

    /// The same, where a refusal is no failure.
    pub fn try_from(source: IpAddr, to: SocketAddr) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        // Not bound for 127.0.0.1, which the kernel chooses anyway: a bound socket takes one of 28,000 ports for itself.
        if source.is_ipv4() == to.is_ipv4() && source != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE).and_then(|()| socket.set_tcp_nodelay(true))?;
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Our own address on it.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("connected")
    }

    /// A second handle on the same connection, for a thread that sends.
    pub fn another(&self) -> Self {
        Self { stream: self.stream.try_clone().expect("a descriptor"), buffer: Vec::new() }
    }

    /// Sets how long a read may wait for bytes from now on.
    pub fn wait_at_most(&self, patience: std::time::Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a time-out");
    }

    /// Ends only our direction of the connection.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
    }
}

impl<S: Read + Write> Conn<S> {
    /// A connection over an open stream.
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the other side takes it");
    }

    /// The same, where a refusal is no failure.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a GET request with a Host and reads its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target, &[], b"")
    }

    /// Sends a request and reads its answer; a broken answer fails the test.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(head(method, target, fields, (!body.is_empty()).then_some(body.len())));
        self.send(body);
        self.read(method).unwrap_or_else(|fault| panic!("{method} {target}: {fault:?}"))
    }

    /// Reads one answer to a request of that method, body and all.
    pub fn read(&mut self, method: &str) -> Result<Response, Fault> {
        let mut response = self.read_head(method)?;
        let mut body = Vec::new();
        let read = self.read_body(response.framing, &mut |bytes| body.extend_from_slice(bytes));
        match read {
            Ok(()) => {}
            Err(Fault::Closed | Fault::Reset) => return Err(Fault::Truncated(body.len())),
            Err(fault) => return Err(fault),
        }
        response.body = body;
        Ok(response)
    }

    /// Reads the head of a final answer, but not its body.
    pub fn read_head(&mut self, method: &str) -> Result<Response, Fault> {
        let mut interim = Vec::new();
        loop {
            let head = self.take_head()?;
            let mut response = parse(&head)?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
                response.framing = Framing::None;
            }
            response.interim = interim;
            return Ok(response);
        }
    }

    /// Reads one interim answer (1xx). Returns its status.
    pub fn read_interim(&mut self) -> Result<u16, Fault> {
        let head = self.take_head()?;
        parse(&head).map(|answer| answer.status)
    }

    fn take_head(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            let before = self.buffer.len();
            match self.fill() {
                Ok(()) => {}
                Err(fault) if before == 0 => return Err(fault),
                Err(Fault::TimedOut) => return Err(Fault::TimedOut),
                Err(_) => return Err(Fault::Truncated(0)),
            }
        }
    }

    /// Reads a body by its framing and gives its bytes to `take`. `Closed` and `Reset` mean that it was cut off.
    pub fn read_body(&mut self, framing: Framing, take: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        match framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.exactly(length, take),
            Framing::Chunked => self.chunks(take),
            Framing::UntilClose => loop {
                take(&std::mem::take(&mut self.buffer));
                match self.fill() {
                    Ok(()) => {}
                    Err(Fault::Closed) => return Ok(()),
                    Err(fault) => return Err(fault),
                }
            },
        }
    }

    /// Takes exactly that many bytes.
    pub fn exactly(&mut self, length: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill()?;
            }
            let count = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&self.buffer[..count]);
            self.buffer.drain(..count);
            left -= count as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                return String::from_utf8(line).map_err(|_| Fault::Malformed("a chunk's line".into()));
            }
            if self.buffer.len() > 1024 {
                return Err(Fault::Malformed("an endless chunk-size line".into()));
            }
            self.fill()?;
        }
    }

    fn chunks(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        loop {
            let line = self.line()?;
            let strict = !line.is_empty() && line.len() <= 16 && line.bytes().all(|b| b.is_ascii_hexdigit());
            if !strict {
                return Err(Fault::Malformed(format!("chunk-size line {line:?}")));
            }
            let size = u64::from_str_radix(&line, 16).expect("hex digits");
            if size == 0 {
                break;
            }
            self.exactly(size, take)?;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(Fault::Malformed(format!("{end:?} behind a chunk")));
            }
        }
        // Trailers, if any, up to the empty line.
        while !self.line()?.is_empty() {}
        Ok(())
    }

    /// Reads some bytes into the buffer.
    fn fill(&mut self) -> Result<(), Fault> {
        let mut chunk = [0; 65536];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Fault::Closed),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Fault::TimedOut)
            }
            Err(_) => Err(Fault::Reset),
        }
    }

    /// Waits for the end of the connection. Returns the bytes that came before it, and how it ended.
    #[track_caller]
    pub fn wait_closed(&mut self) -> (Vec<u8>, Fault) {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(Fault::TimedOut) => panic!("the connection stays open"),
                Err(fault) => return (std::mem::take(&mut self.buffer), fault),
            }
        }
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn request(to: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
    Conn::open(to).ask(method, target, fields, body)
}

/// One GET on a connection of its own.
#[track_caller]
pub fn get(to: SocketAddr, target: &str) -> Response {
    request(to, "GET", target, &[], b"")
}

/// The head of a request. A Host is added unless it is among the fields.
pub fn head(method: &str, target: &str, fields: &[(&str, &str)], length: Option<usize>) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: 127.0.0.1\r\n");
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The index at which `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
