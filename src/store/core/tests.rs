//! Calls, doubts and what memory holds, on a core without threads: nothing but the test asks the database.

use std::collections::BTreeMap;

use super::*;
use crate::metrics::{Family, SeriesValue};
use crate::store::backends::BackendSettings;
use crate::store::ops::{Change, To};
use crate::store::tests::bench::BenchStore;
use crate::store::tests::{id, tester};
use crate::store::v1::Condition;
use balancer_limiter::limit::{Limit, Rate};

/// A core on an empty database in memory.
fn core() -> Arc<Core> {
    BenchStore::empty().started()
}

fn numbers(n: u32) -> ClientLimit {
    ClientLimit::of_numbers(Limit { capacity: n, rate: Rate::per_second(1) })
}

fn plan(name: &str, n: u32) -> Plan {
    Plan { name: PlanName::parse(name).unwrap(), terms: numbers(n).own }
}

fn wish(text: &str, to: To) -> Change {
    Change { id: id(text), to, condition: Condition::None }
}

fn put(core: &Core, text: &str, limit: ClientLimit) {
    core.write(&[wish(text, To::Put(limit))], &tester(), false).unwrap();
}

#[test]
fn what_the_database_answers_decides_what_is_asked_of_it() {
    use StoreState::{Full, ReadOnly, Up};
    let refused = |state| Err(StoreError::Refused { state, cause: "a test's".into() });
    let (down, strange) = (StoreError::down("a test's"), StoreError::Schema("a test's".into()));
    let core = core();
    // What the database did with the last change, a call, its result; then: what it is taken to do, and whether it is trusted.
    for (before, op, result, after, trusted) in [
        (Up, StoreOp::Update, refused(Full), Full, true),
        (Full, StoreOp::Update, refused(ReadOnly), ReadOnly, true),
        // It is locked for now, which says nothing about changes.
        (Full, StoreOp::Update, refused(Up), Full, true),
        // Only a change that was done shows that it takes changes.
        (Full, StoreOp::Get, Ok(()), Full, true),
        (Full, StoreOp::Delete, Err(StoreError::NotFound), Full, true),
        (Full, StoreOp::Create, Ok(()), Up, true),
        (ReadOnly, StoreOp::Update, Ok(()), Up, true),
        (ReadOnly, StoreOp::Delete, Ok(()), Up, true),
        (ReadOnly, StoreOp::Batch, Ok(()), Up, true),
        (Up, StoreOp::Load, Err(down.clone()), Up, false),
        (Full, StoreOp::Get, Err(strange), Full, false),
        // After a probe, the watch tells.
        (Up, StoreOp::Probe, Err(down), Up, true),
    ] {
        core.breaker.close();
        core.breaker.refuses(before, "a test's");
        assert_eq!(core.ask(op, |_| result.clone()), result);
        let told = (core.breaker.what(), core.breaker.trusted());
        assert_eq!(told, (after, trusted), "{before:?} {op:?} {result:?}");
    }
}

#[test]
fn a_change_is_tried_only_after_a_refusal_and_tells_what_the_database_does_now() {
    let answer = Arc::new(Mutex::new(None));
    let database = BenchStore::empty();
    database.started();
    let core = database.with_before({
        let answer = Arc::clone(&answer);
        move |_| {
            answer.lock().map_or(Ok(()), |state| Err(StoreError::Refused { state, cause: "a test's".into() }))
        }
    });
    let core = core.core(&Clock::manual()).0;
    core.breaker.close();
    let becomes = |state, expected| {
        *answer.lock() = state;
        core.try_change();
        assert_eq!(core.breaker.what(), expected, "{state:?}");
    };
    // Nothing was refused, so nothing is tried.
    becomes(Some(StoreState::ReadOnly), StoreState::Up);
    core.breaker.refuses(StoreState::Full, "a test's");
    becomes(Some(StoreState::ReadOnly), StoreState::ReadOnly);
    // It is locked for now, which says nothing about changes.
    becomes(Some(StoreState::Up), StoreState::ReadOnly);
    becomes(None, StoreState::Up);
}

#[test]
fn a_write_stays_in_doubt_until_the_database_tells_what_became_of_it() {
    let database = BenchStore::empty();
    let core = database.started();
    let place = CacheGroup::of(&id("1.2.3.4"), 64).unwrap();
    put(&core, "1.2.3.4", numbers(1));
    core.cache.put(place.clone(), Vec::new());
    let known = || core.cache.peek("1.2.3.4".parse().unwrap(), None);
    assert!(!core.has_doubts());
    core.doubt([place]);
    database.by_hand("ALTER TABLE limits RENAME TO away");
    core.settle();
    assert!(core.has_doubts() && matches!(known(), Known::Absent));
    database.by_hand("ALTER TABLE away RENAME TO limits");
    core.settle();
    assert!(!core.has_doubts() && matches!(known(), Known::Entry(_)));
}

