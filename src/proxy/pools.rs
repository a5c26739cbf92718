//! The pools that requests go to.

use std::any::Any;
use std::sync::Arc;

use crate::metrics::{Metrics, PoolMetrics};
use balancer_pool::backends::{Backends, DEFAULT_POOL};
use balancer_pool::retry_budget::RetryBudget;

/// A pool, as requests see it. A request keeps the pool that it began with, also after a reload has removed it.
pub struct Pool {
    /// Its backends, and its line.
    pub backends: Arc<Backends>,
    /// Its counters.
    pub metrics: Arc<PoolMetrics>,
    /// Bounds how much sending again adds to its load.
    pub retries: RetryBudget,
    /// Has to live as long as requests may go to the pool: its rules for the TLS of its backends.
    _held: Arc<dyn Any + Send + Sync>,
}

impl Pool {
    /// One that nothing was sent to yet. `held` lives as long as it does.
    pub fn new(backends: Backends, metrics: &Metrics, held: Arc<dyn Any + Send + Sync>) -> Arc<Self> {
        let metrics = metrics.pool(backends.name());
        Arc::new(Self { backends: Arc::new(backends), metrics, retries: RetryBudget::new(), _held: held })
    }

    /// Whether it has any backend.
    pub fn has_backends(&self) -> bool {
        !self.backends.snapshot().backends().is_empty()
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        self.backends.name()
    }
}

/// All of them: [`DEFAULT_POOL`] first, the others in the order of the configuration.
#[derive(Clone)]
pub struct Pools(Vec<Arc<Pool>>);

impl Pools {
    /// `default`: what no route takes goes there, if it has any backend.
    pub fn new(default: Arc<Pool>, others: impl IntoIterator<Item = Arc<Pool>>) -> Self {
        debug_assert_eq!(&**default.name(), DEFAULT_POOL, "the first pool is the default one");
        Self(std::iter::once(default).chain(others).collect())
    }

    /// The pool of requests that no route takes.
    pub fn default_pool(&self) -> &Arc<Pool> {
        &self.0[0]
    }

    /// The pool of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.iter().find(|pool| **pool.name() == *name)
    }

    /// Every pool.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Pool>> {
        self.0.iter()
    }

    /// Whether any pool could take a request now. Pools without backends do not count; true if no pool has any.
    pub fn any_up(&self) -> bool {
        let mut held = self.iter().filter(|pool| pool.has_backends()).peekable();
        held.peek().is_none() || held.any(|pool| pool.backends.any_up())
    }
}
