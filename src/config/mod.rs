//! The checked configuration. Raw text becomes these types once, in [`load()`]; everything behind it can rely on them.

use balancer_pool::backend::BackendEntry;
use balancer_pool::strategy::{HashOn, Strategy};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use balancer_http::framing::request::Bounds;
use balancer_http::framing::response::HeadRules;

use crate::tls::BackendTlsSettings;

mod admin;
mod environment;
mod fault;
mod forms;
mod given;
mod json;
mod keys;
mod load;
mod objects;
mod rate_limit;
mod read;
mod reference;
mod schema;
mod secret;
mod section;
mod share;
mod tls;

pub use admin::{Admin, ApiToken, Role};
pub use fault::{Fault, FaultOrigin, Faults};
pub use forms::parse_duration as duration;
pub use given::{Given, is_live};
pub use keys::{Key, Shape};
pub use load::{Loaded, Options, address, from_text, keys, load};
pub use rate_limit::{BudgetScope, RateLimit, RateLimitHeaders};
pub use read::{is_own, parse_backend};
pub use reference::reference;
pub use schema::schema;
pub use secret::{Secret, SecretHash};
pub use tls::TlsConfig;

/// Everything that `config.json`, the environment and the command line say, checked. CONTRACT's shipped values are the
/// defaults, except where a field says otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the public port listens: one address or several; none where there is a TLS port alone.
    pub listen: Vec<SocketAddr>,
    /// The TLS port; `None`: there is none.
    pub tls: Option<TlsConfig>,
    /// The front door.
    pub frontend: Frontend,
    /// At least one; names are unique.
    pub backends: Vec<BackendEntry>,
    /// Where backends' names are looked up.
    pub discovery: Discovery,
    /// How a backend is picked.
    pub balancing: Balancing,
    /// How backends are called.
    pub upstream: UpstreamConfig,
    /// When an endpoint is taken out for how it answers; `None`: never.
    pub outlier: Option<Outlier>,
    /// `None`: every backend counts as healthy.
    pub health_check: Option<HealthCheck>,
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
    /// The folder that relative paths count from.
    pub base_dir: PathBuf,
    /// Keys that were given a value written otherwise than their default (`frontend.head_timeout`), so that an engine
    /// can say which of the user's wishes it can't honour.
    pub changed: Vec<String>,
    /// What to tell the operator when others can read the secrets of the file that it was read from.
    pub exposed: Option<String>,
    /// The same with their values, for a comparison with another configuration.
    pub given: Given,
}

/// Which engine accepts and parses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `epoll` where it is built, else `tiny_http`.
    Auto,
    /// Our own front door, Linux.
    Epoll,
    /// The portable engine.
    TinyHttp,
}

impl Engine {
    /// Whether the portable engine is what runs, by name or because nothing else is built.
    pub const fn is_portable(self) -> bool {
        matches!(self, Self::TinyHttp) || (matches!(self, Self::Auto) && !cfg!(target_os = "linux"))
    }
}

/// `frontend`. Sizes are bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Frontend {
    pub engine: Engine,
    /// What is given; [`Frontend::workers`] says what holds.
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
/// More loops would only take the processors from each other.
const MOST_LOOPS_A_CORE: usize = 4;

impl Frontend {
    /// How many loops there are on `epoll`, how many worker threads on the portable engine.
    pub fn workers(&self) -> usize {
        let usual = || if self.engine.is_portable() { PORTABLE_WORKERS } else { cores() };
        self.workers.unwrap_or_else(usual)
    }

    /// The most that [`Frontend::workers`] may be, where the machine says so.
    fn most_workers(&self) -> Option<usize> {
        (!self.engine.is_portable()).then(|| MOST_LOOPS_A_CORE * cores())
    }

    /// How much of a request's head is taken.
    pub fn head_bounds(&self) -> Bounds {
        Bounds {
            max_head_bytes: self.max_head_bytes,
            max_headers: self.max_headers,
            max_target_bytes: self.max_target_bytes,
            accept_invalid: self.accept_invalid,
        }
    }
}

