//! The store at scale: a million limits imported by COPY, looked up cold, and listed to the last page.
//!
//! `cargo bench --bench store` starts a throwaway PostgreSQL that syncs, and makes a SQLite file; `cargo bench --bench store
//! -- 100000` takes another number of limits.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, dead_code, unused_imports, unused_macros)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::clock::Clock;
use balancer::config;
use balancer::metrics::Metrics;
use balancer::store::cache::{EntryKind, Known, Pending};
use balancer::store::v1::{Actor, LimitFilter, MAX_IMPORTED};
use balancer::store::{Limits, Sources};
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::Limiter;
use balancer_limiter::terms::ClientLimit;
use support::postgres::Postgres;

const LOOKS: u32 = 2_000;
const PAGES: usize = 20;

fn main() {
    let rows = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    if let Some(server) = Postgres::start_with(&["fsync=on"], |_| {}) {
        run("PostgreSQL", &server.url(), rows);
    }
    let folder = tempfile::tempdir().expect("a folder");
    run("SQLite", &format!("sqlite:{}", folder.path().join("limits.db").display()), rows);
}

/// Every fourth one is an opaque id, the others are addresses.
fn id(n: u32) -> ClientId {
    let text = match n % 4 {
        0 => format!("tenant={n:08}"),
        _ => address(n).to_string(),
    };
    ClientId::parse(&text).expect("an id")
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 | n).into()
}

fn limit(n: u32) -> ClientLimit {
    ClientLimit::of_numbers(Limit { capacity: n % 100 + 1, rate: Rate::per_second(1_000_000) })
}

/// What `look` gives in the end.
fn waited<T>(limits: &Limits, look: impl Fn(Option<Pending>) -> Result<T, Pending>) -> T {
    look(None).unwrap_or_else(|pending| {
        pending.wait(limits.load_timeout());
        look(Some(pending)).expect("it has waited")
    })
}

fn open(url: &str) -> Arc<Limits> {
    let text = serde_json::json!({
        "backends": [{ "name": "a", "url": "http://127.0.0.1:9" }],
        "database": { "url": url, "timeout": "60s" },
        "cache": { "load_timeout": "10s" },
    });
    let config = config::from_text(&text.to_string(), Path::new("/")).expect("a configuration");
    let sources = Sources {
        database: &config.database,
        audit: config.audit,
        cache: &config.cache,
        rate_limit: &config.rate_limit,
    };
    let limiter = Arc::new(Limiter::new(1_000));
    Limits::start(&sources, limiter, Arc::new(Metrics::default()), Clock::real()).expect("a store")
}

fn run(name: &str, url: &str, rows: u32) {
    let limits = open(url);
    let actor = Actor("bench".into());
    for round in ["import", "the same again"] {
        let started = Instant::now();
        let numbers: Vec<u32> = (0..rows).collect();
        for chunk in numbers.chunks(MAX_IMPORTED) {
            let chunk = chunk.iter().map(|n| (id(*n), limit(*n))).collect();
            limits.import(chunk, &actor).expect("imported");
        }
        let secs = started.elapsed().as_secs_f64();
        println!("{name}: {round}: {rows} limits in {secs:.1} s, {:.0} a second", f64::from(rows) / secs);
    }
    limits.stop();

    // Anew, so that nothing is in the cache.
    let limits = open(url);
    let step = (rows / LOOKS / 4).max(1) * 4;
    let looked = |what: &str, look: &dyn Fn(u32) -> bool| {
        let one = |n: u32| {
            let started = Instant::now();
            assert!(look(n * step), "{what} {n}");
            started.elapsed()
        };
        report(&format!("{name}: cold look-up of {what}"), (0..LOOKS.min(rows / 4)).map(one).collect());
    };
    let find = |client: IpAddr| waited(&limits, |pending| limits.find(client, Some(9), 1, pending)).source;
    let find_key = |id: &str| waited(&limits, |pending| limits.find_key(id, 1, pending));
    looked("an address", &|n| find(address(n + 1)) == EntryKind::Client);
    looked("an opaque id", &|n| matches!(find_key(id(n).text()), Known::Entry(_)));
    looked("an address without a limit", &|n| {
        find(Ipv4Addr::from(0x0b00_0000 | n).into()) == EntryKind::Default
    });
    looked("a key that nobody knows", &|n| matches!(find_key(&format!("sha256:{n:032x}")), Known::Absent));
    let page = |filter: &LimitFilter, after: Option<&str>| {
        let times = (0..PAGES).map(|_| {
            let started = Instant::now();
            let found = limits.limits(filter, after, 100).expect("a page").len();
            assert_eq!(found, 100);
            started.elapsed()
        });
        times.collect()
    };
    let all = LimitFilter::default();
    report(&format!("{name}: the first page of 100"), page(&all, None));
    let last = id((rows - 1) / 4 * 4 - 400);
    report(&format!("{name}: the last page of 100"), page(&all, Some(last.text())));
    let prefix = LimitFilter { prefix: Some("tenant=".into()), ..LimitFilter::default() };
    report(&format!("{name}: the last page of 100 of a prefix"), page(&prefix, Some(last.text())));
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    println!("{what}: median {:.0} µs, p99 {:.0} µs of {}", at(50), at(99), times.len());
}
