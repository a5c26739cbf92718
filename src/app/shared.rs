//! The services that both listeners share, started in order.

use std::collections::hash_map::RandomState;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::keeper::Keeper;
use super::pool::{self, RunningPool};
use super::series::Gathered;
use super::ticker::{Ticked, Ticker};
use super::tls::Tls;
use super::tracing::Tracing;
use super::{StartFailure, failed};
use crate::api::{AdminApi, ApiParts, Control, Live, ProcessHealth};
use crate::budget::{SharedBudget, shown_id};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::RunningEngine;
use crate::history::History;
use crate::log::access::AccessLogWriter;
use crate::log::repeats::LogLimit;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::proxy::account::Accounts;
use crate::proxy::admit::Admit;
use crate::proxy::forward::Forward;
use crate::proxy::policy::PolicyInForce;
use crate::proxy::routes::PasswordLane;
use crate::store::{Limits, Sources};
use crate::upstream::prober::{CheckDriver, Prober};
use crate::upstream::resolve;
use balancer_limiter::heavy_hitters::HeavyHitters;
use balancer_limiter::limiter::Limiter;

/// See the module.
pub(super) struct SharedServices {
    pub history: Arc<History>,
    pub access_log: Arc<AccessLogWriter>,
    pub log_limit: Arc<LogLimit>,
    pub limiter: Arc<Limiter>,
    pub limits: Arc<Limits>,
    pub budget: Arc<SharedBudget>,
    pub heavy_hitters: Arc<HeavyHitters>,
    pub health: Arc<ProcessHealth>,
    pub policy: Arc<PolicyInForce>,
    /// Their backends have no addresses yet.
    pub pools: Vec<RunningPool>,
    pub keeper: Keeper,
    /// Set once the public engine has started.
    pub frontend: Arc<OnceLock<Arc<RunningEngine>>>,
    pub ticker: Ticker,
    pub tracing: Tracing,
}

impl SharedServices {
    /// Opens the access log and the store. The pools have no addresses yet. `address`: where this instance listens.
    pub fn start(
        config: &Config,
        tls: &Tls,
        address: Option<SocketAddr>,
        clock: Clock,
    ) -> Result<Self, StartFailure> {
        let metrics = Metrics::new();
        let history = Arc::new(History::new(Arc::clone(&metrics), clock.now()));
        let access_log = AccessLogWriter::start(&config.log, clock.clone());
        let access_log = Arc::new(access_log.map_err(failed("the access log can't be opened"))?);
        let log_limit = Arc::new(LogLimit::default());
        let limiter = Arc::new(Limiter::new(config.rate_limit.max_clients));
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
        .map_err(|error| StartFailure::new(error.to_string()))?;
        let prober = Prober::new(CheckDriver::of(config.frontend.engine), &tls.backends, clock.clone());
        let stored = limits.backends();
        let keeper = Keeper {
            metrics: Arc::clone(&metrics),
            tls: tls.clone(),
            lookup: resolve::lookup(config.discovery.resolver),
            prober: Arc::new(prober),
            clock: clock.clone(),
        };
        let keeping = keeper.by(config, &stored);
        let pools: Vec<_> = config.pools.iter().map(|pool| RunningPool::begin(pool, &keeping)).collect();
        let budget = budget_at(address);
        let tracing = Tracing::start(config, shown_id(budget.own()), (&metrics, &log_limit), &clock)?;
        let policy = tls.policy(config, pool::in_force(&pools)).tracing(tracing.tracer.clone());
        let policy = Arc::new(PolicyInForce::from_pointee(policy));
        let ticked = Ticked {
            metrics,
            limiter: Arc::clone(&limiter),
            log_limit: Arc::clone(&log_limit),
            policy: Arc::clone(&policy),
            history: Arc::clone(&history),
            tls: tls.clone(),
        };
        let ticker = Ticker::start(ticked, clock).map_err(failed("a thread can't be started"))?;
        let health = Arc::new(ProcessHealth {
            policy: Arc::clone(&policy),
            limits: Arc::clone(&limits),
            draining: AtomicBool::new(false),
            lone_peer: Arc::default(),
        });
        Ok(Self {
            history,
            access_log,
            log_limit,
            limiter,
            limits,
            budget,
            heavy_hitters: Arc::default(),
            health,
            policy,
            pools,
            keeper,
            frontend: Arc::default(),
            ticker,
            tracing,
        })
    }

