//! Our own paths: the five fixed calls of the API, its v1, the probes and metrics. Which of them a listener has
//! (`route`), who may call them (`auth`), and in which order a call is refused: 403, 401, 405, 413, 400, 404, 409 or
//! 412, 503.
//!
//! Answers hold neither `Date` nor `X-Request-Id`: the engine adds those to every answer alike.

mod auth;
mod call;
mod dashboard;
mod faults;
mod health;
mod input;
mod metrics;
mod openapi;
mod ops;
mod page;
mod problem;
mod route;
mod seed;
mod v1;

use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::config;
use crate::error::Reject;
use crate::log::repeats::LogLimit;
use crate::proxy::exchange::{Answer, AnswerBody, BlockingRequest};
use crate::store::Limits;
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

use auth::Caller;
use route::{ApiCall, FoundRoute, Operation, Resource, Route};

pub use health::ProcessHealth;
pub use metrics::Series;
pub use v1::control::{Control, ControlCommand, Controlled, LeavingBackend};
pub use v1::live::Live;
pub use v1::reload::{ReloadError, Reloaded};

/// Everything that is ours, in the order of the documentation.
static RESOURCES: [&[Resource]; 3] = [
    &[seed::RESOURCE],
    v1::RESOURCES,
    &[ops::RESOURCE, metrics::RESOURCE, openapi::RESOURCE, dashboard::RESOURCE],
];

fn resources() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.into_iter().flatten()
}

/// Which listener a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `listen`: paths that are not ours go to a backend.
    Public,
    /// `admin.listen`: every path is ours.
    Admin,
}

/// What the API answers from.
pub struct ApiParts {
    /// What is stored.
    pub limits: Arc<Limits>,
    /// What the probes ask.
    pub health: Arc<ProcessHealth>,
    /// What `/metrics` shows.
    pub series: Series,
    /// What the instance is doing now.
    pub live: Live,
    /// Gives commands to the thread that owns what a reload changes.
    pub control: Arc<Control>,
}

/// Answers what is ours.
pub struct AdminApi {
    parts: ApiParts,
    access: ArcSwap<auth::AccessRules>,
    failures: auth::WrongTokens,
    api_is_public: bool,
    log_limit: Arc<LogLimit>,
}

impl AdminApi {
    /// The API over its parts, with the access rules of `admin`; `trusted_proxies` are `rate_limit`'s.
    pub fn new(
        parts: ApiParts,
        admin: &config::Admin,
        trusted_proxies: &[IpNet],
        log_limit: Arc<LogLimit>,
    ) -> Self {
        let access = ArcSwap::from_pointee(auth::AccessRules::new(admin, trusted_proxies));
        Self {
            parts,
            access,
            failures: auth::WrongTokens::default(),
            api_is_public: admin.listen.is_none(),
            log_limit,
        }
    }

    /// Puts other access rules in force. The listener that has the API stays the same.
    pub fn set_access(&self, admin: &config::Admin, trusted_proxies: &[IpNet]) {
        self.access.store(Arc::new(auth::AccessRules::new(admin, trusted_proxies)));
    }

    /// Whether [`AdminApi::serve`] answers this request. On the public listener that is so for our exact paths alone,
    /// on the admin listener for every path.
    pub fn claims(&self, head: &RequestHead, surface: Surface) -> bool {
        route::find(head.path(), surface, self.api_is_public).is_some()
    }

    /// Answers a request that [`AdminApi::claims`]. `request_id` is told in problems and in the log. Blocks for the
    /// body and for the store, the latter at most `database.timeout`.
    pub fn serve(&self, exchange: &mut BlockingRequest<'_>, surface: Surface, request_id: &str) -> Answer {
        let answer = match self.answer(exchange, surface, request_id) {
            Ok(answer) => answer,
            Err(reject) => self.refusal(&reject, exchange.head, request_id, exchange.received_at),
        };
        finished(answer, exchange.head)
    }

    /// The answer to a request that [`AdminApi::claims`] and whose body is too large for the frontend to read at all,
    /// when something comes before that: a 413 must not tell a caller what a 403 or 405 would hide.
    pub fn refuse_unread(
        &self,
        head: &RequestHead,
        surface: Surface,
        request_id: &str,
        received_at: Nanos,
    ) -> Option<Answer> {
        let reject = self.admit(head, surface, received_at).err()?;
        Some(finished(self.refusal(&reject, head, request_id, received_at), head))
    }

    /// The longest body that this call may have, in bytes. A longer one is refused, so no more of it need be read.
    pub fn most_body_bytes(&self, head: &RequestHead, surface: Surface) -> usize {
        let found = route::find(head.path(), surface, self.api_is_public);
        let is_long = found
            .as_ref()
            .and_then(FoundRoute::route)
            .is_some_and(|route| ["/v1/batch", "/v1/import"].contains(&route.path));
        if is_long { v1::batch::MAX_BATCH_BYTES } else { input::MAX_BODY_BYTES }
    }

