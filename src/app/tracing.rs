//! Who records requests, as a configuration wants it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{StartFailure, failed};
use crate::clock::Clock;
use crate::config::Config;
use crate::log::repeats::LogLimit;
use crate::metrics::Metrics;
use crate::otel::{Tracer, TracerThreads};

/// How long the last spans may take when the process ends; meanwhile everything else ends, too.
pub(super) const SPANS_FLUSH: Duration = Duration::from_secs(2);

/// Makes tracers, and holds the one in force.
pub(super) struct Tracing {
    /// This process's own id.
    instance: String,
    metrics: Arc<Metrics>,
    log_limit: Arc<LogLimit>,
    clock: Clock,
    /// `None`: nothing is recorded.
    pub tracer: Option<Arc<Tracer>>,
    /// Those of tracers that were in force before, too.
    pub threads: TracerThreads,
}

impl Tracing {
    /// Begins with what `otel` says.
    pub fn start(
        config: &Config,
        instance: String,
        (metrics, log_limit): (&Arc<Metrics>, &Arc<LogLimit>),
        clock: &Clock,
    ) -> Result<Self, StartFailure> {
        let (metrics, log_limit) = (Arc::clone(metrics), Arc::clone(log_limit));
        let (clock, threads) = (clock.clone(), TracerThreads::default());
        let mut tracing = Self { instance, metrics, log_limit, clock, tracer: None, threads };
        tracing.follow(config).map_err(failed("a thread can't be started"))?;
        Ok(tracing)
    }

    /// What `otel` says from now on. The one before ends by itself when the requests that it records have.
    ///
    /// # Errors
    /// A thread can't be started: the one before goes on.
    pub fn follow(&mut self, config: &Config) -> io::Result<()> {
        let Self { instance, metrics, log_limit, clock, threads, .. } = self;
        let start = |otel| Tracer::start(otel, instance, threads, (metrics, log_limit), clock);
        self.tracer = config.otel.as_ref().map(start).transpose()?;
        Ok(())
    }
}
