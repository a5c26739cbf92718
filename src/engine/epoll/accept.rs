//! New connections: taken while there is room, counted per address, refused or made room for when there is none.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::conn::{Conn, Link, State};
use super::core::{Core, listener_data};
use super::table::{Taken, Token};
use super::timers::{Due, Phase};
use super::wire::Wire;
use crate::proxy::exchange::Abort;
use balancer_limiter::identity;

/// Most connections that one event accepts, so that requests are not kept waiting behind a flood.
const MAX_ACCEPTS: usize = 64;

impl Core {
    /// Accepts what waits at a listener and arms it again.
    pub fn accept(&self, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        for _ in 0..MAX_ACCEPTS {
            if self.closed_door.load(Ordering::SeqCst) {
                return;
            }
            match acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, peer)) => {
                    if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                        self.admit(socket, peer);
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    // The listener stays disarmed until the keeper arms it again.
                    self.mail.pause_accepting(index, error);
                    return;
                }
                // The connection died in the queue, or a signal came: the next one may be fine.
                Err(_) => {}
            }
        }
        self.arm_listener(index);
    }

    /// Tells the kernel to wait for the next connection, once.
    pub fn arm_listener(&self, index: usize) {
        let Some(listener) = self.listeners.get(index) else { return };
        if !self.closed_door.load(Ordering::SeqCst) {
            let flags = EventFlags::IN | EventFlags::ONESHOT;
            let _ = epoll::modify(&self.epoll, listener, listener_data(index), flags);
        }
    }

    fn admit(&self, socket: OwnedFd, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        if self.connections.fetch_add(1, Ordering::SeqCst) >= self.max_connections
            && !self.evict_longest_idle()
        {
            self.connections.fetch_sub(1, Ordering::SeqCst);
            return self.reject("max_connections");
        }
        if !self.addresses.enter(address) {
            self.connections.fetch_sub(1, Ordering::SeqCst);
            return self.reject("max_connections_per_ip");
        }
        let wire = Wire::Plain(TcpStream::from(socket));
        let abort = Abort::observed_by(Arc::clone(&self.observer));
        let link = Arc::new(Link { wire, abort, address });
        let Some(token) = self.table.occupy(&link) else {
            self.connections.fetch_sub(1, Ordering::SeqCst);
            self.addresses.leave(address);
            return self.reject("descriptors");
        };
        let conn = Box::new(Conn {
            token,
            peer: SocketAddr::new(address, peer.port()),
            is_proxied: false,
            state: State::Head,
            inbox: Vec::new(),
            look_first: false,
            judged: 0,
            head_since: 0,
            fresh: true,
            expects_proxy: self.is_proxy_peer(address),
            hangup_armed: false,
            seat: None,
            link,
        });
        self.welcome(conn);
        self.mail.first_connection();
    }

    /// Parks a new connection until its first byte.
    fn welcome(&self, mut conn: Box<Conn>) {
        conn.head_since = self.clock.now();
        let due = Due::new(Phase::Head, conn.head_since.saturating_add(self.spans.head));
        let (token, mut watched) = (conn.token, true);
        drop(self.table.put(conn, due, false, |conn| {
            let data = EventData::new_u64(conn.token.0);
            watched =
                epoll::add(&self.epoll, &conn.link.wire, data, EventFlags::IN | EventFlags::ONESHOT).is_ok();
        }));
        if !watched && let Taken::Conn(conn) = self.table.take(token, false) {
            // The kernel has no room for one more watch (fs.epoll.max_user_watches).
            self.reject("watches");
            self.close(conn);
        }
    }

    fn is_proxy_peer(&self, address: IpAddr) -> bool {
        self.proxy_peers.as_ref().is_some_and(|peers| identity::is_in(&peers.load(), address))
    }

    /// Closes the kept connection that has been idle for longest. `false`: there is none. Takes the candidates' lock,
    /// then a slot's.
    pub fn evict_longest_idle(&self) -> bool {
        loop {
            let Some((token, due)) = self.idlest.next(self) else { return false };
            if let Some(conn) = self.table.take_due(token, due) {
                self.close(conn);
                return true;
            }
        }
    }
}

/// The connections that have been idle for longest, found by a walk and used up one by one, so that a flood at the
/// bound costs one walk for many connections.
#[derive(Default)]
pub(super) struct Idlest(Mutex<Vec<(u32, Due)>>);

/// Found by one walk.
const CANDIDATES: usize = 64;

impl Idlest {
    fn next(&self, core: &Core) -> Option<(Token, Due)> {
        let mut candidates = self.0.lock();
        if candidates.is_empty() {
            let mut idle = Vec::new();
            core.table.walk(|index, due| {
                if due.phase == Phase::Idle {
                    idle.push((index, due));
                }
            });
            // All have the same time-out, so the earliest deadline is the longest idle. Last is next.
            idle.sort_unstable_by_key(|(_, due)| std::cmp::Reverse(due.at));
            let surplus = idle.len().saturating_sub(CANDIDATES);
            *candidates = idle.split_off(surplus);
        }
        while let Some((index, due)) = candidates.pop() {
            if let Some(token) = core.table.token(index) {
                return Some((token, due));
            }
        }
        None
    }
}
