//! The second step: pick a backend, send, and again where that is safe.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Answered, Outgoing, Phase, Reuse, Upstream, UpstreamError};
use crate::clock::{Clock, nanos};
use crate::error::{Reason, Reject};
use crate::exchange::{Abort, BodyFault, RequestBody, RequestHead};
use crate::rules::fields::Fields;
use crate::rules::headers::{self, Origin};
use crate::rules::identity::ClientKey;
use crate::rules::retry::{self, Again, Policy};
use crate::rules::strategy::{HashOn, cookie, key_of};
use crate::state::backends::{Backends, Ejection, Endpoint, Lease, Unavailable, Wanted};
use crate::state::metrics::{Attempt, Metrics, Retry};

/// Seconds that a client is told to wait when no backend can answer now.
const RETRY_AFTER_S: u64 = 1;

/// What sending needs.
pub struct Forward {
    /// Sends one request to one endpoint.
    pub upstream: Arc<dyn Upstream>,
    /// The pool.
    pub backends: Arc<Backends>,
    /// When a request is sent again.
    pub policy: Policy,
    /// Inclusive ranges of status codes that count as an endpoint's failure.
    pub outlier_statuses: Vec<(u16, u16)>,
    /// The engine's workers are free once they have an answer's head.
    pub frees_workers: bool,
    /// What the pool's strategy hashes requests on; `None`: it does not hash.
    pub hash_on: Option<HashOn>,
    /// Time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A request that was admitted.
pub(super) struct Request<'a> {
    pub head: &'a RequestHead,
    /// The client, after the walk over trusted proxies.
    pub client: IpAddr,
    /// Whom the limiter takes it for.
    pub counted_as: ClientKey,
    pub origin: Origin<'a>,
    /// The protocol to go on in, should the backend agree.
    pub protocol: Option<&'a str>,
}

/// A backend's answer, and what it took to get it.
pub(super) struct Forwarded {
    pub answered: Answered,
    /// Held until the answer is delivered.
    pub lease: Lease,
    pub effort: Effort,
}

/// What was spent on a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effort {
    pub backend: Option<Arc<str>>,
    pub retries: u32,
    pub upstream_duration: Option<Duration>,
}

/// No backend answered.
pub(super) struct Failed {
    pub reject: Reject,
    /// Nobody is left to read the refusal.
    pub client_gone: bool,
    pub effort: Effort,
}

