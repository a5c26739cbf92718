//! An API over a store in memory, and requests as tables write them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use crate::api::tests::fake_v1::FakeV1;
use crate::api::tests::owned::head;
use crate::api::*;
use crate::config::{self, Secret};
use crate::proxy::exchange::{Abort, RequestBody};
use crate::store::StoreState;
use crate::store::backends::BackendSettings;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;
use balancer_limiter::terms::ClientLimit;
use balancer_pool::backends::Operator;

/// Nothing to measure.
struct NoSeries;

impl Series for NoSeries {
    fn visit(&self, _show: &mut Show<'_>) {}
}

/// An instance that does nothing, and remembers whose buckets it was to fill.
#[derive(Default)]
pub(in crate::api) struct FakeLive {
    pub(in crate::api) resets: Mutex<Vec<String>>,
}

impl Live for FakeLive {
    fn instance(&self) -> &str {
        "i-1"
    }

    fn status(&self) -> Status {
        Status {
            instance: "i-1".into(),
            version: "0.0.0",
            uptime_seconds: 61,
            ready: true,
            draining: false,
            store: "up",
            requests: 7,
            in_flight: 1,
            allowed: 5,
            denied: 1,
            clients: 2,
        }
    }

    fn usage(&self, _: &ClientId, limit: &ClientLimit) -> Usage {
        let full = limit.own.buckets.iter().map(|bucket| BucketLevel {
            name: bucket.name.as_str().to_owned(),
            capacity: bucket.limit.capacity,
            level: bucket.limit.capacity,
        });
        Usage { buckets: full.collect(), in_flight: 3 }
    }

    fn reset(&self, id: &ClientId, _: &ClientLimit) {
        self.resets.lock().push(id.text().to_owned());
    }

    fn check(&self, question: &Question) -> Verdict {
        let peer = question.port.map(|port| format!("{}:{port}", question.address));
        Verdict {
            allowed: question.method == "GET",
            identity: question.address.to_string(),
            candidates: peer.into_iter().chain([question.address.to_string(), "default".into()]).collect(),
            matched: question.fields.get("X-Matched").map(|id| String::from_utf8_lossy(id).into_owned()),
            policy: "client",
            buckets: Vec::new(),
        }
    }

    fn top(&self, by: Top, window: Duration, count: usize) -> Vec<ClientCount> {
        let (requests, denied) = (window.as_secs(), u64::from(by == Top::Denied));
        let (bucket, rule) = ("minute".into(), Some("login".into()));
        let reasons = vec![DeniedFor { policy: "rule", bucket, rule, denied }];
        let a = ClientCount { client_id: "a".into(), requests, denied, reasons };
        let b = ClientCount { client_id: "b".into(), denied: 0, reasons: Vec::new(), ..a.clone() };
        [a, b].into_iter().take(count).collect()
    }
}

/// Nobody to change anything.
#[derive(Default)]
pub(in crate::api) struct FakeControl {
    pub(in crate::api) outcome: Mutex<Option<Result<Reloaded, ReloadError>>>,
    backends: Mutex<BTreeMap<String, BackendSettings>>,
}

fn shown(name: &str, settings: &BackendSettings) -> BackendShown {
    BackendShown {
        name: name.to_owned(),
        url: settings.url.clone().unwrap_or_default(),
        weight: settings.weight.unwrap_or(1),
        state: settings.state.unwrap_or(Operator::Up),
        max_in_flight: settings.max_in_flight.flatten(),
        backup: settings.backup.unwrap_or(false),
        source: Origin::Store,
        up: true,
        health: "up",
        cause: None,
        in_flight: 0,
        endpoints: vec![EndpointShown {
            address: "127.0.0.1:1".parse().unwrap(),
            health: "up",
            cause: None,
            in_flight: 0,
        }],
    }
}

impl Control for FakeControl {
    fn reload(&self, _by: &str) -> Result<Reloaded, ReloadError> {
        self.outcome.lock().clone().unwrap_or(Ok(Reloaded::default()))
    }

    fn backends(&self) -> Result<Vec<BackendShown>, BackendError> {
        Ok(self.backends.lock().iter().map(|(name, settings)| shown(name, settings)).collect())
    }

    fn create_backend(
        &self,
        name: &str,
        settings: BackendSettings,
        _actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        let url = settings.url.clone().unwrap_or_default();
        config::parse_backend(name, &url).map_err(BackendError::Fields)?;
        let mut backends = self.backends.lock();
        if backends.contains_key(name) {
            return Err(BackendError::Store(StoreError::Exists));
        }
        backends.insert(name.to_owned(), settings.clone());
        Ok(shown(name, &settings))
    }

    fn patch_backend(
        &self,
        name: &str,
        said: BackendSettings,
        _actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        let mut backends = self.backends.lock();
        let settings = backends.get_mut(name).ok_or(BackendError::Store(StoreError::NotFound))?;
        *settings = settings.clone().with(&said);
        Ok(shown(name, settings))
    }

