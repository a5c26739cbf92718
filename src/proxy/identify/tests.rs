use std::path::Path;

use super::*;
use crate::clock::Clock;
use crate::config::{self, DatabaseUrl};
use crate::proxy::pools::{Pool, Pools};
use crate::store::Sources;
use crate::store::v1::Actor;
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::Limiter;
use balancer_pool::backends::{Backends, Settings};
use balancer_pool::strategy::Strategy;

/// A store in memory, and the policy of a configuration whose limits are `rate_limit`.
fn store(rate_limit: &str) -> (Arc<Limits>, ProxyPolicy) {
    let text = format!(
        r#"{{"backends": [{{"name": "a", "url": "http://127.0.0.1:9"}}], "cache": {{"load_timeout": "10s"}}, "rate_limit": {rate_limit}}}"#
    );
    let mut config = config::from_text(&text, Path::new("/")).unwrap();
    config.database.url = DatabaseUrl::Memory;
    let sources = Sources {
        database: &config.database,
        audit: config.audit,
        cache: &config.cache,
        rate_limit: &config.rate_limit,
    };
    let (limiter, metrics) = (Arc::new(Limiter::new(1_000)), Metrics::new());
    let limits = Limits::start(&sources, limiter, Arc::clone(&metrics), Clock::real()).unwrap();
    let pool = Pool::new(Backends::new(&Settings::of(Strategy::First), &[]), &metrics, Arc::new(()));
    (limits, ProxyPolicy::of(&config.rate_limit, Pools::new(pool, [])))
}

/// What became of a request: who it is or which answer it gets, the keys' results, and how often it waited.
#[derive(Debug)]
struct Story {
    end: Result<Option<Arc<str>>, Reason>,
    tried: Vec<Option<KeyResult>>,
    waits: usize,
}

fn story(limits: &Limits, policy: &ProxyPolicy, fields: &Fields) -> Story {
    let address = "1.2.3.4".parse().unwrap();
    let client = ClientAddress { address, port: Some(7), peer_trusted: false };
    let (mut tried, mut waits, mut waited) = (Vec::new(), 0, None);
    let end = loop {
        let note = |one: Tried<'_>| tried.push(one.result);
        match identify(limits, policy, &client, Evidence { fields, certificate: None }, 1, waited, note) {
            Ok(Identified { found, key }) => break Ok(key.or(found.entry)),
            Err(Stopped::Refused(reject)) => break Err(reject.reason),
            Err(Stopped::Waits(waiting)) => {
                waits += 1;
                waited = Some(waiting.block(limits));
            }
        }
    };
    Story { end, tried, waits }
}

#[test]
fn a_request_waits_once_for_each_identity_and_each_is_told_once() {
    let (limits, policy) = store(r#"{"key": ["header:a", "header:b", "header:c"]}"#);
    let id = ClientId::parse("1.2.3.4").unwrap();
    let limit = Limit { capacity: 1, rate: Rate::per_second(1) };
    limits.create(&id, limit, &Actor("tester".into())).unwrap();
    // A load may be quicker than the look at it: until both keys were waited for.
    for n in 1.. {
        let mut fields = Fields::new();
        fields.push("a", format!("0123456789abcdef-{n}").as_bytes());
        fields.push("c", format!("fedcba9876543210-{n}").as_bytes());
        // The address is in memory, by the write.
        let first = story(&limits, &policy, &fields);
        let again = story(&limits, &policy, &fields);
        for Story { end, tried, .. } in [&first, &again] {
            assert_eq!(*end, Ok(Some("1.2.3.4".into())));
            assert_eq!(*tried, [Some(KeyResult::Unknown), None, Some(KeyResult::Unknown), None]);
        }
        let counters = limits.cache_counters();
        assert_eq!((counters.misses, counters.hits, counters.timeouts), (2 * n, 4 * n, 0));
        assert_eq!(again.waits, 0);
        if first.waits == 2 {
            break;
        }
    }
}

#[test]
fn what_a_wait_brings_decides_on_the_key() {
    for (unknown_keys, ends_with) in
        [("401", Err(Reason::Unauthorized)), ("own_bucket", Ok(true)), ("next", Ok(false))]
    {
        let (limits, policy) =
            store(&format!(r#"{{"key": ["header:a"], "unknown_keys": "{unknown_keys}"}}"#));
        for n in 1.. {
            let mut fields = Fields::new();
            fields.push("a", format!("0123456789abcdef-{n}").as_bytes());
            let Story { end, tried, waits } = story(&limits, &policy, &fields);
            assert_eq!(end.map(|key| key.is_some()), ends_with, "{unknown_keys}");
            assert_eq!(tried.first(), Some(&Some(KeyResult::Unknown)), "{unknown_keys}");
            if waits > 0 {
                break;
            }
        }
    }
}
