//! The running parts that follow the configuration and the stored backends. One thread owns them, and carries out one
//! command after the other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, after, never, select};

use super::grace;
use super::guarded;
use super::keeper::Keeper;
use super::notify::Notify;
use super::pool::{self, RunningPool};
use super::source::ConfigSource;
use super::tracing::Tracing;
use crate::api::{AdminApi, ControlCommand, LeavingBackend, ReloadError, Reloaded};
use crate::config::{self, Config, Faults, PoolConfig};
use crate::declare;
use crate::engine::RunningEngine;
use crate::error::FieldFault;
use crate::log::errors;
use crate::metrics::Reload;
use crate::proxy::policy::PolicyInForce;
use crate::store::Limits;
use crate::store::backends::BackendRow;
use crate::upstream::resolve;
use balancer_pool::backend::BackendEntry;

/// How often it is checked whether backends that were taken away still have requests.
const LOOK_AT_LEAVING: Duration = Duration::from_millis(50);
/// Most faults that an answer names; the log names all.
const MAX_FAULTS: usize = 32;

/// The running parts that follow the configuration.
pub(super) struct Parts {
    /// Where the configuration comes from.
    pub source: ConfigSource,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// As [`Config::pools`] has them.
    pub pools: Vec<RunningPool>,
    pub policy: Arc<PolicyInForce>,
    pub limits: Arc<Limits>,
    pub api: Arc<AdminApi>,
    pub public: Arc<RunningEngine>,
    /// Where we listen ourselves, with real ports.
    pub own_addresses: Vec<SocketAddr>,
    pub keeper: Keeper,
    pub tracing: Tracing,
    pub notify: Arc<Notify>,
    /// Stored backends whose pools are not configured, as the log last said.
    pub strays: Vec<String>,
}

impl Parts {
    /// Starts the thread.
    pub fn start(mut self, commands: Receiver<ControlCommand>) -> io::Result<()> {
        thread::Builder::new().name("control".into()).spawn(move || {
            let changes = self.limits.backend_changes();
            loop {
                let is_leaving = self.pools.iter().any(RunningPool::is_leaving);
                let look = if is_leaving { after(LOOK_AT_LEAVING) } else { never() };
                select! {
                    recv(commands) -> command => match command {
                        Ok(command) => self.guarded(|own| own.carry_out(command)),
                        Err(_) => return,
                    },
                    // Another instance changed the stored backends, or the database is up again.
                    recv(changes) -> _ => self.guarded(Self::follow_store),
                    recv(look) -> _ => self.guarded(Self::see_off),
                }
            }
        })?;
        Ok(())
    }

