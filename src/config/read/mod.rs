//! Declares every key: where it is, what it takes, its default and what it is for.

mod admin;
mod backends;
mod balancing;
mod frontend;
mod health_check;
mod identity;
mod otel;
mod outlier;
mod pools;
mod rate_limit;
mod routes;
mod rules;
mod terms;
mod tls;
mod upstream;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

pub(super) use backends::by_address as backend_by_address;
pub(crate) use backends::in_flight;
pub use backends::is_own;
pub use backends::parse as parse_backend;

use admin::Outside;

use super::{
    AccessFormat, AccessLog, Audit, CacheConfig, Config, Database, DatabaseUrl, Discovery, Given, LogConfig,
    LogFormat, TlsConfig, forms, words,
};
use crate::declare::{Section, Shape, Spec, Value, owned};

/// Most elements of a list of networks, names or backends.
const MAX_LIST: usize = 1_024;
/// Most addresses to listen on.
const MAX_LISTENERS: usize = 64;
/// Least and most of a time-out.
const TIMEOUT: (&str, &str) = ("1ms", "1d");
/// The same where 0 makes sense, too.
const DELAY: (&str, &str) = ("0s", "1d");

/// What a bound on requests at once may be.
const IN_FLIGHT: std::ops::RangeInclusive<u64> = 1..=1_000_000;

/// The end of a message about TLS or HTTP/2.
const NEEDS_LOOPS: &str =
    "needs the loops (frontend.engine \"epoll\" or \"auto\", on Linux), which the tiny_http engine has not";

/// Reads the whole tree; relative paths count from `base`, `env` is the process's environment, and `store` is where
/// limits are kept unless `database.url` says it.
pub(super) fn config(
    mut root: Section<'_>,
    base: &Path,
    env: &[(OsString, OsString)],
    store: DatabaseUrl,
) -> Config {
    let admin =
        admin::admin(root.section("admin", "Who may call the API, and where."), &Outside { base, env });
    let (listen, tls) = doors(&mut root, base, admin.listen);
    let of_tls = tls.iter().flat_map(|tls| &tls.listen);
    let own: Vec<SocketAddr> = listen.iter().chain(of_tls).copied().collect();
    let frontend = frontend::frontend(root.section("frontend", "The front door: accepts, parses, bounds."));
    let engine = frontend.engine;
    let around = backends::Around { own: &own, admin: admin.listen, engine, base };
    if tls.is_some() && engine.is_portable() {
        root.fault("tls", format!("is there: TLS {NEEDS_LOOPS}"));
    }
    let callers_are_told = admin.listen.is_some() || admin.token.is_some() || !admin.tokens.is_empty();
    let max_body_bytes = frontend.max_body_bytes;
    let pools = pools::pools(&mut root, &around);
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    let routes = routes::routes(&mut root, &routes::RouteContext { base, pools: &names, max_body_bytes });
    let config = Config {
        frontend,
        pools,
        routes,
        discovery: discovery(root.section("discovery", "Where backends' names are looked up.")),
        rate_limit: rate_limit::rate_limit(
            root.section("rate_limit", "How clients are limited."),
            tls.as_ref().is_some_and(|tls| tls.front.client_auth.is_some()),
        ),
        cache: cache(root.section("cache", "The limits cache.")),
        database: database(root.section("database", "Where limits are kept."), base, store),
        audit: audit(root.section("audit", "Who changed which limit: how much of it is kept.")),
        listen,
        tls,
        admin,
        shutdown_delay: root.duration(
            "shutdown_delay",
            ("0s", "1h"),
            "\"0s\"",
            "How long /-/readyz is 503 before accepting stops.",
        ),
        shutdown_timeout: root.duration(
            "shutdown_timeout",
            DELAY,
            "\"30s\"",
            "How long requests may take to end at shutdown.",
        ),
        log: log(root.section("log", "Logs."), base),
        otel: root.section_of("otel", otel::ABOUT, otel::otel),
        base_dir: base.to_owned(),
        changed: Vec::new(),
        exposed: None,
        given: Given::default(),
    };
    if !callers_are_told {
        tells_callers(&mut root, &config);
    }
    let schema = Spec::of("$schema", words::SCHEMA, "null", "Where editors find the schema.").or_null();
    root.text(&schema, owned);
    root.end();
    config
}

/// Where clients come in.
fn doors(
    root: &mut Section<'_>,
    base: &Path,
    admin: Option<SocketAddr>,
) -> (Vec<SocketAddr>, Option<TlsConfig>) {
    let listen = Spec::new(
        "listen",
        Shape::List { of: words::ADDRESS, max: MAX_LISTENERS, single: true },
        "\"127.0.0.1:8080\"",
        "Where the public port listens: an address or a list of them; null: there is the TLS port alone.",
    )
    .or_null();
    let listen = root.list(&listen, forms::address);
    let about = "The TLS port; null: there is none.";
    let tls = root.section_of("tls", about, |section| tls::tls(section, base));
    let of_tls = tls.as_ref().map_or(&[][..], |tls| &tls.listen);
    own_addresses(root, &listen, of_tls, admin);
    (listen, tls)
}

