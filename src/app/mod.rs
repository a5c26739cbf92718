//! Start order, and stop in reverse. Nothing here ends the process: [`run`] returns and `main` exits.

mod listen;
mod live;
mod series;
mod service;
mod signals;
mod ticker;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::edge::access_log::AccessLog;
use crate::edge::admin::{AdminApi, BackendHealth, Health, Parts};
use crate::edge::error_log;
use crate::edge::frontend::{Frontend, tiny_http};
use crate::edge::prober::Prober;
use crate::edge::store::{Limits, Sources};
use crate::edge::upstream::UreqUpstream;
use crate::edge::upstream::resolve::{self, Resolver};
use crate::proxy::Proxy;
use crate::proxy::account::Accounts;
use crate::proxy::admit::{Admit, FindLimit};
use crate::proxy::forward::Forward;
use crate::rules::Nanos;
use crate::state::backends::{Backends, Settings};
use crate::state::cache::Found;
use crate::state::limiter::Limiter;
use crate::state::log_limit::LogLimit;
use crate::state::metrics::Metrics;
use crate::state::retry_budget::RetryBudget;
use crate::state::serving::Serving;

use listen::Bound;
use live::Running;
use series::Gathered;
use service::{Private, Public};
use signals::{Signal, Signals};
use ticker::Ticker;

/// Threads of the admin listener: its own, so that it answers when every worker is stuck.
const ADMIN_WORKERS: usize = 2;
/// How long the last access log lines may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Why the process could not start or did not end well.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with.
    pub exit_code: u8,
    /// A sentence for the operator.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// Something that the configuration could not tell.
    fn new(text: impl Into<String>) -> Self {
        Self { exit_code: 1, text: text.into() }
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Failure + '_ {
    move |error| Failure::new(format!("{what}: {error}"))
}

/// Runs until a signal ends it. Returns when everything has stopped.
///
/// # Errors
/// When an address can't be had, the database has a wrong schema, a thread can't be started, or requests did not end
/// within `shutdown_timeout`.
pub fn run(config: Config) -> Result<(), Failure> {
    let clock = Clock::real();
    let _error_log = error_log::start(&config.log, clock.clone()).map_err(failed("the error log"))?;
    // Before any thread is started: every thread inherits what is blocked or caught.
    let signals = Signals::catch().map_err(failed("signals can't be caught"))?;
    listen::raise_open_files(config.frontend.max_connections);
    let bound = Bound::open(&config)?;
    let app = App::start(&config, bound, clock)?;
    app.announce();
    app.wait(&signals);
    app.stop(&config)
}

struct App {
    state: Arc<State>,
    access_log: Arc<AccessLog>,
    public: Arc<Frontend>,
    private: Option<Frontend>,
    _prober: Option<Prober>,
    _resolver: Resolver,
    _ticker: Ticker,
}

/// What the probes ask about.
struct State {
    backends: Arc<Backends>,
    limits: Arc<Limits>,
    draining: AtomicBool,
}