impl Forward {
    /// Sends the request until a backend answers or sending again would not be safe.
    pub(super) fn forward(
        &self,
        asked: &Request<'_>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Forwarded, Failed> {
        let Request { head, origin, .. } = asked;
        let snapshot = self.backends.snapshot();
        let idempotent = retry::idempotent(&head.method);
        let mut effort = Effort::default();
        let key = self.hash_on.as_ref().map_or(0, |on| key(on, asked));
        let (mut tried, mut resent) = (Vec::new(), 0);
        let mut now = self.clock.now();
        let replayable = body.buffered().is_some();
        let may_probe = idempotent && replayable && self.policy.retries > 0;
        let mut lease = match snapshot.pick(&Wanted { tried: &tried, key, now, may_probe }) {
            Ok(lease) => lease,
            Err(why) => return Err(Failed { reject: unavailable(why), client_gone: false, effort }),
        };
        let fields = fields(head, origin, &lease);
        let mut reuse = if idempotent && replayable { Reuse::Any } else { Reuse::Recent };
        loop {
            let outgoing = Outgoing {
                method: &head.method,
                target: &head.target,
                fields: &fields,
                length: head.length,
                reuse,
            };
            effort.backend = Some(Arc::clone(&lease.endpoint.backend));
            let began = now;
            let result = self.send(&lease.endpoint, &outgoing, asked.protocol, body, abort);
            now = self.clock.now();
            let spent = Duration::from_nanos(now.saturating_sub(began));
            effort.upstream_duration = Some(spent);
            let attempt =
                result.as_ref().map_or(Attempt::Error, |answered| Attempt::Status(answered.status()));
            self.metrics.backend_request(&lease.endpoint.backend, attempt, spent);
            if let Some(failed) = self.verdict(&result) {
                let ejection = snapshot.observe(&mut lease, nanos(spent), failed, now);
                self.tell(&lease.endpoint, ejection, &result);
            }
            let error = match result {
                Ok(answered) => {
                    if self.frees_workers {
                        lease.free_worker();
                    }
                    return Ok(Forwarded { answered, lease, effort });
                }
                Err(error) => error,
            };
            let request = retry::Request {
                idempotent,
                replayable: body.buffered().is_some() || !body.consumed(),
                retries_done: resent,
            };
            tried.push(lease.endpoint.id);
            let may_probe = may_probe && resent + 1 < self.policy.retries;
            let pick = |tried: &[u64]| snapshot.pick(&Wanted { tried, key, now, may_probe }).ok();
            let next = match retry::again(error.phase.into(), request, self.policy) {
                Again::No => None,
                Again::Elsewhere => pick(&tried).map(|next| (next, reuse)),
                // Only a connection was bad: with nobody else to ask, the same endpoint on a new one.
                Again::ElsewhereOrFresh => pick(&tried)
                    .map(|next| (next, reuse))
                    .or_else(|| pick(&tried[..tried.len() - 1]).map(|next| (next, Reuse::Never))),
            };
            let Some(next) = next else { return Err(failed(&error, &lease, effort)) };
            log::debug!("request {}: sent again after {}", origin.request_id, error.cause);
            self.metrics.retry(reason_of(error.phase));
            effort.retries += 1;
            resent += u32::from(error.phase != Phase::Connect);
            (lease, reuse) = next;
        }
    }

    /// One attempt.
    fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        outgoing: &Outgoing<'_>,
        protocol: Option<&str>,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Answered, UpstreamError> {
        match protocol {
            Some(protocol) => self.upstream.upgrade(endpoint, outgoing, protocol, abort),
            None => self.upstream.send(endpoint, outgoing, body, abort).map(Answered::Http),
        }
    }

    /// Whether the endpoint failed; `None`: the attempt says nothing about it.
    fn verdict(&self, result: &Result<Answered, UpstreamError>) -> Option<bool> {
        match result {
            Ok(answered) => Some(is_in(&self.outlier_statuses, answered.status())),
            Err(error) => match error.phase {
                // A kept connection that was closed meanwhile is nobody's fault, and took no time.
                Phase::RequestBody(_) | Phase::Cancelled | Phase::Stale => None,
                Phase::Connect
                | Phase::ConnectTimedOut
                | Phase::Reset
                | Phase::TimedOut
                | Phase::Malformed => Some(true),
            },
        }
    }

    /// One line for each change of who is ejected, with its cause.
    fn tell(
        &self,
        endpoint: &Endpoint,
        ejection: Option<Ejection>,
        result: &Result<Answered, UpstreamError>,
    ) {
        let Some(ejection) = ejection else { return };
        let who = format_args!("backend {} ({})", endpoint.backend, endpoint.address);
        let last = match result {
            Ok(answered) => format!("status {}", answered.status()),
            Err(error) => error.cause.clone(),
        };
        match ejection {
            Ejection::Out(time, cause) => {
                log::warn!("{who} is ejected for {time:?}: {cause}; the last: {last}")
            }
            Ejection::StaysOut(time) => {
                log::warn!("{who} stays ejected for {time:?}: its probe failed: {last}")
            }
            Ejection::Back => log::info!("{who} is no longer ejected: its probe was answered: {last}"),
        }
        if !matches!(ejection, Ejection::Back) {
            self.metrics.ejected(&endpoint.backend);
        }
    }
}

/// Whether a number is in one of the inclusive ranges.
fn is_in(ranges: &[(u16, u16)], number: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
}

