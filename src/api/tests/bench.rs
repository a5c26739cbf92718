//! An API over a store in memory, and requests as tables write them.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use serde_json::Value;

use crate::api::tests::owned::head;
use crate::api::*;
use crate::budget::SharedBudget;
use crate::clock::Clock;
use crate::config::{self, CacheConfig, Config, Database, DatabaseUrl, Secret};
use crate::history::History;
use crate::metrics::Metrics;
use crate::proxy::exchange::RequestBody;
use crate::proxy::policy::{PolicyInForce, ProxyPolicy};
use crate::proxy::pools::{Pool, Pools};
use crate::store::Sources;
use crate::store::v1::Actor;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;
use balancer_limiter::heavy_hitters::HeavyHitters;
use balancer_limiter::identity::ClientId;
use balancer_limiter::limiter::{Ask, Limiter, Seat};
use balancer_pool::backends::{Backends, Placed, Settings};
use balancer_pool::health::Status;
use balancer_pool::strategy::Strategy;

/// One backend, and a header that shows a client's key.
const CONFIG: &str = r#"{
    "backends": [{ "name": "secret-name", "url": "http://127.0.0.1:1" }],
    "rate_limit": { "key": "header:X-Tenant" }
}"#;

/// Where nothing listens: a database that is down.
pub(in crate::api) const NO_DATABASE: &str = "postgres://u@127.0.0.1:1/b";

/// A body that comes in the given pieces; an error ends it.
struct Pieces(VecDeque<io::Result<Vec<u8>>>);

impl RequestBody for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.pop_front() {
            None => Ok(0),
            Some(Err(error)) => Err(error),
            Some(Ok(mut piece)) => {
                let bytes = piece.len().min(buffer.len());
                buffer[..bytes].copy_from_slice(&piece[..bytes]);
                let rest = piece.split_off(bytes);
                if !rest.is_empty() {
                    self.0.push_front(Ok(rest));
                }
                Ok(bytes)
            }
        }
    }
}

/// An API and what it is called with.
pub(in crate::api) struct Bench {
    pub(in crate::api) limits: Arc<Limits>,
    pub(in crate::api) health: Arc<ProcessHealth>,
    pub(in crate::api) heavy_hitters: Arc<HeavyHitters>,
    limiter: Arc<Limiter>,
    pub(in crate::api) metrics: Arc<Metrics>,
    /// What the next reloads come to; `None`: commands are taken and never done.
    pub(in crate::api) reloaded: Arc<Mutex<Option<Result<Reloaded, ReloadError>>>>,
    pub(in crate::api) clock: Clock,
    pub(in crate::api) api: AdminApi,
    pub(in crate::api) surface: Surface,
}

/// A request as a table writes it.
#[derive(Clone, Default)]
pub(in crate::api) struct Call<'a> {
    pub(in crate::api) method: &'a str,
    pub(in crate::api) target: &'a str,
    pub(in crate::api) fields: &'a [(&'a str, &'a str)],
    pub(in crate::api) body: &'a [u8],
    pub(in crate::api) peer: &'a str,
}

#[derive(Debug)]
pub(in crate::api) struct Reply {
    pub(in crate::api) status: u16,
    pub(in crate::api) body: Value,
    pub(in crate::api) text: String,
    pub(in crate::api) fields: Fields,
    pub(in crate::api) declared: Option<u64>,
    pub(in crate::api) close: bool,
}

pub(in crate::api) fn admin() -> config::Admin {
    config::Admin {
        listen: None,
        allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        hosts: vec!["Limits.Example".into()],
        token: None,
        tokens: Vec::new(),
        metrics_without_token: false,
        insecure: false,
    }
}

