//! Commands to the thread that owns what changes while we serve: from signals and from the API, over a bounded channel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::backends::{BackendError, BackendOrigin, BackendShown, EndpointShown, PoolAndName};
use super::pools::{PoolShown, WholePool};
use super::reload::{ReloadError, Reloaded};
use super::routes::RouteShown;
use crate::config::{self, Config};
use crate::proxy::policy::PolicyInForce;
use crate::proxy::pools::Pool;
use crate::store::backends::BackendSettings;
use crate::store::v1::Actor;
use crate::store::{Limits, StoreError};
use balancer_pool::backend::InFlightBound;
use balancer_pool::backends::{Backend, BackendReport, Endpoint, Snapshot, title};
use balancer_time::Nanos;

/// Commands that wait for their turn; more are refused.
const WAITING: usize = 16;
/// How long a caller waits for a command: those before it take a few seconds each at worst, while names are looked up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the thread is told. Each `answer` has room for its one message, so that the thread never waits to send it.
pub enum ControlCommand {
    /// Read the configuration again.
    Reload {
        /// Who asked.
        by: String,
        /// Where the outcome goes.
        answer: Option<Sender<Result<Reloaded, ReloadError>>>,
    },
    /// The stored backends have changed.
    Backends {
        /// One that was taken away.
        leaving: Option<LeavingBackend>,
        /// Told when that is in force.
        answer: Sender<()>,
    },
}

/// A stored backend that was taken away.
pub struct LeavingBackend {
    /// Its pool.
    pub pool: String,
    /// Its name there.
    pub name: String,
    /// How long its requests have until it is gone for good.
    pub time: Duration,
}

/// Tells the thread what to do, and shows and stores the backends that it looks after.
pub struct Control {
    commands: Sender<ControlCommand>,
    around: Controlled,
}

/// What the calls about backends read and write.
#[allow(missing_docs)]
pub struct Controlled {
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    pub limits: Arc<Limits>,
    /// Has the pools.
    pub policy: Arc<PolicyInForce>,
    /// Where we listen ourselves, with real ports.
    pub own_addresses: Vec<SocketAddr>,
}

impl Control {
    /// Returns the commands' other end as well, for a thread that is still to be started.
    pub fn new(around: Controlled) -> (Arc<Self>, Receiver<ControlCommand>) {
        let (commands, receive) = bounded(WAITING);
        (Arc::new(Self { commands, around }), receive)
    }

    /// Asks for a reload and does not wait for it.
    pub fn ask_reload(&self, by: &str) {
        if self.commands.try_send(ControlCommand::Reload { by: by.to_owned(), answer: None }).is_err() {
            log::warn!(
                "{by}: no reload: {WAITING} commands are waiting already, or everything is at its end"
            );
        }
    }

