//! Upgraded connections: the keeper copies both directions between client and backend until one side ends. A relay
//! holds no worker and, while nothing is under way, no buffer.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::conn::{Conn, Next, Relayed};
use super::core::Core;
use super::deliver::{Delivery, Pushed};
use super::table::Token;
use super::timers::{Due, Phase};
use super::wire::{Received, Sent, Wire};
use crate::proxy::exchange::{Delivery as Outcome, Upgrade};
use balancer_time::Nanos;

/// Sends the 101 and makes the connection ready for the keeper.
pub(super) fn begin(
    conn: &Conn,
    head: &[u8],
    upgrade: Upgrade,
    mut delivery: Delivery,
    behind: &[u8],
    now: Nanos,
) -> Next {
    match delivery.push_whole(&conn.link.wire, head, &upgrade.early, now) {
        Pushed::ClientGone => {
            delivery.settle(Outcome::ClientGone);
            Next::Reset
        }
        _ => Next::Relay(Box::new(Relayed { upgrade, early: behind.to_vec(), delivery })),
    }
}

/// One direction.
#[derive(Default)]
struct Pipe {
    /// Read from one side and not yet taken by the other.
    pending: Vec<u8>,
    at: usize,
    /// The side that is read from has ended.
    ended: bool,
    /// The other side was told.
    told: bool,
}

impl Pipe {
    fn holding(bytes: Vec<u8>) -> Self {
        Self { pending: bytes, ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        self.at == self.pending.len()
    }

    /// Copies until the source is empty, the target full, or a bound is reached. Returns the bytes moved, or `None`
    /// when a side is broken.
    fn copy(&mut self, from: &Wire, to: &Wire, scratch: &mut [u8]) -> Option<u64> {
        const MAX_ROUNDS: usize = 4;
        let mut moved = 0;
        for _ in 0..MAX_ROUNDS {
            while !self.is_empty() {
                match to.send(&self.pending[self.at..]) {
                    Sent::Bytes(0) => return Some(moved),
                    Sent::Bytes(bytes) => {
                        self.at += bytes;
                        moved += bytes as u64;
                    }
                    Sent::Broken => return None,
                }
            }
            // The memory goes, too: an idle relay has none.
            (self.pending, self.at) = (Vec::new(), 0);
            if self.ended {
                if !self.told {
                    to.shutdown_write();
                    self.told = true;
                }
                return Some(moved);
            }
            match from.recv(scratch) {
                Received::Nothing => return Some(moved),
                Received::End => self.ended = true,
                Received::Broken => return None,
                Received::Bytes(bytes) => match to.send(&scratch[..bytes]) {
                    Sent::Broken => return None,
                    Sent::Bytes(sent) => {
                        moved += sent as u64;
                        self.pending.extend_from_slice(&scratch[sent..bytes]);
                    }
                },
            }
        }
        Some(moved)
    }

    /// What to wait for at the side that is read from and at the side that is written to.
    fn interests(&self) -> (EventFlags, EventFlags) {
        match (self.is_empty(), self.ended) {
            (false, _) => (EventFlags::empty(), EventFlags::OUT),
            (true, false) => (EventFlags::IN, EventFlags::empty()),
            (true, true) => (EventFlags::empty(), EventFlags::empty()),
        }
    }
}

struct Relay {
    conn: Box<Conn>,
    backend: Wire,
    to_backend: Pipe,
    to_client: Pipe,
    delivery: Delivery,
    last: Nanos,
    armed: (EventFlags, EventFlags),
}

/// All relays of the engine; the keeper's own. Bounded by `max_connections`.
#[derive(Default)]
pub(super) struct Relays {
    by_token: HashMap<u64, Relay>,
}

impl Relays {
    /// Takes a connection over.
    pub fn add(
        &mut self,
        core: &Core,
        epoll: &OwnedFd,
        conn: Box<Conn>,
        relayed: Relayed,
        scratch: &mut [u8],
    ) {
        let Relayed { upgrade, early, mut delivery } = relayed;
        let backend = upgrade.backend;
        let ready = backend.set_nonblocking(true).and_then(|()| backend.set_nodelay(true));
        let token = conn.token;
        // From here on the workers hear nothing of it.
        let _ = epoll::delete(&core.epoll, &conn.link.wire);
        let nothing = EventFlags::empty();
        let watched = epoll::add(epoll, &conn.link.wire, EventData::new_u64(token.0), nothing).is_ok()
            && epoll::add(epoll, &backend, EventData::new_u64(token.upstream().0), nothing).is_ok();
        if ready.is_err() || !watched {
            delivery.settle(Outcome::BackendBroke("the upgraded connection could not be watched".into()));
            return core.close(conn);
        }
        core.table.mark(token, Due::never(Phase::Relay));
        let pending = delivery.pending.split_off(delivery.pending_at);
        (delivery.pending, delivery.pending_at) = (Vec::new(), 0);
        let relay = Relay {
            conn,
            backend: Wire::Plain(backend),
            to_backend: Pipe::holding(early),
            to_client: Pipe::holding(pending),
            delivery,
            last: core.clock.now(),
            armed: (nothing, nothing),
        };
        self.by_token.insert(token.0, relay);
        self.handle(core, epoll, token, EventFlags::empty(), scratch);
    }