/// What the client and the operator read when nobody could be asked.
fn unavailable(why: Unavailable) -> Reject {
    let (detail, cause) = match why {
        Unavailable::Nobody => ("no backend is healthy at the moment", "no healthy backend"),
        Unavailable::Full => ("every backend is busy at the moment", "every backend is at its max_in_flight"),
    };
    Reject::new(Reason::Unavailable, detail).because(cause).retry_after(RETRY_AFTER_S)
}

/// Written once: a request is the same to whichever backend it goes.
fn fields(head: &RequestHead, origin: &Origin<'_>, lease: &Lease) -> Fields {
    if !origin.host.is_empty() {
        return headers::to_backend(&head.fields, origin);
    }
    // HTTP/1.0 without Host: HTTP/1.1 towards the backend needs one (RFC 9112 §3.2).
    let host = lease.endpoint.address.to_string();
    headers::to_backend(&head.fields, &Origin { host: &host, ..*origin })
}

/// What the request is hashed on, as a number.
fn key(on: &HashOn, asked: &Request<'_>) -> u64 {
    let of_address = || match asked.client {
        IpAddr::V4(address) => key_of(&address.octets()),
        IpAddr::V6(address) => key_of(&address.octets()),
    };
    let fields = &asked.head.fields;
    match on {
        HashOn::Ip => of_address(),
        HashOn::Client => key_of(&asked.counted_as.to_bytes()),
        HashOn::Uri => key_of(asked.head.target.as_bytes()),
        HashOn::Header(name) => fields.get(name).map_or_else(of_address, key_of),
        HashOn::Cookie(name) => {
            fields.all("Cookie").find_map(|field| cookie(field, name)).map_or_else(of_address, key_of)
        }
    }
}

fn reason_of(phase: Phase) -> Retry {
    match phase {
        Phase::Connect | Phase::ConnectTimedOut => Retry::Connect,
        Phase::TimedOut => Retry::Timeout,
        Phase::Stale | Phase::Reset | Phase::Malformed | Phase::RequestBody(_) | Phase::Cancelled => {
            Retry::Reset
        }
    }
}

/// What the client and the operator read when no backend answered.
fn failed(error: &UpstreamError, lease: &Lease, effort: Effort) -> Failed {
    let (reason, detail, wait) = match error.phase {
        Phase::Connect | Phase::ConnectTimedOut => (Reason::BadGateway, "no backend could be reached", true),
        Phase::Stale | Phase::Reset => {
            (Reason::BadGateway, "the backend closed the connection without an answer", true)
        }
        Phase::TimedOut => (Reason::GatewayTimeout, "the backend did not answer in time", true),
        Phase::Malformed => (Reason::BadGateway, "the backend's answer is not valid HTTP", false),
        Phase::RequestBody(fault) => (
            match fault {
                BodyFault::TooLarge => Reason::ContentTooLarge,
                BodyFault::TimedOut => Reason::RequestTimeout,
                BodyFault::Malformed | BodyFault::ClientGone => Reason::BadRequest,
            },
            fault_detail(fault),
            false,
        ),
        Phase::Cancelled => (Reason::BadRequest, "the client left", false),
    };
    let client_gone = matches!(error.phase, Phase::Cancelled | Phase::RequestBody(BodyFault::ClientGone));
    let mut reject = Reject::new(reason, detail)
        .because(format_args!("backend {}: {}", lease.endpoint.backend, error.cause));
    reject.retry_after_s = wait.then_some(RETRY_AFTER_S);
    Failed { reject, client_gone, effort }
}

fn fault_detail(fault: BodyFault) -> &'static str {
    match fault {
        BodyFault::TooLarge => "the request's body is larger than this server takes",
        BodyFault::Malformed => "the request's chunked body is malformed",
        BodyFault::TimedOut => "the request's body came too slowly",
        BodyFault::ClientGone => "the client left before its body ended",
    }
}
