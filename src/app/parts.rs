//! The running parts that follow the configuration and the stored backends, owned by one thread that does what it is told,
//! one command after the other.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, after, never, select};

use super::backends::{WantedBackend, wanted};
use super::notify::Notify;
use super::pool;
use super::source::ConfigSource;
use super::tls::Tls;
use crate::api::{AdminApi, ControlCommand, ReloadError, Reloaded};
use crate::clock::Clock;
use crate::config::{self, Config, Faults};
use crate::engine::RunningEngine;
use crate::error::FieldFault;
use crate::log::errors;
use crate::metrics::{Metrics, Reload};
use crate::proxy::policy::PolicyInForce;
use crate::store::Limits;
use crate::upstream::prober::Prober;
use crate::upstream::resolve::{self, Lookup, Resolver};
use balancer_pool::backend::BackendEntry;
use balancer_pool::backend_state::{label, line};
use balancer_pool::backends::{Backends, Operator, Placed};
use balancer_time::Nanos;
use balancer_time::nanos;

/// How often backends on their way out are looked at.
const LOOK_AT_LEAVING: Duration = Duration::from_millis(50);
/// Most faults that an answer names; the log names all.
const MAX_FAULTS: usize = 32;

/// The running parts that follow the configuration.
pub(super) struct Parts {
    /// Where the configuration comes from.
    pub source: ConfigSource,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    pub backends: Arc<Backends>,
    pub policy: Arc<PolicyInForce>,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    pub api: Arc<AdminApi>,
    pub public: Arc<RunningEngine>,
    /// Where we listen ourselves, with real ports.
    pub own_addresses: Vec<SocketAddr>,
    pub tls: Tls,
    pub resolver: Resolver,
    pub lookup: Lookup,
    pub prober: Option<Prober>,
    pub clock: Clock,
    pub notify: Arc<Notify>,
    /// What the pool was last told to be.
    pub known: Vec<WantedBackend>,
    /// Backends that were taken away and whose requests may still end.
    pub leaving: Vec<Leaving>,
    /// Backends that the operator wants nothing new to go to, and why, as the log was told.
    pub withheld: HashMap<Arc<str>, &'static str>,
}

/// A backend on its way out: listed, and given nothing new.
pub(super) struct Leaving {
    entry: BackendEntry,
    until: Nanos,
}

impl Parts {
    /// Starts the thread.
    pub fn start(mut self, commands: Receiver<ControlCommand>) -> io::Result<()> {
        self.say_withheld();
        thread::Builder::new().name("control".into()).spawn(move || {
            let changes = self.limits.backend_changes();
            loop {
                let look = if self.leaving.is_empty() { never() } else { after(LOOK_AT_LEAVING) };
                select! {
                    recv(commands) -> command => match command {
                        Ok(command) => self.carry_out(command),
                        Err(_) => return,
                    },
                    // Another instance changed them, or the database came back.
                    recv(changes) -> _ => self.follow_store(),
                    recv(look) -> _ => self.see_off(),
                }
            }
        })?;
        Ok(())
    }

