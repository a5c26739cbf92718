//! A pool as a configuration wants it, with its look-ups and health checks.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::StartFailure;
use super::backends::{WantedBackend, wanted};
use super::keeper::{Keeping, settings};
use crate::config::PoolConfig;
use crate::proxy::pools::{Pool, Pools};
use crate::upstream::prober::PoolChecks;
use crate::upstream::resolve::{self, Resolver};
use balancer_pool::backend::{BackendEntry, Located};
use balancer_pool::backend_state::{label, line};
use balancer_pool::backends::{Backends, Operator, Placed, Reconfigured, title};
use balancer_time::{Nanos, nanos};

/// A pool that requests can go to, and what keeps it up to date.
pub(super) struct RunningPool {
    pub pool: Arc<Pool>,
    config: PoolConfig,
    /// The configuration that [`RunningPool::grow`] puts in force.
    next: PoolConfig,
    /// The backends that were last wanted.
    known: Vec<WantedBackend>,
    /// The backends that were wanted before those.
    before: Vec<WantedBackend>,
    /// Backends that were taken away and have requests under way.
    leaving: Vec<Leaving>,
    /// Backends that get nothing new because the operator wants that, and the cause that the log last said.
    withheld: HashMap<Arc<str>, &'static str>,
    /// `None`: it has not begun to look names up.
    resolver: Option<Resolver>,
    checks: Option<PoolChecks>,
}

/// A backend that was taken away. It is still listed, and gets nothing new, at most until `until`.
struct Leaving {
    entry: BackendEntry,
    until: Nanos,
}

impl RunningPool {
    /// A pool whose backends have no address yet. [`watch`] finds them.
    pub fn begin(config: &PoolConfig, keeping: &Keeping<'_>) -> Self {
        let known = wanted(&config.name, &config.backends, keeping.stored);
        let entries: Vec<_> = known.iter().map(|one| one.entry.clone()).collect();
        let backends = Backends::new(&settings(config, keeping), &entries);
        for (group, one) in backends.backends().iter().zip(&known) {
            group.set_operator(one.operator.unwrap_or(Operator::Up));
        }
        let pool = Pool::new(backends, &keeping.metrics, keeping.tls.backends.of(&config.name));
        pool.metrics.set_backends(entries.iter().map(|entry| entry.name.as_str()));
        Self {
            pool,
            config: config.clone(),
            next: config.clone(),
            known,
            before: Vec::new(),
            leaving: Vec::new(),
            withheld: HashMap::new(),
            resolver: None,
            checks: None,
        }
    }

    fn entries(&self) -> Vec<BackendEntry> {
        self.known.iter().map(|one| one.entry.clone()).collect()
    }

    /// How long its first look-ups, and then its first checks, are waited for.
    fn first_patience(&self) -> Duration {
        self.config.health_check.as_ref().map_or(self.config.upstream.connect_timeout, |check| check.timeout)
    }

    /// Starts the health checks that are configured, if any are.
    fn check(&mut self, keeping: &Keeping<'_>) -> io::Result<()> {
        let check = |settings| keeping.prober.check(&self.pool.backends, settings);
        self.checks = self.config.health_check.clone().map(check).transpose()?;
        Ok(())
    }

    /// Notes a configuration, or (`is_same`) only other stored backends. [`RunningPool::grow`] puts it in force.
    /// Returns the backends whose addresses are needed for that; `None`: nothing changes.
    pub fn want(
        &mut self,
        config: &PoolConfig,
        is_same: bool,
        keeping: &Keeping<'_>,
    ) -> Option<Vec<BackendEntry>> {
        let mut all = wanted(&config.name, &config.backends, keeping.stored);
        self.leaving.retain(|one| all.iter().all(|other| other.entry.name != one.entry.name));
        let leaving =
            |one: &Leaving| WantedBackend { entry: one.entry.clone(), operator: Some(Operator::Drain) };
        all.extend(self.leaving.iter().map(leaving));
        let is_whole = self.resolver.is_some() && self.checks.is_some() == config.health_check.is_some();
        if is_same && is_whole && all == self.known {
            return None;
        }
        self.next = config.clone();
        self.before = std::mem::replace(&mut self.known, all);
        let entries = self.entries();
        Some(self.pool.backends.new_among(&entries).into_iter().cloned().collect())
    }