    /// Goes on with one relay.
    pub fn handle(
        &mut self,
        core: &Core,
        epoll: &OwnedFd,
        token: Token,
        flags: EventFlags,
        scratch: &mut [u8],
    ) {
        let key = token.client().0;
        let Some(relay) = self.by_token.get_mut(&key) else { return };
        let broken = flags.intersects(EventFlags::ERR);
        if broken || !relay.pump(core.clock.now(), scratch) {
            return self.end(core, epoll, key, Outcome::Complete);
        }
        relay.arm(epoll);
    }

    /// Ends relays in which nothing moved since `before`.
    pub fn end_idle(&mut self, core: &Core, epoll: &OwnedFd, before: Nanos) {
        let idle: Vec<u64> =
            self.by_token.iter().filter(|(_, relay)| relay.last < before).map(|(key, _)| *key).collect();
        for key in idle {
            self.end(core, epoll, key, Outcome::Complete);
        }
    }

    /// Ends all.
    pub fn end_all(&mut self, core: &Core, epoll: &OwnedFd) {
        let keys: Vec<u64> = self.by_token.keys().copied().collect();
        for key in keys {
            self.end(core, epoll, key, Outcome::Complete);
        }
    }

    fn end(&mut self, core: &Core, epoll: &OwnedFd, key: u64, outcome: Outcome) {
        let Some(mut relay) = self.by_token.remove(&key) else { return };
        let _ = epoll::delete(epoll, &relay.conn.link.wire);
        let _ = epoll::delete(epoll, &relay.backend);
        relay.delivery.settle(outcome);
        core.close(relay.conn);
    }
}

impl Relay {
    /// Copies both ways; `false` when it is over.
    fn pump(&mut self, now: Nanos, scratch: &mut [u8]) -> bool {
        let client = &self.conn.link.wire;
        let Some(up) = self.to_backend.copy(client, &self.backend, scratch) else { return false };
        let Some(down) = self.to_client.copy(&self.backend, client, scratch) else { return false };
        self.delivery.body_bytes += down;
        if up + down > 0 {
            self.last = now;
        }
        !(self.to_backend.told && self.to_client.told)
    }

    fn arm(&mut self, epoll: &OwnedFd) {
        let (client_read, backend_write) = self.to_backend.interests();
        let (backend_read, client_write) = self.to_client.interests();
        let wanted = (client_read | client_write, backend_read | backend_write);
        let token = self.conn.token;
        if wanted.0 != self.armed.0 {
            let _ = epoll::modify(epoll, self.conn.link.wire.as_fd(), EventData::new_u64(token.0), wanted.0);
        }
        if wanted.1 != self.armed.1 {
            let data = EventData::new_u64(token.upstream().0);
            let _ = epoll::modify(epoll, self.backend.as_fd(), data, wanted.1);
        }
        self.armed = wanted;
    }
}