/// Takes the part of the control thread: the pool has the backends of the file, then those of the store.
fn obey(commands: Receiver<ControlCommand>, bench: &Bench, config: &Config, settings: Settings) {
    let (limits, backends) = (Arc::clone(&bench.limits), bench.backends());
    let (reloaded, file) = (Arc::clone(&bench.reloaded), config.default_pool().backends.clone());
    thread::spawn(move || {
        for command in commands {
            let Some(reloaded) = reloaded.lock().clone() else { continue };
            match command {
                ControlCommand::Reload { answer, .. } => answer.unwrap().send(reloaded).unwrap(),
                ControlCommand::Backends { answer, .. } => {
                    let mut wanted: Vec<_> = file
                        .iter()
                        .map(|entry| Placed { entry: entry.clone(), addresses: Vec::new(), operator: None })
                        .collect();
                    for row in limits.backends().iter() {
                        let said = &row.settings;
                        let mut entry =
                            config::parse_backend(&row.name, said.url.as_deref().unwrap()).unwrap();
                        entry.weight = said.weight.unwrap_or(entry.weight);
                        entry.max_in_flight = said.max_in_flight.flatten();
                        entry.backup = said.backup.unwrap_or(false);
                        let addresses = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 9)).into()];
                        wanted.push(Placed { entry, addresses, operator: said.state });
                    }
                    backends.reconfigure(&settings, &wanted, 1);
                    answer.send(()).unwrap();
                }
            }
        }
    });
}

impl Bench {
    pub(in crate::api) fn with(admin: &config::Admin) -> Self {
        Self::over(admin, DatabaseUrl::Memory)
    }

    /// With a store that is down.
    pub(in crate::api) fn without_store() -> Self {
        Self::over(&admin(), DatabaseUrl::Postgres(Secret::new(NO_DATABASE)))
    }

    fn over(admin: &config::Admin, url: DatabaseUrl) -> Self {
        let config = config::from_text(CONFIG, Path::new("/")).unwrap();
        let clock = Clock::real();
        let (metrics, limiter) = (Metrics::new(), Arc::new(Limiter::new(1_000)));
        // A store in memory answers in the end, however busy the machine is.
        let (timeout, load_timeout) = match url {
            DatabaseUrl::Memory => (Duration::from_secs(60), Duration::from_secs(60)),
            _ => (config.database.timeout, config.cache.load_timeout),
        };
        let database = Database { url, pool_size: 1, timeout, ..config.database.clone() };
        let cache = CacheConfig { load_timeout, ..config.cache.clone() };
        let sources = Sources {
            database: &database,
            audit: config.audit,
            cache: &cache,
            rate_limit: &config.rate_limit,
        };
        let limits =
            Limits::start(&sources, Arc::clone(&limiter), Arc::clone(&metrics), clock.clone()).unwrap();
        let settings = Settings::of(Strategy::RoundRobin);
        let entries = &config.default_pool().backends;
        let backends = Backends::new(&settings, entries);
        backends.resolved(&entries[0], &["127.0.0.1:1".parse().unwrap()], 1);
        let pools = Pools::new(Pool::new(backends, &metrics, Arc::new(())), []);
        let policy = Arc::new(PolicyInForce::from_pointee(ProxyPolicy::of(&config.rate_limit, pools)));
        let health = Arc::new(ProcessHealth {
            policy: Arc::clone(&policy),
            limits: Arc::clone(&limits),
            draining: AtomicBool::new(false),
            lone_peer: Arc::default(),
        });
        let heavy_hitters = Arc::<HeavyHitters>::default();
        let budget = Arc::new(SharedBudget::new(1, "127.0.0.1:8080".into()));
        let history = Arc::new(History::new(Arc::clone(&metrics), clock.now()));
        let live = Live {
            budget,
            instance: "i-1".into(),
            started_at: clock.now(),
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            limiter: Arc::clone(&limiter),
            limits: Arc::clone(&limits),
            heavy_hitters: Arc::clone(&heavy_hitters),
            policy: Arc::clone(&policy),
            tls: None,
            history,
            loops_stuck: Box::new(|| 0),
            clock: clock.clone(),
        };
        let (control, commands) = Control::new(Controlled {
            config: Arc::new(ArcSwap::from_pointee(config.clone())),
            limits: Arc::clone(&limits),
            policy,
            own_addresses: Vec::new(),
        });
        let parts = ApiParts {
            limits: Arc::clone(&limits),
            health: Arc::clone(&health),
            series: Box::new(|_| {}),
            live,
            control,
        };
        let api = AdminApi::new(parts, admin, &[], Arc::default());
        let reloaded = Arc::new(Mutex::new(Some(Ok(Reloaded::default()))));
        let surface = Surface::Public;
        let bench = Self { limits, health, heavy_hitters, limiter, metrics, reloaded, clock, api, surface };
        obey(commands, &bench, &config, settings);
        bench
    }

