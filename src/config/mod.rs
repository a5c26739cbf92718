//! The checked configuration. Raw text becomes these types once, in [`load()`]; everything behind it can rely on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use balancer_http::framing::request::Bounds;

mod admin;
mod database;
mod environment;
mod fault;
mod forms;
mod given;
mod htpasswd;
mod idle;
mod load;
mod otel;
mod pool;
mod rate_limit;
mod read;
mod reference;
pub mod routes;
mod schema;
mod secret;
mod tls;
mod words;

pub use crate::declare::parse_duration as duration;
pub use crate::declare::{Fault, FaultOrigin, Key, Shape};
pub use admin::{ADMIN_TOKEN, Admin, ApiToken, Role};
pub use database::{Database, DatabaseUrl};
pub use fault::Faults;
pub use forms::{is_backend_name, written};
pub use given::{Given, is_live};
pub use htpasswd::{PasswordHash, Users};
pub use load::{Loaded, Options, address, from_text, keys, load};
pub use otel::{CollectorUrl, OtelConfig};
pub use pool::{Balancing, HealthCheck, Outlier, PoolConfig, RetryOn, Sticky, UpstreamConfig};
pub use rate_limit::{BudgetScope, RateLimit, RateLimitHeaders};
pub(crate) use read::in_flight;
pub use read::{is_own, parse_backend};
pub use reference::reference;
pub use schema::schema;
pub use secret::{Secret, SecretHash};
pub use tls::TlsConfig;
pub(crate) use words::{AMOUNT, BACKEND_URL, IN_FLIGHT, NAME as BACKEND_NAME};

/// Everything that `config.json`, the environment and the command line say, checked. The defaults are the values of the
/// shipped `config.json`, except where a field says otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the public port listens: one address or several; none where there is a TLS port alone.
    pub listen: Vec<SocketAddr>,
    /// The TLS port; `None`: there is none.
    pub tls: Option<TlsConfig>,
    /// How clients' connections are accepted and read.
    pub frontend: Frontend,
    /// The first is `default`, whose keys stand at the top.
    pub pools: Vec<PoolConfig>,
    /// Where backends' names are looked up.
    pub discovery: Discovery,
    /// Which requests go where.
    pub routes: routes::RouteList,
    /// How clients are limited.
    pub rate_limit: RateLimit,
    /// The limits cache.
    pub cache: CacheConfig,
    /// Where limits are kept.
    pub database: Database,
    /// How much of the audit is kept.
    pub audit: Audit,
    /// Who may call the API, and where.
    pub admin: Admin,
    /// How long `/-/readyz` is 503 before accepting stops.
    pub shutdown_delay: Duration,
    /// How long requests may take to end at shutdown.
    pub shutdown_timeout: Duration,
    /// Logs.
    pub log: LogConfig,
    /// Where spans of requests go; `None`: there are none.
    pub otel: Option<OtelConfig>,
    /// The folder that relative paths count from.
    pub base_dir: PathBuf,
    /// Keys that were given a value written otherwise than their default (`frontend.head_timeout`), so that an engine
    /// can say which of the user's wishes it can't honour.
    pub changed: Vec<String>,
    /// What to tell the operator when others can read the secrets of the file that it was read from.
    pub exposed: Option<String>,
    /// The keys that were given and are not at their defaults, with their values, for a comparison with another
    /// configuration.
    pub given: Given,
}

/// Which engine accepts and parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `epoll` where it is built, else `tiny_http`.
    Auto,
    /// Our own event loops, on Linux.
    Epoll,
    /// The portable engine.
    TinyHttp,
}

impl Engine {
    /// Whether the portable engine is what runs, by name or because nothing else is built.
    pub const fn is_portable(self) -> bool {
        matches!(self, Self::TinyHttp)
            || (matches!(self, Self::Auto) && !cfg!(all(target_os = "linux", feature = "epoll")))
    }
}

