//! The connections, in slots indexed by descriptor. A slot is taken, worked on without any lock, and put back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::conn::{Conn, Link};
use super::timers::{Due, Phase};

/// Names one connection for the kernel: its descriptor, and a generation so that an event for a closed connection is
/// never taken for its descriptor's next owner. The highest bit says which of its two sockets is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(pub u64);

const UPSTREAM_BIT: u64 = 1 << 63;
const GENERATION_MASK: u32 = u32::MAX >> 1;

impl Token {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(index) | u64::from(generation & GENERATION_MASK) << 32)
    }

    /// The same connection's backend socket.
    pub fn upstream(self) -> Self {
        Self(self.0 | UPSTREAM_BIT)
    }

    /// The same connection's own socket.
    pub fn client(self) -> Self {
        Self(self.0 & !UPSTREAM_BIT)
    }

    fn index(self) -> u32 {
        self.0 as u32
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & GENERATION_MASK
    }
}

/// What [`Table::take`] found.
pub(super) enum Taken {
    /// The connection, now the caller's.
    Conn(Box<Conn>),
    /// Somebody else has it at the moment.
    Busy,
    /// It was closed.
    Gone,
}

pub(super) const CHUNK: usize = 1024;
/// Descriptors beyond this are not taken; the kernel's own default for the hard limit is no higher.
pub(super) const MAX_DESCRIPTORS: usize = 1 << 20;

#[derive(Default)]
struct Slot {
    generation: u32,
    link: Option<Arc<Link>>,
    conn: Option<Box<Conn>>,
}

struct Chunk {
    /// Beside the slots, so that the keeper's walk reads eight bytes a connection.
    dues: Box<[AtomicU64]>,
    slots: Box<[Mutex<Slot>]>,
}

impl Chunk {
    fn new() -> Self {
        Self {
            dues: (0..CHUNK).map(|_| AtomicU64::new(Due::never(Phase::Vacant).word())).collect(),
            slots: (0..CHUNK).map(|_| Mutex::default()).collect(),
        }
    }
}

/// All connections. Memory for slots is taken in steps of 1,024 and kept.
pub(super) struct Table {
    chunks: Box<[OnceLock<Chunk>]>,
}

impl Table {
    pub fn new() -> Self {
        Self { chunks: (0..MAX_DESCRIPTORS / CHUNK).map(|_| OnceLock::new()).collect() }
    }

    /// Gives a new connection its slot, and the connection its token. `None`: the descriptor is beyond the table.
    /// Takes the slot's lock.
    pub fn occupy(&self, link: &Arc<Link>) -> Option<Token> {
        let index = link.wire.index();
        let chunk = self.chunks.get(index as usize / CHUNK)?.get_or_init(Chunk::new);
        let mut slot = chunk.slots[index as usize % CHUNK].lock();
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        slot.link = Some(Arc::clone(link));
        slot.conn = None;
        chunk.dues[index as usize % CHUNK].store(Due::never(Phase::Busy).word(), Ordering::Relaxed);
        Some(Token::new(index, slot.generation))
    }

    fn find(&self, token: Token) -> Option<(&AtomicU64, &Mutex<Slot>)> {
        let index = token.index() as usize;
        let chunk = self.chunks.get(index / CHUNK)?.get()?;
        Some((&chunk.dues[index % CHUNK], &chunk.slots[index % CHUNK]))
    }

    /// Takes a connection out. `cancel_if_busy`: the event says that the client is gone; whoever has the connection
    /// learns it through the link. Takes the slot's lock.
    pub fn take(&self, token: Token, cancel_if_busy: bool) -> Taken {
        let Some((due, slot)) = self.find(token) else { return Taken::Gone };
        let mut slot = slot.lock();
        if slot.generation != token.generation() {
            return Taken::Gone;
        }
        match (slot.conn.take(), &slot.link) {
            (Some(conn), _) => {
                due.store(Due::never(Phase::Busy).word(), Ordering::Relaxed);
                Taken::Conn(conn)
            }
            (None, Some(link)) => {
                if cancel_if_busy {
                    // Under the lock, so that a worker that is about to park it sees the flag or is seen parked.
                    link.abort.cancel();
                }
                Taken::Busy
            }
            (None, None) => Taken::Gone,
        }
    }

