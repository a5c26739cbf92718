//! Thousands of clients on one thread of the test. They act in ticks; in each tick a client sends a byte or reads a few.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::PATIENCE;

/// How a client behaves after its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Sends one byte a tick; reads what comes.
    Drip,
    /// Reads that many bytes a tick.
    Sip(usize),
    /// Sends that many bytes a tick, if the other side takes them; reads what comes.
    Pour(usize),
    /// Reads what comes.
    Listen,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Closed,
    Reset,
}

/// One client.
pub struct Client {
    stream: TcpStream,
    habit: Habit,
    /// Which of the test's groups it belongs to.
    pub group: &'static str,
    /// Bytes received.
    pub got: usize,
    /// The first of them.
    pub start: Vec<u8>,
    pub end: Option<End>,
}

/// What a [`Habit::Pour`] sends.
static POURED: [u8; 4096] = [b'x'; 4096];
/// Bytes of an answer that are remembered.
const START_BYTES: usize = 4096;

impl Client {
    /// The status of its answer, if one has come.
    pub fn status(&self) -> Option<u16> {
        let line = std::str::from_utf8(self.start.get(..12)?).ok()?;
        line.strip_prefix("HTTP/1.1 ")?.parse().ok()
    }

    fn read(&mut self, most: usize) {
        let mut buffer = [0; 16384];
        let mut left = most;
        while left > 0 && self.end.is_none() {
            let room = left.min(buffer.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => self.end = Some(End::Closed),
                Ok(read) => {
                    let keep = read.min(START_BYTES - self.start.len());
                    self.start.extend_from_slice(&buffer[..keep]);
                    self.got += read;
                    left -= read;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = Some(End::Reset),
            }
        }
    }
}

/// Many clients, which act when [`Crowd::sweep`] is called.
pub struct Crowd {
    /// All clients, ended or not.
    pub clients: Vec<Client>,
    tick: Duration,
    next_tick: Instant,
}

impl Crowd {
    /// No clients yet. `tick` is how often a [`Habit::Drip`] or [`Habit::Sip`] acts.
    pub fn new(tick: Duration) -> Self {
        Self { clients: Vec::new(), tick, next_tick: Instant::now() + tick }
    }

    /// Connects one client more, which sends `first` at once. A receive buffer of a few KiB keeps a slow reader's
    /// bytes on the other side.
    pub fn join(&mut self, to: SocketAddr, group: &'static str, habit: Habit, first: &Arc<[u8]>) {
        self.join_from(Ipv4Addr::LOCALHOST, to, group, habit, first);
    }

    /// The same from another address of this machine.
    pub fn join_from(
        &mut self,
        from: Ipv4Addr,
        to: SocketAddr,
        group: &'static str,
        habit: Habit,
        first: &Arc<[u8]>,
    ) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        // A bound socket has its port for itself, and there are only so many.
        if from != Ipv4Addr::LOCALHOST {
            socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
        }
        if matches!(habit, Habit::Sip(_)) {
            socket.set_recv_buffer_size(4096).expect("a buffer");
        }
        socket.connect_timeout(&to.into(), PATIENCE).unwrap_or_else(|error| {
            panic!("client {} connects to {to}: {error}", self.clients.len());
        });
        let mut stream: TcpStream = socket.into();
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(first).expect("a new connection takes the first bytes");
        stream.set_nonblocking(true).expect("a socket");
        self.clients.push(Client { stream, habit, group, got: 0, start: Vec::new(), end: None });
    }

    /// Lets all clients act until the condition holds; it is checked once a tick at least.
    #[track_caller]
    pub fn act_until(&mut self, what: &str, holds: impl FnMut(&Self) -> bool) {
        self.act_at_most(PATIENCE, what, holds);
    }

    /// The same for what takes longer than most things.
    #[track_caller]
    pub fn act_at_most(&mut self, patience: Duration, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited {patience:?} in vain until {what}: {}", self.story());
            self.sweep();
        }
    }

    /// Waits for events for at most the time to the next tick, and acts.
    pub fn sweep(&mut self) {
        let now = Instant::now();
        let ticks = now >= self.next_tick;
        if ticks {
            self.next_tick = now + self.tick;
            self.act();
        }
        let mut alive: Vec<usize> = Vec::new();
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        for (index, client) in self.clients.iter().enumerate() {
            if client.end.is_none() {
                let flags =
                    if matches!(client.habit, Habit::Sip(_)) { PollFlags::empty() } else { PollFlags::IN };
                alive.push(index);
                fds.push(PollFd::new(&client.stream, flags));
            }
        }
        let wait = self.next_tick.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        if !poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
            return;
        }
        let ready: Vec<(usize, PollFlags)> = alive.into_iter().zip(fds.iter().map(PollFd::revents)).collect();
        for (index, flags) in ready {
            let client = &mut self.clients[index];
            if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                // A slow reader comes here only when its connection is broken, so the rest of its bytes does not
                // matter.
                client.read(usize::MAX);
            }
        }
    }

    fn act(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.end.is_none()) {
            match client.habit {
                // Refused when the other side has closed: the poll says so.
                Habit::Drip => drop(client.stream.write(b"x")),
                Habit::Sip(bytes) => client.read(bytes),
                Habit::Pour(bytes) => drop(client.stream.write(&POURED[..bytes])),
                Habit::Listen => {}
            }
        }
    }

    /// All clients leave with a reset.
    pub fn reset(&mut self) {
        for client in self.clients.drain(..) {
            let _ = socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Those of one group.
    pub fn group(&self, group: &str) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(move |client| client.group == group)
    }

    /// How many are still open.
    pub fn open(&self) -> usize {
        self.clients.iter().filter(|client| client.end.is_none()).count()
    }

    /// Everything known, in few words: how many of each group had which status and end.
    pub fn story(&self) -> String {
        let mut counts: std::collections::BTreeMap<_, usize> = std::collections::BTreeMap::new();
        for client in &self.clients {
            let end = client.end.map_or("open", |end| if end == End::Closed { "closed" } else { "reset" });
            *counts.entry((client.group, client.status(), end)).or_default() += 1;
        }
        format!("{counts:?}")
    }
}
