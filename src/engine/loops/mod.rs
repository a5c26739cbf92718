//! Our own engine, for Linux: loops that own their connections. Each loop is a thread with its own epoll instance, its
//! clients, its connections to backends, its timers and its buffers. A request that waits holds memory and no thread. A
//! loop never waits for anything but events: what may block is done by the threads of a lane, which mail the result
//! back.
//!
//! A client's connection is handled by one function for each thing that it can be in the middle of (`client`): a
//! request's head (`head`), its body (`body`), its backend (`call`, `back`), its answer (`deliver`), an upgraded
//! connection (`tunnel`). Sockets are registered once, edge-triggered: a read that brings less than it asked for has
//! read everything.

mod accept;
mod answer;
mod back;
mod balance;
mod body;
mod call;
mod client;
mod close;
mod conn;
mod counts;
mod deliver;
mod dial;
mod evict;
mod exchange;
mod expire;
mod frames;
mod handshake;
mod head;
mod http2;
mod keys;
mod lane;
mod leave;
mod pace;
mod relay;
mod secure;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod tunnel;
mod turn;
mod watchdog;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use self::accept::{Accepted, Admitted};
use self::counts::{Counts, Kind};
use self::lane::Lane;
use self::pace::Timeouts;
use self::shared::LoopsShared;
use self::state::{Letter, LoopState};
use self::turn::Loop;
use self::watchdog::Watchdog;
use super::{Drained, EngineStart, Sockets, Stats};
use crate::clock::Clock;
use crate::proxy::exchange::Rejection;
use crate::proxy::service::Service;
use balancer_time::nanos;

/// Most bytes of an answer that the kernel keeps beyond what it may send (`TCP_NOTSENT_LOWAT`). Without this bound a
/// client that does not read holds as much kernel memory as tcp_wmem allows, usually 4 MiB. Bytes on their way to a
/// client do not count.
const KERNEL_UNSENT_BYTES: u32 = 256 * 1024;
/// How often a draining engine looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How long cut connections may take to be closed.
const CUT_PATIENCE: Duration = Duration::from_secs(2);

/// The running engine. If it is dropped without [`RunningLoops::stop`], its threads go on.
pub struct RunningLoops {
    shared: Arc<LoopsShared>,
    addresses: Vec<SocketAddr>,
    tls_addresses: Vec<SocketAddr>,
    inherited: bool,
    threads: Vec<JoinHandle<()>>,
    _watchdog: Watchdog,
}

/// Starts loops, lane and watchdog on sockets that listen already. Errors are those of making epoll instances and
/// threads.
pub fn start(
    listeners: Sockets,
    start: &EngineStart<'_>,
    service: Arc<dyn Service>,
    clock: Clock,
) -> io::Result<RunningLoops> {
    let of = |listeners: &[TcpListener]| -> io::Result<Vec<_>> {
        listeners.iter().map(TcpListener::local_addr).collect()
    };
    let (addresses, tls_addresses) = (of(&listeners.plain)?, of(&listeners.tls)?);
    let inherited = start.inherited;
    let shared = share(listeners, start, service, clock)?;
    let lane = Lane::start(&shared)?;
    let loops: Vec<Loop> = (0..shared.loops.len())
        .map(|number| Loop::new(number, Arc::clone(&shared), lane.clone()))
        .collect::<io::Result<_>>()?;
    let watchdog = Watchdog::start(&shared)?;
    let mut running = RunningLoops {
        shared,
        addresses,
        tls_addresses,
        inherited,
        threads: Vec::new(),
        _watchdog: watchdog,
    };
    for (number, one) in loops.into_iter().enumerate() {
        match thread::Builder::new().name(format!("loop-{number}")).spawn(move || one.run()) {
            Ok(thread) => running.threads.push(thread),
            Err(error) => {
                running.stop();
                return Err(error);
            }
        }
    }
    Ok(running)
}

/// What the loops of an engine have in common.
fn share(
    listeners: Sockets,
    start: &EngineStart<'_>,
    service: Arc<dyn Service>,
    clock: Clock,
) -> io::Result<Arc<LoopsShared>> {
    let EngineStart { config, trusted_proxies, ipv6_prefix, tls, backend_tls, .. } = *start;
    let loops = config.workers().max(1);
    let plain_listeners = listeners.plain.len();
    let listeners: Vec<_> = listeners.plain.into_iter().chain(listeners.tls).collect();
    for listener in &listeners {
        listener.set_nonblocking(true)?;
        // Both are inherited by every accepted connection.
        rustix::net::sockopt::set_tcp_nodelay(listener, true)?;
        socket2::SockRef::from(listener).set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)?;
    }
    Ok(Arc::new(LoopsShared {
        loops: (0..loops).map(|_| LoopState::new()).collect::<io::Result<_>>()?,
        listeners,
        plain_listeners,
        front_tls: tls.map(|tls| Arc::clone(tls.front)),
        backend_tls: Arc::clone(backend_tls),
        h2c: config.h2c,
        service,
        clock,
        timeouts: Timeouts::new(config, tls.map_or(Duration::ZERO, |tls| tls.handshake_timeout)),
        bounds: config.head_bounds(),
        max_body_bytes: config.max_body_bytes,
        request_buffer_bytes: config.request_buffer_bytes,
        response_buffer_bytes: config.response_buffer_bytes,
        abort_on_close: config.abort_on_close,
        can_upgrade: !config.upgrades.is_empty(),
        proxy_peers: config.proxy_protocol.then(|| ArcSwap::from_pointee(trusted_proxies.to_vec())),
        counts: Arc::new(Counts::new(
            loops,
            config.max_connections,
            config.max_connections_per_ip,
            ipv6_prefix,
        )),
        closed_door: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
    }))
}