    /// A panic costs its own command.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        let metrics = Arc::clone(&self.keeper.metrics);
        if !guarded("control", &metrics, || work(self)) {
            // A reload may have broken off. The pools, with their checks and look-ups, may be lost.
            self.notify.ready();
            guarded("control", &metrics, || self.follow_store());
        }
    }

    fn carry_out(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Reload { by, answer } => {
                let outcome = self.reload(&by);
                if let Some(answer) = answer {
                    // Fails if the caller no longer waits.
                    let _ = answer.try_send(outcome);
                }
            }
            ControlCommand::Backends { leaving, answer } => {
                if let Some(LeavingBackend { pool, name, time }) = leaving {
                    let now = self.keeper.clock.now();
                    let pool = self.pools.iter_mut().find(|one| **one.pool.name() == *pool);
                    pool.into_iter().for_each(|one| one.let_go(&name, time, now));
                }
                self.follow_store();
                let _ = answer.try_send(());
            }
        }
    }

    /// Follows the stored backends, under the same configuration.
    fn follow_store(&mut self) {
        let config = self.config.load_full();
        self.apply_pools(&config, &config);
    }

    /// Removes leaving backends whose requests have ended, or whose time is over.
    fn see_off(&mut self) {
        let now = self.keeper.clock.now();
        let gone = self.pools.iter_mut().map(|one| one.see_off(now)).filter(|any| *any).count();
        if gone > 0 {
            self.follow_store();
        }
    }

    fn reload(&mut self, by: &str) -> Result<Reloaded, ReloadError> {
        self.notify.reloading();
        let mut exposed = None;
        let outcome = self.source.load().map_err(|faults| told(&faults)).and_then(|config| {
            exposed.clone_from(&config.exposed);
            let own = self.own_among(&config);
            if own.is_empty() { Ok(self.apply(config)) } else { Err(own) }
        });
        self.notify.ready();
        match outcome {
            Ok(reloaded) => {
                self.keeper.metrics.reload(Reload::Success);
                let list = |keys: &[String]| if keys.is_empty() { "nothing".into() } else { keys.join(", ") };
                log::info!("{by}: reloaded; changed: {}", list(&reloaded.changed));
                if let Some(exposed) = exposed {
                    log::warn!("{by}: {exposed}");
                }
                if !reloaded.needs_restart.is_empty() {
                    log::warn!("{by}: in force after a restart alone: {}", list(&reloaded.needs_restart));
                }
                Ok(reloaded)
            }
            Err(mut faults) => {
                self.keeper.metrics.reload(Reload::Failure);
                log::error!("{by}: not reloaded, nothing was changed: the configuration is wrong:");
                faults.iter().for_each(|fault| log::error!("{}", fault.detail));
                faults.truncate(MAX_FAULTS);
                Err(ReloadError::Faults(faults))
            }
        }
    }

    /// Faults for backends that are our own listeners. The loader has checked the configured addresses; here the real
    /// ports are known.
    fn own_among(&self, config: &Config) -> Vec<FieldFault> {
        let own = |backend: &BackendEntry| {
            self.own_addresses.iter().find(|own| config::is_own(own, backend)).copied()
        };
        let fault = |path: &str, address: SocketAddr| {
            let detail =
                format!("{path}: is our own listener {address}: requests would go round in a circle");
            FieldFault { pointer: pointer(path), detail }
        };
        let of_pool = |pool: &PoolConfig| -> Vec<FieldFault> {
            let path = pool.path();
            let of = |(index, backend)| Some(fault(&format!("{path}backends[{index}].url"), own(backend)?));
            pool.backends.iter().enumerate().filter_map(of).collect()
        };
        config.pools.iter().flat_map(of_pool).collect()
    }

    /// Puts a checked configuration in force. What can still fail is logged, and then stays as it was: the start of a
    /// thread, or files that have changed since they were checked.
    fn apply(&mut self, read: Config) -> Reloaded {
        let before = self.config.load_full();
        let (changed, needs_restart) =
            read.given.differing(&before.given).into_iter().partition(|key| config::is_live(key));
        let mut config = in_force(read, &before);
        self.keeper.tls.apply(&config, &self.keeper.clock);
        if config.otel != before.otel
            && let Err(error) = self.tracing.follow(&config)
        {
            log::error!("otel: stays as it was: {error}");
            // The next reload tries it again.
            config.otel.clone_from(&before.otel);
        }
        self.apply_pools(&config, &before);
        if config.rate_limit.default != before.rate_limit.default {
            self.limits.set_default(config.rate_limit.default.clone());
        }
        self.public.set_trusted_proxies(&config.rate_limit.trusted_proxies);
        self.api.set_access(&config.admin, &config.rate_limit.trusted_proxies);
        errors::set_level(config.log.level);
        self.config.store(Arc::new(config));
        Reloaded { changed, needs_restart }
    }

    /// Makes the pools what the configuration and the store want. What takes time comes first: new names are looked up,
    /// and new pools have their first checks. Then the pools that stay get their new backends, requests see all new
    /// pools and routes at once, and last, when those from before have got somewhere, what is not wanted any more is
    /// removed. In this order no request is sent to a backend that is gone, and none finds its pool empty. A removed pool gets no new requests, and those under way end there.
    fn apply_pools(&mut self, config: &Config, before: &Config) {
        if config.discovery != before.discovery {
            self.keeper.lookup = resolve::lookup(config.discovery.resolver);
        }
        let stored = self.limits.backends();
        self.say_strays(config, &stored);
        let keeping = self.keeper.by(config, &stored);
        // After a panic there are none: all are made anew, and requests have to see them.
        let is_same = std::ptr::eq(config, before) && !self.pools.is_empty();
        let mut running = std::mem::take(&mut self.pools);
        #[cfg(debug_assertions)]
        super::faults::strike("control");
        // Pools that stay unchanged, those that change, new ones, and the backends whose addresses are needed.
        let (mut kept, mut stay, mut new, mut needed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for wanted in &config.pools {
            let place = running.iter().position(|one| **one.pool.name() == *wanted.name);
            let Some(mut one) = place.map(|at| running.swap_remove(at)) else {
                new.push(RunningPool::begin(wanted, &keeping));
                continue;
            };
            match one.want(wanted, is_same, &keeping) {
                Some(entries) => {
                    needed.extend(entries);
                    stay.push(one);
                }
                None => kept.push(one),
            }
        }
        let mut found = pool::look_up(&stay, &needed, &keeping).into_iter();
        if let Err(error) = pool::watch(&mut new, &keeping) {
            log::error!("new pools: {error}");
        }
        for (word, pools) in [("new", &new), ("gone", &running)] {
            if !pools.is_empty() {
                let names: Vec<&str> = pools.iter().map(|one| &**one.pool.name()).collect();
                log::info!("pools that are {word}: {}", names.join(", "));
            }
        }
        stay.iter_mut().for_each(|one| one.grow(&mut found, &keeping));
        stay.append(&mut new);
        stay.append(&mut kept);
        stay.sort_by_key(|one| config.pools.iter().position(|wanted| *wanted.name == **one.pool.name()));
        if !is_same {
            let policy = self.keeper.tls.policy(config, pool::in_force(&stay));
            let old = self.policy.swap(Arc::new(policy.tracing(self.tracing.tracer.clone())));
            if stay.iter().any(RunningPool::has_unwanted) {
                grace::wait(old, &stay, &keeping.clock);
            }
        }
        stay.iter_mut().for_each(|one| one.shrink(&keeping));
        drop(running);
        self.pools = stay;
        let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        self.keeper.metrics.keep_pools(&names);
        self.keeper.tls.backends.forget_unheld();
    }
}

