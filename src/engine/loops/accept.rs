//! New connections: accepted while there is room, counted per address, and given to the loop with the fewest. At the bound, the
//! oldest connections that do nothing make room.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use rustls::ServerConnection;

use super::conn::{Conn, Stage, Transport};
use super::counts::{Counted, Kind};
use super::keys::ClientSlot;
use super::secure::Secure;
use super::shared::LoopsShared;
use super::state::{Letter, LoopState, Newcomer};
use super::turn::{Buffers, Loop};
use super::wire::Socket;
use crate::proxy::exchange::{FrontendEvent, Rejection};
use balancer_limiter::identity;
use balancer_time::Nanos;

/// Most connections that one event accepts, so that requests do not wait behind a flood, and other loops accept, too.
const MOST_ACCEPTS: usize = 16;
/// How many more connections than others a loop may have before it hands new ones over.
const SLACK: usize = 2;
/// The pause after an accept error for want of descriptors.
const PAUSE: Nanos = 200_000_000;
/// A connection that has said nothing for less than this may be a client whose request is on its way.
const NEW: Nanos = 1_000_000_000;
/// New silent connections are spared while there are at most this many silent ones, or an eighth of all that there may be. More
/// are a flood.
const FEW: usize = 16;

impl LoopsShared {
    /// Accepts one connection of a listener, and says which loop gets it. `Ok(None)`: none waits any more. `own`: the loop that
    /// asks; it keeps the connection unless others have fewer.
    pub(super) fn accept(
        self: &Arc<Self>,
        index: usize,
        own: usize,
        make_room: impl FnOnce() -> bool,
    ) -> Result<Option<Accepted>, Errno> {
        match acceptfrom_with(&self.listeners[index], SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok(Some(
                    peer.map_or(Accepted::Refused, |peer| self.admit(socket, index, peer, own, make_room)),
                ))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => Err(error),
            // The connection died in the queue, or a signal came: the next one may be fine.
            Err(_) => Ok(Some(Accepted::Refused)),
        }
    }

    fn admit(
        self: &Arc<Self>,
        socket: OwnedFd,
        index: usize,
        peer: SocketAddr,
        own: usize,
        make_room: impl FnOnce() -> bool,
    ) -> Accepted {
        let reject = |reason| {
            self.service.observe(FrontendEvent::Rejected(reason));
            Accepted::Refused
        };
        let address = peer.ip().to_canonical();
        if self.counts.all() >= self.max_connections && !make_room() {
            return reject(Rejection::MaxConnections);
        }
        let number = self.emptiest(own);
        let Some(counted) = Counted::enter(&self.counts, number, address) else {
            return reject(Rejection::MaxConnectionsPerIp);
        };
        let Ok(transport) = self.transport(index) else { return reject(Rejection::Tls) };
        let peers = self.proxy_peers.as_ref();
        let expects_proxy = peers.is_some_and(|peers| identity::is_in(&peers.load(), address));
        let newcomer = Newcomer {
            socket: Arc::new(Socket(socket.into())),
            transport,
            secured: None,
            counted,
            peer: SocketAddr::new(address, peer.port()),
            is_proxied: false,
            expects_proxy,
            fresh: true,
        };
        Accepted::For(number, newcomer)
    }

    /// A transport for a new connection of that listener.
    fn transport(&self, index: usize) -> Result<Transport, rustls::Error> {
        match &self.front_tls {
            Some(tls) if index >= self.plain_listeners => {
                Ok(Transport::Tls(Secure::new(ServerConnection::new(tls.config())?.into())))
            }
            _ => Ok(Transport::Plain),
        }
    }

    /// The number of the loop with the fewest connections, or `own` if that has hardly more: handing over costs two system
    /// calls.
    fn emptiest(&self, own: usize) -> usize {
        let loops = &self.loops;
        let count = |n: &usize| self.counts.of_loop(*n);
        let usable = |n: &usize| !loops[*n].is_stuck.load(Ordering::Relaxed);
        let least = (0..loops.len()).filter(usable).min_by_key(count).unwrap_or(own);
        if usable(&own) && count(&own) <= count(&least) + SLACK { own } else { least }
    }
}