impl RunningLoops {
    /// Where it listens: the real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it listens for TLS.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls_addresses
    }

    /// Changes which peers have to begin new connections with a PROXY header, if any have to.
    pub fn set_trusted_proxies(&self, trusted: &[IpNet]) {
        if let Some(peers) = &self.shared.proxy_peers {
            peers.store(Arc::new(trusted.to_vec()));
        }
    }

    /// Takes no new connections; kept ones end with their next answer, or when they have been idle for 2 s.
    pub fn stop_accepting(&self) {
        let shared = &self.shared;
        if shared.closed_door.load(Ordering::SeqCst) {
            return;
        }
        if !self.inherited {
            // Accepts the connections that wait already: a listener that closes resets those that it still has.
            for index in 0..shared.listeners.len() {
                while let Ok(Some(accepted)) = shared.accept(index) {
                    match accepted {
                        Accepted::Lost => {}
                        Accepted::Arrived(arrival) => match shared.admit(arrival, 0) {
                            Admitted::For(number, newcomer) => {
                                shared.loops[number].post(Letter::Welcome(newcomer));
                            }
                            Admitted::Full(_) => shared.reject(Rejection::MaxConnections),
                            Admitted::Refused => {}
                        },
                    }
                }
            }
        }
        shared.closed_door.store(true, Ordering::SeqCst);
        shared.draining.store(true, Ordering::SeqCst);
        shared.loops.iter().for_each(|one| one.post(Letter::Look));
        if !self.inherited {
            for listener in &shared.listeners {
                // So that new clients are refused. Otherwise they would wait in a queue that is never emptied.
                let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
            }
        }
    }

    /// Stops accepting and waits until the last connection is closed, at most `patience`; what is left then is cut.
    pub fn drain(&self, patience: Duration) -> Drained {
        self.stop_accepting();
        let shared = &self.shared;
        let until = shared.clock.now().saturating_add(nanos(patience));
        while shared.counts.all() > 0 {
            if shared.clock.now() >= until {
                return self.cut();
            }
            thread::sleep(DRAIN_LOOK);
        }
        Drained::default()
    }

    /// Ends the connections that are left, and counts what they were doing.
    fn cut(&self) -> Drained {
        let shared = &self.shared;
        let count = |kind| shared.counts.of_kind(kind);
        let streams = count(Kind::Answering);
        let drained = Drained {
            tunnels: count(Kind::Tunnel),
            streams,
            requests: count(Kind::Parked) + count(Kind::Calling) + count(Kind::Reading),
        };
        shared.stopping.store(true, Ordering::SeqCst);
        shared.loops.iter().for_each(|one| one.post(Letter::Look));
        let until = shared.clock.now().saturating_add(nanos(CUT_PATIENCE));
        while shared.counts.all() > 0 && shared.clock.now() < until {
            thread::sleep(DRAIN_LOOK);
        }
        drained
    }

    /// Ends all threads; what is still open is closed.
    pub fn stop(self) {
        self.stop_accepting();
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.loops.iter().for_each(|one| one.post(Letter::Look));
        for thread in self.threads {
            // A loop catches panics; one that got through has been logged.
            let _ = thread.join();
        }
    }

    /// Counts connections and loops.
    pub fn stats(&self) -> Stats {
        let loops = &self.shared.loops;
        let count = |kind| self.shared.counts.of_kind(kind);
        let is_busy = |one: &&LoopState| one.busy.load(Ordering::Relaxed) >= 500;
        Stats {
            reading: count(Kind::Reading) + count(Kind::Silent),
            busy: count(Kind::Closing) + count(Kind::Calling) + count(Kind::Http2),
            idle: count(Kind::Idle) + count(Kind::IdleHttp2),
            parked: count(Kind::Parked) + count(Kind::Answering),
            relay: count(Kind::Tunnel),
            workers_busy: loops.iter().filter(is_busy).count(),
            http2_connections: count(Kind::Http2) + count(Kind::IdleHttp2),
            http2_streams: self.shared.counts.streams(),
            loops: (0..loops.len()).map(|number| self.shared.counts.of_loop(number)).collect(),
            loops_stuck: loops.iter().filter(|one| one.is_stuck.load(Ordering::Relaxed)).count(),
        }
    }
}