    /// Whether a connection waits for that now, which may have changed since.
    pub fn waits(&self, token: Token, phase: Phase) -> bool {
        self.find(token).is_some_and(|(due, _)| Due::of(due.load(Ordering::Relaxed)).phase == phase)
    }

    /// Takes a connection out if it waits for that, however long. Takes the slot's lock.
    pub fn take_waiting(&self, token: Token, phase: Phase) -> Option<Box<Conn>> {
        self.take_if(token, |due| due.phase == phase)
    }

    /// Gives a connection until then, if it still waits for exactly that. It stays where it is. Takes the slot's lock.
    pub fn prolong(&self, token: Token, expected: Due, until: Due) {
        let Some((due, slot)) = self.find(token) else { return };
        let slot = slot.lock();
        if slot.generation == token.generation() && due.load(Ordering::Relaxed) == expected.word() {
            due.store(until.word(), Ordering::Relaxed);
        }
    }

    /// Takes a connection out if it still waits for exactly that. Takes the slot's lock.
    pub fn take_due(&self, token: Token, expected: Due) -> Option<Box<Conn>> {
        self.take_if(token, |due| due.word() == expected.word())
    }

    fn take_if(&self, token: Token, waits_so: impl FnOnce(Due) -> bool) -> Option<Box<Conn>> {
        let (due, slot) = self.find(token)?;
        let mut slot = slot.lock();
        if slot.generation != token.generation() || !waits_so(Due::of(due.load(Ordering::Relaxed))) {
            return None;
        }
        let conn = slot.conn.take()?;
        due.store(Due::never(Phase::Busy).word(), Ordering::Relaxed);
        Some(conn)
    }

    /// Puts a connection back and arms it. Both happen under the slot's lock, so that an event that comes at once finds
    /// the connection; `arm` makes a system call that never blocks (epoll_ctl). Gives the connection back when its
    /// client is known to be gone and nothing would wake it.
    pub fn put(
        &self,
        conn: Box<Conn>,
        due: Due,
        unless_cancelled: bool,
        arm: impl FnOnce(&mut Conn),
    ) -> Option<Box<Conn>> {
        let Some((word, slot)) = self.find(conn.token) else { return Some(conn) };
        let mut slot = slot.lock();
        if unless_cancelled && conn.link.abort.cancelled() {
            return Some(conn);
        }
        word.store(due.word(), Ordering::Relaxed);
        arm(slot.conn.insert(conn));
        None
    }

    /// Notes what a connection waits for that is not in its slot.
    pub fn mark(&self, token: Token, due: Due) {
        if let Some((word, _)) = self.find(token) {
            word.store(due.word(), Ordering::Relaxed);
        }
    }

    /// Empties a slot; must come before its descriptor is closed. Takes the slot's lock.
    pub fn vacate(&self, token: Token) {
        let Some((due, slot)) = self.find(token) else { return };
        let mut slot = slot.lock();
        if slot.generation == token.generation() {
            due.store(Due::never(Phase::Vacant).word(), Ordering::Relaxed);
            slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
            slot.link = None;
            slot.conn = None;
        }
    }

    /// The link of a connection, wherever it is. Takes the slot's lock.
    pub fn link(&self, token: Token) -> Option<Arc<Link>> {
        let (_, slot) = self.find(token)?;
        let slot = slot.lock();
        if slot.generation == token.generation() { slot.link.clone() } else { None }
    }

    /// Calls back for every occupied slot, without any lock: what is told may have changed since.
    pub fn walk(&self, mut visit: impl FnMut(u32, Due)) {
        for (number, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { continue };
            for (offset, word) in chunk.dues.iter().enumerate() {
                let due = Due::of(word.load(Ordering::Relaxed));
                if due.phase != Phase::Vacant {
                    visit((number * CHUNK + offset) as u32, due);
                }
            }
        }
    }

    /// The token of whoever has that slot now. Takes the slot's lock.
    pub fn token(&self, index: u32) -> Option<Token> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.get()?;
        let slot = chunk.slots[index as usize % CHUNK].lock();
        slot.link.as_ref().map(|_| Token::new(index, slot.generation))
    }
}
