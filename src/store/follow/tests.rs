//! Rounds one by one, between cores without threads on one database.

use std::sync::{Arc, OnceLock};

use super::*;
use crate::clock::Clock;
use crate::store::backends::{BackendRow, BackendSettings};
use crate::store::ops::{Change, To};
use crate::store::session::Access;
use crate::store::tests::bench::BenchStore;
use crate::store::tests::{id, limit, tester};
use crate::store::v1::Condition;
use balancer_limiter::limiter::Ask;
use balancer_limiter::terms::{BucketId, ClientLimit, Plan, PlanName, Terms};

fn write(core: &Core, client_id: &str, to: To) {
    let wish = Change { id: id(client_id), to, condition: Condition::None };
    core.write(&[wish], &tester(), false).unwrap();
}

fn plain(n: u32) -> ClientLimit {
    ClientLimit::of_numbers(limit(n))
}

fn plan(name: &str, n: u32) -> Plan {
    Plan { name: PlanName::parse(name).unwrap(), terms: Terms::of_numbers(limit(n)) }
}

fn put_plan(core: &Core, name: &str, n: u32) {
    core.put_plan(&plan(name, n), &Condition::None, false, &tester()).unwrap();
}

fn put_backend(core: &Core, name: &str) {
    let put =
        &mut |_: Option<&BackendRow>| Ok(Some(BackendSettings { weight: Some(3), ..Default::default() }));
    core.write_backend(StoreOp::Create, name, put, &tester()).unwrap();
}

/// Asks for what is stored for a client, as its request would.
fn hold(core: &Core, client: &str) {
    let place = CacheGroup::of(&id(client), core.ipv6_prefix).unwrap();
    let rows = ops::load(core.store.as_ref(), core.within, Access::Read, &place).unwrap();
    core.cache.put(place, entries(rows));
}

/// All that a process knows.
fn known(core: &Core) -> (Vec<String>, Vec<String>) {
    let mut limits: Vec<_> = core.remembered().lines().map(str::to_owned).collect();
    limits.sort_unstable();
    (limits, core.backends.rows().iter().map(|row| row.name.clone()).collect())
}

#[test]
fn one_round_brings_every_kind_of_change_and_needs_no_request() {
    let store = BenchStore::empty();
    let (here, there) = (store.started(), store.started());
    // That these have no limit is known there.
    ["1.2.3.4", "2001:db8::1", "tenant=a", "tenant=b"].into_iter().for_each(|client| hold(&there, client));
    let of_plan = || ClientLimit { plan: Some(plan("free", 0).name), own: Terms::default(), ..plain(1) };
    let changes: [(&str, &dyn Fn()); 9] = [
        ("a plan", &|| put_plan(&here, "free", 1)),
        ("a range", &|| write(&here, "10.0.0.0/8", To::New(plain(1)))),
        ("a limit", &|| write(&here, "1.2.3.4:7", To::New(of_plan()))),
        ("an opaque id", &|| write(&here, "tenant=a", To::New(plain(2)))),
        ("a backend", &|| put_backend(&here, "a")),
        ("another plan", &|| put_plan(&here, "free", 2)),
        ("another limit", &|| write(&here, "1.2.3.4:7", To::Put(plain(3)))),
        ("no range", &|| write(&here, "10.0.0.0/8", To::Gone)),
        ("all at once", &|| {
            put_plan(&here, "gold", 1);
            write(&here, "10.0.0.0/16", To::New(plain(4)));
            write(&here, "2001:db8::1", To::New(plain(5)));
            write(&here, "tenant=a", To::Gone);
            write(&here, "tenant=b", To::New(plain(6)));
            put_backend(&here, "b");
        }),
    ];
    for (what, change) in changes {
        change();
        assert_ne!(known(&there), known(&here), "{what}: not yet");
        there.follow().unwrap();
        assert_eq!(known(&there), known(&here), "{what}");
    }
}

/// Takes five tokens of a client.
fn spend(core: &Core, client: &str) {
    let address = client.parse().unwrap();
    let found = core.found(core.cache.peek(address, None), address);
    let ask = Ask { cost: 5, room: found.room, ..Ask::of(found.granted.grant().unwrap()) };
    assert!(core.limiter.acquire(found.client, ask, core.clock.moment()).first().allowed);
}

/// The whole tokens that a client has left; `None`: it has all of them.
fn left(core: &Core, client: &str) -> Option<u32> {
    let address = client.parse().unwrap();
    let found = core.found(core.cache.peek(address, None), address);
    let bucket = core.limiter.peek(found.client, BucketId::of("default"), core.clock.moment());
    bucket.map(|bucket| bucket.whole())
}

#[test]
fn a_limit_that_another_process_changes_moves_the_level_here_too() {
    let store = BenchStore::empty();
    let here = store.started();
    write(&here, "1.2.3.4", To::New(plain(3)));
    let there = store.started();
    hold(&there, "1.2.3.4");
    ["1.2.3.4", "1.2.3.5"].into_iter().for_each(|client| spend(&there, client));
    let levels = || (left(&there, "1.2.3.4"), left(&there, "1.2.3.5"));
    assert_eq!(levels(), (Some(25), Some(85)));
    write(&here, "1.2.3.4", To::Put(plain(4)));
    there.follow().unwrap();
    assert_eq!(levels(), (Some(35), Some(85)));
    write(&here, "1.2.3.4", To::Gone);
    there.follow().unwrap();
    assert_eq!(levels(), (Some(85), Some(85)));
}

#[test]
fn a_reset_fills_the_buckets_of_those_whom_the_limit_decides_about() {
    let clients = ["9.9.9.9", "10.9.9.9", "10.1.0.1", "10.2.0.1", "172.16.0.1"];
    for (reset, filled) in [
        ("10.0.0.0/8", "10.9.9.9"),
        // In that range, but with a narrower one.
        ("10.1.0.0/16", "10.1.0.1"),
        // In that range, but with a limit of its own.
        ("10.2.0.1", "10.2.0.1"),
        // One bucket for all of the range.
        ("172.16.0.0/12", "172.16.0.1"),
    ] {
        let store = BenchStore::empty();
        let here = store.started();
        for range in ["10.0.0.0/8", "10.1.0.0/16"] {
            write(&here, range, To::New(plain(1)));
        }
        write(&here, "172.16.0.0/12", To::New(ClientLimit { shared: true, ..plain(1) }));
        write(&here, "10.2.0.1", To::New(plain(1)));
        let there = store.started();
        hold(&there, "10.2.0.1");
        clients.iter().for_each(|client| spend(&there, client));
        here.note_reset(&id(reset), &tester()).unwrap();
        there.follow().unwrap();
        let full: Vec<_> = clients.iter().filter(|client| left(&there, client).is_none()).collect();
        assert_eq!(full, [&filled], "{reset}");
    }
}

#[test]
fn when_this_process_writes_during_each_attempt_to_read_the_next_round_reads_everything() {
    for table in ["FROM plans", "FROM backends"] {
        let store = BenchStore::empty();
        write(&store.started(), "10.0.0.0/8", To::New(plain(1)));
        let core: Arc<OnceLock<Arc<Core>>> = Arc::default();
        let writer = Arc::clone(&core);
        let busy = store.with_before(move |sql| {
            if let Some(core) = writer.get().filter(|_| sql.contains(table)) {
                core.book.lock().writes += 1;
            }
            Ok(())
        });
        let core = core.get_or_init(|| busy.core(&Clock::manual()).0);
        core.follow().unwrap();
        assert_eq!((core.ranges().len(), core.book.lock().followed), (1, None), "{table}");
    }
}