impl App {
    fn start(config: &Config, bound: Bound, clock: Clock) -> Result<Self, Failure> {
        let metrics = Metrics::new();
        metrics.set_backends(config.backends.iter().map(|backend| backend.name.as_str()));
        let access_log = AccessLog::start(&config.log, clock.clone());
        let access_log = Arc::new(access_log.map_err(failed("the access log can't be opened"))?);
        let log_limit = Arc::new(LogLimit::default());
        let limiter = Arc::new(Limiter::new(config.rate_limit.max_clients, config.rate_limit.default));
        let limits = Limits::start(
            &Sources {
                database: &config.database,
                audit: config.audit,
                cache: &config.cache,
                rate_limit: &config.rate_limit,
            },
            Arc::clone(&limiter),
            Arc::clone(&metrics),
            clock.clone(),
        )
        .map_err(|error| Failure::new(error.to_string()))?;
        let backends = Arc::new(Backends::new(&pool_settings(config), &config.backends, clock.clone()));
        let upstream = Arc::new(UreqUpstream::new(&config.upstream, clock.clone()));
        let (sweeps, limits_log) = (Arc::clone(&upstream), Arc::clone(&log_limit));
        let ticker =
            Ticker::start(Arc::clone(&limiter), limits_log, sweeps, Arc::clone(&backends), clock.clone())
                .map_err(failed("a thread can't be started"))?;
        let (resolver, prober) = watch(config, &backends, &clock)?;
        let state =
            Arc::new(State { backends, limits: Arc::clone(&limits), draining: AtomicBool::new(false) });
        let accounts = Accounts {
            journal: Arc::clone(&access_log) as Arc<_>,
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            log_limit: Arc::clone(&log_limit),
            backends: Arc::clone(&state.backends),
        };
        let proxy = proxy(config, &state, upstream, &limiter, accounts);
        let health = Arc::clone(&state) as Arc<dyn Health>;
        let frontend = Arc::new(OnceLock::new());
        let series = Arc::new(Gathered {
            metrics: Arc::clone(&metrics),
            backends: Arc::clone(&state.backends),
            limiter: Arc::clone(&limiter),
            limits: Arc::clone(&limits),
            frontend: Arc::clone(&frontend),
            started: clock.wall(),
        });
        let live = Arc::new(Running {
            instance: proxy.instance.clone(),
            started_at: clock.now(),
            health: Arc::clone(&health),
            metrics,
            limiter,
            clock: clock.clone(),
        });
        let parts = Parts { limits, health, series, live };
        let api = Arc::new(AdminApi::new(parts, &config.admin, Arc::clone(&log_limit)));
        let service = Arc::new(Public { api: Arc::clone(&api), proxy: Arc::clone(&proxy) });
        let trusted = &config.rate_limit.trusted_proxies;
        let public =
            Frontend::start(bound.public, bound.inherited, &config.frontend, trusted, service, clock.clone())
                .map_err(failed("the frontend can't be started"))?;
        let public = Arc::clone(frontend.get_or_init(|| Arc::new(public)));
        warn_of_unused_keys(config, &public);
        let private = bound.private.map(|listener| {
            let frontend =
                config::Frontend { workers: ADMIN_WORKERS, proxy_protocol: false, ..config.frontend.clone() };
            let service = Arc::new(Private { api, proxy });
            Frontend::start(vec![listener], false, &frontend, &[], service, clock)
        });
        let private = private.transpose().map_err(failed("the admin listener can't be started"))?;
        Ok(Self { state, access_log, public, private, _prober: prober, _resolver: resolver, _ticker: ticker })
    }

    fn announce(&self) {
        for address in self.public.addresses() {
            self.access_log.announce(&format!("listening on http://{address}"));
        }
        for address in self.private.iter().flat_map(Frontend::addresses) {
            self.access_log.announce(&format!("admin on http://{address}"));
        }
    }

    /// Serves until a signal asks for the end.
    fn wait(&self, signals: &Signals) {
        for signal in signals.stream() {
            match signal {
                Signal::Stop(name) => {
                    log::info!("{name}: draining");
                    return;
                }
                Signal::ReopenLogs => {
                    log::info!("SIGUSR1: reopening the access log");
                    self.access_log.reopen();
                }
                Signal::Unused(name) => log::info!("{name}: caught; nothing is bound to it yet"),
            }
        }
    }

    fn stop(self, config: &Config) -> Result<(), Failure> {
        self.state.draining.store(true, Ordering::SeqCst);
        thread::sleep(config.shutdown_delay);
        self.public.stop_accepting();
        let drained = self.public.drain(config.shutdown_timeout);
        if let Some(private) = &self.private {
            private.stop_accepting();
            private.drain(LOG_FLUSH);
        }
        self.state.limits.stop();
        self.access_log.stop(LOG_FLUSH);
        if drained {
            log::info!("every request was answered");
            return Ok(());
        }
        Err(Failure::new(format!(
            "requests were still under way after shutdown_timeout ({:?})",
            config.shutdown_timeout
        )))
    }
}

