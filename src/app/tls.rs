//! TLS as a configuration wants it: at the front door and behind it.

use std::sync::Arc;

use super::StartFailure;
use crate::clock::Clock;
use crate::config::{Config, PoolConfig};
use crate::engine::{RunningEngine, Sockets, TlsStart};
use crate::proxy::policy::ProxyPolicy;
use crate::proxy::pools::Pools;
use crate::tls::front::FrontTls;
use crate::tls::upstream::BackendTls;
use balancer_pool::backend::BackendEntry;

/// What speaks TLS.
#[derive(Clone)]
pub(super) struct Tls {
    /// `None`: there is no TLS port.
    pub front: Option<Arc<FrontTls>>,
    /// For backends with `https://`, if there are any.
    pub backends: Arc<BackendTls>,
    /// The first TLS port, as it is bound.
    port: Option<u16>,
}

impl Tls {
    /// Reads the certificates. Those of backends' roots are read when the pool is known.
    pub fn start(config: &Config, sockets: &Sockets, clock: &Clock) -> Result<Self, StartFailure> {
        if let Some(what) = not_spoken(config) {
            return Err(StartFailure::new(format!(
                "{what} is configured, and this engine does not speak it"
            )));
        }
        let front = config
            .tls
            .as_ref()
            .map(|tls| FrontTls::new(&tls.front, RunningEngine::SPEAKS_H2, clock.wall()))
            .transpose()
            .map_err(|error| StartFailure::new(format!("tls: {error}")))?;
        let port =
            sockets.tls.first().and_then(|socket| socket.local_addr().ok()).map(|address| address.port());
        Ok(Self { front: front.map(Arc::new), backends: Arc::default(), port })
    }

    /// What an engine's front door is started with.
    pub fn start_of<'a>(&'a self, config: &Config) -> Option<TlsStart<'a>> {
        let (front, tls) = self.front.as_ref().zip(config.tls.as_ref())?;
        Some(TlsStart { front, handshake_timeout: tls.handshake_timeout })
    }

    /// What requests are judged by; those without TLS may be sent to its port.
    pub fn policy(&self, config: &Config, pools: Pools) -> ProxyPolicy {
        let redirects = config.tls.as_ref().is_some_and(|tls| tls.redirect);
        let policy = ProxyPolicy::of(&config.rate_limit, pools).routing(&config.routes);
        policy.redirecting(self.port.filter(|_| redirects))
    }

    /// What a reload changed. The configuration was checked with all its files; what has become of them since then is told
    /// in the log, and the front door's stay as they were.
    pub fn apply(&self, config: &Config, clock: &Clock) {
        if let (Some(front), Some(tls)) = (&self.front, &config.tls)
            && let Err(error) = front.apply(&tls.front, clock.wall())
        {
            log::error!("tls: certificates stay as they were: {error}");
        }
    }

    /// What a pool's backends are known by, if one of those needs it.
    pub fn apply_pool(&self, config: &PoolConfig, entries: &[BackendEntry]) {
        let is_needed = entries.iter().any(|entry| entry.is_tls);
        self.backends.apply(&config.name, &config.upstream.tls, is_needed);
    }

    /// Files that changed are read again.
    pub fn look(&self, clock: &Clock) {
        if let Some(front) = &self.front {
            front.look(clock.wall());
        }
        self.backends.look();
    }
}

/// What is configured and yet not spoken.
fn not_spoken(config: &Config) -> Option<&'static str> {
    let calls_by_tls = config.pools.iter().flat_map(|pool| &pool.backends).any(|backend| backend.is_tls);
    [
        (config.tls.is_some() && !RunningEngine::SPEAKS_TLS, "tls"),
        (config.frontend.h2c && !RunningEngine::SPEAKS_H2, "frontend.h2c"),
        (calls_by_tls && !RunningEngine::CALLS_BY_TLS, "https to a backend"),
    ]
    .into_iter()
    .find_map(|(is_missing, what)| is_missing.then_some(what))
}