    fn delete_backend(&self, name: &str, _drain: Duration, _actor: &Actor) -> Result<(), BackendError> {
        match name {
            "of-the-file" => Err(BackendError::InFile),
            "busy" => Err(BackendError::Busy("the cause".into())),
            _ => {
                let gone = self.backends.lock().remove(name);
                gone.map(drop).ok_or(BackendError::Store(StoreError::NotFound))
            }
        }
    }
}

/// A store in memory, keyed as databases key it. `fault` is given instead of an answer.
#[derive(Default)]
pub(in crate::api) struct FakeStore {
    rows: Mutex<BTreeMap<String, (String, Limit)>>,
    pub(in crate::api) fault: Mutex<Option<StoreError>>,
}

impl FakeStore {
    fn check(&self) -> Result<(), StoreError> {
        self.fault.lock().clone().map_or(Ok(()), Err)
    }

    pub(in crate::api) fn ids(&self) -> Vec<String> {
        self.rows.lock().values().map(|(id, _)| id.clone()).collect()
    }
}

impl LimitsStore for FakeStore {
    fn create(&self, id: &ClientId, limit: Limit, _: &Actor) -> Result<(), StoreError> {
        self.check()?;
        let mut rows = self.rows.lock();
        if rows.contains_key(&*id.canonical()) {
            return Err(StoreError::Exists);
        }
        rows.insert(id.canonical().into_owned(), (id.text().to_owned(), limit));
        Ok(())
    }

    fn get(&self, id: &ClientId) -> Result<Row, StoreError> {
        self.check().map_err(StoreError::of_question)?;
        let found = self.rows.lock().get(&*id.canonical()).cloned().ok_or(StoreError::NotFound)?;
        Ok(Row { client_id: found.0, limit: found.1, version: 1 })
    }

    fn update(&self, id: &ClientId, limit: Limit, _: &Actor) -> Result<(), StoreError> {
        self.check()?;
        self.rows.lock().get_mut(&*id.canonical()).ok_or(StoreError::NotFound)?.1 = limit;
        Ok(())
    }

    fn delete(&self, id: &ClientId, _: &Actor) -> Result<(), StoreError> {
        self.check()?;
        self.rows.lock().remove(&*id.canonical()).map(|_| ()).ok_or(StoreError::NotFound)
    }

    fn list(&self, after: Option<&str>, count: usize) -> Result<Vec<Row>, StoreError> {
        self.check().map_err(StoreError::of_question)?;
        let mut rows: Vec<_> = self.rows.lock().values().cloned().collect();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        let behind = rows.into_iter().filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
        Ok(behind.take(count).map(|(client_id, limit)| Row { client_id, limit, version: 1 }).collect())
    }
}

pub(in crate::api) struct FakeHealth {
    pub(in crate::api) up: bool,
    pub(in crate::api) draining: bool,
    pub(in crate::api) store_up: bool,
}

impl Health for FakeHealth {
    fn backends(&self) -> Vec<BackendHealth> {
        let cause = (!self.up).then(|| "refused".to_owned());
        let (name, state) = ("secret-name".into(), Operator::Up);
        vec![BackendHealth { name, up: self.up, state, health: "up", cause }]
    }

    fn draining(&self) -> bool {
        self.draining
    }

    fn store(&self) -> StoreState {
        if self.store_up { StoreState::Up } else { StoreState::Down }
    }
}

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

    fn buffered(&self) -> Option<&[u8]> {
        None
    }

    fn consumed(&self) -> bool {
        false
    }
}

/// An API and what it is called with.
pub(in crate::api) struct Bench {
    pub(in crate::api) store: Arc<FakeStore>,
    pub(in crate::api) control: Arc<FakeControl>,
    pub(in crate::api) v1: Arc<FakeV1>,
    pub(in crate::api) live: Arc<FakeLive>,
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

impl Bench {
    pub(in crate::api) fn with(admin: &config::Admin, health: FakeHealth) -> Self {
        let (store, v1) = (Arc::<FakeStore>::default(), Arc::<FakeV1>::default());
        let (control, live) = (Arc::<FakeControl>::default(), Arc::<FakeLive>::default());
        let parts = Parts {
            limits: Arc::clone(&store) as _,
            health: Arc::new(health),
            series: Arc::new(NoSeries),
            control: Arc::clone(&control) as _,
            v1: Arc::clone(&v1) as _,
            live: Arc::clone(&live) as _,
        };
        let api = AdminApi::new(parts, admin, &[], Arc::default());
        Self { store, control, v1, live, api, surface: Surface::Public }
    }

    pub(in crate::api) fn new() -> Self {
        Self::with(&admin(), FakeHealth { up: true, draining: false, store_up: true })
    }

    pub(in crate::api) fn with_token(token: &str) -> Self {
        let admin = config::Admin { token: Some(Secret::new(token)), ..admin() };
        Self::with(&admin, FakeHealth { up: true, draining: false, store_up: true })
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
        let mut exchange = Exchange {
            head: &mut head,
            body: &mut Pieces(body.into()),
            abort: &Abort::default(),
            received_at: 1,
            can_upgrade: false,
            may_park: false,
        };
        let answer = self.api.serve(&mut exchange, self.surface, "request-1");
        let (bytes, declared) = match answer.body {
            AnswerBody::Bytes(bytes) => (bytes, None),
            AnswerBody::None { declared } => (Vec::new(), declared),
            AnswerBody::Stream(..) | AnswerBody::Upgrade(_) | AnswerBody::Relayed(_) | AnswerBody::Tunnel => {
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
