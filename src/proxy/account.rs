//! The end of a request: its lease and seats are given back, counters are raised, and the access log gets one record.

mod traced;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use super::forward::{NoAnswer, Spent};
use super::request_ids::{RequestIds, with_date};
use crate::clock::Clock;
use crate::error::Reject;
use crate::log::record::{AccessRecord, AgentRecord, Journal, LimitRecord};
use crate::log::repeats::LogLimit;
use crate::metrics::{InFlight, Metrics, method_label};
use crate::otel::RequestTrace;
use crate::proxy::exchange::FrontendEvent;
use crate::proxy::exchange::{Answer, DeliveryOutcome, Ticket};
use crate::proxy::policy::PolicyInForce;
use crate::proxy::routes::RouteSeat;
use balancer_http::credentials;
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_limiter::identity;
use balancer_limiter::limiter::Seat;
use balancer_pool::backends::Lease;
use balancer_time::Nanos;

/// The status in logs and metrics of a request whose client left before it had an answer.
pub const CLIENT_GONE: u16 = 499;

/// The status of [`DeliveryOutcome::Replaced`].
const BAD_GATEWAY: u16 = 502;

/// Longest cause in the access log, in bytes. A `…` is added to one that was cut.
const MAX_CAUSE_BYTES: usize = 512;

/// The cause of a [`CLIENT_GONE`].
const CLIENT_LEFT: &str = "the client left before it had an answer";

/// Completes answers, and records in metrics and logs how requests ended.
pub struct Accounts {
    /// The access log.
    pub journal: Arc<dyn Journal>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Keeps repeated causes from flooding the error log.
    pub log_limit: Arc<LogLimit>,
    /// Time.
    pub clock: Clock,
    /// The policy in force. It names the proxies whose `X-Request-Id` and `X-Forwarded-For` count.
    pub policy: Arc<PolicyInForce>,
}

/// What is known of a request when its answer is ready.
pub(crate) struct RequestSummary {
    pub ids: RequestIds,
    pub client_addr: IpAddr,
    pub received_at: Nanos,
    pub spent: Spent,
    pub limit: Option<LimitRecord>,
    /// Held until the answer is delivered.
    pub lease: Option<Lease>,
    /// Counts the request as under way for its client until the answer is delivered, or the upgraded connection ends.
    pub seat: Option<Seat>,
    /// The same for each route it met that has `max_in_flight`.
    pub route_seats: Vec<RouteSeat>,
    /// The client has left: the answer is only logged.
    pub client_gone: bool,
    /// No backend answered: the error log says why, with the request's id.
    pub failed: bool,
    /// One word for why no backend answered, such as `queue_full`, where there is one. Logged instead of the long
    /// cause.
    pub cause_word: Option<&'static str>,
    /// Counts it as in flight until its answer is delivered.
    pub in_flight: InFlight,
    /// `None`: it is not recorded.
    pub trace: Option<Box<RequestTrace>>,
}

impl RequestSummary {
    /// For a request that was not sent to any backend yet.
    pub(super) fn new(ids: RequestIds, client_addr: IpAddr, received_at: Nanos, in_flight: InFlight) -> Self {
        Self {
            ids,
            client_addr,
            received_at,
            spent: Spent::default(),
            limit: None,
            lease: None,
            seat: None,
            route_seats: Vec::new(),
            client_gone: false,
            failed: false,
            cause_word: None,
            in_flight,
            trace: None,
        }
    }

    /// The answer to a request that no backend answered.
    pub(super) fn refuse(&mut self, failed: NoAnswer, close: bool) -> Answer {
        let NoAnswer { reject, client_gone, spent } = failed;
        self.spent = spent;
        self.client_gone = client_gone;
        self.failed = !client_gone;
        self.cause_word = reject.cause_word;
        let mut answer = reject.answer(&self.ids.request_id);
        answer.close = close;
        answer
    }
}

