//! Finds out which client a request comes from: by the keys that it shows, in the configured order, then by its
//! address.
//!
//! A key counts only if the store has a limit for it, unless `rate_limit.unknown_keys` says otherwise. If any key
//! counted, a client could make one up for each request and always get a fresh bucket.

use std::sync::Arc;

use crate::error::Reject;
use crate::metrics::{KeyResult, Metrics};
use crate::proxy::policy::ProxyPolicy;
use crate::store::Limits;
use crate::store::cache::{Found, Known, Pending};
use balancer_http::fields::Fields;
use balancer_http::message::{ClientCertificate, Reason, RequestHead};
use balancer_limiter::identity::{ClientAddress, ClientKey, KeySource, ShownKey, UnknownKeys};
use balancer_time::Nanos;

/// A request that has to wait for the database, and how far it had come.
pub struct Waiting {
    /// How many keys were tried before the one that is being looked up. They were counted already.
    passed: usize,
    /// The look-up.
    pub pending: Pending,
}

impl Waiting {
    /// Waits on the calling thread, at most `cache.load_timeout`.
    pub fn block(self, limits: &Limits) -> Self {
        self.pending.wait(limits.load_timeout());
        self
    }
}

/// Why a request is not identified.
pub enum Stopped {
    /// It is refused.
    Refused(Reject),
    /// It has to wait for the database.
    Waits(Waiting),
}

impl From<Reject> for Stopped {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// Who a request counts as.
pub struct Identified {
    /// Whose bucket it is, and which limit it has.
    pub found: Found,
    /// The id of the key that decided, where one did. The access log calls the client by it.
    pub key: Option<Arc<str>>,
}

/// Where the keys of a request are looked for.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Its fields.
    pub fields: &'a Fields,
    /// The client's own certificate, verified.
    pub certificate: Option<&'a ClientCertificate>,
}

impl<'a> Evidence<'a> {
    /// From a request as it came.
    pub fn of(head: &'a RequestHead) -> Self {
        let certificate = head.secure.as_deref().and_then(|session| session.certificate.as_ref());
        Self { fields: &head.fields, certificate }
    }
}

/// Finds out who a request counts as. Never blocks. `waited`: the [`Waiting`] that an earlier call for this request
/// returned, once the request has waited for it (at most [`Limits::load_timeout`]); all other arguments must then be as
/// they were. `tried` is called once for each candidate, however often the request has to wait.
///
/// # Errors
/// [`Stopped::Waits`] while the store has to be asked. A refusal with 400 where one key has several values, or is
/// written so that backends may read it differently. Where `rate_limit.unknown_keys` is `401`: with 401 for a key that
/// is malformed or has no limit, with 503 while the store can't tell whether it has one.
pub fn identify(
    limits: &Limits,
    policy: &ProxyPolicy,
    client: &ClientAddress,
    evidence: Evidence<'_>,
    now: Nanos,
    waited: Option<Waiting>,
    mut tried: impl FnMut(Tried<'_>),
) -> Result<Identified, Stopped> {
    let Evidence { fields, certificate } = evidence;
    let begins = waited.is_none();
    let blurs = |source: &&KeySource| begins && source.is_blurred(fields, client.peer_trusted);
    if let Some(source) = policy.keys.iter().find(blurs) {
        tried(Tried { id: None, result: Some(KeyResult::Unusable) });
        return Err(blurred(source).into());
    }
    let (from, mut waited) = waited.map_or((0, None), |waiting| (waiting.passed, Some(waiting.pending)));
    for (passed, source) in policy.keys.iter().enumerate().skip(from) {
        let id = match source.shown(fields, client.peer_trusted, certificate) {
            ShownKey::Nothing => {
                tried(Tried { id: None, result: None });
                continue;
            }
            ShownKey::Unusable => {
                tried(Tried { id: None, result: Some(KeyResult::Unusable) });
                match policy.unknown_keys {
                    UnknownKeys::Refused => return Err(unknown().into()),
                    UnknownKeys::Next | UnknownKeys::OwnBucket => continue,
                }
            }
            ShownKey::Several => return Err(blurred(source).into()),
            ShownKey::Id(id) => id,
        };
        let known = limits.find_key(&id, now, waited.take());
        let known = known.map_err(|pending| Stopped::Waits(Waiting { passed, pending }))?;
        let result = match &known {
            Known::Entry(_) => KeyResult::Matched,
            Known::Absent | Known::Unknown => KeyResult::Unknown,
        };
        tried(Tried { id: Some(&id), result: Some(result) });
        match (known, policy.unknown_keys) {
            (Known::Entry(hit), _) => {
                let found = limits.of_entry(hit);
                let key = found.entry.clone().or_else(|| Some(Arc::from(id)));
                return Ok(Identified { found, key });
            }
            (Known::Absent, UnknownKeys::Refused) => return Err(unknown().into()),
            (Known::Absent | Known::Unknown, UnknownKeys::OwnBucket) => {
                let found = limits.of_default(ClientKey::digest(id.as_bytes()));
                return Ok(Identified { found, key: Some(Arc::from(id)) });
            }
            (Known::Unknown, UnknownKeys::Refused) => return Err(untold().into()),
            (Known::Absent | Known::Unknown, UnknownKeys::Next) => {}
        }
    }
    let found = limits.find(client.address, client.port, now, waited);
    let found = found.map_err(|pending| Stopped::Waits(Waiting { passed: policy.keys.len(), pending }))?;
    tried(Tried { id: None, result: None });
    Ok(Identified { found, key: None })
}

fn unknown() -> Reject {
    Reject::new(Reason::Unauthorized, "this key is not known here")
}

/// Seconds after which the store may answer again.
const RETRY_AFTER_S: u64 = 5;

/// Without this refusal the request would be admitted by its address: a key that was revoked would work again while the
/// store does not answer.
fn untold() -> Reject {
    Reject::new(Reason::Unavailable, "whether this key is known can't be told now")
        .because("the store did not say whether a key has a limit, and rate_limit.unknown_keys is 401")
        .retry_after(RETRY_AFTER_S)
}

/// Says which kind of key it is, and none of its values, which are secrets.
fn blurred(source: &KeySource) -> Reject {
    let detail = format!("the {} comes with several different values, or can be read as such", source.kind());
    Reject::new(Reason::BadRequest, detail)
}

/// One identity that was tried.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// Its id, where it had one.
    pub id: Option<&'a str>,
    /// What came of the key; `None`: the request has none in that place, or it is the address.
    pub result: Option<KeyResult>,
}

/// Counts what came of keys.
pub fn counter(metrics: &Metrics) -> impl FnMut(Tried<'_>) + '_ {
    |tried| {
        if let Some(result) = tried.result {
            metrics.key(result);
        }
    }
}

#[cfg(test)]
mod tests;
