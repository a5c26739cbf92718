//! Who is it: the keys that a request shows, in the configured order, then its address.
//!
//! A key counts when the store knows it. One that nobody gave a limit is worth nothing: it would be the easiest way to a
//! fresh bucket.

use std::net::IpAddr;
use std::sync::Arc;

use crate::error::Reject;
use crate::metrics::{KeyResult, Metrics};
use crate::proxy::policy::ProxyPolicy;
use crate::store::cache::Found;
use balancer_http::fields::Fields;
use balancer_http::message::Reason;
use balancer_limiter::identity::{ClientAddress, KeySource, Shown, UnknownKeys};
use balancer_time::Nanos;

/// What a store says of a key's id.
#[derive(Debug)]
pub enum KeyFound {
    /// It has a limit.
    Known(Found),
    /// It has none.
    Absent,
    /// That could not be learnt in time, or the store is down.
    Unknown,
}

/// Finds the entry that decides on a client.
pub trait FindLimit: Send + Sync {
    /// Who the client counts as, and what it may. `port`: the TCP peer's, when the peer is the client. Waits at most
    /// `cache.load_timeout`.
    fn find(&self, client: IpAddr, port: Option<u16>, now: Nanos) -> Found;

    /// The same for the id of a key that a request shows.
    fn find_key(&self, id: &str, now: Nanos) -> KeyFound;

    /// What a key gets that has no limit, where it has a bucket of its own.
    fn of_unknown_key(&self, id: &str) -> Found;
}

/// Who a request counts as.
pub struct Identified {
    /// Whose bucket, and what it gets.
    pub found: Found,
    /// The id of the key that decided, where one did: what the log calls the client.
    pub key: Option<Arc<str>>,
}

/// Finds who a request counts as. Waits at most `cache.load_timeout` for each key. `tried` hears of each candidate.
///
/// # Errors
/// 400 where one key has several values, or is written so that backends read it differently. 401 for a key without a limit or
/// that can be none, where `rate_limit.unknown_keys` says so; 503 there while the store can't tell whether a key has one.
pub fn identify(
    limits: &dyn FindLimit,
    policy: &ProxyPolicy,
    client: &ClientAddress,
    fields: &Fields,
    now: Nanos,
    mut tried: impl FnMut(Tried<'_>),
) -> Result<Identified, Reject> {
    if let Some(source) = policy.keys.iter().find(|source| source.is_blurred(fields, client.peer_trusted)) {
        tried(Tried { id: None, result: Some(KeyResult::Unusable) });
        return Err(blurred(source));
    }
    for source in &policy.keys {
        let id = match source.shown(fields, client.peer_trusted) {
            Shown::Nothing => {
                tried(Tried { id: None, result: None });
                continue;
            }
            Shown::Unusable => {
                tried(Tried { id: None, result: Some(KeyResult::Unusable) });
                match policy.unknown_keys {
                    UnknownKeys::Refused => return Err(unknown()),
                    UnknownKeys::Next | UnknownKeys::OwnBucket => continue,
                }
            }
            Shown::Several => return Err(blurred(source)),
            Shown::Id(id) => id,
        };
        let found = limits.find_key(&id, now);
        let result = match &found {
            KeyFound::Known(_) => KeyResult::Matched,
            KeyFound::Absent | KeyFound::Unknown => KeyResult::Unknown,
        };
        tried(Tried { id: Some(&id), result: Some(result) });
        match (found, policy.unknown_keys) {
            (KeyFound::Known(found), _) => {
                let key = found.entry.clone().or_else(|| Some(Arc::from(id)));
                return Ok(Identified { found, key });
            }
            (KeyFound::Absent, UnknownKeys::Refused) => return Err(unknown()),
            (KeyFound::Absent | KeyFound::Unknown, UnknownKeys::OwnBucket) => {
                return Ok(Identified { found: limits.of_unknown_key(&id), key: Some(Arc::from(id)) });
            }
            (KeyFound::Unknown, UnknownKeys::Refused) => return Err(untold()),
            (KeyFound::Absent | KeyFound::Unknown, UnknownKeys::Next) => {}
        }
    }
    let found = limits.find(client.address, client.port, now);
    tried(Tried { id: None, result: None });
    Ok(Identified { found, key: None })
}

fn unknown() -> Reject {
    Reject::new(Reason::Unauthorized, "this key is not known here")
}

/// Seconds after which the store may answer again.
const RETRY_AFTER_S: u64 = 5;

/// Let through by its address, a key that was taken away would be worth something again.
fn untold() -> Reject {
    Reject::new(Reason::Unavailable, "whether this key is known can't be told now")
        .because("the store did not say whether a key has a limit, and rate_limit.unknown_keys is 401")
        .retry_after(RETRY_AFTER_S)
}

/// Names the kind of key, and nothing of its values: they are secrets.
fn blurred(source: &KeySource) -> Reject {
    let detail = format!("the {} comes with several different values, or can be read as such", source.kind());
    Reject::new(Reason::BadRequest, detail)
}

/// One identity that was tried.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// Its id, where it had one.
    pub id: Option<&'a str>,
    /// What came of the key; `None`: the request shows none there.
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
