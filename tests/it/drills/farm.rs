//! A backend that has thousands of connections on one thread, and knows when each one ended.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::support::client::find;

/// What each farm counts.
#[derive(Default)]
struct Counts {
    /// Requests to `/hang`, never answered, whose connection is open.
    hanging: AtomicUsize,
    /// Open event streams.
    streams: AtomicUsize,
    /// Request bodies that are not whole.
    bodies: AtomicUsize,
    /// Answers that are not all sent.
    answers: AtomicUsize,
}

struct Shared {
    counts: Counts,
    events: Mutex<Vec<Vec<u8>>>,
    cut: Mutex<Vec<(String, Instant)>>,
    stopped: AtomicBool,
    wake: OwnedFd,
}

/// Answers by the target:
/// - `/ok`: `ok`; `/sink`: the number of bytes of the body; `/bytes/N`: N bytes;
/// - `/hang`: nothing; `/events`: an event stream, with an event whenever [`Farm::send_event`] says so.
pub struct Farm {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Farm {
    /// On a port of its own.
    pub fn start() -> Self {
        let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        // Accepted sockets inherit it: what a slow client does not take must wait in the balancer and not in here.
        socket.set_send_buffer_size(64 * 1024).expect("a buffer");
        socket.bind(&address.into()).expect("a free port");
        socket.listen(4096).expect("a listener");
        let listener: TcpListener = socket.into();
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            counts: Counts::default(),
            events: Mutex::default(),
            cut: Mutex::default(),
            stopped: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an eventfd"),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || Field::new(listener, own).run());
        Self { address, shared, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Open connections whose request to `/hang` waits.
    pub fn hanging(&self) -> usize {
        self.shared.counts.hanging.load(Ordering::SeqCst)
    }

    /// Open event streams.
    pub fn streams(&self) -> usize {
        self.shared.counts.streams.load(Ordering::SeqCst)
    }

    /// Open connections on which a request's body is not whole.
    pub fn bodies(&self) -> usize {
        self.shared.counts.bodies.load(Ordering::SeqCst)
    }

    /// Open connections on which an answer is not all sent.
    pub fn answers(&self) -> usize {
        self.shared.counts.answers.load(Ordering::SeqCst)
    }

    /// The targets of requests whose connection ended before their answer did, and when that was seen.
    pub fn cut(&self) -> Vec<(String, Instant)> {
        self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends one event on every open stream.
    pub fn send_event(&self, data: &str) {
        let event = format!("data: {data}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
        self.wake();
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a connection is in the middle of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Idle,
    Body,
    Hanging,
    Streaming,
    Answering,
}

struct Peer {
    stream: TcpStream,
    doing: Doing,
    target: String,
    input: Vec<u8>,
    body_bytes: usize,
    body_left: usize,
    output: Vec<u8>,
    /// Zeros still to be sent behind the output.
    zeros: usize,
    waits_for_room: bool,
}

const LISTENER: u64 = 0;
const WAKE: u64 = 1;
static ZEROS: [u8; 65536] = [0; 65536];

/// What the thread owns.
struct Field {
    listener: TcpListener,
    epoll: OwnedFd,
    peers: HashMap<u64, Peer>,
    next: u64,
    shared: Arc<Shared>,
}

impl Field {
    fn new(listener: TcpListener, shared: Arc<Shared>) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an epoll instance");
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN).expect("watched");
        epoll::add(&epoll, &shared.wake, EventData::new_u64(WAKE), EventFlags::IN).expect("watched");
        Self { listener, epoll, peers: HashMap::new(), next: WAKE + 1, shared }
    }

    fn run(mut self) {
        while !self.shared.stopped.load(Ordering::SeqCst) {
            let mut events = [MaybeUninit::uninit(); 256];
            let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, None) else { continue };
            for event in events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    WAKE => self.broadcast(),
                    key => self.handle(key),
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("a socket");
            let _ = stream.set_nodelay(true);
            let key = self.next;
            self.next += 1;
            epoll::add(&self.epoll, &stream, EventData::new_u64(key), EventFlags::IN).expect("watched");
            let peer = Peer {
                stream,
                doing: Doing::Idle,
                target: String::new(),
                input: Vec::new(),
                body_bytes: 0,
                body_left: 0,
                output: Vec::new(),
                zeros: 0,
                waits_for_room: false,
            };
            self.peers.insert(key, peer);
        }
    }

    fn broadcast(&mut self) {
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        let events =
            std::mem::take(&mut *self.shared.events.lock().unwrap_or_else(PoisonError::into_inner)).concat();
        let open: Vec<u64> =
            self.peers.iter().filter(|(_, p)| p.doing == Doing::Streaming).map(|(key, _)| *key).collect();
        for key in open {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.output.extend_from_slice(&events);
            }
            self.handle(key);
        }
    }

    fn handle(&mut self, key: u64) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.go_on(&self.shared.counts) {
            let peer = self.peers.remove(&key).expect("looked up above");
            if peer.doing != Doing::Idle {
                let mut cut = self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner);
                cut.push((peer.target.clone(), Instant::now()));
            }
            count(&self.shared.counts, peer.doing, -1);
            let _ = epoll::delete(&self.epoll, &peer.stream);
            return;
        }
        let wants_room = !peer.output.is_empty() || peer.zeros > 0;
        if wants_room != peer.waits_for_room {
            peer.waits_for_room = wants_room;
            let flags = if wants_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &peer.stream, EventData::new_u64(key), flags).expect("watched");
        }
    }
}