impl Accounts {
    /// Completes an answer with what every answer has (`Date`, `X-Request-Id`) and with the ticket that writes its end
    /// down.
    pub(crate) fn close(
        self: &Arc<Self>,
        mut answer: Answer,
        head: &RequestHead,
        mut summary: RequestSummary,
    ) -> Answer {
        let trace = summary.trace.take().map(|trace| traced::answered(trace, head, &summary, answer.status));
        if let Some(cause) = answer.cause.as_ref().filter(|_| summary.failed) {
            self.explain(head, &summary.ids.request_id, answer.status, cause);
        }
        let wall = self.clock.wall();
        add_date_and_id(&mut answer, wall, &summary.ids.request_id);
        let status = if summary.client_gone { CLIENT_GONE } else { answer.status };
        let for_log = if self.journal.wanted() {
            let with_query = self.journal.wants_query();
            let word = if summary.client_gone { Some(CLIENT_LEFT) } else { summary.cause_word };
            let cause = word.map(Cow::Borrowed).or_else(|| answer.cause.take());
            let client_id = summary.limit.as_ref().and_then(LimitRecord::client_id).cloned();
            let client_id = client_id.unwrap_or_else(|| summary.client_addr.to_string().into());
            let elapsed = Duration::from_nanos(self.clock.now().saturating_sub(summary.received_at));
            ForLog::Record(Box::new(AccessRecord {
                time: wall.checked_sub(elapsed).unwrap_or(wall),
                trace_id: summary.ids.trace_id,
                request_id: summary.ids.request_id,
                client_addr: summary.client_addr,
                client_id: Some(client_id),
                method: head.method.clone(),
                path: if with_query { head.target.clone() } else { head.path().to_owned() },
                // The parser sets the target after the version: without a target, the version was not read.
                protocol: (!head.target.is_empty()).then_some(head.version),
                secure: head.secure.clone(),
                status,
                body_bytes: 0,
                duration: Duration::ZERO,
                upstream_duration: summary.spent.upstream_duration,
                pool: summary.spent.pool,
                backend: summary.spent.backend,
                retries: summary.spent.retries,
                cause: cause.map(bounded),
                limit: summary.limit,
                agent: self.journal.wants_agent().then(|| agent(head, with_query)),
            }))
        } else {
            ForLog::Id(summary.ids.request_id)
        };
        answer.ticket = Some(Box::new(EndOfRequest {
            lease: summary.lease,
            seat: summary.seat,
            route_seats: summary.route_seats,
            for_log,
            method: method_label(&head.method),
            _in_flight: summary.in_flight,
            status,
            received_at: summary.received_at,
            trace,
            accounts: Arc::clone(self),
        }));
        answer
    }
}

impl Accounts {
    /// Logs a request that failed. Repeats of a cause are suppressed, so that a failing backend does not flood the log.
    fn explain(&self, head: &RequestHead, id: &str, status: u16, cause: &str) {
        let Some(suppressed) = self.log_limit.admit(cause, self.clock.now()) else { return };
        let (method, path) = (head.method.escape_default(), head.path().escape_default());
        log::warn!("request {id}: {method} {path} answered {status}: {cause}{suppressed}");
    }

    /// The id and the trace of a request. A trusted peer's own id is kept.
    fn ids_of(&self, head: &RequestHead, trusted_proxies: &[IpNet]) -> RequestIds {
        let trusted = identity::is_in(trusted_proxies, head.peer.ip());
        RequestIds::of(&head.fields, trusted, self.clock.wall())
    }

    /// The answer to a request that the engine refuses by itself, counted and logged like every other.
    pub fn refuse(self: &Arc<Self>, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer {
        let policy = self.policy.load();
        let ids = self.ids_of(head, &policy.trusted_proxies);
        let in_flight = self.metrics.begin();
        let answer = self.refusal(reject, &ids.request_id);
        let client_addr = identity::client_address(head.peer, &policy.trusted_proxies, &head.fields).address;
        let mut summary = RequestSummary::new(ids, client_addr, received_at, in_flight);
        summary.record(policy.tracer.as_ref(), &head.fields);
        self.close(answer, head, summary)
    }

    /// The same for a call of our own API: it is in no metric of requests, and not in the access log.
    pub fn refuse_own(&self, head: &RequestHead, reject: &Reject) -> Answer {
        let own = OwnCall::begin(self, head);
        let answer = self.refusal(reject, own.request_id());
        own.end(self, answer)
    }

    fn refusal(&self, reject: &Reject, id: &str) -> Answer {
        let mut answer = reject.answer(id);
        // After a framing error it is unknown where the next request begins.
        answer.close = true;
        let (status, cause) = (answer.status, answer.cause.as_deref().unwrap_or_default());
        if reject.reason != Reason::Unavailable {
            log::debug!("request {id}: refused with {status}: {cause}");
        } else if let Some(suppressed) = self.log_limit.admit(cause, self.clock.now()) {
            // The client is not at fault, so the operator has to know.
            log::warn!("request {id}: refused with {status}: {cause}{suppressed}");
        }
        answer
    }

    /// Counts what a frontend saw outside of any request.
    pub fn observe(&self, event: FrontendEvent) {
        match event {
            FrontendEvent::Rejected(why) => self.metrics.rejected(why),
            FrontendEvent::Panicked => self.metrics.panicked(),
            FrontendEvent::Turn(took) => self.metrics.loop_lag(Duration::from_nanos(took)),
            FrontendEvent::Handshake(end, took) => self.metrics.handshake(end, Duration::from_nanos(took)),
            FrontendEvent::Http2Flooded(with) => self.metrics.http2_flood(with),
            FrontendEvent::Short(error) => {
                if let Some(suppressed) = self.log_limit.admit("accept", self.clock.now()) {
                    log::warn!(
                        "no new connections for now: {error}; raise the limit of open files{suppressed}"
                    );
                }
            }
        }
    }
}

/// A call of our own: of the API, the dashboard or a probe, recognised by its path. It gets an id and a date, but is
/// neither in the metrics of requests nor in the access log, which are about proxied requests.
pub struct OwnCall {
    request_id: String,
}

impl OwnCall {
    /// Gives the call its id. The id that a trusted peer sent is kept.
    pub fn begin(accounts: &Accounts, head: &RequestHead) -> Self {
        Self { request_id: accounts.ids_of(head, &accounts.policy.load().trusted_proxies).request_id }
    }