    pub(in crate::api) fn new() -> Self {
        Self::with(&admin())
    }

    pub(in crate::api) fn with_token(token: &str) -> Self {
        Self::with(&config::Admin { token: Some(Secret::new(token)), ..admin() })
    }

    /// The backends of the default pool.
    fn backends(&self) -> Arc<Backends> {
        Arc::clone(&self.health.policy.load().pools.default_pool().backends)
    }

    /// Its backend fails its checks.
    pub(in crate::api) fn take_down(&self) {
        let backends = self.backends();
        let endpoint = Arc::clone(&backends.snapshot().endpoints()[0]);
        endpoint.set_failing("refused");
        backends.set_health(&endpoint, Status::Down, 1);
    }

    /// Every stored id.
    pub(in crate::api) fn ids(&self) -> Vec<String> {
        self.limits.list(None, 1_000).unwrap().into_iter().map(|row| row.client_id).collect()
    }

    /// Deletes every limit, for tests with too many cases to make a store for each.
    pub(in crate::api) fn emptied(&self) -> &Self {
        for id in self.ids() {
            self.limits.delete(&ClientId::parse(&id).unwrap(), &Actor("test".into())).unwrap();
        }
        self
    }

    /// A request of that address, which has a limit.
    pub(in crate::api) fn enter(&self, address: &str) -> Seat {
        let when = self.clock.moment();
        let client = address.parse().unwrap();
        let found = self.limits.find(client, None, when.now, None).unwrap_or_else(|pending| {
            pending.wait(self.limits.load_timeout());
            self.limits.find(client, None, when.now, Some(pending)).ok().unwrap()
        });
        let ask = Ask::of(found.granted.grant().unwrap());
        self.limiter.admit(found.client, ask, when).1.unwrap()
    }

    pub(in crate::api) fn call(&self, call: &Call<'_>) -> Reply {
        let length = match call.body.len() {
            0 => BodyLength::Empty,
            bytes => BodyLength::Known(bytes as u64),
        };
        self.call_with(call, length, vec![Ok(call.body.to_vec())])
    }

    pub(in crate::api) fn call_with(
        &self,
        call: &Call<'_>,
        length: BodyLength,
        body: Vec<io::Result<Vec<u8>>>,
    ) -> Reply {
        let mut head = head(call, length);
        assert!(self.api.claims(&head, self.surface), "{} {} is ours", call.method, call.target);
        let mut exchange =
            BlockingRequest { head: &mut head, body: &mut Pieces(body.into()), received_at: 1 };
        let answer = self.api.serve(&mut exchange, self.surface, "request-1");
        let (bytes, declared) = match answer.body {
            AnswerBody::Bytes(bytes) => (bytes, None),
            AnswerBody::None { declared } => (Vec::new(), declared),
            AnswerBody::Relayed(_) | AnswerBody::Tunnel => {
                panic!("the API streams nothing")
            }
        };
        let text = String::from_utf8(bytes).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let Answer { status, fields, close, .. } = answer;
        let reply = Reply { status, body, text, fields, declared, close };
        if reply.status >= 400 && call.method != "HEAD" {
            assert!(reply.fields.get("Content-Type") == Some(b"application/problem+json"), "{reply:?}");
            assert_eq!(reply.body["instance"], "request-1", "{reply:?}");
            assert_eq!(reply.body["status"], reply.status, "{reply:?}");
        }
        reply
    }

    pub(in crate::api) fn json(&self, method: &str, target: &str, body: &str) -> Reply {
        self.call(&Call { method, target, body: body.as_bytes(), ..Call::default() })
    }
}