fn proxy(
    config: &Config,
    state: &State,
    upstream: Arc<UreqUpstream>,
    limiter: &Arc<Limiter>,
    accounts: Accounts,
) -> Arc<Proxy> {
    let frees_workers = Frontend::frees_workers(config.frontend.engine);
    Arc::new(Proxy {
        admit: Admit {
            limits: Arc::clone(&state.limits) as Arc<_>,
            limiter: Arc::clone(limiter),
            metrics: Arc::clone(&accounts.metrics),
        },
        forward: Forward {
            upstream,
            backends: Arc::clone(&state.backends),
            budget: RetryBudget::new(),
            frees_workers,
            // Where whoever waits holds a worker, half of them are left for those who don't.
            most_waiting: if frees_workers { usize::MAX } else { config.frontend.workers / 2 },
            clock: accounts.clock.clone(),
            metrics: Arc::clone(&accounts.metrics),
        },
        accounts: Arc::new(accounts),
        instance: format!("{:016x}", fastrand::u64(..)),
        upgrades: config.frontend.upgrades.clone(),
    })
}

/// One warning for the keys that are set and that the portable engine can't honour.
fn warn_of_unused_keys(config: &Config, public: &Frontend) {
    if !matches!(public, Frontend::TinyHttp(_)) {
        return;
    }
    let is_ignored = |key: &&String| tiny_http::IGNORED_KEYS.contains(&key.as_str());
    let ignored: Vec<&str> = config.changed.iter().filter(is_ignored).map(String::as_str).collect();
    if !ignored.is_empty() {
        log::warn!("the tiny_http engine can't honour {}: they have no effect", ignored.join(", "));
    }
}

fn pool_settings(config: &Config) -> Settings {
    Settings {
        strategy: config.balancing.strategy,
        checked: config.health_check.is_some(),
        max_in_flight: config.balancing.max_in_flight,
        workers: u32::try_from(config.frontend.workers).ok(),
        outlier: config.outlier.clone(),
        sticky: config.balancing.sticky.as_ref().map(|sticky| sticky.secret.clone()),
        serving: Arc::new(Serving::of(config)),
    }
}

/// Finds the backends' addresses and checks each once, before anything is promised.
fn watch(
    config: &Config,
    backends: &Arc<Backends>,
    clock: &Clock,
) -> Result<(Resolver, Option<Prober>), Failure> {
    let first = config.health_check.as_ref().map_or(config.upstream.connect_timeout, |check| check.timeout);
    let resolver =
        Resolver::start(backends, &config.backends, config.upstream.resolve_interval, &resolve::system())
            .map_err(failed("names can't be resolved"))?;
    resolver.wait_first(first);
    let Some(check) = &config.health_check else { return Ok((resolver, None)) };
    let prober = Prober::start(Arc::clone(backends), check.clone(), clock.clone())
        .map_err(failed("health checks can't be started"))?;
    prober.wait_first(first);
    Ok((resolver, Some(prober)))
}

impl Health for State {
    fn backends(&self) -> Vec<BackendHealth> {
        let snapshot = self.backends.snapshot();
        snapshot
            .backends()
            .iter()
            .map(|backend| {
                let mut own = snapshot
                    .endpoints()
                    .iter()
                    .filter(|endpoint| endpoint.backend == backend.name)
                    .peekable();
                let resolved = own.peek().is_some();
                let up = own.any(|endpoint| endpoint.is_up());
                let cause = match (up, resolved) {
                    (true, _) => None,
                    (false, true) => Some("its health checks fail".to_owned()),
                    (false, false) => Some("its name has no address".to_owned()),
                };
                BackendHealth { name: backend.name.to_string(), up, cause }
            })
            .collect()
    }

    fn any_backend_up(&self) -> bool {
        self.backends.any_up()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn store_up(&self) -> bool {
        self.limits.up()
    }
}

impl FindLimit for Limits {
    fn find(&self, client: IpAddr, port: Option<u16>, now: Nanos) -> Found {
        Self::find(self, client, port, now)
    }
}
