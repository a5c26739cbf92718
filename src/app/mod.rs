//! Starts everything in order, and stops it in reverse. Nothing here ends the process: [`run`] returns, and `main`
//! exits.

mod backends;
mod budget;
#[cfg(debug_assertions)]
mod faults;
mod grace;
mod keeper;
mod listen;
mod notify;
mod parts;
mod pool;
mod series;
mod service;
mod shared;
mod signals;
mod source;
mod ticker;
mod tls;
mod tracing;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::api::{Control, Controlled, ProcessHealth};
use crate::budget::Carrier;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::engine::{Drained, EngineStart, RunningEngine, Sockets, portable};
use crate::log::access::AccessLogWriter;
use crate::log::errors;
use crate::metrics::Metrics;
use crate::otel::TracerThreads;
use crate::store::levels::Levels;

use listen::Bound;
use notify::Notify;
use parts::Parts;
use service::{Private, Public};
use shared::SharedServices;
use signals::{Signal, Signals};
use ticker::Ticker;
use tls::Tls;
use tracing::SPANS_FLUSH;

pub use source::ConfigSource;

/// Worker threads of the admin listener on the portable engine. They are its own, so that it answers when every other
/// worker is stuck. On the other engine the admin listener has a loop of its own.
const ADMIN_WORKERS: usize = 2;
/// How long the last access log lines may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Why the process could not start or did not end well: a sentence for the operator.
#[derive(Debug)]
pub struct StartFailure(String);

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartFailure {}

impl StartFailure {
    /// A failure that a check of the configuration could not find.
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> StartFailure + '_ {
    move |error| StartFailure::new(format!("{what}: {error}"))
}

/// Does a turn of a thread that others do not wait for. A panic ends that turn alone. False: there was one.
fn guarded(thread: &str, metrics: &Metrics, turn: impl FnOnce()) -> bool {
    let done = catch_unwind(AssertUnwindSafe(turn)).is_ok();
    if !done {
        metrics.panicked();
        log::error!("{thread}: broken off by a panic, a fault of Balancer (see its message above); goes on");
    }
    done
}

/// Runs until a signal ends it. Returns when everything has stopped. `source`: where `config` was read from; a reload
/// reads it again.
///
/// # Errors
/// When an address can't be listened on, the database has a wrong schema, a thread can't be started, or requests did
/// not end within `shutdown_timeout`.
pub fn run(config: Config, source: ConfigSource) -> Result<(), StartFailure> {
    let clock = Clock::real();
    let _error_log = errors::start(&config.log, clock.clone()).map_err(failed("the error log"))?;
    // Before the other threads are started, since threads inherit how signals are handled.
    let signals = Signals::catch().map_err(failed("signals can't be caught"))?;
    if let Some(exposed) = &config.exposed {
        log::warn!("{exposed}");
    }
    let max_connections = listen::raise_open_files(config.frontend.max_connections);
    let frontend = config::Frontend { max_connections, ..config.frontend.clone() };
    let config = Config { frontend, ..config };
    let bound = Bound::open(&config)?;
    let app = App::start(config, source, bound, clock)?;
    app.announce();
    app.wait(&signals);
    app.stop()
}

struct App {
    health: Arc<ProcessHealth>,
    access_log: Arc<AccessLogWriter>,
    public: Arc<RunningEngine>,
    private: Option<RunningEngine>,
    control: Arc<Control>,
    /// The configuration in force.
    config: Arc<ArcSwap<Config>>,
    notify: Arc<Notify>,
    levels: Levels,
    /// `None`: this instance counts alone.
    carrier: Option<Carrier>,
    tracers: TracerThreads,
    _ticker: Ticker,
}

impl App {
    fn start(config: Config, source: ConfigSource, bound: Bound, clock: Clock) -> Result<Self, StartFailure> {
        let in_force = Arc::new(ArcSwap::from_pointee(config));
        let config = &*in_force.load_full();
        let tls = Tls::start(config, &bound.public, &clock)?;
        let own_addresses = bound.addresses().map_err(failed("our own addresses"))?;
        let mut shared = SharedServices::start(config, &tls, own_addresses.first().copied(), clock.clone())?;
        let (limiter, limits) = (Arc::clone(&shared.limiter), Arc::clone(&shared.limits));
        let levels = Levels::start(limiter, limits, source.own_folder(config).as_deref(), clock.clone())
            .map_err(failed("a thread can't be started"))?;
        let mut pools = std::mem::take(&mut shared.pools);
        shared.watch(&mut pools, config)?;
        let proxy = shared.proxy(config);
        let carrier = budget::take_part(config.rate_limit.shared_budget, &shared, &own_addresses)?;
        let (control, commands) = Control::new(Controlled {
            config: Arc::clone(&in_force),
            limits: Arc::clone(&shared.limits),
            policy: Arc::clone(&shared.policy),
            own_addresses: own_addresses.clone(),
        });
        let api = shared.api(config, &proxy.instance, &control);
        let service = Arc::new(Public { api: Arc::clone(&api), proxy: Arc::clone(&proxy) });
        let start = engine_start(config, bound.inherited, &tls);
        let public = RunningEngine::start(bound.public, &start, service, clock.clone())
            .map_err(failed("the frontend can't be started"))?;
        let public = Arc::clone(shared.frontend.get_or_init(|| Arc::new(public)));
        warn_of_unused_keys(config, &public);
        let private = bound.private.map(|listener| {
            let service = Arc::new(Private { api: Arc::clone(&api), proxy });
            start_private(listener, &start, service, clock.clone())
        });
        let private = private.transpose().map_err(failed("the admin listener can't be started"))?;
        let notify = Arc::new(Notify::to(source.variable("NOTIFY_SOCKET")));
        let tracers = shared.tracing.threads.clone();
        Parts {
            own_addresses,
            source,
            config: Arc::clone(&in_force),
            pools,
            policy: Arc::clone(&shared.policy),
            limits: Arc::clone(&shared.limits),
            api,
            public: Arc::clone(&public),
            keeper: shared.keeper.clone(),
            tracing: shared.tracing,
            notify: Arc::clone(&notify),
            strays: Vec::new(),
        }
        .start(commands)
        .map_err(failed("a thread can't be started"))?;
        let SharedServices { health, access_log, ticker, .. } = shared;
        Ok(Self {
            health,
            access_log,
            public,
            private,
            control,
            config: in_force,
            notify,
            levels,
            carrier,
            tracers,
            _ticker: ticker,
        })
    }

