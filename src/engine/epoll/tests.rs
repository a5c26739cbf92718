//! The engine over real sockets, with a service that does what each test says.

mod bodies;
mod connections;
mod framing;
mod others;
mod parked;
mod parts;
mod slow;
mod streams;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::gate::Gate;
use super::{Running, Stats, start};
use crate::clock::Clock;
use crate::config::{Engine, Frontend};
use crate::error::Reject;
use crate::proxy::exchange::FrontendEvent;
use crate::proxy::exchange::{Answer, Exchange, Served};
use crate::proxy::service::Service;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// Long enough for anything that should happen, on a machine that is busy with something else.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The shipped configuration with few workers.
pub(super) fn config() -> Frontend {
    Frontend {
        engine: Engine::Epoll,
        workers: Some(8),
        max_connections: 1000,
        max_connections_per_ip: 1000,
        max_head_bytes: 16384,
        max_headers: 100,
        max_target_bytes: 8192,
        max_body_bytes: 16 << 20,
        head_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(30),
        tunnel_timeout: Duration::from_secs(3_600),
        request_buffer_bytes: 65536,
        response_buffer_bytes: 65536,
        min_bytes_per_sec: 240,
        slow_grace: Duration::from_secs(5),
        upgrades: vec!["websocket".into()],
        abort_on_close: false,
        proxy_protocol: false,
        accept_invalid: false,
    }
}

type Script = dyn Fn(Exchange<'_>) -> Served + Send + Sync;

/// A service that plays a script, and what the engine told it.
pub(super) struct Scripted {
    script: Box<Script>,
    pub served: AtomicUsize,
    pub refused: Mutex<Vec<u16>>,
    pub events: Mutex<Vec<FrontendEvent>>,
}

impl Service for Scripted {
    fn serve(&self, exchange: Exchange<'_>) -> Served {
        self.served.fetch_add(1, Ordering::SeqCst);
        (self.script)(exchange)
    }

    fn refuse(&self, _head: &RequestHead, reject: &Reject, _received_at: Nanos) -> Answer {
        self.refused.lock().push(reject.status());
        reject.answer("id")
    }

    fn observe(&self, event: FrontendEvent) {
        self.events.lock().push(event);
    }

    fn unattended(&self, head: &RequestHead) -> Option<Answer> {
        (head.path() == "/-/livez").then(|| Answer::new(200, b"alive".to_vec()))
    }
}

/// A running engine; ends when dropped.
pub(super) struct Door {
    running: Option<Running>,
    pub service: Arc<Scripted>,
    pub address: SocketAddr,
}

impl Door {
    pub fn open(config: &Frontend, script: impl Fn(Exchange<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self::open_parking(config, move |exchange| script(exchange).into())
    }

    /// For a service that parks.
    pub fn open_parking(
        config: &Frontend,
        script: impl Fn(Exchange<'_>) -> Served + Send + Sync + 'static,
    ) -> Self {
        let service = Arc::new(Scripted {
            script: Box::new(script),
            served: AtomicUsize::new(0),
            refused: Mutex::default(),
            events: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let trusted = ["127.0.0.0/8".parse().expect("a network")];
        let running = start(vec![listener], false, config, &trusted, service.clone(), Clock::real())
            .expect("the engine starts");
        let address = running.addresses()[0];
        Self { running: Some(running), service, address }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    pub fn gate(&self) -> &Gate {
        &self.running().core.gate
    }

    pub fn stats(&self) -> Stats {
        self.running().stats()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the engine accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// Sends bytes on a new connection and reads to its end.
    pub fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("the engine reads");
        read_to_end(&mut stream)
    }

    pub fn served(&self) -> usize {
        self.service.served.load(Ordering::SeqCst)
    }

    /// Waits until the engine's counts are as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&Stats) -> bool) {
        until(what, || wanted(&self.stats()));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

/// Waits for a condition.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 2 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("never happened: {what}");
}

pub(super) fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the engine closes in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one answer with a Content-Length: its head and its body.
pub(super) fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a whole body");
    (head, String::from_utf8_lossy(&body).into_owned())
}

pub(super) fn half_close(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("an open socket");
}

/// Answers with method, target and body.
pub(super) fn echo(exchange: Exchange<'_>) -> Answer {
    let mut body = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match exchange.body.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => body.extend_from_slice(&buffer[..bytes]),
            Err(error) => return Answer::new(400, error.to_string().into_bytes()),
        }
    }
    let text =
        format!("{} {} {}", exchange.head.method, exchange.head.target, String::from_utf8_lossy(&body));
    Answer::new(200, text.into_bytes())
}

pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}