impl Parts {
    /// Warns of stored backends whose pool is not configured, whenever these are others than before.
    fn say_strays(&mut self, config: &Config, stored: &[BackendRow]) {
        let is_stray = |row: &&BackendRow| config.pools.iter().all(|pool| row.name_in(&pool.name).is_none());
        let strays: Vec<String> = stored.iter().filter(is_stray).map(|row| row.name.clone()).collect();
        if !strays.is_empty() && strays != self.strays {
            log::warn!(
                "stored backends whose pool is not configured, which DELETE /v1/pools/POOL/backends/NAME takes away: {}",
                strays.join(", ")
            );
        }
        self.strays = strays;
    }
}

/// The configuration in force after a reload: what was read for the keys that need no restart, and what was in force
/// for the others. [`config::is_live`] has the same list of keys.
fn in_force(read: Config, before: &Config) -> Config {
    Config {
        pools: read.pools,
        discovery: read.discovery,
        tls: match (read.tls, before.tls.clone()) {
            (Some(read), Some(before)) => {
                Some(config::TlsConfig { front: read.front, redirect: read.redirect, ..before })
            }
            (_, before) => before,
        },
        routes: read.routes,
        rate_limit: config::RateLimit {
            ipv6_prefix: before.rate_limit.ipv6_prefix,
            max_clients: before.rate_limit.max_clients,
            shared_budget: before.rate_limit.shared_budget,
            ..read.rate_limit
        },
        admin: config::Admin { listen: before.admin.listen, ..read.admin },
        shutdown_delay: read.shutdown_delay,
        shutdown_timeout: read.shutdown_timeout,
        log: config::LogConfig { level: read.log.level, ..before.log.clone() },
        otel: read.otel,
        given: read.given.in_force_after(&before.given),
        ..before.clone()
    }
}

/// The loader's faults for an answer: the key of the configuration that each is about, and its line.
fn told(faults: &Faults) -> Vec<FieldFault> {
    let lines = faults.lines();
    faults
        .list()
        .iter()
        .zip(lines)
        .map(|(fault, line)| FieldFault { pointer: pointer(&fault.path), detail: line })
        .collect()
}

/// `backends[0].url` → `/backends/0/url` (RFC 6901). Only unknown keys can have characters that need escapes.
fn pointer(path: &str) -> String {
    path.split(['.', '[']).filter(|part| !part.is_empty()).fold(String::new(), |all, part| {
        let part = part.strip_suffix(']').unwrap_or(part);
        all + &declare::pointer(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_pointers() {
        for (path, expected) in [
            ("", ""),
            ("listen", "/listen"),
            ("backends[0].url", "/backends/0/url"),
            ("upstream.retry_on[3]", "/upstream/retry_on/3"),
            ("a/b~", "/a~1b~0"),
        ] {
            assert_eq!(pointer(path), expected);
        }
    }

    #[test]
    fn what_needs_a_restart_stays_in_force() {
        let read = |more: &str| {
            let text = format!(r#"{{"backends": [{{"name": "a", "url": "http://127.0.0.1:9001"}}]{more}}}"#);
            config::from_text(&text, std::path::Path::new("/")).unwrap()
        };
        let before = read("");
        let after = read(
            r#", "listen": "127.0.0.1:1", "frontend": {"workers": 3}, "upstream": {"retries": 7},
                "admin": {"listen": "127.0.0.1:2", "hosts": ["a"]}, "rate_limit": {"ipv6_prefix": 48, "default": "1/s"},
                "log": {"access": false, "level": "warn"}, "cache": {"ttl": "1s"}, "database": {"pool_size": 1}"#,
        );
        let told = after.given.differing(&before.given);
        let config = in_force(after.clone(), &before);
        assert_eq!(
            (&config.listen, config.frontend.workers, config.default_pool().upstream.retries),
            (&before.listen, None, 7)
        );
        assert_eq!((config.admin.listen, config.admin.hosts.len()), (None, 1));
        assert_eq!((config.rate_limit.ipv6_prefix, config.rate_limit.default.is_some()), (64, true));
        assert_eq!((&config.log.access, config.log.level), (&before.log.access, log::LevelFilter::Warn));
        // The next reload names them again, and what it put in force no more.
        let still: Vec<_> = after.given.differing(&config.given);
        let restart: Vec<_> = told.into_iter().filter(|key| !config::is_live(key)).collect();
        assert_eq!(still, restart);
        assert_eq!(restart.len(), 7, "{restart:?}");
    }
}
