//! New connections: accepted while there is room, counted per address, and given to the loop with the fewest. At the
//! bound, the oldest connections that do nothing make room.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use rustls::ServerConnection;

use super::conn::Transport;
use super::counts::{Counted, Full};
use super::secure::Secure;
use super::shared::LoopsShared;
use super::state::{Arrival, Letter, LoopState, Newcomer};
use super::turn::{Buffers, Loop};
use super::wire::Socket;
use crate::proxy::exchange::{FrontendEvent, Rejection};
use balancer_limiter::identity;
use balancer_time::Nanos;

/// Most connections that one event accepts, so that requests do not wait behind a flood, and other loops accept, too.
const MOST_ACCEPTS: usize = 16;
/// How many more connections than others a loop may have before it hands new ones over.
const SLACK: usize = 2;
/// The pause after an accept error for want of descriptors, and the longest one for another loop's decision.
const PAUSE: Nanos = 200_000_000;

impl LoopsShared {
    /// Accepts one connection of a listener. `Ok(None)`: none waits any more.
    pub(super) fn accept(&self, listener: usize) -> Result<Option<Accepted>, Errno> {
        match acceptfrom_with(&self.listeners[listener], SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let arrived = |peer| Accepted::Arrived(Arrival { socket, listener, peer });
                Ok(Some(peer.map_or(Accepted::Lost, arrived)))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => Err(error),
            // The connection died in the queue, or a signal came: the next one may be fine.
            Err(_) => Ok(Some(Accepted::Lost)),
        }
    }

    /// Counts a connection, and says which loop gets it. `own`: the loop that asks; it keeps the connection unless
    /// others have fewer.
    pub(super) fn admit(&self, arrival: Arrival, own: usize) -> Admitted {
        let address = arrival.peer.ip().to_canonical();
        let number = self.emptiest(own);
        let counted = match Counted::enter(&self.counts, number, address) {
            Ok(counted) => counted,
            Err(Full::All) => return Admitted::Full(arrival),
            Err(Full::Address) => {
                self.reject(Rejection::MaxConnectionsPerIp);
                return Admitted::Refused;
            }
        };
        let Ok(transport) = self.transport(arrival.listener) else {
            self.reject(Rejection::Tls);
            return Admitted::Refused;
        };
        let peers = self.proxy_peers.as_ref();
        let expects_proxy = peers.is_some_and(|peers| identity::is_in(&peers.load(), address));
        let newcomer = Newcomer {
            socket: Arc::new(Socket(arrival.socket.into())),
            transport,
            secured: None,
            counted,
            peer: SocketAddr::new(address, arrival.peer.port()),
            is_proxied: false,
            expects_proxy,
            fresh: true,
        };
        Admitted::For(number, newcomer)
    }

    /// Notes why a connection is not taken.
    pub(super) fn reject(&self, why: Rejection) {
        self.service.observe(FrontendEvent::Rejected(why));
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

    /// The number of the loop with the fewest connections, or `own` if that has hardly more: handing over costs two
    /// system calls.
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

/// What accepting brought.
pub(super) enum Accepted {
    Arrived(Arrival),
    /// A connection that is gone already.
    Lost,
}

/// What became of a connection that was accepted.
pub(super) enum Admitted {
    /// It is counted, and the loop of this number gets it.
    For(usize, Newcomer),
    /// There are as many connections as there may be: this one has no place yet.
    Full(Arrival),
    /// It is closed, and that is counted.
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
                match shared.accept(index) {
                    Ok(None) => break,
                    Ok(Some(Accepted::Lost)) => {}
                    Ok(Some(Accepted::Arrived(arrival))) => {
                        if !self.take_in(arrival, buffers) {
                            return self.pause_accepting();
                        }
                    }
                    // The kernel checks for a free descriptor before it looks whether a connection waits.
                    Err(_) if !has_waiting(listener) => break,
                    Err(error) => {
                        self.shared.reject(Rejection::Descriptors);
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

    /// Gives a connection its place. At the bound, one that does nothing ends for it. Where only another loop has such
    /// a one, the connection is sent there, since its place must not be taken before the other one has ended. False: so
    /// it was, and nothing more is to be accepted here until that loop has decided about it.
    fn take_in(&mut self, mut arrival: Arrival, buffers: &mut Buffers) -> bool {
        let shared = Arc::clone(&self.shared);
        loop {
            match shared.admit(arrival, self.number) {
                Admitted::For(number, newcomer) if number == self.number => {
                    self.welcome(newcomer, buffers);
                    return true;
                }
                Admitted::For(number, newcomer) => {
                    shared.loops[number].post(Letter::Welcome(newcomer));
                    return true;
                }
                Admitted::Refused => return true,
                Admitted::Full(back) => arrival = back,
            }
            match self.loop_to_evict_in() {
                Some(other) if other != self.number => {
                    self.undecided.push(other);
                    shared.loops[other].post(Letter::Arrived(arrival, self.number));
                    return false;
                }
                // Another loop may take the place that this makes: then there is one more to make.
                Some(_) if self.evict() => {}
                _ => {
                    shared.reject(Rejection::MaxConnections);
                    return true;
                }
            }
        }
    }

    /// Gives a connection its place that another loop has accepted.
    pub(super) fn take_over(&mut self, arrival: Arrival, from: usize, buffers: &mut Buffers) {
        if !self.take_in(arrival, buffers) {
            self.pause_accepting();
        }
        self.shared.loops[from].post(Letter::Decided(self.number));
    }

    /// Another loop has decided about the connection that it was sent: accepting goes on.
    pub(super) fn decided(&mut self, by: usize) {
        self.undecided.retain(|other| *other != by);
        self.accepts_again_at = self.accepts_again_at.min(self.now);
    }

    fn pause_accepting(&mut self) {
        self.accepts_again_at = self.now.saturating_add(PAUSE);
        self.unwatch_listeners();
    }
}

impl LoopState {
    /// Notes whether it is stuck, and gets no new connections. True: that has changed.
    pub fn set_stuck(&self, stuck: bool) -> bool {
        self.is_stuck.swap(stuck, Ordering::Relaxed) != stuck
    }
}
