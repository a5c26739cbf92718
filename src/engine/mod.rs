//! The front door: engines that accept connections, parse requests, call the [`Service`] and deliver its answers. Both
//! write answers with [`render`]; everything else is each engine's own.

#[cfg(all(target_os = "linux", feature = "epoll"))]
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
use crate::tls::front::FrontTls;
use crate::tls::upstream::BackendTls;

use crate::engine::portable::TinyHttp;

/// A running engine, of either kind.
pub enum RunningEngine {
    /// Our own, for Linux.
    #[cfg(all(target_os = "linux", feature = "epoll"))]
    Loops(loops::RunningLoops),
    /// The portable one.
    TinyHttp(TinyHttp),
}

impl RunningEngine {
    /// Whether a worker of that engine is free again once it has an answer's head. On the portable engine a worker is
    /// bound to its request until the whole body is relayed.
    pub const fn frees_workers(engine: Engine) -> bool {
        cfg!(all(target_os = "linux", feature = "epoll")) && matches!(engine, Engine::Auto | Engine::Epoll)
    }

    /// Whether TLS is spoken to clients.
    pub const SPEAKS_TLS: bool = cfg!(all(target_os = "linux", feature = "epoll"));
    /// Whether HTTP/2 is spoken to clients.
    pub const SPEAKS_H2: bool = cfg!(all(target_os = "linux", feature = "epoll"));
    /// Whether TLS is spoken to backends.
    pub const CALLS_BY_TLS: bool = cfg!(all(target_os = "linux", feature = "epoll"));

    /// Starts the configured engine on sockets that listen already.
    ///
    /// # Errors
    /// When a thread or a descriptor can't be had.
    pub fn start(
        listeners: Sockets,
        start: &EngineStart<'_>,
        service: Arc<dyn Service>,
        clock: Clock,
    ) -> io::Result<Self> {
        match start.config.engine {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Engine::Auto | Engine::Epoll => loops::start(listeners, start, service, clock).map(Self::Loops),
            #[cfg(not(all(target_os = "linux", feature = "epoll")))]
            Engine::Epoll => Err(io::Error::other("frontend.engine \"epoll\" is not built on this system")),
            // It speaks no TLS: the configuration refuses TLS together with this engine.
            _ => TinyHttp::start(listeners.plain, start.inherited, start.config, service, clock)
                .map(Self::TinyHttp),
        }
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        match self {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Self::Loops(engine) => engine.addresses(),
            Self::TinyHttp(engine) => engine.addresses(),
        }
    }

    /// Where it listens for TLS, with real ports.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        match self {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Self::Loops(engine) => engine.tls_addresses(),
            Self::TinyHttp(_) => &[],
        }
    }

    /// What its connections and workers are doing. Of `tiny_http` only the number of busy workers is known.
    pub fn load(&self) -> Stats {
        match self {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Self::Loops(engine) => engine.stats(),
            Self::TinyHttp(engine) => {
                let workers_busy = engine.workers_busy();
                Stats { busy: workers_busy, workers_busy, ..Stats::default() }
            }
        }
    }

    /// Changes which peers have to send PROXY headers, if `frontend.proxy_protocol` is on.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "epoll")),
        allow(unused_variables, reason = "the portable engine reads no PROXY headers")
    )]
    pub fn set_trusted_proxies(&self, trusted: &[IpNet]) {
        match self {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Self::Loops(engine) => engine.set_trusted_proxies(trusted),
            Self::TinyHttp(_) => {}
        }
    }

    /// Takes no new connections; kept ones end with their next answer.
    pub fn stop_accepting(&self) {
        match self {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Self::Loops(engine) => engine.stop_accepting(),
            Self::TinyHttp(engine) => engine.stop_accepting(),
        }
    }

    /// Waits until every request is answered, at most `limit`. Returns what was left then.
    pub fn drain(&self, limit: Duration) -> Drained {
        match self {
            #[cfg(all(target_os = "linux", feature = "epoll"))]
            Self::Loops(engine) => engine.drain(limit),
            Self::TinyHttp(engine) => Drained::of(engine.drain(limit)),
        }
    }
}

/// Sockets that listen, by what is spoken on them.
#[derive(Debug, Default)]
pub struct Sockets {
    /// HTTP without TLS.
    pub plain: Vec<TcpListener>,
    /// TLS.
    pub tls: Vec<TcpListener>,
}

/// What TLS to clients is spoken with.
#[derive(Clone, Copy)]
pub struct TlsStart<'a> {
    /// Certificates and settings for handshakes, as they are in force at each time.
    pub front: &'a Arc<FrontTls>,
    /// From a connection's first byte to the end of its handshake.
    pub handshake_timeout: Duration,
}

/// What an engine is started with, beside its listeners.
#[derive(Clone, Copy)]
pub struct EngineStart<'a> {
    /// The listeners belong to other processes, too, and go on listening when this one no longer accepts.
    pub inherited: bool,
    /// `frontend`.
    pub config: &'a config::Frontend,
    /// Whose PROXY headers count, when `frontend.proxy_protocol` is on.
    pub trusted_proxies: &'a [IpNet],
    /// How many bits of an IPv6 address tell clients apart.
    pub ipv6_prefix: u8,
    /// `None`: there are no listeners for TLS.
    pub tls: Option<TlsStart<'a>>,
    /// What connections to backends with `https://` are made with.
    pub backend_tls: &'a Arc<BackendTls>,
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
    /// For an engine that does not say what was left.
    fn of(all: bool) -> Self {
        Self { requests: usize::from(!all), ..Self::default() }
    }
}

/// How many connections are in which state, and how many workers are busy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// A head or a body is being received, or nothing has come yet.
    pub reading: usize,
    /// A backend is to answer, or the connection is closing, or it carries requests of HTTP/2.
    pub busy: usize,
    /// Kept for the next request.
    pub idle: usize,
    /// A request waits for a backend with room, for the store or for the lane, or its answer is being delivered.
    pub parked: usize,
    /// Upgraded.
    pub relay: usize,
    /// Loops that are busy, or workers at a request.
    pub workers_busy: usize,
    /// Connections that speak HTTP/2. Their requests count as connections, too.
    pub http2_connections: usize,
    /// Requests on connections of HTTP/2.
    pub http2_streams: usize,
    /// Connections of each loop; empty where there are none.
    pub loops: Vec<usize>,
    /// Loops that are stuck in one turn.
    pub loops_stuck: usize,
}
