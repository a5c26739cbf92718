//! Tests of the loops over real sockets, with a service that does what each test says.

mod answers;
mod backends;
mod blame;
mod bodies;
mod bound;
mod connections;
mod edges;
mod heads;
mod secure;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::{RunningLoops, start};
use crate::clock::Clock;
use crate::config::{Engine, Frontend};
use crate::engine::{EngineStart, Sockets, Stats, TlsStart};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, BlockingRequest, DeliveryOutcome, FrontendEvent, Rejection, Ticket};
use crate::proxy::service::Service;
use crate::proxy::story::{NewRequest, Step};
use crate::tls::front::FrontTls;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// Long enough for anything that should happen, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shipped configuration with one loop.
fn config() -> Frontend {
    Frontend {
        h2c: false,
        engine: Engine::Epoll,
        workers: Some(1),
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
        abort_on_close: true,
        proxy_protocol: false,
        accept_invalid: false,
    }
}

type Script = dyn Fn(NewRequest<'_>) -> Step + Send + Sync;

/// A service that plays a script, and what the engine told it. What the script gives to the lane is answered by
/// [`echo`], or by a panic for the target `/panic`.
struct Scripted {
    script: Box<Script>,
    /// The lane's threads wait for it before they answer `/gate`.
    gate: Mutex<()>,
    begun: AtomicUsize,
    turns: AtomicUsize,
    refused: Mutex<Vec<u16>>,
    events: Mutex<Vec<FrontendEvent>>,
    /// How the deliveries of refusals and of the lane's answers ended.
    ends: Ends,
}

type Ends = Arc<Mutex<Vec<(u16, u64, DeliveryOutcome)>>>;

/// A ticket that notes how an answer's delivery ended.
struct Told(Ends, u16);

impl Ticket for Told {
    fn settle(self: Box<Self>, body_bytes: u64, delivery: DeliveryOutcome) {
        self.0.lock().push((self.1, body_bytes, delivery));
    }
}

impl Scripted {
    fn new(ends: Ends, script: impl Fn(NewRequest<'_>) -> Step + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            gate: Mutex::new(()),
            begun: AtomicUsize::new(0),
            turns: AtomicUsize::new(0),
            refused: Mutex::default(),
            events: Mutex::default(),
            ends,
        })
    }

    fn told(&self, mut answer: Answer) -> Answer {
        answer.ticket = Some(Box::new(Told(Arc::clone(&self.ends), answer.status)));
        answer
    }
}

impl Service for Scripted {
    fn begin(&self, asked: NewRequest<'_>) -> Step {
        self.begun.fetch_add(1, Ordering::SeqCst);
        (self.script)(asked)
    }

    fn work(&self, exchange: BlockingRequest<'_>) -> Answer {
        assert_ne!(exchange.head.target, "/panic", "as the test wants it");
        if exchange.head.target == "/gate" {
            drop(self.gate.lock());
        }
        self.told(echo(exchange))
    }

    fn refuse(&self, _head: &RequestHead, reject: &Reject, _received_at: Nanos) -> Answer {
        self.refused.lock().push(reject.status());
        let mut answer = reject.answer("id");
        answer.close = true;
        self.told(answer)
    }

    fn observe(&self, event: FrontendEvent) {
        match event {
            FrontendEvent::Turn(_) => {
                self.turns.fetch_add(1, Ordering::SeqCst);
            }
            event => self.events.lock().push(event),
        }
    }
}

/// Everything is for the lane, but `/now…`, which is answered at once with its target.
fn lane(asked: NewRequest<'_>) -> Step {
    if asked.head.target.starts_with("/now") {
        return now(&asked);
    }
    Step::Work(1 << 20)
}

fn now(asked: &NewRequest<'_>) -> Step {
    Step::Answer(Answer::new(200, asked.head.target.clone().into_bytes()))
}

/// Answers with method, target and body.
fn echo(exchange: BlockingRequest<'_>) -> Answer {
    let mut body = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match exchange.body.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => body.extend_from_slice(&buffer[..bytes]),
            Err(error) => return Answer::new(413, error.to_string().into_bytes()),
        }
    }
    let text =
        format!("{} {} {}", exchange.head.method, exchange.head.target, String::from_utf8_lossy(&body));
    Answer::new(200, text.into_bytes())
}

/// A running engine; ends when dropped.
struct Door {
    running: Option<RunningLoops>,
    service: Arc<Scripted>,
    address: SocketAddr,
}

impl Door {
    fn open(config: &Frontend, script: impl Fn(NewRequest<'_>) -> Step + Send + Sync + 'static) -> Self {
        Self::telling(config, Ends::default(), script)
    }

    /// With ends that the script, too, has its tickets tell.
    fn telling(
        config: &Frontend,
        ends: Ends,
        script: impl Fn(NewRequest<'_>) -> Step + Send + Sync + 'static,
    ) -> Self {
        Self::by(&Clock::real(), None, config, ends, script)
    }

    /// The same by that clock, and with TLS if there is something to speak it with.
    fn by(
        clock: &Clock,
        front: Option<Arc<FrontTls>>,
        config: &Frontend,
        ends: Ends,
        script: impl Fn(NewRequest<'_>) -> Step + Send + Sync + 'static,
    ) -> Self {
        let service = Scripted::new(ends, script);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let trusted = ["127.0.0.0/8".parse().expect("a network")];
        let backend_tls = Arc::default();
        let engine = EngineStart {
            inherited: false,
            config,
            trusted_proxies: &trusted,
            ipv6_prefix: 64,
            tls: front.as_ref().map(|front| TlsStart { front, handshake_timeout: PATIENCE }),
            backend_tls: &backend_tls,
        };
        let (plain, tls) = if front.is_some() { (vec![], vec![listener]) } else { (vec![listener], vec![]) };
        let listeners = Sockets { plain, tls };
        let running = start(listeners, &engine, Arc::clone(&service) as Arc<_>, clock.clone());
        let running = running.expect("the engine starts");
        let address = *running.addresses().iter().chain(running.tls_addresses()).next().expect("a listener");
        Self { running: Some(running), service, address }
    }

    fn running(&self) -> &RunningLoops {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the engine accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// Sends bytes on a new connection.
    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("the engine reads");
        stream
    }

    /// Sends bytes on a new connection and reads to its end.
    fn ask(&self, bytes: &[u8]) -> String {
        read_to_end(&mut self.send(bytes))
    }

    fn begun(&self) -> usize {
        self.service.begun.load(Ordering::SeqCst)
    }

    /// Waits until the engine's counts are as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&Stats) -> bool) {
        until(what, || wanted(&self.running().stats()));
    }

    /// Waits until no connection is left.
    fn until_empty(&self) {
        self.until("nothing is left", |stats| stats.loops.iter().sum::<usize>() == 0);
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
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 2 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("never happened: {what}");
}

fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the engine closes in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one answer with a Content-Length: its head and its body.
fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let head = read_head(stream);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a whole body");
    (head, String::from_utf8_lossy(&body).into_owned())
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn post(fields: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// Makes the coming close a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
}
