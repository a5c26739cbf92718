//! A proxy for unit tests, and tests of its stories. It has a store in memory, a pool of the addresses that a test
//! names, a clock that the test moves, and a journal that keeps its records.

mod answers;
mod attempts;
mod line;
mod routes;
mod traced;

use std::collections::hash_map::RandomState;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::account::Accounts;
use super::admit::Admit;
use super::forward::Forward;
use super::policy::{PolicyInForce, ProxyPolicy};
use super::pools::{Pool, Pools};
use super::routes::PasswordLane;
use super::story::{Call, Event, NewRequest, Step, Story};
use super::{Phase, Proxy, UpstreamError};
use crate::clock::Clock;
use crate::config::{self, DatabaseUrl};
use crate::log::record::{AccessRecord, Journal};
use crate::metrics::Metrics;
use crate::proxy::exchange::{Answer, DeliveryOutcome};
use crate::store::{Limits, Sources};
use balancer_http::framing::request::{Bounds, HeadVerdict, parse};
use balancer_http::framing::response::{self, HeadRules};
use balancer_http::message::{RequestHead, TlsSession};
use balancer_limiter::limiter::Limiter;
use balancer_pool::backend::BackendEntry;
use balancer_pool::backends::{Backends, Settings};
use balancer_pool::policy::{CallPolicy, PoolPolicy};
use balancer_pool::retry::RetryPolicy;
use balancer_pool::strategy::Strategy;

/// Long enough for anything that should happen, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy, with what a test looks at.
pub(crate) struct Fixture {
    pub proxy: Arc<Proxy>,
    pub pool: Arc<Pool>,
    pub journal: Arc<Kept>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// The records of requests that are over.
#[derive(Default)]
pub(crate) struct Kept {
    pub records: Mutex<Vec<AccessRecord>>,
    /// The next story that ends panics.
    pub breaks: AtomicBool,
}

impl Journal for Kept {
    fn wanted(&self) -> bool {
        assert!(!self.breaks.swap(false, Ordering::SeqCst), "a fault that a test has made");
        true
    }

    fn record(&self, record: AccessRecord) {
        self.records.lock().push(record);
    }
}

/// Short spans for calls, and every retry that there is.
pub(crate) fn policy() -> PoolPolicy {
    const S: u64 = 1_000_000_000;
    PoolPolicy {
        retry: RetryPolicy { retries: 2, on_connect: true, on_reset: true, on_timeout: true },
        retry_budget: 1.0,
        call: CallPolicy {
            connect: 2 * S,
            response: 20 * S,
            read: 20 * S,
            idle: 30 * S,
            max_head_bytes: 32 * 1024,
            max_headers: 100,
            accept_invalid: false,
        },
        ..PoolPolicy::default()
    }
}

/// A pool of that policy, which picks the first backend that can take a request.
pub(crate) fn settings(policy: PoolPolicy) -> Settings {
    Settings { policy: Arc::new(policy), ..Settings::of(Strategy::First) }
}

impl Fixture {
    /// With one backend at each address, called b0, b1, …
    pub fn new(addresses: &[SocketAddr], settings: &Settings, clock: Clock) -> Self {
        let text = r#"{"backends": [{"name": "a", "url": "http://127.0.0.1:9"}]}"#;
        let mut config = config::from_text(text, Path::new("/")).expect("a configuration");
        config.database.url = DatabaseUrl::Memory;
        let (metrics, limiter) = (Metrics::new(), Arc::new(Limiter::new(1_000)));
        let sources = Sources {
            database: &config.database,
            audit: config.audit,
            cache: &config.cache,
            rate_limit: &config.rate_limit,
        };
        let limits = Limits::start(&sources, Arc::clone(&limiter), Arc::clone(&metrics), clock.clone());
        let entry = |n: usize| BackendEntry::new(&format!("b{n}"), "127.0.0.1", addresses[n].port());
        let entries: Vec<_> = (0..addresses.len()).map(entry).collect();
        let backends = Backends::new(settings, &entries);
        for (entry, address) in entries.iter().zip(addresses) {
            backends.resolved(entry, &[*address], clock.now());
        }
        let pool = Pool::new(backends, &metrics, Arc::new(()));
        pool.metrics.set_backends(entries.iter().map(|entry| &*entry.name));
        let policy = ProxyPolicy::of(&config.rate_limit, Pools::new(Arc::clone(&pool), []));
        let journal = Arc::<Kept>::default();
        let proxy = Arc::new(Proxy {
            admit: Admit {
                limits: limits.expect("a store in memory"),
                limiter,
                heavy_hitters: Arc::default(),
                metrics: Arc::clone(&metrics),
                lone_peer: Arc::default(),
                route_seats: Arc::default(),
            },
            passwords: PasswordLane::new(clock.clone()),
            forward: Forward {
                frees_workers: true,
                most_waiting: usize::MAX,
                client_hash: RandomState::new(),
                waiting: Arc::default(),
                clock: clock.clone(),
            },
            accounts: Arc::new(Accounts {
                journal: Arc::clone(&journal) as Arc<_>,
                metrics: Arc::clone(&metrics),
                log_limit: Arc::default(),
                clock: clock.clone(),
                policy: Arc::new(PolicyInForce::from_pointee(policy)),
            }),
            instance: "0123456789abcdef".into(),
            upgrades: vec!["websocket".into()],
        });
        Self { proxy, pool, journal, metrics, clock }
    }