/// How many threads run at once on what this process has of the machine.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `balancing`.
#[derive(Clone, Debug)]
pub struct Balancing {
    /// How one of several is picked.
    pub strategy: Strategy,
    /// What `hash` looks at.
    pub hash_on: HashOn,
    /// Most requests at once on all backends together.
    pub max_in_flight: Option<u32>,
    /// Most requests that wait for a backend with room.
    pub queue_size: usize,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Clients stay with the backend that they were given.
    pub sticky: Option<Sticky>,
}

/// `discovery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The name server to ask; `None`: whatever the system is set up to.
    pub resolver: Option<SocketAddr>,
}

/// `balancing.sticky`.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// What it is signed with.
    pub secret: Secret,
    /// Whether browsers may send it over TLS alone.
    pub secure: bool,
}

/// `outlier`.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Failures in a row that eject an endpoint; 0: they don't matter.
    pub consecutive: u32,
    /// Share of failures within `window` that ejects it, above 0 to 1.
    pub ratio: Option<f64>,
    /// How long requests are counted together.
    pub window: Duration,
    /// How long it is out the first time; twice as long each further time.
    pub base_time: Duration,
    /// Share of the endpoints that may be out at once, 0 to 1.
    pub max_ejected: f64,
    /// Inclusive ranges of status codes that count as failures, beside connections and time-outs.
    pub statuses: Vec<(u16, u16)>,
}

/// `upstream`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct UpstreamConfig {
    pub connect_timeout: Duration,
    /// To the response's head.
    pub response_timeout: Duration,
    /// The longest silence inside its body.
    pub read_timeout: Duration,
    /// How long a kept backend connection may be idle.
    pub idle_timeout: Duration,
    /// How long a request may take in all, its answer's body included; `None`: no bound of its own.
    pub request_timeout: Option<Duration>,
    /// How often a request may be sent again.
    pub retries: u32,
    /// After what.
    pub retry_on: RetryOn,
    /// Share of the requests that may be sent again, 0 to 1.
    pub retry_budget: f64,
    /// How often backend names are resolved.
    pub resolve_interval: Duration,
    /// Of an answer.
    pub max_head_bytes: usize,
    pub max_headers: usize,
    /// Take answers of old applications that break RFC 9112 in ways that do no harm.
    pub accept_invalid: bool,
    /// Add `Via` to requests.
    pub via: bool,
    /// How backends with `https://` are known.
    pub tls: BackendTlsSettings,
}

impl UpstreamConfig {
    /// How answers' heads are read.
    pub fn head_rules(&self) -> HeadRules {
        HeadRules {
            max_head_bytes: self.max_head_bytes,
            max_headers: self.max_headers,
            accept_invalid: self.accept_invalid,
        }
    }
}

/// `upstream.retry_on`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RetryOn {
    pub connect: bool,
    pub reset: bool,
    pub timeout: bool,
    /// Inclusive ranges of status codes.
    pub statuses: Vec<(u16, u16)>,
}

/// `health_check`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HealthCheck {
    pub path: String,
    /// Inclusive ranges of status codes that count as healthy.
    pub expect: Vec<(u16, u16)>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Successes in a row that bring a backend back.
    pub rise: u32,
    /// Failures in a row that take it out.
    pub fall: u32,
    /// `upstream.max_head_bytes` and `.accept_invalid`: an answer that a request takes, a check takes.
    pub head_rules: HeadRules,
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

/// `database`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Database {
    pub url: DatabaseUrl,
    /// Where changes by other instances are heard of, in PostgreSQL; `None`: by [`Database::url`].
    pub listen_url: Option<Secret>,
    /// Connections, and store threads.
    pub pool_size: usize,
    /// The longest that an API call waits.
    pub timeout: Duration,
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

/// `database.url`.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file, made when missing, with its folders. Absolute, or relative to the working directory.
    Sqlite(PathBuf),
    /// Nowhere: SQLite in memory, gone with the process. What `run --to` has without `--data`; no text names it.
    Memory,
    /// `postgres://…` or `postgresql://…`, with its password: a secret.
    Postgres(Secret),
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
