//! TLS as a configuration wants it: to clients and to backends.

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

/// TLS on both sides.
#[derive(Clone)]
pub(super) struct Tls {
    /// `None`: there is no TLS port.
    pub front: Option<Arc<FrontTls>>,
    /// TLS to backends with `https://`.
    pub backends: Arc<BackendTls>,
    /// The first TLS port, as it was bound.
    port: Option<u16>,
}

impl Tls {
    /// Reads the certificates for clients. What backends need is read by [`Self::apply_pool`].
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

    /// What an engine is started with to speak TLS to clients.
    pub fn start_of<'a>(&'a self, config: &Config) -> Option<TlsStart<'a>> {
        let (front, tls) = self.front.as_ref().zip(config.tls.as_ref())?;
        Some(TlsStart { front, handshake_timeout: tls.handshake_timeout })
    }

    /// What requests are judged by. With `tls.redirect` those without TLS are sent to the TLS port.
    pub fn policy(&self, config: &Config, pools: Pools) -> ProxyPolicy {
        let redirects = config.tls.as_ref().is_some_and(|tls| tls.redirect);
        let policy = ProxyPolicy::of(&config.rate_limit, pools).routing(&config.routes);
        policy.redirecting(self.port.filter(|_| redirects))
    }

    /// Puts a reloaded configuration in force for clients. It was checked with all its files. If they can't be used any
    /// more, the log says so, and the certificates from before stay.
    pub fn apply(&self, config: &Config, clock: &Clock) {
        if let (Some(front), Some(tls)) = (&self.front, &config.tls)
            && let Err(error) = front.apply(&tls.front, clock.wall())
        {
            log::error!("tls: certificates stay as they were: {error}");
        }
    }

    /// Puts a pool's settings in force. Files are read if one of its backends needs TLS.
    pub fn apply_pool(&self, config: &PoolConfig, entries: &[BackendEntry]) {
        let is_needed = entries.iter().any(|entry| entry.is_tls);
        self.backends.apply(&config.name, &config.upstream.tls, is_needed);
    }

    /// Reads files again that have changed.
    pub fn look(&self, clock: &Clock) {
        if let Some(front) = &self.front {
            front.look(clock.wall());
        }
        self.backends.look();
    }
}

/// What is configured and can't be spoken by this build.
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