/// At least one listener, and none twice.
fn own_addresses(
    root: &mut Section<'_>,
    listen: &[SocketAddr],
    tls: &[SocketAddr],
    admin: Option<SocketAddr>,
) {
    if listen.is_empty() && tls.is_empty() && !root.faulty("listen") && !root.faulty("tls.listen") {
        root.fault("listen", "needs at least one address, unless tls has one");
        return;
    }
    let is_doubled = |all: &mut dyn Iterator<Item = SocketAddr>| {
        let mut all = all.filter(|address| address.port() != 0).collect::<Vec<_>>();
        let count = all.len();
        all.sort();
        all.dedup();
        all.len() < count
    };
    let plain = || listen.iter().copied().chain(admin);
    if is_doubled(&mut plain()) {
        root.fault("listen", "holds an address twice, or that of admin.listen");
    } else if is_doubled(&mut plain().chain(tls.iter().copied())) {
        root.fault("tls.listen", "holds an address twice, or one of listen or admin.listen");
    }
}

/// Reports a `listen` that is every address of the machine, on the portable engine: it does not know at which address a
/// connection came in, and so can't ask whose process a caller of the API is.
fn tells_callers(root: &mut Section<'_>, config: &Config) {
    let is_everywhere = config.listen.iter().any(|address| address.ip().is_unspecified());
    if cfg!(target_os = "linux") && config.frontend.engine.is_portable() && is_everywhere {
        let text = "is every address of this machine, where the tiny_http engine can't tell who calls the API: set \
                    admin.token (BALANCER_ADMIN_TOKEN) or admin.listen, name an address, or take another frontend.engine";
        root.fault("listen", text);
    }
}

fn discovery(mut s: Section<'_>) -> Discovery {
    let resolver = Spec::of(
        "resolver",
        words::RESOLVER,
        "null",
        "A name server to ask; null: whatever the system is set up to.",
    )
    .or_null();
    let resolver =
        s.text(&resolver, |text| text.parse::<SocketAddr>().ok().filter(|at| at.port() != 0).ok_or(None));
    s.end();
    Discovery { resolver }
}

fn cache(mut s: Section<'_>) -> CacheConfig {
    let cache = CacheConfig {
        max_entries: s.whole(
            "max_entries",
            1..=100_000_000,
            "100000",
            "Most addresses whose limits are in memory.",
        ),
        ttl: s.duration("ttl", TIMEOUT, "\"30s\"", "How long a loaded limit is taken as current."),
        load_timeout: s.duration(
            "load_timeout",
            ("1ms", "10s"),
            "\"50ms\"",
            "The longest that a request waits for the database.",
        ),
    };
    s.end();
    cache
}

fn database(mut s: Section<'_>, base: &Path, store: DatabaseUrl) -> Database {
    let url =
        Spec::of("url", words::DATABASE, "\"sqlite:data/balancer.db\"", "Where limits are kept.").secret();
    let url = s.text(&url, |text| forms::database_url(text, base));
    let is_given = s.has("url");
    let listen_url = Spec::of(
        "listen_url",
        words::POSTGRES,
        "null",
        "Where changes by other instances are heard of; null: by url, which must then lead to the server itself.",
    )
    .or_null()
    .secret();
    let listen_url = s.text(&listen_url, |text| match forms::database_url(text, base)? {
        DatabaseUrl::Postgres(url) => Ok(url),
        DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => Err(None),
    });
    let database = Database {
        url: url.filter(|_| is_given).unwrap_or(store),
        listen_url,
        pool_size: s.whole("pool_size", 1..=256, "8", "Connections, and store threads."),
        timeout: s.duration("timeout", ("1ms", "10m"), "\"2s\"", "The longest that an API call waits."),
    };
    s.end();
    database
}

fn audit(mut s: Section<'_>) -> Audit {
    let audit = Audit {
        keep: s.duration("keep", ("1m", "3650d"), "\"90d\"", "How long a change stands in the audit."),
        max_rows: s.whole("max_rows", 1..=10_000_000, "100000", "Most changes that the audit holds."),
    };
    s.end();
    audit
}

fn log(mut s: Section<'_>, base: &Path) -> LogConfig {
    use log::LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
    let levels =
        [("off", Off), ("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace)];
    let access = Spec::of(
        "access",
        words::ACCESS_LOG,
        "true",
        "Where a line a request goes: to stdout, nowhere, to a file.",
    );
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let access_formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    let about = "How a line on stderr looks: text, or an object with time, level and message.";
    let about_access =
        "How a request's line looks: a JSON object, or the combined log format of Apache and nginx.";
    let about_query = "Whether the access log shows queries, which may hold secrets; null: as usual, which is yes for combined, no for json.";
    let query = Spec::new("query", Shape::Bool, "null", about_query).or_null();
    let log = LogConfig {
        format: s.choice("format", &formats, "\"text\"", about).unwrap_or(LogFormat::Text),
        access_format: s
            .choice("access_format", &access_formats, "\"json\"", about_access)
            .unwrap_or(AccessFormat::Json),
        level: s.choice("level", &levels, "\"info\"", "What goes to stderr.").unwrap_or(Info),
        access: s
            .some(&access, |node| match &node.value {
                Value::Bool(true) => Ok(AccessLog::Stdout),
                Value::Bool(false) => Ok(AccessLog::Off),
                Value::Text(text) => match text.strip_prefix("file:") {
                    Some(path) if !path.ends_with('/') => forms::file(path, base).map(AccessLog::File),
                    _ => Err(None),
                },
                _ => Err(None),
            })
            .unwrap_or(AccessLog::Stdout),
        query: s.flag(&query),
    };
    s.end();
    log
}