    /// Gives a command and waits until it is done; an error says what was in the way.
    fn tell<T>(&self, command: impl FnOnce(Sender<T>) -> ControlCommand) -> Result<T, &'static str> {
        let (answer, outcome) = bounded(1);
        self.commands.try_send(command(answer)).map_err(|_| "too many commands are waiting")?;
        outcome.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => "it took too long",
            RecvTimeoutError::Disconnected => "it ended in a panic, a fault of Balancer",
        })
    }

    /// What was stored is in force when this returns.
    fn follow_store(&self, leaving: Option<LeavingBackend>) -> Result<(), BackendError> {
        self.tell(|answer| ControlCommand::Backends { leaving, answer })
            .map_err(|cause| BackendError::Busy(cause.into()))
    }

    /// Reads and checks the whole configuration, then puts all of it in force that can be, or nothing. Waits for that,
    /// a bounded time. `by`: who asked, for the log.
    pub(super) fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        self.tell(|answer| ControlCommand::Reload { by: by.to_owned(), answer: Some(answer) })
            .unwrap_or_else(|cause| Err(ReloadError::Busy(cause.to_owned())))
    }

    /// Adds one to the store and to the pool; `settings` has a URL.
    pub(super) fn create_backend(
        &self,
        (pool, name): PoolAndName<'_>,
        settings: BackendSettings,
        actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        let url = settings.url.as_deref().unwrap_or_default();
        let entry = config::parse_backend(name, url).map_err(BackendError::Fields)?;
        if let Some(own) = self.around.own_addresses.iter().find(|own| config::is_own(own, &entry)) {
            let text = format!("is our own listener {own}: requests would go round in a circle");
            return Err(BackendError::Fields(vec![("url", text)]));
        }
        if entry.is_tls && self.around.config.load().frontend.engine.is_portable() {
            let text = "begins with https: the tiny_http engine speaks no TLS to backends".to_owned();
            return Err(BackendError::Fields(vec![("url", text)]));
        }
        self.pool(pool)?;
        if self.in_file(pool, name) {
            return Err(BackendError::Store(StoreError::Exists));
        }
        self.around
            .limits
            .create_backend(&title(pool, name), settings, actor)
            .map_err(BackendError::Store)?;
        self.follow_store(None)?;
        self.backend((pool, name))
    }

    /// Changes what was said of one, in the store and in the pool.
    pub(super) fn patch_backend(
        &self,
        (pool, name): PoolAndName<'_>,
        said: BackendSettings,
        actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        self.pool(pool)?;
        judge(name)?;
        let in_file = self.in_file(pool, name);
        self.around
            .limits
            .patch_backend(&title(pool, name), said, in_file, actor)
            .map_err(BackendError::Store)?;
        self.follow_store(None)?;
        self.backend((pool, name))
    }

    /// Takes a stored one away. While requests are under way on it, it stays listed for `drain` at most.
    pub(super) fn delete_backend(
        &self,
        (pool, name): PoolAndName<'_>,
        drain: Duration,
        actor: &Actor,
    ) -> Result<(), BackendError> {
        judge(name)?;
        if self.in_file(pool, name) {
            return Err(BackendError::InFile);
        }
        self.around.limits.delete_backend(&title(pool, name), actor).map_err(BackendError::Store)?;
        let leaving = || LeavingBackend { pool: pool.to_owned(), name: name.to_owned(), time: drain };
        self.follow_store((!drain.is_zero()).then(leaving))
    }

    /// The pool of that name, as requests see it.
    fn pool(&self, name: &str) -> Result<Arc<Pool>, BackendError> {
        self.around.policy.load().pools.get(name).cloned().ok_or(BackendError::NoPool)
    }

    fn in_file(&self, pool: &str, name: &str) -> bool {
        let config = self.around.config.load();
        let pool = config.pools.iter().find(|one| one.name == pool);
        pool.is_some_and(|pool| pool.backends.iter().any(|entry| entry.name == name))
    }

    /// A backend as it is in that snapshot.
    pub(super) fn shown(&self, snapshot: &Snapshot, group: &Arc<Backend>) -> BackendShown {
        let endpoint = |one: &Arc<Endpoint>| EndpointShown {
            address: one.address,
            tier: one.tier(),
            weight: one.weight(),
            health: one.health_word(),
            cause: one.cause().as_deref().map(str::to_owned),
            in_flight: one.in_flight(),
        };
        let BackendReport { up, health, cause, .. } = snapshot.told(group);
        let measured = group.measured();
        let limit = Some(group.max_in_flight()).filter(|most| *most != u32::MAX);
        BackendShown {
            pool: group.pool.to_string(),
            name: group.name.to_string(),
            url: group.url().to_owned(),
            weight: group.weight(),
            state: group.operator(),
            max_in_flight: measured.map_or(limit.map(InFlightBound::Number), |_| Some(InFlightBound::Auto)),
            limit,
            measured: measured.map(Into::into),
            backup: group.backup(),
            source: if self.in_file(&group.pool, &group.name) {
                BackendOrigin::File
            } else {
                BackendOrigin::Store
            },
            up,
            health,
            cause,
            in_flight: group.in_flight(),
            endpoints: snapshot.own(group).map(endpoint).collect(),
        }
    }

    /// Every backend of a pool as this instance has it, in its order.
    pub(super) fn backends(&self, pool: &str) -> Result<Vec<BackendShown>, BackendError> {
        let snapshot = self.pool(pool)?.backends.snapshot();
        Ok(snapshot.backends().iter().map(|group| self.shown(&snapshot, group)).collect())
    }

    /// Every pool of this instance: `default` first, the others as the configuration has them.
    pub(super) fn pools(&self, now: Nanos) -> Vec<WholePool> {
        self.around.policy.load().pools.iter().map(|pool| self.whole(pool, now)).collect()
    }

    /// The pool of that name.
    pub(super) fn whole_pool(&self, name: &str, now: Nanos) -> Result<WholePool, BackendError> {
        self.pool(name).map(|pool| self.whole(&pool, now))
    }

    fn whole(&self, pool: &Pool, now: Nanos) -> WholePool {
        let snapshot = pool.backends.snapshot();
        let backends = snapshot.backends().iter().map(|group| self.shown(&snapshot, group)).collect();
        WholePool { pool: PoolShown::of(pool, &snapshot, now), backends }
    }

    /// Every route in force, in the order of the configuration.
    pub(super) fn routes(&self) -> Vec<RouteShown> {
        self.around.config.load().routes.all.iter().map(RouteShown::of).collect()
    }

    /// One backend of a pool.
    pub(super) fn backend(&self, (pool, name): PoolAndName<'_>) -> Result<BackendShown, BackendError> {
        let snapshot = self.pool(pool)?.backends.snapshot();
        let group = snapshot.backends().iter().find(|group| *group.name == *name);
        group.map(|group| self.shown(&snapshot, group)).ok_or(BackendError::Store(StoreError::NotFound))
    }
}

/// 404 for what can be no backend's name. In particular `pool/name`, as the store has it, must not lead to another
/// pool.
fn judge(name: &str) -> Result<(), BackendError> {
    config::is_backend_name(name).then_some(()).ok_or(BackendError::Store(StoreError::NotFound))
}