/// Whether a connection waits to be accepted.
fn has_waiting(listener: &TcpListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// What became of a connection.
pub(super) enum Accepted {
    /// The loop of this number gets it.
    For(usize, Newcomer),
    /// It is closed.
    Refused,
}

impl Loop {
    /// Waits for new connections.
    pub(super) fn watch_listeners(&self) -> std::io::Result<()> {
        if self.shared.closed_door.load(Ordering::SeqCst) {
            return Ok(());
        }
        for (index, listener) in self.shared.listeners.iter().enumerate() {
            let data = EventData::new_u64(index as u64);
            // One loop is woken for one connection, not all.
            match epoll::add(&self.epoll, listener, data, EventFlags::IN | EventFlags::EXCLUSIVE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for none.
    pub(super) fn unwatch_listeners(&self) {
        for listener in &self.shared.listeners {
            let _ = epoll::delete(&self.epoll, listener);
        }
    }

    /// Accepts what waits.
    pub(super) fn accept(&mut self, buffers: &mut Buffers) {
        let shared = Arc::clone(&self.shared);
        for (index, listener) in shared.listeners.iter().enumerate() {
            for _ in 0..MOST_ACCEPTS {
                if shared.closed_door.load(Ordering::SeqCst) {
                    return self.unwatch_listeners();
                }
                match shared.accept(index, self.number, || self.make_room()) {
                    Ok(None) => break,
                    Ok(Some(Accepted::Refused)) => {}
                    Ok(Some(Accepted::For(number, newcomer))) if number == self.number => {
                        self.welcome(newcomer, buffers);
                    }
                    Ok(Some(Accepted::For(number, newcomer))) => {
                        shared.loops[number].post(Letter::Welcome(newcomer));
                    }
                    // The kernel checks for a free descriptor before it looks whether a connection waits.
                    Err(_) if !has_waiting(listener) => break,
                    Err(error) => {
                        self.shared.service.observe(FrontendEvent::Rejected(Rejection::Descriptors));
                        self.shared.service.observe(FrontendEvent::Short(error));
                        // If this process has reached its own bound, the descriptor of an idle connection is enough.
                        if error != Errno::MFILE || !self.evict() {
                            return self.pause_accepting();
                        }
                    }
                }
            }
        }
    }

    fn pause_accepting(&mut self) {
        self.accepts_again_at = self.now.saturating_add(PAUSE);
        self.unwatch_listeners();
    }

    /// Ends one connection: in the loop that has the most silent ones, or else the most idle ones. False: there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let counts = Arc::clone(&self.shared.counts);
        let own = self.number;
        for kind in [Kind::Silent, Kind::IdleHttp2, Kind::Idle] {
            let count = |n: usize| counts.of_kind_in(n, kind);
            let most = (0..self.shared.loops.len()).max_by_key(|n| count(*n)).unwrap_or(own);
            if count(most) == 0 {
                continue;
            }
            if count(own) < count(most) {
                self.shared.loops[most].post(Letter::Evict);
                return true;
            }
            return self.evict();
        }
        false
    }

    /// Ends one connection of this loop: a silent one, or else an idle one, the oldest first. New silent ones go last while
    /// they are few. False: there is none.
    pub(super) fn evict(&mut self) -> bool {
        let silent = self.shared.counts.of_kind(Kind::Silent);
        let are_few = silent <= FEW.max(self.shared.max_connections / 8);
        let before = if are_few { self.now.saturating_sub(NEW) } else { self.now };
        self.evict_oldest(Kind::Silent, before)
            // Before those of HTTP/1.1: an idle one costs some 16 KiB.
            || self.evict_oldest(Kind::IdleHttp2, self.now)
            || self.evict_oldest(Kind::Idle, self.now)
            || self.evict_oldest(Kind::Silent, self.now)
    }

    /// Ends the oldest connection of that kind, if nothing happened on it since that moment.
    fn evict_oldest(&mut self, kind: Kind, before: Nanos) -> bool {
        while let Some((key, since)) = self.oldest(kind) {
            if since > before {
                self.candidates(kind).push((key, since));
                return false;
            }
            let is_same = |conn: &Conn| conn.counted.kind() == kind && conn.moved_at == since;
            let Some(Some(client)) = self.clients.get(key) else { continue };
            if matches!(client.stage, Stage::Busy(_) | Stage::Linger { .. }) || !is_same(&client.conn) {
                continue;
            }
            if let Some(Some(mut client)) = self.clients.remove(key) {
                self.say_goodbye(&mut client);
                self.end(&mut client);
                return true;
            }
        }
        false
    }

    fn candidates(&mut self, kind: Kind) -> &mut Vec<(ClientSlot, Nanos)> {
        match kind {
            Kind::Silent => &mut self.oldest_silent,
            Kind::IdleHttp2 => &mut self.oldest_idle_http2,
            _ => &mut self.oldest_idle,
        }
    }

    /// The next one to end. One walk over all clients finds many, so that a flood at the bound does not cost a walk for each.
    fn oldest(&mut self, kind: Kind) -> Option<(ClientSlot, Nanos)> {
        const CANDIDATES: usize = 64;
        if self.shared.counts.of_kind_in(self.number, kind) == 0 {
            return None;
        }
        if self.candidates(kind).is_empty() {
            let of_kind = self.clients.iter().filter_map(|(key, client)| {
                let conn = &client.as_ref()?.conn;
                (conn.counted.kind() == kind).then_some((key, conn.moved_at))
            });
            let mut found: Vec<_> = of_kind.collect();
            // Connections of one turn have the same time. Their slots were taken in order.
            found.sort_unstable_by_key(|(key, since)| std::cmp::Reverse((*since, *key)));
            let surplus = found.len().saturating_sub(CANDIDATES);
            *self.candidates(kind) = found.split_off(surplus);
        }
        self.candidates(kind).pop()
    }
}

impl LoopState {
    /// Notes whether it is stuck, and gets no new connections. True: that has changed.
    pub fn set_stuck(&self, stuck: bool) -> bool {
        self.is_stuck.swap(stuck, Ordering::Relaxed) != stuck
    }
}