    fn refusal(&self, reject: &Reject, head: &RequestHead, request_id: &str, received_at: Nanos) -> Answer {
        self.log(reject, head, request_id, received_at);
        problem::answer(reject, request_id)
    }

    /// The answer to a probe, which waits for nothing: an orchestrator is answered whatever calls wait for. `None`: it
    /// is none, or asks for more than a stranger may know.
    pub fn probe(&self, head: &RequestHead, surface: Surface, request_id: &str) -> Option<Answer> {
        let path = route::find(head.path(), surface, self.api_is_public)?.route()?.path;
        let is_probe = [ops::LIVEZ, ops::READYZ].contains(&path) && !ops::is_verbose(head);
        if !is_probe || !["GET", "HEAD"].contains(&&*head.method) {
            return None;
        }
        let answer = match path {
            ops::LIVEZ => ops::plain_ok(),
            _ => ops::readiness(&self.parts.health, false, request_id).ok()?,
        };
        Some(finished(answer, head))
    }

    /// Whether a call may have to wait for the database. One whose path or method does not exist never does.
    pub fn waits(&self, head: &RequestHead, surface: Surface) -> bool {
        let found = route::find(head.path(), surface, self.api_is_public);
        let operation = found.and_then(|found| found.route()?.operation(&head.method));
        operation.is_some_and(|operation| operation.waits)
    }

    /// What is called, by whom and how: everything that can be refused before the body is looked at.
    fn admit<'p>(&self, head: &'p RequestHead, surface: Surface, now: Nanos) -> Result<Admitted<'p>, Reject> {
        let found = route::find(head.path(), surface, self.api_is_public).unwrap_or(FoundRoute::Nothing);
        let is_probe = found.route().is_some_and(|route| route.form == route::PathForm::Probe);
        // Probes must work for an orchestrator that has no token, and then say nothing that a stranger may not know.
        let caller = if is_probe && !ops::is_verbose(head) {
            Caller::nobody()
        } else if found.route().is_some_and(Route::is_page) {
            self.access.load().check_page(head, surface)?;
            Caller::nobody()
        } else if surface == Surface::Admin && found.route().is_some_and(|route| route.path == metrics::PATH)
        {
            self.access.load().check_metrics(head, surface, &self.failures, now)?
        } else {
            self.access.load().check(head, surface, &self.failures, now)?
        };
        let FoundRoute::Route(route, arguments, base) = found else {
            return Err(Reject::new(Reason::NotFound, "there is nothing of that name here"));
        };
        let Some(operation) = route.operation(&head.method) else {
            let allow = route.allow();
            let mut reject = Reject::new(Reason::MethodNotAllowed, format!("this path has {allow}"));
            reject.allow = Some(allow);
            return Err(reject);
        };
        if operation.access == route::Permission::Write {
            caller.may_write()?;
        }
        Ok(Admitted { operation, route, arguments, base, caller })
    }

    fn answer(
        &self,
        exchange: &mut BlockingRequest<'_>,
        surface: Surface,
        request_id: &str,
    ) -> Result<Answer, Reject> {
        let Admitted { operation, route, arguments, base, caller } =
            self.admit(exchange.head, surface, exchange.received_at)?;
        let values = arguments.into_iter().flatten().map(str::to_owned);
        let arguments = route.argument_names().zip(values).collect();
        (operation.handle)(self, &mut ApiCall { exchange, arguments, base, caller, request_id })
    }

    /// Logs a refusal. Refused callers and a store that is down are logged at `warn`, one line for each cause and
    /// address in a while; mistakes in a call that the caller may make, at `debug`.
    fn log(&self, reject: &Reject, head: &RequestHead, request_id: &str, received_at: Nanos) {
        let peer = head.peer.ip().to_canonical();
        let key = match reject.reason {
            Reason::Forbidden | Reason::Unauthorized | Reason::TooManyRequests => {
                format!("api {} {peer}", reject.status())
            }
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

/// A call that is permitted; its body was not looked at yet.
struct Admitted<'p> {
    operation: &'static Operation,
    route: &'static Route,
    arguments: route::Arguments<'p>,
    base: &'static str,
    caller: Caller,
}

fn said(reject: &Reject, head: &RequestHead, peer: std::net::IpAddr, request_id: &str) -> String {
    let cause = if reject.cause.is_empty() { &*reject.detail } else { &*reject.cause };
    let (method, path, status) = (&head.method, head.path(), reject.status());
    format!("API: {method} {path} from {peer} got {status}: {cause} (request {request_id})")
}

/// Adds the field of every answer of ours, and takes the body out of an answer to HEAD.
fn finished(answer: Answer, head: &RequestHead) -> Answer {
    // Our state changes all the time: a cached answer would be wrong a moment later.
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
