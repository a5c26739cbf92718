//! Our own paths: the five fixed calls of the API, `/-/livez` and `/-/readyz`. Which of them a listener has, who may
//! call them, and in which order a call is refused: 403, 401, 405, 413, 400, 404 or 409, 503 (CONTRACT, "The API").
//!
//! Answers hold neither `Date` nor `X-Request-Id`: whoever serves the exchange adds those to every answer alike.

mod auth;
mod input;
mod metrics;
mod ops;
mod problem;
mod seed;

use std::sync::Arc;

use crate::config;
use crate::edge::store::{Limits, Row, StoreError};
use crate::error::{Reason, Reject};
use crate::exchange::{Answer, AnswerBody, Exchange, RequestHead};
use crate::rules::Nanos;
use crate::rules::identity::ClientId;
use crate::rules::limit::Limit;
use crate::state::log_limit::LogLimit;

pub use metrics::{Series, Show};
pub use ops::{BackendHealth, Health};

/// Which listener a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `listen`: paths that are not ours go to a backend.
    Public,
    /// `admin.listen`: every path is ours.
    Admin,
}

/// What the five calls need of the store; [`Limits`] is it. An implementation waits at most `database.timeout`, and a
/// write that it reports as done is in force on this process's next request.
pub trait LimitsStore: Send + Sync {
    /// Adds a limit; [`StoreError::Exists`] when an equal id has one.
    fn create(&self, id: &ClientId, limit: Limit) -> Result<(), StoreError>;

    /// The id as it was stored, and its limit; [`StoreError::NotFound`] when there is none.
    fn get(&self, id: &ClientId) -> Result<Row, StoreError>;

    /// Replaces the numbers; [`StoreError::NotFound`] when there is none.
    fn update(&self, id: &ClientId, limit: Limit) -> Result<(), StoreError>;

    /// Takes the limit away; [`StoreError::NotFound`] when there is none.
    fn delete(&self, id: &ClientId) -> Result<(), StoreError>;

    /// At most `count` limits in byte order of the id, those behind `after`.
    fn list(&self, after: Option<&str>, count: usize) -> Result<Vec<Row>, StoreError>;
}

impl LimitsStore for Limits {
    fn create(&self, id: &ClientId, limit: Limit) -> Result<(), StoreError> {
        Self::create(self, id, limit)
    }

    fn get(&self, id: &ClientId) -> Result<Row, StoreError> {
        Self::get(self, id)
    }

    fn update(&self, id: &ClientId, limit: Limit) -> Result<(), StoreError> {
        Self::update(self, id, limit)
    }

    fn delete(&self, id: &ClientId) -> Result<(), StoreError> {
        Self::delete(self, id)
    }

    fn list(&self, after: Option<&str>, count: usize) -> Result<Vec<Row>, StoreError> {
        Self::list(self, after, count)
    }
}

/// Our paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Create,
    Get,
    Update,
    Delete,
    List,
    Livez,
    Readyz,
    Metrics,
}

impl Route {
    /// By the exact path. The probes stand under `/-` everywhere, and without it on the admin listener.
    fn find(path: &str, surface: Surface, api_is_public: bool) -> Option<Self> {
        match path {
            "/-/livez" => return Some(Self::Livez),
            "/-/readyz" => return Some(Self::Readyz),
            "/livez" if surface == Surface::Admin => return Some(Self::Livez),
            "/readyz" if surface == Surface::Admin => return Some(Self::Readyz),
            _ if surface == Surface::Public && !api_is_public => return None,
            _ => {}
        }
        match path {
            "/-/metrics" => Some(Self::Metrics),
            "/metrics" if surface == Surface::Admin => Some(Self::Metrics),
            "/limits/create" => Some(Self::Create),
            "/limits/get" => Some(Self::Get),
            "/limits/update" => Some(Self::Update),
            "/limits/delete" => Some(Self::Delete),
            "/limits" => Some(Self::List),
            _ => None,
        }
    }

    /// The methods that it has, as an `Allow` value.
    fn allow(self) -> &'static str {
        match self {
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Delete => "DELETE",
            Self::Get | Self::List | Self::Livez | Self::Readyz | Self::Metrics => "GET, HEAD",
        }
    }

    fn is_probe(self) -> bool {
        matches!(self, Self::Livez | Self::Readyz)
    }
}

/// Answers what is ours.
pub struct AdminApi {
    limits: Arc<dyn LimitsStore>,
    health: Arc<dyn Health>,
    series: Arc<dyn Series>,
    access: auth::Access,
    api_is_public: bool,
    log_limit: Arc<LogLimit>,
}

impl AdminApi {
    /// The API over a store, with the access rules of `admin`.
    pub fn new(
        limits: Arc<dyn LimitsStore>,
        admin: &config::Admin,
        health: Arc<dyn Health>,
        series: Arc<dyn Series>,
        log_limit: Arc<LogLimit>,
    ) -> Self {
        Self {
            limits,
            health,
            series,
            access: auth::Access::new(admin),
            api_is_public: admin.listen.is_none(),
            log_limit,
        }
    }

    /// Whether [`AdminApi::serve`] answers this request. On the public listener that is so for our exact paths alone,
    /// on the admin listener for every path.
    pub fn claims(&self, head: &RequestHead, surface: Surface) -> bool {
        surface == Surface::Admin || Route::find(head.path(), surface, self.api_is_public).is_some()
    }