    fn announce(&self) {
        for address in self.public.addresses() {
            self.access_log.announce(&format!("listening on http://{address}"));
        }
        for address in self.public.tls_addresses() {
            self.access_log.announce(&format!("listening on https://{address}"));
        }
        for address in self.private.iter().flat_map(RunningEngine::addresses) {
            self.access_log.announce(&format!("admin on http://{address}"));
        }
        self.notify.ready();
    }

    /// Serves until a signal asks for the end.
    fn wait(&self, signals: &Signals) {
        for signal in signals.stream() {
            match signal {
                Signal::Stop(name) => {
                    log::info!("{name}: draining");
                    return;
                }
                Signal::Reload => self.control.ask_reload("SIGHUP"),
                Signal::ReopenLogs => {
                    log::info!("SIGUSR1: reopening the access log");
                    self.access_log.reopen();
                }
                Signal::Unused(name) => log::info!("{name}: caught; nothing is bound to it yet"),
            }
        }
    }

    fn stop(self) -> Result<(), StartFailure> {
        let config = self.config.load_full();
        self.notify.stopping();
        self.health.draining.store(true, Ordering::SeqCst);
        thread::sleep(config.shutdown_delay);
        self.public.stop_accepting();
        let drained = self.public.drain(config.shutdown_timeout);
        if let Some(private) = &self.private {
            private.stop_accepting();
            private.drain(LOG_FLUSH);
        }
        // The last requests have ended; what is left of them is sent while everything else stops.
        if let Some(tracer) = &self.health.policy.load().tracer {
            tracer.stop(SPANS_FLUSH);
        }
        if let Some(carrier) = self.carrier {
            carrier.stop();
        }
        self.levels.stop();
        self.health.limits.stop();
        self.access_log.stop(LOG_FLUSH);
        self.tracers.wait(SPANS_FLUSH);
        match drained {
            Drained { streams: 0, tunnels: 0, requests: 0 } => {
                log::info!("every request was answered");
                return Ok(());
            }
            Drained { streams, tunnels, requests: 0 } => {
                log::info!(
                    "{streams} answers and {tunnels} upgraded connections were cut after shutdown_timeout ({:?})",
                    config.shutdown_timeout
                );
                return Ok(());
            }
            _ => {}
        }
        Err(StartFailure::new(format!(
            "requests were still under way after shutdown_timeout ({:?})",
            config.shutdown_timeout
        )))
    }
}

/// Settings for the public engine.
fn engine_start<'a>(config: &'a Config, inherited: bool, tls: &'a Tls) -> EngineStart<'a> {
    EngineStart {
        inherited,
        config: &config.frontend,
        trusted_proxies: &config.rate_limit.trusted_proxies,
        ipv6_prefix: config.rate_limit.ipv6_prefix,
        tls: tls.start_of(config),
        backend_tls: &tls.backends,
    }
}

/// Starts the admin listener. It has threads of its own, so that it answers whatever the others do.
fn start_private(
    listener: TcpListener,
    start: &EngineStart<'_>,
    service: Arc<Private>,
    clock: Clock,
) -> io::Result<RunningEngine> {
    let workers = if start.config.engine.is_portable() { ADMIN_WORKERS } else { 1 };
    let frontend = config::Frontend { workers: Some(workers), proxy_protocol: false, ..start.config.clone() };
    let start =
        EngineStart { inherited: false, config: &frontend, trusted_proxies: &[], tls: None, ..*start };
    let listeners = Sockets { plain: vec![listener], ..Sockets::default() };
    RunningEngine::start(listeners, &start, service, clock)
}

/// Warns once of all keys that are set and that have no effect on the portable engine.
fn warn_of_unused_keys(config: &Config, public: &RunningEngine) {
    if !matches!(public, RunningEngine::TinyHttp(_)) {
        return;
    }
    let is_ignored = |key: &&String| portable::IGNORED_KEYS.contains(&key.as_str());
    let ignored: Vec<&str> = config.changed.iter().filter(is_ignored).map(String::as_str).collect();
    if !ignored.is_empty() {
        log::warn!("the tiny_http engine can't honour {}: they have no effect", ignored.join(", "));
    }
}
