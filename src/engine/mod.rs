//! The front door: engines that accept connections, parse requests, call the [`Service`] and
//! deliver its answers. They share how an answer is written ([`render`]); everything else is each engine's own.

#[cfg(target_os = "linux")]
pub mod epoll;
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
use crate::proxy::exchange::Service;

use crate::engine::portable::TinyHttp;

/// A running engine, whichever it is.
pub enum Frontend {
    /// Our own, for Linux.
    #[cfg(target_os = "linux")]
    Epoll(epoll::Running),
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
            Self::TinyHttp(engine) => engine.addresses(),
        }
    }

    /// What its connections and workers are doing. `tiny_http` tells its connections from the busy workers alone.
    pub fn load(&self) -> Stats {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.stats(),
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
            Self::TinyHttp(_) => {}
        }
    }

    /// Takes no new connections; kept ones end with their next answer.
    pub fn stop_accepting(&self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.stop_accepting(),
            Self::TinyHttp(engine) => engine.stop_accepting(),
        }
    }

    /// Waits until every request is answered; false when that took longer than `limit`.
    pub fn drain(&self, limit: Duration) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Epoll(engine) => engine.drain(limit),
            Self::TinyHttp(engine) => engine.drain(limit),
        }
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