    /// Answers a request that [`AdminApi::claims`]. `request_id` stands in problems and in the log. Blocks for the
    /// body and for the store, the latter at most `database.timeout`.
    pub fn serve(&self, exchange: &mut Exchange<'_>, surface: Surface, request_id: &str) -> Answer {
        let answer = match self.answer(exchange, surface, request_id) {
            Ok(answer) => answer,
            Err(reject) => self.refusal(&reject, exchange.head, request_id, exchange.received_at),
        };
        finished(answer, exchange.head)
    }

    /// The answer to a request that [`AdminApi::claims`] and whose body is too large for the frontend to read at all,
    /// when something comes before that: nobody learns from a 413 what a 403 or 405 would keep from him.
    pub fn refuse_unread(
        &self,
        head: &RequestHead,
        surface: Surface,
        request_id: &str,
        received_at: Nanos,
    ) -> Option<Answer> {
        let reject = self.route(head, surface).err()?;
        Some(finished(self.refusal(&reject, head, request_id, received_at), head))
    }

    fn refusal(&self, reject: &Reject, head: &RequestHead, request_id: &str, received_at: Nanos) -> Answer {
        self.log(reject, head, request_id, received_at);
        problem::answer(reject, request_id)
    }

    /// The answer that needs no worker: the process is alive. On a thread that must never block, so nothing else is
    /// answered here.
    pub fn unattended(&self, head: &RequestHead, surface: Surface) -> Option<Answer> {
        let route = Route::find(head.path(), surface, self.api_is_public)?;
        let plain = route == Route::Livez && !ops::is_verbose(head);
        let answer = plain.then(|| ops::livez(false).with("Cache-Control", "no-store"))?;
        match head.method.as_str() {
            "GET" => Some(answer),
            "HEAD" => Some(without_body(answer)),
            _ => None,
        }
    }

    /// What is called, by whom and how: everything that can be refused before the body is looked at.
    fn route(&self, head: &RequestHead, surface: Surface) -> Result<Route, Reject> {
        let route = Route::find(head.path(), surface, self.api_is_public);
        // Probes must work for an orchestrator that has no token, and then say nothing that a stranger may not know.
        if ops::is_verbose(head) || !route.is_some_and(Route::is_probe) {
            self.access.check(head)?;
        }
        let route =
            route.ok_or_else(|| Reject::new(Reason::NotFound, "there is nothing of that name here"))?;
        if !route.allow().split(", ").any(|method| method == head.method) {
            let mut reject =
                Reject::new(Reason::MethodNotAllowed, format!("this path has {}", route.allow()));
            reject.allow = Some(route.allow());
            return Err(reject);
        }
        Ok(route)
    }

    fn answer(
        &self,
        exchange: &mut Exchange<'_>,
        surface: Surface,
        request_id: &str,
    ) -> Result<Answer, Reject> {
        let head = &*exchange.head;
        match self.route(head, surface)? {
            Route::Livez => Ok(ops::livez(ops::is_verbose(head))),
            Route::Readyz => Ok(ops::readyz(&*self.health, ops::is_verbose(head), request_id)),
            Route::Metrics => Ok(metrics::answer(&*self.series, head)),
            Route::Create => seed::create(&*self.limits, exchange),
            Route::Get => seed::get(&*self.limits, exchange),
            Route::Update => seed::update(&*self.limits, exchange),
            Route::Delete => seed::delete(&*self.limits, exchange),
            Route::List => seed::list(&*self.limits, exchange),
        }
    }

    /// Refused callers and a store that is down are said at `warn`, one line a cause and address in a while; what a
    /// caller got wrong in a call that it may make, at `debug`.
    fn log(&self, reject: &Reject, head: &RequestHead, request_id: &str, received_at: Nanos) {
        let peer = head.peer.ip().to_canonical();
        let key = match reject.reason {
            Reason::Forbidden | Reason::Unauthorized => format!("api {} {peer}", reject.status()),
            Reason::Unavailable => "api store".to_owned(),
            _ => {
                log::debug!("{}", said(reject, head, peer, request_id));
                return;
            }
        };
        if let Some(suppressed) = self.log_limit.admit(&key, received_at) {
            log::warn!("{}{suppressed}", said(reject, head, peer, request_id));
        }
    }
}

fn said(reject: &Reject, head: &RequestHead, peer: std::net::IpAddr, request_id: &str) -> String {
    let cause = if reject.cause.is_empty() { &reject.detail } else { &reject.cause };
    let (method, path, status) = (&head.method, head.path(), reject.status());
    format!("API: {method} {path} from {peer} got {status}: {cause} (request {request_id})")
}

/// What every answer of ours has, and none to HEAD.
fn finished(answer: Answer, head: &RequestHead) -> Answer {
    // What a cache kept of our state would be wrong a moment later.
    let answer = answer.with("Cache-Control", "no-store");
    if head.method == "HEAD" { without_body(answer) } else { answer }
}

/// The same head without the body (RFC 9110 §9.3.2).
fn without_body(mut answer: Answer) -> Answer {
    if let AnswerBody::Bytes(bytes) = &answer.body {
        answer.body = AnswerBody::None { declared: Some(bytes.len() as u64) };
    }
    answer
}

#[cfg(test)]
mod tests;