    /// On a manual clock, with so many backends, and with the one client already looked up.
    fn still(backends: u16, settings: &Settings) -> Self {
        let address = |n| SocketAddr::from(([127, 0, 0, 1], 1000 + n));
        let addresses: Vec<_> = (0..backends).map(address).collect();
        let fixture = Self::new(&addresses, settings, Clock::manual());
        let mut head = get();
        let mut step = fixture.begin(&mut head);
        while let Step::Wait(story, _) = step {
            let (tell, told) = crossbeam_channel::bounded(1);
            if story.listen(Box::new(move || {
                let _ = tell.send(());
            })) {
                told.recv_timeout(PATIENCE).expect("the database answers");
            }
            step = story.resume(&head, false);
        }
        if let Step::Call(story, _) = step {
            story.abandon(&head);
        }
        fixture.journal.records.lock().clear();
        fixture
    }

    /// Begins a request, whose body is in memory.
    fn begin(&self, head: &mut RequestHead) -> Step {
        self.begin_as(head, |_| {})
    }

    fn begin_as(&self, head: &mut RequestHead, change: impl FnOnce(&mut NewRequest<'_>)) -> Step {
        let received_at = self.clock.now();
        let mut asked = NewRequest {
            head,
            in_memory: true,
            body_bytes: 0,
            received_at,
            can_upgrade: true,
            bound_to: None,
        };
        change(&mut asked);
        self.proxy.begin(asked)
    }

    /// Begins a request that is sent.
    fn sent(&self, head: &mut RequestHead) -> (Box<Story>, Call) {
        called(self.begin(head))
    }

    /// Requests that are counted on all endpoints.
    pub fn leases(&self) -> u32 {
        let snapshot = self.pool.backends.snapshot();
        snapshot.endpoints().iter().map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Delivers an answer, and takes the record of its end.
    #[track_caller]
    fn settle(&self, answer: Answer) -> AccessRecord {
        answer.ticket.expect("every answer has one").settle(7, DeliveryOutcome::Complete);
        self.record()
    }

    /// Takes the one record that there is.
    #[track_caller]
    fn record(&self) -> AccessRecord {
        let mut records = self.journal.records.lock();
        assert_eq!(records.len(), 1, "one record");
        assert_eq!(self.leases(), 0, "leases come back");
        assert_eq!(self.metrics.totals().in_flight, 0);
        records.remove(0)
    }
}

#[track_caller]
fn called(step: Step) -> (Box<Story>, Call) {
    match step {
        Step::Call(story, call) => (story, call),
        Step::Answer(answer) => panic!("answered with {} {:?}", answer.status, answer.cause),
        Step::Wait(..) => panic!("it waits"),
        Step::Work(_) => panic!("it is for the lane"),
    }
}

#[track_caller]
fn answered(step: Step) -> Answer {
    match step {
        Step::Answer(answer) => answer,
        Step::Call(_, call) => panic!("it is sent to {}", call.endpoint.address),
        Step::Wait(..) => panic!("it waits"),
        Step::Work(_) => panic!("it is for the lane"),
    }
}

/// A request's head as the engine reads it.
#[track_caller]
pub(crate) fn request(text: &str) -> RequestHead {
    let mut head = RequestHead::blank(SocketAddr::from(([1, 2, 3, 4], 5)));
    let bounds =
        Bounds { max_head_bytes: 16_384, max_headers: 100, max_target_bytes: 8_192, accept_invalid: false };
    match parse(text.as_bytes(), &bounds, &mut head) {
        HeadVerdict::Complete { .. } => head,
        _ => panic!("not a whole head: {text:?}"),
    }
}

/// What a handshake settled.
fn session() -> Arc<TlsSession> {
    let sni = Some("a".to_owned());
    Arc::new(TlsSession { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", sni, certificate: None })
}

fn get() -> RequestHead {
    request("GET /path HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// An answer's head as the engine reads it: status line and fields, without the empty line.
#[track_caller]
fn head(text: &str) -> response::Head {
    let text = format!("HTTP/1.1 {text}\r\n\r\n");
    response::parse(text.as_bytes(), &HeadRules::SHIPPED).expect("proper").expect("whole").0
}

fn failure(phase: Phase) -> Event {
    Event::Failed(UpstreamError { phase, cause: "its cause".into() })
}
