//! What changes while we serve: one thread owns the parts that follow the configuration and does what it is told, one
//! command after the other. Commands come from signals and from the API, over a bounded channel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::notify::Notify;
use super::pool;
use crate::config::{self, Config, Faults};
use crate::edge::admin::{self, AdminApi, ReloadError, Reloaded};
use crate::edge::error_log;
use crate::edge::frontend::Frontend;
use crate::edge::prober::Prober;
use crate::edge::store::Limits;
use crate::edge::upstream::UreqUpstream;
use crate::edge::upstream::resolve::{self, Lookup, Resolver};
use crate::error::FieldFault;
use crate::state::backends::{Backends, Placed};
use crate::state::metrics::{Metrics, Reload};

use super::source::Source;

/// Commands that wait for their turn; more are refused.
const WAITING: usize = 16;
/// How long a caller waits for his command: those before it take a few seconds each at worst, while names are looked up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most faults that an answer names; the log names all.
const MAX_FAULTS: usize = 32;

/// What the thread is told.
pub(super) enum Command {
    /// Read the configuration again.
    Reload {
        /// Who asked.
        by: String,
        /// Where the outcome goes, with room for it.
        answer: Option<Sender<Result<Reloaded, ReloadError>>>,
    },
}

/// Tells the thread what to do.
pub(super) struct Handle(Sender<Command>);

/// The channel to a thread that is still to be started.
pub(super) fn channel() -> (Handle, Receiver<Command>) {
    let (send, receive) = bounded(WAITING);
    (Handle(send), receive)
}

impl Handle {
    /// Asks for a reload and does not wait for it.
    pub fn ask_reload(&self, by: &str) {
        if self.0.try_send(Command::Reload { by: by.to_owned(), answer: None }).is_err() {
            log::warn!(
                "{by}: no reload: {WAITING} commands are waiting already, or everything is at its end"
            );
        }
    }
}

impl admin::Control for Handle {
    fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        let (answer, outcome) = bounded(1);
        let busy = |cause: &str| ReloadError::Busy(cause.to_owned());
        self.0
            .try_send(Command::Reload { by: by.to_owned(), answer: Some(answer) })
            .map_err(|_| busy("too many commands are waiting"))?;
        outcome.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(busy("it took too long")))
    }
}

/// The running parts that follow the configuration.
pub(super) struct Parts {
    /// Where the configuration comes from.
    pub source: Source,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    pub backends: Arc<Backends>,
    pub upstream: Arc<UreqUpstream>,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    pub api: Arc<AdminApi>,
    pub public: Arc<Frontend>,
    /// Where we listen ourselves, with real ports.
    pub own_addresses: Vec<SocketAddr>,
    pub resolver: Resolver,
    pub lookup: Lookup,
    pub prober: Option<Prober>,
    pub clock: crate::clock::Clock,
    pub notify: Arc<Notify>,
}

impl Parts {
    /// Starts the thread.
    pub fn start(mut self, commands: Receiver<Command>) -> io::Result<()> {
        thread::Builder::new().name("control".into()).spawn(move || {
            for command in commands {
                match command {
                    Command::Reload { by, answer } => {
                        let outcome = self.reload(&by);
                        if let Some(answer) = answer {
                            // He may have lost patience.
                            let _ = answer.try_send(outcome);
                        }
                    }
                }
            }
        })?;
        Ok(())
    }

    fn reload(&mut self, by: &str) -> Result<Reloaded, ReloadError> {
        self.notify.reloading();
        let outcome = self.source.load().map_err(|faults| told(&faults)).and_then(|config| {
            let own = self.own_among(&config);
            if own.is_empty() { Ok(self.apply(config)) } else { Err(own) }
        });
        self.notify.ready();
        match outcome {
            Ok(reloaded) => {
                self.metrics.reload(Reload::Success);
                let list = |keys: &[String]| if keys.is_empty() { "nothing".into() } else { keys.join(", ") };
                log::info!("{by}: reloaded; changed: {}", list(&reloaded.changed));
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
        let own = |backend: &config::Backend| {
            self.own_addresses.iter().find(|own| config::is_own(own, backend)).copied()
        };
        let fault = |(index, backend): (usize, &config::Backend)| {
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
        self.apply_pool(&config, &before);
        if config.rate_limit.default != before.rate_limit.default {
            self.limits.set_default(config.rate_limit.default.clone());
        }
        self.public.set_trusted_proxies(&config.rate_limit.trusted_proxies);
        self.api.set_access(&config.admin);
        error_log::set_level(config.log.level);
        self.config.store(Arc::new(config));
        Reloaded { changed, needs_restart }
    }

    /// Addresses of new backends are looked up before anything changes, so that the swap brings them along.
    fn apply_pool(&mut self, config: &Config, before: &Config) {
        if config.discovery != before.discovery {
            self.lookup = resolve::lookup(config.discovery.resolver);
        }
        let new = self.backends.new_among(&config.backends);
        let mut found = resolve::look_up_once(&new, &self.lookup, pool::first_patience(config)).into_iter();
        let placed: Vec<Placed> = config
            .backends
            .iter()
            .map(|entry| {
                let is_new = new.iter().any(|one| one.name == entry.name);
                let addresses = if is_new { found.next().unwrap_or_default() } else { Vec::new() };
                Placed { entry: entry.clone(), addresses }
            })
            .collect();
        self.metrics.set_backends(config.backends.iter().map(|backend| backend.name.as_str()));
        self.upstream.reconfigure(&config.upstream);
        let checks_change = config.health_check != before.health_check;
        if checks_change {
            self.prober = None;
        }
        let told = self.backends.reconfigure(&pool::settings(config), &placed);
        for (word, names) in [("new", &told.added), ("elsewhere", &told.moved), ("gone", &told.removed)] {
            if !names.is_empty() {
                log::info!("backends that are {word}: {}", names.join(", "));
            }
        }
        if told.left_out > 0 {
            log::warn!("{} addresses of backends are left out: the pool is full", told.left_out);
        }
        let interval = config.upstream.resolve_interval;
        if let Err(error) = self.resolver.follow(&config.backends, interval, &self.lookup) {
            log::error!("some backends' names are not looked up any more: no thread: {error}");
        }
        if let (true, Some(check)) = (checks_change, &config.health_check) {
            match Prober::start(Arc::clone(&self.backends), check.clone(), self.clock.clone()) {
                Ok(prober) => self.prober = Some(prober),
                Err(error) => log::error!("health checks have ended: no thread: {error}"),
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
        health_check: read.health_check,
        rate_limit: config::RateLimit {
            ipv6_prefix: before.rate_limit.ipv6_prefix,
            max_clients: before.rate_limit.max_clients,
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

/// The loader's faults for an answer: where each stands in the configuration, and its line.
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
            (&before.listen, 256, 7)
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