fn count(counts: &Counts, doing: Doing, by: isize) {
    let counter = match doing {
        Doing::Idle => return,
        Doing::Body => &counts.bodies,
        Doing::Hanging => &counts.hanging,
        Doing::Streaming => &counts.streams,
        Doing::Answering => &counts.answers,
    };
    if by > 0 {
        counter.fetch_add(1, Ordering::SeqCst);
    } else {
        counter.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Peer {
    fn turn_to(&mut self, counts: &Counts, doing: Doing) {
        count(counts, self.doing, -1);
        count(counts, doing, 1);
        self.doing = doing;
    }

    /// Reads and writes what can be; `false` when the connection is over.
    fn go_on(&mut self, counts: &Counts) -> bool {
        let mut buffer = [0; 65536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(read) => self.input.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
            self.advance(counts);
        }
        self.send(counts)
    }

    fn advance(&mut self, counts: &Counts) {
        if self.doing == Doing::Idle
            && let Some(end) = find(&self.input, b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&self.input[..end]).into_owned();
            self.input.drain(..end + 4);
            self.target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            (self.body_bytes, self.body_left) = (0, length.unwrap_or(0));
            self.turn_to(counts, Doing::Body);
        }
        if self.doing == Doing::Body {
            let here = self.input.len().min(self.body_left);
            self.input.drain(..here);
            self.body_left -= here;
            self.body_bytes += here;
            if self.body_left == 0 {
                self.answer(counts);
            }
        }
    }

    fn answer(&mut self, counts: &Counts) {
        let path = self.target.split('?').next().unwrap_or_default();
        if path == "/hang" {
            return self.turn_to(counts, Doing::Hanging);
        }
        if path == "/events" {
            self.output.extend_from_slice(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            return self.turn_to(counts, Doing::Streaming);
        }
        let zeros = path.strip_prefix("/bytes/").and_then(|size| size.parse().ok());
        let body = match path {
            "/sink" => self.body_bytes.to_string(),
            _ if zeros.is_some() => String::new(),
            _ => "ok".into(),
        };
        self.zeros = zeros.unwrap_or(0);
        let length = body.len() + self.zeros;
        let _ = write!(self.output, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        self.turn_to(counts, Doing::Answering);
    }

    fn send(&mut self, counts: &Counts) -> bool {
        loop {
            let from_output = !self.output.is_empty();
            let bytes = if from_output { &self.output[..] } else { &ZEROS[..self.zeros.min(ZEROS.len())] };
            if bytes.is_empty() {
                break;
            }
            match self.stream.write(bytes) {
                Ok(sent) if from_output => drop(self.output.drain(..sent)),
                Ok(sent) => self.zeros -= sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        if self.doing == Doing::Answering {
            self.turn_to(counts, Doing::Idle);
        }
        true
    }
}