/// `frontend`. Sizes are bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Frontend {
    pub engine: Engine,
    /// As it was given; [`Frontend::workers`] is the number in force.
    pub workers: Option<usize>,
    pub max_connections: usize,
    pub max_connections_per_ip: usize,
    pub max_head_bytes: usize,
    pub max_headers: usize,
    pub max_target_bytes: usize,
    pub max_body_bytes: u64,
    /// From a head's first byte to its end.
    pub head_timeout: Duration,
    /// The longest silence inside a request body.
    pub body_timeout: Duration,
    /// How long a kept connection may be idle.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// The longest silence in a connection that was upgraded.
    pub tunnel_timeout: Duration,
    /// Request bodies up to this are read whole before a backend is asked.
    pub request_buffer_bytes: usize,
    pub response_buffer_bytes: usize,
    /// A slower side is ended, after `slow_grace`.
    pub min_bytes_per_sec: u64,
    pub slow_grace: Duration,
    /// Lower-case protocol names that may be upgraded to.
    pub upgrades: Vec<String>,
    /// End a request whose client half-closed and is sent nothing.
    pub abort_on_close: bool,
    /// Expect PROXY protocol headers from `rate_limit.trusted_proxies`.
    pub proxy_protocol: bool,
    /// Take bytes above 0x7F in request targets.
    pub accept_invalid: bool,
    /// Speak HTTP/2 on the plain port to clients that begin with it.
    pub h2c: bool,
}

/// Worker threads of the portable engine unless the configuration names a number.
const PORTABLE_WORKERS: usize = 64;
/// More loops than this on each core would only compete for it.
const MOST_LOOPS_A_CORE: usize = 4;

impl Config {
    /// The pool whose keys stand at the top.
    pub fn default_pool(&self) -> &PoolConfig {
        &self.pools[0]
    }
}

impl Frontend {
    /// How many loops there are on `epoll`, how many worker threads on the portable engine.
    pub fn workers(&self) -> usize {
        let usual = || if self.engine.is_portable() { PORTABLE_WORKERS } else { cores() };
        self.workers.unwrap_or_else(usual)
    }

    /// The most loops that may be configured; `None` on the portable engine, whose threads the machine does not bound.
    fn most_workers(&self) -> Option<usize> {
        (!self.engine.is_portable()).then(|| MOST_LOOPS_A_CORE * cores())
    }

    /// The bounds on a request's head.
    pub fn head_bounds(&self) -> Bounds {
        Bounds {
            max_head_bytes: self.max_head_bytes,
            max_headers: self.max_headers,
            max_target_bytes: self.max_target_bytes,
            accept_invalid: self.accept_invalid,
        }
    }
}

/// How many threads can run at once: the processors that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `discovery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The name server to ask; `None`: whatever the system is set up to.
    pub resolver: Option<SocketAddr>,
}

/// `cache`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CacheConfig {
    pub max_entries: usize,
    pub ttl: Duration,
    /// The longest that a request waits for the database.
    pub load_timeout: Duration,
}

/// `audit`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Audit {
    /// How long a row is kept.
    pub keep: Duration,
    /// Most rows that are kept.
    pub max_rows: u64,
}

/// `log`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// What goes to stderr.
    pub level: log::LevelFilter,
    /// How a line on stderr looks.
    pub format: LogFormat,
    /// Where a line a request goes.
    pub access: AccessLog,
    /// How it looks.
    pub access_format: AccessFormat,
    /// Whether it shows queries; `None`: in the combined format alone.
    pub query: Option<bool>,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `TIME [LEVEL] TEXT`.
    Text,
    /// An object with `time`, `level` and `message`.
    Json,
}

/// `log.access_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// An object a request.
    Json,
    /// The combined log format of Apache and nginx.
    Combined,
}

/// `log.access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// `false`.
    Off,
    /// `true`.
    Stdout,
    /// `"file:PATH"`.
    File(PathBuf),
}

#[cfg(test)]
mod tests;