    /// Puts in force what [`RunningPool::want`] noted. Backends that are not wanted any more stay until
    /// [`RunningPool::shrink`], since requests may still be sent to them. `found`: the addresses that were needed, in
    /// their order. The log says what can't be started.
    pub fn grow(&mut self, found: &mut impl Iterator<Item = Vec<Located>>, keeping: &Keeping<'_>) {
        let config = self.next.clone();
        let before = std::mem::replace(&mut self.config, config.clone());
        let entries = self.entries();
        keeping.tls.apply_pool(&config, &entries);
        let new = self.pool.backends.new_among(&entries);
        let place = |one: &WantedBackend| {
            let is_new = new.iter().any(|new| new.name == one.entry.name);
            one.placed(if is_new { found.next().unwrap_or_default() } else { Vec::new() })
        };
        let mut placed: Vec<Placed> = self.known.iter().map(place).collect();
        let is_gone = |one: &&WantedBackend| entries.iter().all(|entry| entry.name != one.entry.name);
        let gone = self.before.iter().filter(is_gone).map(|one| one.entry.clone());
        placed.extend(gone.map(|entry| Placed { entry, addresses: Vec::new(), operator: None }));
        let is_larger = placed.len() > self.known.len();
        self.pool.metrics.set_backends(placed.iter().map(|one| one.entry.name.as_str()));
        let checks_change = config.health_check != before.health_check;
        if checks_change {
            self.checks = None;
        }
        let told = self.put(&placed, keeping);
        self.say("new", &told.added);
        self.say("elsewhere", &told.moved);
        self.say_withheld();
        // If it is larger for now, there may be room when the others are removed.
        if told.left_out > 0 && !is_larger {
            let left_out = told.left_out;
            log::warn!("{left_out} addresses of backends are left out: the pool {} is full", config.name);
        }
        self.look_up_or_say(keeping);
        if self.checks.is_none()
            && let Err(error) = self.check(keeping)
        {
            log::error!("the pool {} is not checked: {error}", config.name);
        }
    }

    /// Whether it has backends that are not wanted any more.
    pub fn has_unwanted(&self) -> bool {
        self.known.len() < self.pool.backends.backends().len()
    }

    /// Whether requests wait in line for backends of which none is wanted any more.
    pub fn has_a_lost_line(&self) -> bool {
        self.known.is_empty() && !self.pool.backends.queue().is_empty()
    }

    /// Removes the backends that are not wanted any more.
    pub fn shrink(&mut self, keeping: &Keeping<'_>) {
        if self.has_unwanted() {
            let placed: Vec<Placed> = self.known.iter().map(|one| one.placed(Vec::new())).collect();
            let told = self.put(&placed, keeping);
            self.say("gone", &told.removed);
            self.say_withheld();
            self.pool.metrics.set_backends(placed.iter().map(|one| one.entry.name.as_str()));
            // Addresses that were left out may have room now.
            self.look_up_or_say(keeping);
        }
    }

    fn put(&self, placed: &[Placed], keeping: &Keeping<'_>) -> Reconfigured {
        let settings = settings(&self.config, keeping);
        self.pool.backends.reconfigure(&settings, placed, keeping.clock.now())
    }

    fn say(&self, word: &str, names: &[String]) {
        if !names.is_empty() {
            let titles: Vec<String> = names.iter().map(|name| title(&self.config.name, name)).collect();
            log::info!("backends that are {word}: {}", titles.join(", "));
        }
    }

    /// Starts looking up the names of its backends, or follows other ones.
    fn look_up(&mut self, keeping: &Keeping<'_>) -> io::Result<()> {
        let (entries, interval) = (self.entries(), self.config.upstream.resolve_interval);
        match &mut self.resolver {
            Some(resolver) => resolver.follow(&entries, interval, &keeping.lookup)?,
            None => {
                let backends = &self.pool.backends;
                let resolver =
                    Resolver::start(backends, &entries, interval, &keeping.lookup, &keeping.clock)?;
                self.resolver = Some(resolver);
            }
        }
        Ok(())
    }

