//! The front door: engines that accept connections, parse requests, call the [`Service`] and
//! deliver its answers. They share how an answer is written ([`render`]); everything else is each engine's own.

#[cfg(target_os = "linux")]
pub mod epoll;
#[cfg(target_os = "linux")]
pub mod loops;
#[cfg(target_os = "linux")]
mod owner;
pub mod portable;
pub mod render;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::Clock;
use crate::config::{self, Engine};
use crate::proxy::service::Service;

use crate::engine::portable::TinyHttp;

/// A running engine, whichever it is.
pub enum Frontend {
    /// Our own, for Linux.
    #[cfg(target_os = "linux")]
    Epoll(epoll::Running),
    /// The one that takes its place.
    #[cfg(target_os = "linux")]
    Loops(loops::Running),
    /// The portable one.
    TinyHttp(TinyHttp),
}

impl Frontend {
    /// Whether a worker of that engine is free again once it has an answer's head: then the body is anybody's.
    pub const fn frees_workers(engine: Engine) -> bool {
        cfg!(target_os = "linux") && matches!(engine, Engine::Auto | Engine::Epoll)
    }

    /// Starts the configured engine on sockets that listen already. `inherited`: they belong to other processes, too.
    /// `trusted` may send PROXY headers.
    ///
    /// # Errors
    /// When a thread or a descriptor can't be had.
    pub fn start(
        listeners: Vec<TcpListener>,
        inherited: bool,
        config: &config::Frontend,
        trusted: &[IpNet],
        service: Arc<dyn Service>,
        clock: Clock,
    ) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if matches!(config.engine, Engine::Auto | Engine::Epoll)
            && std::env::var_os("BALANCER_LOOPS").is_some()
        {
            let loops = std::env::var("BALANCER_LOOPS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
            let start = loops::Start { inherited, config, loops, trusted_proxies: trusted, ipv6_prefix: 64 };
            return loops::start(listeners, &start, service, clock).map(Self::Loops);
        }
        #[cfg(target_os = "linux")]
        if matches!(config.engine, Engine::Auto | Engine::Epoll) {
            return epoll::start(listeners, inherited, config, trusted, service, clock).map(Self::Epoll);
        }
        let _ = trusted;
        match config.engine {
            Engine::Epoll => Err(io::Error::other("frontend.engine \"epoll\" is not built on this system")),
            Engine::Auto | Engine::TinyHttp => {
                TinyHttp::start(listeners, inherited, config, service, clock).map(Self::TinyHttp)
            }
        }
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.addresses(),
            #[cfg(target_os = "linux")]
            Self::Loops(engine) => engine.addresses(),
            Self::TinyHttp(engine) => engine.addresses(),
        }
    }

    /// What its connections and workers are doing. `tiny_http` tells its connections from the busy workers alone.
    pub fn load(&self) -> Stats {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.stats(),
            #[cfg(target_os = "linux")]
            Self::Loops(engine) => engine.stats(),
            Self::TinyHttp(engine) => {
                let workers_busy = engine.workers_busy();
                Stats { busy: workers_busy, workers_busy, ..Stats::default() }
            }
        }
    }

    /// Other peers may send PROXY headers from now on, where those are expected at all.
    pub fn set_trusted_proxies(&self, trusted: &[IpNet]) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.set_trusted_proxies(trusted),
            #[cfg(target_os = "linux")]
            Self::Loops(engine) => engine.set_trusted_proxies(trusted),
            Self::TinyHttp(_) => {}
        }
    }

    /// Takes no new connections; kept ones end with their next answer.
    pub fn stop_accepting(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.stop_accepting(),
            #[cfg(target_os = "linux")]
            Self::Loops(engine) => engine.stop_accepting(),
            Self::TinyHttp(engine) => engine.stop_accepting(),
        }
    }

    /// Waits until every request is answered, at most `limit`. What was left then.
    pub fn drain(&self, limit: Duration) -> Drained {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => Drained::of(engine.drain(limit)),
            #[cfg(target_os = "linux")]
            Self::Loops(engine) => engine.drain(limit),
            Self::TinyHttp(engine) => Drained::of(engine.drain(limit)),
        }
    }
}

/// What was still open when the time to drain was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Answers on their way.
    pub streams: usize,
    /// Upgraded connections.
    pub tunnels: usize,
    /// Requests without an answer.
    pub requests: usize,
}

impl Drained {
    /// Of an engine that does not tell what was left.
    fn of(all: bool) -> Self {
        Self { requests: usize::from(!all), ..Self::default() }
    }
}

/// How many connections are in which state, and how many workers at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// A head or body is being received.
    pub reading: usize,
    /// A worker is at it.
    pub busy: usize,
    /// Kept for the next request.
    pub idle: usize,
    /// A request waits for a backend with room, or an answer for its client or its backend.
    pub parked: usize,
    /// Upgraded.
    pub relay: usize,
    /// Workers at a request.
    pub workers_busy: usize,
    /// Uploads that wait for a place.
    pub uploads_waiting: usize,
}