    fn carry_out(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Reload { by, answer } => {
                let outcome = self.reload(&by);
                if let Some(answer) = answer {
                    // He may have lost patience.
                    let _ = answer.try_send(outcome);
                }
            }
            ControlCommand::Backends { leaving, answer } => {
                if let Some((name, time)) = leaving {
                    self.let_go(&name, time);
                }
                self.follow_store();
                let _ = answer.try_send(());
            }
        }
    }

    /// The stored backends changed, and nothing else.
    fn follow_store(&mut self) {
        let config = self.config.load_full();
        self.apply_pool(&config, &config);
    }

    /// One line for each backend of which the operator says something else than before, here or on another instance.
    fn say_withheld(&mut self) {
        let mut before = std::mem::take(&mut self.withheld);
        for group in self.backends.backends() {
            let was = before.remove(&group.name);
            let Some((state, cause)) = group.withheld() else {
                if was.is_some() {
                    log::info!("{} is in service again", label(&group.name, None));
                }
                continue;
            };
            if was != Some(cause) {
                log::warn!("{}", line(&group.name, None, state, cause));
            }
            self.withheld.insert(Arc::clone(&group.name), cause);
        }
    }

    fn is_busy(&self, name: &str) -> bool {
        self.backends.backends().iter().any(|group| *group.name == *name && group.in_flight() > 0)
    }

    fn let_go(&mut self, name: &str, time: Duration) {
        let known = self.known.iter().find(|one| one.entry.name == name);
        if let (Some(known), true) = (known, self.is_busy(name)) {
            let until = self.clock.now().saturating_add(nanos(time));
            self.leaving.push(Leaving { entry: known.entry.clone(), until });
        }
    }

    /// Those whose requests have ended, or whose time is up, go.
    fn see_off(&mut self) {
        let now = self.clock.now();
        let leaving = std::mem::take(&mut self.leaving);
        let before = leaving.len();
        let stays = |one: &Leaving| now < one.until && self.is_busy(&one.entry.name);
        self.leaving = leaving.into_iter().filter(stays).collect();
        if self.leaving.len() < before {
            self.follow_store();
        }
    }

    /// Every backend that is wanted, and those that leave.
    fn wanted(&mut self, config: &Config) -> Vec<WantedBackend> {
        let mut all = wanted(&config.backends, &self.limits.backends());
        self.leaving.retain(|one| all.iter().all(|other| other.entry.name != one.entry.name));
        let leaving =
            |one: &Leaving| WantedBackend { entry: one.entry.clone(), operator: Some(Operator::Drain) };
        all.extend(self.leaving.iter().map(leaving));
        self.known.clone_from(&all);
        all
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
                self.metrics.reload(Reload::Success);
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
                self.metrics.reload(Reload::Failure);
                log::error!("{by}: not reloaded, nothing was changed: the configuration is wrong:");
                faults.iter().for_each(|fault| log::error!("{}", fault.detail));
                faults.truncate(MAX_FAULTS);
                Err(ReloadError::Faults(faults))
            }
        }
    }

    /// Backends that are our own listeners. The loader saw what `listen` says; the real ports are known here.
    fn own_among(&self, config: &Config) -> Vec<FieldFault> {
        let own = |backend: &BackendEntry| {
            self.own_addresses.iter().find(|own| config::is_own(own, backend)).copied()
        };
        let fault = |(index, backend): (usize, &BackendEntry)| {
            let address = own(backend)?;
            let detail = format!(
                "backends[{index}].url: is our own listener {address}: requests would go round in a circle"
            );
            Some(FieldFault { pointer: format!("/backends/{index}/url"), detail })
        };
        config.backends.iter().enumerate().filter_map(fault).collect()
    }

    /// Puts a checked configuration in force. Nothing in here can fail but the start of a thread, which is logged: the
    /// old one then goes on.
    fn apply(&mut self, read: Config) -> Reloaded {
        let before = self.config.load_full();
        let (changed, needs_restart) =
            read.given.differing(&before.given).into_iter().partition(|key| config::is_live(key));
        let config = in_force(read, &before);
        self.tls.apply(&config, &self.clock);
        self.apply_pool(&config, &before);
        if config.rate_limit.default != before.rate_limit.default {
            self.limits.set_default(config.rate_limit.default.clone());
        }
        self.public.set_trusted_proxies(&config.rate_limit.trusted_proxies);
        self.api.set_access(&config.admin, &config.rate_limit.trusted_proxies);
        errors::set_level(config.log.level);
        self.config.store(Arc::new(config));
        Reloaded { changed, needs_restart }
    }

    /// Addresses of new backends are looked up before anything changes, so that the swap brings them along.
    fn apply_pool(&mut self, config: &Config, before: &Config) {
        if config.discovery != before.discovery {
            self.lookup = resolve::lookup(config.discovery.resolver);
        }
        let wanted = self.wanted(config);
        let entries: Vec<BackendEntry> = wanted.iter().map(|one| one.entry.clone()).collect();
        self.tls.apply_pool(config, &entries);
        let new = self.backends.new_among(&entries);
        let mut found = resolve::look_up_once(&new, &self.lookup, pool::first_patience(config)).into_iter();
        let placed: Vec<Placed> = wanted
            .into_iter()
            .map(|WantedBackend { entry, operator }| {
                let is_new = new.iter().any(|one| one.name == entry.name);
                let addresses = if is_new { found.next().unwrap_or_default() } else { Vec::new() };
                Placed { entry, addresses, operator }
            })
            .collect();
        self.metrics.set_backends(entries.iter().map(|backend| backend.name.as_str()));
        let checks_change = config.health_check != before.health_check;
        if checks_change {
            self.prober = None;
        }
        let told = self.backends.reconfigure(&pool::settings(config), &placed, self.clock.now());
        self.policy.store(Arc::new(self.tls.policy(config)));
        for (word, names) in [("new", &told.added), ("elsewhere", &told.moved), ("gone", &told.removed)] {
            if !names.is_empty() {
                log::info!("backends that are {word}: {}", names.join(", "));
            }
        }
        self.say_withheld();
        if told.left_out > 0 {
            log::warn!("{} addresses of backends are left out: the pool is full", told.left_out);
        }
        let interval = config.upstream.resolve_interval;
        if let Err(error) = self.resolver.follow(&entries, interval, &self.lookup) {
            log::error!("some backends' names are not looked up any more: no thread: {error}");
        }
        if checks_change {
            match pool::checks(config, &self.backends, &self.tls, &self.clock) {
                Ok(prober) => self.prober = prober,
                Err(error) => log::error!("health checks have ended: {error}"),
            }
        }
    }
}

/// What is in force with all of what was read that needs no restart ([`config::is_live`] names the same keys).
fn in_force(read: Config, before: &Config) -> Config {
    Config {
        backends: read.backends,
        balancing: read.balancing,
        discovery: read.discovery,
        upstream: read.upstream,
        outlier: read.outlier,
        tls: match (read.tls, before.tls.clone()) {
            (Some(read), Some(before)) => {
                Some(config::TlsConfig { front: read.front, redirect: read.redirect, ..before })
            }
            (_, before) => before,
        },
        health_check: read.health_check,
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
        given: read.given.in_force_after(&before.given),
        ..before.clone()
    }
}

/// The loader's faults for an answer: which key of the configuration each is about, and its line.
fn told(faults: &Faults) -> Vec<FieldFault> {
    let lines = faults.lines();
    faults
        .list()
        .iter()
        .zip(lines)
        .map(|(fault, line)| FieldFault { pointer: pointer(&fault.path), detail: line })
        .collect()
}

/// `backends[0].url` → `/backends/0/url` (RFC 6901); no characters of keys need escapes but those that nobody declared.
fn pointer(path: &str) -> String {
    path.split(['.', '[']).filter(|part| !part.is_empty()).fold(String::new(), |mut all, part| {
        let part = part.strip_suffix(']').unwrap_or(part);
        all.push('/');
        all.push_str(&part.replace('~', "~0").replace('/', "~1"));
        all
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
            (&config.listen, config.frontend.workers, config.upstream.retries),
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