#[test]
fn what_was_read_before_a_write_of_this_process_is_not_put_in_force() {
    let core = core();
    let writes: [(&str, &dyn Fn()); 5] = [
        ("a range", &|| put(&core, "10.0.0.0/8", numbers(1))),
        ("a plan", &|| drop(core.put_plan(&plan("p", 1), &Condition::None, true, &tester()).unwrap())),
        ("the end of a plan", &|| core.remove_plan(&plan("p", 1).name, &Condition::None, &tester()).unwrap()),
        ("a backend", &|| {
            core.write_backend(StoreOp::Update, "b", &mut |_| Ok(Some(BackendSettings::default())), &tester())
                .unwrap()
        }),
        ("what was remembered", &|| assert_eq!(core.recall(""), 0)),
    ];
    for (what, write) in writes {
        let read = core.book.lock().writes;
        assert!(core.replace_plans(Vec::new(), read));
        write();
        assert!(!core.replace_plans(Vec::new(), read), "{what}");
    }
}

/// How often each kind of call was measured.
fn counted(core: &Core) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    core.metrics.visit(&mut |family, labels, value| {
        if let (Family::StoreOperationDurationSeconds, SeriesValue::Histogram(sum)) = (family, value) {
            all.extend(
                StoreOp::ALL.iter().filter(|op| op.name() == labels[0].1).map(|op| (op.name(), sum.count)),
            );
        }
    });
    all
}

#[test]
fn a_write_is_measured_as_what_it_does() {
    let core = core();
    for (to, is_batch, op) in [
        (To::New(numbers(1)), false, "create"),
        (To::Put(numbers(2)), false, "update"),
        (To::Gone, false, "delete"),
        (To::New(numbers(1)), true, "batch"),
        (To::Put(numbers(2)), true, "batch"),
        (To::Gone, true, "batch"),
    ] {
        let mut expected = counted(&core);
        *expected.get_mut(op).unwrap() += 1;
        core.write(&[wish("a", to.clone())], &tester(), is_batch).unwrap();
        assert_eq!(counted(&core), expected, "{to:?} {is_batch}");
    }
}

#[test]
fn memory_has_a_new_version_with_everything_that_it_learns() {
    let core = core();
    let mut last = core.memory_version();
    let mut changes = |what: &str| {
        let before = std::mem::replace(&mut last, core.memory_version());
        assert_eq!(core.memory_version() != before, !what.starts_with("nothing"), "{what}");
    };
    let replace = |plans: Vec<Plan>| {
        let writes = core.book.lock().writes;
        assert!(core.replace_plans(plans, writes));
    };
    changes("nothing at all");
    put(&core, "1.2.3.4", numbers(1));
    changes("an entry");
    put(&core, "10.0.0.0/8", numbers(1));
    changes("a range");
    replace(vec![plan("p", 1)]);
    changes("a plan that was read");
    replace(vec![plan("p", 1)]);
    changes("nothing new was read");
    core.change_plan(&plan("p", 1).name, None);
    changes("the end of a plan");
}

#[test]
fn what_memory_holds_is_put_back_from_its_text() {
    let before = core();
    let of_plan = ClientLimit { plan: Some(plan("p", 1).name), own: Terms::default(), ..numbers(1) };
    before.put_plan(&plan("p", 7), &Condition::None, true, &tester()).unwrap();
    put(&before, "10.0.0.0/8", of_plan);
    for (text, n) in [("1.2.3.4", 1), ("1.2.3.4:80", 2), ("2001:db8::1", 3), ("tenant=ä", 4)] {
        put(&before, text, numbers(n));
    }
    let sorted = |core: &Core| {
        let text = core.remembered();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&before).len(), 6);

    let after = core();
    let capacity = |client: &str, port| {
        let address: IpAddr = client.parse().unwrap();
        let found = after.found(after.cache.peek(address, port), address);
        found.granted.grant().and_then(|grant| grant.terms.first()).map(|limit| limit.capacity)
    };
    assert_eq!(after.recall(&before.remembered()), 6);
    assert_eq!(sorted(&after), sorted(&before));
    for (client, port, of) in
        [("10.1.1.1", None, 7), ("1.2.3.4", Some(80), 2), ("1.2.3.4", None, 1), ("2001:db8::1", None, 3)]
    {
        assert_eq!(capacity(client, port), Some(of), "{client} {port:?}");
    }
    // The client of a line that can't be read gets the default; a line without one is left out.
    assert_eq!(after.recall("nonsense\n{\"client_id\":\"1.2.3.4\",\"speed\":1}\n{\"client_id\":\"\"}\n"), 1);
    assert_eq!((capacity("1.2.3.4", None), capacity("10.1.1.1", None)), (Some(90), Some(7)));
}