    /// The id that problems of this call name.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Completes the answer.
    pub fn end(self, accounts: &Accounts, mut answer: Answer) -> Answer {
        add_date_and_id(&mut answer, accounts.clock.wall(), &self.request_id);
        answer
    }
}

/// Adds the fields that every answer has.
fn add_date_and_id(answer: &mut Answer, wall: SystemTime, request_id: &str) {
    if !answer.fields.has("Date") {
        with_date(wall, |date| answer.fields.push("Date", date));
    }
    answer.fields.push("X-Request-Id", request_id.as_bytes());
}

/// What the client says about itself, for the access log.
fn agent(head: &RequestHead, with_query: bool) -> Box<AgentRecord> {
    let first = |name| head.fields.get(name).unwrap_or_default();
    let ends = |byte: &u8| *byte == b'#' || (*byte == b'?' && !with_query);
    let referer = first("Referer").split(ends).next();
    Box::new(AgentRecord {
        user: credentials::user(first("Authorization")).unwrap_or_default(),
        referer: referer.unwrap_or_default().to_vec(),
        user_agent: first("User-Agent").to_vec(),
    })
}

/// Cuts a cause to [`MAX_CAUSE_BYTES`].
fn bounded(mut cause: Cow<'static, str>) -> Cow<'static, str> {
    if cause.len() > MAX_CAUSE_BYTES {
        let end = (0..=MAX_CAUSE_BYTES).rev().find(|at| cause.is_char_boundary(*at)).unwrap_or(0);
        let text = cause.to_mut();
        text.truncate(end);
        text.push('…');
    }
    cause
}

/// The ticket of an answer. Dropped without being settled (the engine failed), it still gives back the lease and the
/// seats.
struct EndOfRequest {
    lease: Option<Lease>,
    seat: Option<Seat>,
    route_seats: Vec<RouteSeat>,
    for_log: ForLog,
    method: &'static str,
    _in_flight: InFlight,
    status: u16,
    received_at: Nanos,
    trace: Option<Box<RequestTrace>>,
    accounts: Arc<Accounts>,
}

/// What is kept of a request for the logs.
enum ForLog {
    /// A line of the access log.
    Record(Box<AccessRecord>),
    /// Without an access log: the request's id alone, for the error log.
    Id(String),
}

impl EndOfRequest {
    /// Logs that a backend broke off, whether or not there is an access log. Repeats of one backend are suppressed.
    fn explain_break(&self, cause: &str) {
        let backend = self.lease.as_ref().map_or("", |lease| &*lease.endpoint.group.title);
        let Some(suppressed) =
            self.accounts.log_limit.admit(&format!("broke off: {backend}"), self.accounts.clock.now())
        else {
            return;
        };
        let id = match &self.for_log {
            ForLog::Record(record) => &record.request_id,
            ForLog::Id(id) => id,
        };
        log::warn!("request {id}: the answer of backend {backend} broke off: {cause}{suppressed}");
    }
}

impl Ticket for EndOfRequest {
    fn settle(mut self: Box<Self>, body_bytes: u64, delivery: DeliveryOutcome) {
        let now = self.accounts.clock.now();
        let duration = Duration::from_nanos(now.saturating_sub(self.received_at));
        if let Some(trace) = self.trace.take() {
            traced::delivered(trace, &delivery, now);
        }
        if let DeliveryOutcome::BackendBroke(cause) | DeliveryOutcome::Replaced(cause) = &delivery {
            self.explain_break(cause);
        }
        let status = if matches!(delivery, DeliveryOutcome::Replaced(_)) { BAD_GATEWAY } else { self.status };
        if let Some(lease) = self.lease {
            lease.endpoint.group.count_delivered(body_bytes);
            lease.end(self.accounts.clock.now());
        }
        drop(self.seat);
        drop(self.route_seats);
        self.accounts.metrics.request(self.method, status, duration);
        if let ForLog::Record(mut record) = self.for_log {
            record.body_bytes = body_bytes;
            record.duration = duration;
            record.status = status;
            if let DeliveryOutcome::Replaced(cause) = delivery {
                record.cause = Some(bounded(cause.into()));
            }
            self.accounts.journal.record(*record);
        }
    }
}