    fn look_up_or_say(&mut self, keeping: &Keeping<'_>) {
        if let Err(error) = self.look_up(keeping) {
            log::error!("some names of the pool {} are not looked up: no thread: {error}", self.config.name);
        }
    }

    /// Logs one line for each backend of which the operator, here or on another instance, wants something else than
    /// before.
    pub fn say_withheld(&mut self) {
        let mut before = std::mem::take(&mut self.withheld);
        for group in self.pool.backends.backends() {
            let was = before.remove(&group.name);
            let Some((state, cause)) = group.withheld() else {
                if was.is_some() {
                    log::info!("{} is in service again", label(&group.title, None));
                }
                continue;
            };
            if was != Some(cause) {
                log::warn!("{}", line(&group.title, None, state, cause));
            }
            self.withheld.insert(Arc::clone(&group.name), cause);
        }
    }

    fn is_busy(&self, name: &str) -> bool {
        self.pool.backends.backends().iter().any(|group| *group.name == *name && group.in_flight() > 0)
    }

    /// A backend was taken away. It stays listed while it has requests under way, for `time` at most.
    pub fn let_go(&mut self, name: &str, time: Duration, now: Nanos) {
        let known = self.known.iter().find(|one| one.entry.name == name);
        if let (Some(known), true) = (known, self.is_busy(name)) {
            let until = now.saturating_add(nanos(time));
            self.leaving.push(Leaving { entry: known.entry.clone(), until });
        }
    }

    /// Whether backends were taken away that are still listed.
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Forgets leaving backends whose requests have ended, or whose time is over. True: there was one.
    pub fn see_off(&mut self, now: Nanos) -> bool {
        let leaving = std::mem::take(&mut self.leaving);
        let before = leaving.len();
        let stays = |one: &Leaving| now < one.until && self.is_busy(&one.entry.name);
        self.leaving = leaving.into_iter().filter(stays).collect();
        self.leaving.len() < before
    }
}

/// The pools that requests may go to; the first is the default one.
pub(super) fn in_force(running: &[RunningPool]) -> Pools {
    let mut pools = running.iter().map(|one| Arc::clone(&one.pool));
    let default = pools.next().expect("a configuration has the default pool");
    Pools::new(default, pools)
}

/// Finds the addresses of new pools' backends, and checks each endpoint once, before requests may go there. All pools
/// do this at the same time, and none is waited for longer than [`RunningPool::first_patience`]. If something can't be
/// started for one pool, the others go on.
///
/// # Errors
/// Says what could not be started, and for which pools.
pub(super) fn watch(pools: &mut [RunningPool], keeping: &Keeping<'_>) -> Result<(), StartFailure> {
    let mut failures = Vec::new();
    let mut note = |one: &RunningPool, what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what} of the pool {} can't be started: {error}", one.config.name));
        }
    };
    let clock = &keeping.clock;
    let left = |since: Nanos, one: &RunningPool| {
        let until = since.saturating_add(nanos(one.first_patience()));
        Duration::from_nanos(until.saturating_sub(clock.now()))
    };
    for one in &mut *pools {
        keeping.tls.apply_pool(&one.config, &one.entries());
        let begun = one.look_up(keeping);
        note(one, "look-ups", begun);
    }
    let since = clock.now();
    for (one, resolver) in pools.iter().filter_map(|one| Some((one, one.resolver.as_ref()?))) {
        resolver.wait_first(left(since, one));
    }
    for one in &mut *pools {
        let begun = one.check(keeping);
        note(one, "health checks", begun);
    }
    let since = clock.now();
    for (one, checks) in pools.iter().filter_map(|one| Some((one, one.checks.as_ref()?))) {
        checks.wait_first(left(since, one));
    }
    pools.iter_mut().for_each(RunningPool::say_withheld);
    if failures.is_empty() { Ok(()) } else { Err(StartFailure::new(failures.join("; "))) }
}

/// Looks up the addresses of these backends, of several pools, at the same time.
pub(super) fn look_up(
    pools: &[RunningPool],
    entries: &[BackendEntry],
    keeping: &Keeping<'_>,
) -> Vec<Vec<Located>> {
    let patience = pools.iter().map(RunningPool::first_patience).max().unwrap_or_default();
    resolve::look_up_once(&entries.iter().collect::<Vec<_>>(), &keeping.lookup, patience)
}
