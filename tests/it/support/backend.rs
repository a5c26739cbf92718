//! Backends that send exactly the bytes that a test wants, and remember exactly the bytes that they were sent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::client::find;
use super::reserved;

/// A request as a backend received it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which of the backend's connections it came on, from 0.
    pub connection: usize,
    /// The head with its empty line, byte for byte.
    pub head: Vec<u8>,
    /// The body with its framing, byte for byte.
    pub raw_body: Vec<u8>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Seen {
    /// Its first line, such as `GET /x HTTP/1.1`.
    pub fn request_line(&self) -> String {
        self.lines().remove(0)
    }

    /// All lines of the head.
    pub fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.head).into_owned();
        text.trim_end_matches("\r\n").split("\r\n").map(str::to_owned).collect()
    }

    /// The values of all fields of that name, in order.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.lines()
            .iter()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    /// The first value of that name.
    pub fn field(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }
}

/// What becomes of a backend's connection when a script returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Wait for the next request.
    Keep,
    /// Close it properly.
    Close,
    /// Reset it.
    Reset,
    /// Leave it open and send nothing more, until the backend is dropped.
    Hang,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    sockets: Mutex<Vec<(usize, TcpStream)>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

impl Shared {
    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backend that follows a script, on a port of its own. It ends with all of its connections when it is dropped.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The simplest answer.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Backend {
    /// Answers every request with the same bytes and keeps the connection.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        Self::saying(bytes, Then::Keep)
    }

    /// Answers with 200 and its own name as body.
    pub fn named(name: &str) -> Self {
        Self::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()))
    }

    /// Uses a listener of the caller, and answers with 200 and that number as body.
    pub fn named_on(listener: TcpListener, number: u8) -> Self {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{number:02}");
        Self::on(listener, move |index, stream, shared| {
            let mut buffer = Vec::new();
            while let Some(seen) = read_request(index, stream, &mut buffer) {
                shared(seen);
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
            Then::Close
        })
    }

    /// Answers a request with these bytes, and then does with the connection what `then` says.
    pub fn saying(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        let bytes = bytes.into();
        Self::scripted(move |_, stream| {
            let _ = stream.write_all(&bytes);
            then
        })
    }

    /// Calls `script` for every whole request.
    pub fn scripted(script: impl Fn(&Seen, &mut TcpStream) -> Then + Send + Sync + 'static) -> Self {
        Self::raw(move |index, stream, shared| {
            let mut buffer = Vec::new();
            while let Some(seen) = read_request(index, stream, &mut buffer) {
                shared(seen.clone());
                match script(&seen, stream) {
                    Then::Keep => {}
                    then => return then,
                }
            }
            Then::Close
        })
    }

    /// Accepts and reads, and never answers.
    pub fn deaf() -> Self {
        Self::scripted(|_, _| Then::Hang)
    }

    /// Calls `script` for every connection, with its number and a function to which the script gives the requests that it
    /// has read.
    pub fn raw(
        script: impl Fn(usize, &mut TcpStream, &dyn Fn(Seen)) -> Then + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), script)
    }

    fn on(
        listener: TcpListener,
        script: impl Fn(usize, &mut TcpStream, &dyn Fn(Seen)) -> Then + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            sockets: Mutex::default(),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let script = Arc::new(script);
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_nodelay(true);
                let index = own.connections.fetch_add(1, Ordering::SeqCst);
                if let Ok(clone) = stream.try_clone() {
                    Shared::lock(&own.sockets).push((index, clone));
                }
                let (script, shared) = (Arc::clone(&script), Arc::clone(&own));
                std::thread::spawn(move || {
                    let keep = |seen: Seen| Shared::lock(&shared.seen).push(seen);
                    match script(index, &mut stream, &keep) {
                        Then::Hang => return std::mem::forget(stream),
                        Then::Reset => {
                            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                            Shared::lock(&shared.sockets).retain(|(other, _)| *other != index);
                            return;
                        }
                        Then::Keep | Then::Close => {}
                    }
                    Shared::lock(&shared.sockets).retain(|(other, _)| *other != index);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        Shared::lock(&self.shared.seen).clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "requests at the backend: {seen:#?}");
        seen.remove(0)
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of its connections are open, as far as it knows.
    pub fn open(&self) -> usize {
        Shared::lock(&self.shared.sockets).len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for (_, socket) in Shared::lock(&self.shared.sockets).iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Reads one request; `None` when the connection ends before a whole one came.
pub fn read_request(connection: usize, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        fill(stream, buffer)?;
    };
    let rest = buffer.split_off(end);
    let head = std::mem::replace(buffer, rest);
    let mut seen = Seen { connection, head, raw_body: Vec::new(), body: Vec::new() };
    if let Some(length) = seen.field("content-length") {
        let length: usize = length.parse().ok()?;
        while buffer.len() < length {
            fill(stream, buffer)?;
        }
        let rest = buffer.split_off(length);
        seen.raw_body = std::mem::replace(buffer, rest);
        seen.body = seen.raw_body.clone();
    } else if seen.field("transfer-encoding").is_some() {
        read_chunks(stream, buffer, &mut seen)?;
    }
    Some(seen)
}

fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>, seen: &mut Seen) -> Option<()> {
    loop {
        let line = take_line(stream, buffer)?;
        seen.raw_body.extend_from_slice(&line);
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim_end(), 16).ok()?;
        if size == 0 {
            break;
        }
        while buffer.len() < size + 2 {
            fill(stream, buffer)?;
        }
        let rest = buffer.split_off(size + 2);
        let chunk = std::mem::replace(buffer, rest);
        seen.raw_body.extend_from_slice(&chunk);
        seen.body.extend_from_slice(&chunk[..size]);
    }
    loop {
        let line = take_line(stream, buffer)?;
        seen.raw_body.extend_from_slice(&line);
        if line == b"\r\n" {
            return Some(());
        }
    }
}

fn take_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let rest = buffer.split_off(end + 2);
            return Some(std::mem::replace(buffer, rest));
        }
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 65536];
    match stream.read(&mut chunk) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.extend_from_slice(&chunk[..count]);
            Some(())
        }
    }
}

/// An address on which nothing listens, so that connections to it are refused.
pub fn refusing() -> SocketAddr {
    reserved()
}