    /// Finds the addresses of the pools' backends, and checks each endpoint once.
    pub fn watch(&self, pools: &mut [RunningPool], config: &Config) -> Result<(), StartFailure> {
        let stored = self.limits.backends();
        pool::watch(pools, &self.keeper.by(config, &stored))
    }

    /// The proxy, for requests that are not for our own API.
    pub fn proxy(&self, config: &Config) -> Arc<Proxy> {
        let Keeper { metrics, clock, .. } = &self.keeper;
        let frees_workers = RunningEngine::frees_workers(config.frontend.engine);
        Arc::new(Proxy {
            admit: Admit {
                limits: Arc::clone(&self.limits),
                limiter: Arc::clone(&self.limiter),
                heavy_hitters: Arc::clone(&self.heavy_hitters),
                metrics: Arc::clone(metrics),
                lone_peer: Arc::clone(&self.health.lone_peer),
                route_seats: Arc::default(),
            },
            passwords: PasswordLane::new(clock.clone()),
            forward: Forward {
                frees_workers,
                // Where a request in line holds a worker, such requests may hold at most half of the workers.
                most_waiting: if frees_workers { usize::MAX } else { config.frontend.workers() / 2 },
                client_hash: RandomState::new(),
                waiting: Arc::default(),
                clock: clock.clone(),
            },
            accounts: Arc::new(Accounts {
                journal: Arc::clone(&self.access_log) as Arc<_>,
                metrics: Arc::clone(metrics),
                clock: clock.clone(),
                log_limit: Arc::clone(&self.log_limit),
                policy: Arc::clone(&self.policy),
            }),
            instance: shown_id(self.budget.own()),
            upgrades: config.frontend.upgrades.clone(),
        })
    }

    /// Our own API.
    pub fn api(&self, config: &Config, instance: &str, control: &Arc<Control>) -> Arc<AdminApi> {
        let Keeper { metrics, clock, tls, .. } = &self.keeper;
        let series = Gathered {
            metrics: Arc::clone(metrics),
            policy: Arc::clone(&self.policy),
            limiter: Arc::clone(&self.limiter),
            limits: Arc::clone(&self.limits),
            budget: Arc::clone(&self.budget),
            frontend: Arc::clone(&self.frontend),
            tls: tls.front.clone(),
            started: clock.wall(),
        };
        let frontend = Arc::clone(&self.frontend);
        let live = Live {
            instance: instance.to_owned(),
            started_at: clock.now(),
            health: Arc::clone(&self.health),
            metrics: Arc::clone(metrics),
            limiter: Arc::clone(&self.limiter),
            limits: Arc::clone(&self.limits),
            budget: Arc::clone(&self.budget),
            heavy_hitters: Arc::clone(&self.heavy_hitters),
            policy: Arc::clone(&self.policy),
            tls: tls.front.clone(),
            history: Arc::clone(&self.history),
            loops_stuck: Box::new(move || frontend.get().map_or(0, |frontend| frontend.load().loops_stuck)),
            clock: clock.clone(),
        };
        let parts = ApiParts {
            limits: Arc::clone(&self.limits),
            health: Arc::clone(&self.health),
            series: Box::new(move |show| series.visit(show)),
            live,
            control: Arc::clone(control),
        };
        let log_limit = Arc::clone(&self.log_limit);
        Arc::new(AdminApi::new(parts, &config.admin, &config.rate_limit.trusted_proxies, log_limit))
    }
}

/// What an instance that listens there counts of what it shares with the others.
fn budget_at(address: Option<SocketAddr>) -> Arc<SharedBudget> {
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    Arc::new(SharedBudget::new(fastrand::u64(..), address))
}
