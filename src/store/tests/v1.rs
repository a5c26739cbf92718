//! Limits with plans and several buckets, plans, batches, and who changed what.

use std::sync::Arc;

use super::super::v1::{Actor, BatchError, BatchOp, Condition, LimitFilter, LimitRow, Put};
use super::super::{Limits, StoreError};
use super::start::by_hand;
use super::{PATIENCE, Setup, find, id, limit, on_both, tester};
use balancer_importance::Priority;
use balancer_limiter::importance::GivenImportance;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::{BucketName, BucketSpec, ClientLimit, Mode, Plan, PlanName, Reset, Terms};

fn bucket(name: &str, capacity: u32, per_secs: u32) -> BucketSpec {
    let limit = Limit { capacity, rate: Rate { micro: u64::from(capacity) * 1_500_000, per_secs } };
    BucketSpec::new(BucketName::parse(name).unwrap(), limit)
}

/// A limit that has every member that a limit can have.
pub(super) fn rich() -> ClientLimit {
    let mut day = bucket("per day", 10_000, 86_400);
    (day.mode, day.reset) = (Mode::Shadow, Some(Reset::Day));
    let importance = GivenImportance { weight: Some(1_000), priority: Some(Priority::Background) };
    let own = Terms { buckets: Arc::new([bucket("s\"ec", 10, 1), day]), max_in_flight: Some(20), importance };
    ClientLimit { plan: None, own, exempt: false, shared: true, per_instance: true }
}

pub(super) fn name(text: &str) -> PlanName {
    PlanName::parse(text).unwrap()
}

pub(super) fn plan(text: &str, capacity: u32) -> Plan {
    let importance = GivenImportance { weight: Some(7), priority: Some(Priority::Critical) };
    let terms =
        Terms { buckets: Arc::new([bucket("minute", capacity, 60)]), max_in_flight: Some(3), importance };
    Plan { name: name(text), terms }
}

pub(super) fn of_plan(text: &str) -> ClientLimit {
    ClientLimit {
        plan: Some(name(text)),
        own: Terms::default(),
        exempt: false,
        shared: false,
        per_instance: false,
    }
}

pub(super) fn plain(n: u32) -> ClientLimit {
    ClientLimit::of_numbers(limit(n))
}

fn create(limits: &Limits, text: &str, limit: &ClientLimit) -> LimitRow {
    limits.create_limit(&id(text), limit, &tester()).unwrap()
}

#[test]
fn every_trait_of_a_limit_and_a_plan_survives_the_database() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create_plan(&plan("früh/🎉", 7), &tester()).unwrap();
        let exempt = ClientLimit {
            exempt: true,
            own: Terms {
                importance: GivenImportance { weight: Some(2), priority: None },
                ..Terms::default()
            },
            ..plain(1)
        };
        let rows = [
            ("10.0.0.0/8", rich()),
            ("2001:db8::1", of_plan("früh/🎉")),
            ("tenant=a/b", exempt),
            ("1.2.3.4:5", plain(3)),
        ];
        for (text, limit) in &rows {
            let row = create(&limits, text, limit);
            assert_eq!((row.client_id.as_str(), &row.limit), (*text, limit));
            assert_eq!(limits.limit(&id(text)), Ok(row));
        }
        limits.stop();
        let limits = setup.start().unwrap();
        for (text, limit) in &rows {
            assert_eq!(limits.limit(&id(text)).unwrap().limit, *limit);
        }
        assert_eq!(limits.plan(&name("früh/🎉")).unwrap().plan, plan("früh/🎉", 7));
        assert_eq!(limits.plan(&name("gold")), Err(StoreError::NotFound));
    });
}

#[test]
fn the_fixed_calls_see_the_first_bucket_and_take_a_client_off_its_plan() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create_plan(&plan("free", 7), &tester()).unwrap();
        create(&limits, "1.2.3.4", &of_plan("free"));
        create(&limits, "10.0.0.0/8", &rich());
        let numbers = |text: &str| limits.get(&id(text)).unwrap().limit;
        assert_eq!(numbers("1.2.3.4"), bucket("minute", 7, 60).limit);
        assert_eq!(numbers("10.0.0.0/8"), bucket("x", 10, 1).limit);
        assert_eq!(
            limits.list(None, 10).unwrap().iter().map(|row| row.limit.capacity).collect::<Vec<_>>(),
            [7, 10]
        );
        limits.update(&id("1.2.3.4"), limit(2), &tester()).unwrap();
        assert_eq!(limits.limit(&id("1.2.3.4")).unwrap().limit, plain(2));
        limits.update(&id("10.0.0.0/8"), limit(2), &tester()).unwrap();
        let kept = limits.limit(&id("10.0.0.0/8")).unwrap().limit;
        assert_eq!((kept.own.max_in_flight, kept.shared, kept.own.buckets.len()), (Some(20), true, 1));
        assert_eq!(kept.own.importance, rich().own.importance);
        limits.delete(&id("1.2.3.4"), &tester()).unwrap();
        assert_eq!(limits.limit(&id("1.2.3.4")), Err(StoreError::NotFound));
    });
}

#[test]
fn a_condition_decides_whether_a_write_happens() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let put = |text: &str, n: u32, condition: &Condition| {
            limits
                .put_limit(&id(text), &plain(n), condition, &tester())
                .map(|Put { created, row }| (created, row.version))
        };
        assert_eq!(put("a", 1, &Condition::Exists), Err(StoreError::Precondition));
        let (created, first) = put("a", 1, &Condition::Absent).unwrap();
        assert!(created);
        assert_eq!(put("a", 1, &Condition::Absent), Err(StoreError::Precondition));
        let (created, second) = put("a", 2, &Condition::Version(vec![99_999, first])).unwrap();
        assert!(!created && second > first);
        assert_eq!(put("a", 3, &Condition::Version(vec![first])), Err(StoreError::Precondition));
        assert_eq!(limits.limit(&id("a")).unwrap().limit, plain(2));
        let delete = |condition| limits.delete_limit(&id("a"), &condition, &tester());
        assert_eq!(delete(Condition::Version(vec![first])), Err(StoreError::Precondition));
        assert_eq!(delete(Condition::Version(vec![second])), Ok(()));
        assert_eq!(delete(Condition::Version(vec![second])), Err(StoreError::Precondition));
        assert_eq!(delete(Condition::None), Err(StoreError::NotFound));

        let row = limits.put_plan(&plan("p", 1), &Condition::Absent, &tester()).unwrap().row;
        let stale = Condition::Version(vec![row.version - 1]);
        assert_eq!(limits.put_plan(&plan("p", 2), &stale, &tester()), Err(StoreError::Precondition));
        assert_eq!(limits.delete_plan(&name("p"), &stale, &tester()), Err(StoreError::Precondition));
        assert_eq!(limits.delete_plan(&name("p"), &Condition::Version(vec![row.version]), &tester()), Ok(()));
    });
}

#[test]
fn two_who_make_the_same_limit_at_once_are_told_apart() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let barrier = std::sync::Barrier::new(4);
        let results: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                barrier.wait();
                limits.create_limit(&id("a"), &plain(1), &tester()).map(drop)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(results.iter().filter(|result| **result == Err(StoreError::Exists)).count(), 3);
    });
}

#[test]
fn a_plan_that_is_named_stays_and_one_that_is_not_there_is_not_named() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let refused = limits.create_limit(&id("a"), &of_plan("free"), &tester());
        assert_eq!(refused, Err(StoreError::NoPlan));
        limits.create_plan(&plan("free", 1), &tester()).unwrap();
        assert_eq!(limits.create_plan(&plan("free", 2), &tester()), Err(StoreError::Exists));
        for client in ["a", "b", "1.2.3.4"] {
            create(&limits, client, &of_plan("free"));
        }
        let gone = |limits: &Limits| limits.delete_plan(&name("free"), &Condition::None, &tester());
        assert_eq!(gone(&limits), Err(StoreError::InUse(3)));
        limits.update(&id("a"), limit(1), &tester()).unwrap();
        limits.delete(&id("b"), &tester()).unwrap();
        assert_eq!(gone(&limits), Err(StoreError::InUse(1)));
        limits.delete(&id("1.2.3.4"), &tester()).unwrap();
        assert_eq!(gone(&limits), Ok(()));
        assert_eq!(gone(&limits), Err(StoreError::NotFound));
    });
}

#[test]
fn plans_have_a_bound_and_a_listing_in_byte_order() {
    on_both(|setup| {
        setup.start().unwrap().stop();
        by_hand(
            &setup.url,
            "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 989) \
             INSERT INTO plans (name, buckets, version) SELECT 'p' || n, \
             '[{\"name\":\"default\",\"amount\":1,\"per\":\"1s\",\"capacity\":1,\"mode\":\"enforced\",\"reset\":null}]', \
             n FROM numbers",
        );
        let limits = setup.start().unwrap();
        for number in 990..1_000 {
            limits.create_plan(&plan(&format!("p{number}"), 1), &tester()).unwrap();
        }
        let full = limits.create_plan(&plan("one more", 1), &tester());
        assert!(matches!(full, Err(StoreError::Full(text)) if text.contains("1000")), "{full:?}");
        limits.put_plan(&plan("p7", 2), &Condition::None, &tester()).unwrap();
        let mut names: Vec<String> = (0..1_000).map(|number| format!("p{number}")).collect();
        names.sort_unstable();
        let mut seen = Vec::new();
        loop {
            let page = limits.plans(seen.last().map(String::as_str), 300).unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|row| row.plan.name.as_str().to_owned()));
        }
        assert_eq!(seen, names);
    });
}

#[test]
fn a_listing_is_filtered_by_a_prefix_and_a_plan() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create_plan(&plan("free", 1), &tester()).unwrap();
        let rows = ["a", "a%", "a%b", "a_b", "aa", "ab", "b", "é", "éa", "ê"];
        for (at, text) in rows.iter().enumerate() {
            create(&limits, text, &if at % 2 == 0 { of_plan("free") } else { plain(1) });
        }
        let list = |prefix: Option<&str>, plan: bool, after: Option<&str>, count| {
            let filter = LimitFilter {
                prefix: prefix.map(Into::into),
                plan: plan.then(|| name("free")),
                ..LimitFilter::default()
            };
            let rows = limits.limits(&filter, after, count).unwrap();
            if after.is_none() && count == 100 {
                assert_eq!(limits.total(&filter).unwrap(), rows.len() as i64, "{filter:?}");
            }
            rows.into_iter().map(|row| row.client_id).collect::<Vec<_>>()
        };
        assert_eq!(list(None, false, None, 100), rows);
        assert_eq!(list(Some("a"), false, None, 100), rows[..6]);
        assert_eq!(list(Some("a%"), false, None, 100), ["a%", "a%b"]);
        assert_eq!(list(Some("a_"), false, None, 100), ["a_b"]);
        assert_eq!(list(Some("é"), false, None, 100), ["é", "éa"]);
        assert_eq!(list(Some("a"), false, Some("a%b"), 2), ["a_b", "aa"]);
        assert_eq!(list(Some("b"), false, Some("a"), 2), ["b"]);
        assert_eq!(list(Some("a"), false, Some("b"), 2), Vec::<String>::new());
        assert_eq!(list(None, true, None, 100), ["a", "a%b", "aa", "b", "éa"]);
        assert_eq!(list(Some("a"), true, Some("a"), 1), ["a%b"]);
        let part = |contains: &str, prefix: Option<&str>| {
            let contains = Some(contains.to_owned());
            let filter = LimitFilter { prefix: prefix.map(Into::into), contains, plan: None };
            let rows = limits.limits(&filter, None, 100).unwrap();
            assert_eq!(limits.total(&filter).unwrap(), rows.len() as i64, "{filter:?}");
            rows.into_iter().map(|row| row.client_id).collect::<Vec<_>>()
        };
        assert_eq!(part("b", None), ["a%b", "a_b", "ab", "b"]);
        assert_eq!(part("B", Some("a_")), ["a_b"]);
        assert_eq!(part("%", None), ["a%", "a%b"]);
        assert_eq!(part("a", Some("é")), ["éa"]);
        assert_eq!(part("nobody", None), Vec::<String>::new());
    });
}

#[test]
fn a_batch_is_done_as_a_whole_or_not_at_all() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create_plan(&plan("free", 1), &tester()).unwrap();
        create(&limits, "old", &plain(1));
        let good = || {
            vec![
                BatchOp::Create(id("1.2.3.4"), plain(5)),
                BatchOp::Put(id("old"), rich()),
                BatchOp::Create(id("tenant=x"), of_plan("free")),
                BatchOp::Create(id("10.0.0.0/8"), plain(2)),
                BatchOp::Create(id("gone"), plain(2)),
                BatchOp::Delete(id("gone")),
            ]
        };
        for (wrong, error) in [
            (BatchOp::Create(id("::ffff:1.2.3.4"), plain(1)), StoreError::Exists),
            (BatchOp::Delete(id("gone")), StoreError::NotFound),
            (BatchOp::Put(id("x"), of_plan("gold")), StoreError::NoPlan),
        ] {
            let mut list = good();
            list.push(wrong);
            list.push(BatchOp::Delete(id("never")));
            assert_eq!(limits.batch(list, &tester()), Err(BatchError { index: Some(6), error }));
            assert_eq!(limits.list(None, 100).unwrap().len(), 1, "nothing of it was done");
            assert_eq!(limits.limit(&id("old")).unwrap().limit, plain(1));
        }
        let seen = |limits: &Limits| {
            let found = find(limits, "1.2.3.4", Some(1), 1);
            found.entry.map(|entry| entry.to_string())
        };
        assert_eq!(seen(&limits), None);
        limits.batch(good(), &tester()).unwrap();
        assert_eq!(seen(&limits).as_deref(), Some("1.2.3.4"), "in force on the next request");
        assert_eq!(limits.ranges().len(), 1);
        assert_eq!(limits.limit(&id("old")).unwrap().limit, rich());
        let ids: Vec<String> = limits.list(None, 100).unwrap().into_iter().map(|row| row.client_id).collect();
        assert_eq!(ids, ["1.2.3.4", "10.0.0.0/8", "old", "tenant=x"]);
        limits.batch(Vec::new(), &tester()).unwrap();
    });
}

#[test]
fn ten_thousand_operations_are_one_batch() {
    on_both(|setup| {
        // A debug build on a busy machine needs its time for so many.
        let limits = Setup { timeout: 2 * PATIENCE, ..setup.clone() }.start().unwrap();
        let address = |n: u32| id(&format!("10.0.{}.{}:80", n / 256, n % 256));
        let ids: Vec<_> = (0..10_000).map(address).collect();
        limits
            .batch(ids.iter().map(|id| BatchOp::Create(id.clone(), plain(1))).collect(), &tester())
            .unwrap();
        let last = limits.limit(&ids[9_999]).unwrap();
        assert_eq!(last.limit, plain(1));
        let change = |n: usize| match n % 3 {
            0 => BatchOp::Delete(ids[n].clone()),
            _ => BatchOp::Put(ids[n].clone(), plain(2)),
        };
        limits.batch((0..3_000).map(change).collect(), &tester()).unwrap();
        let rows = limits.limits(&LimitFilter::default(), None, 20_000).unwrap();
        assert_eq!(rows.len(), 9_000);
        let of_second = |row: &LimitRow| row.version > last.version;
        assert_eq!(rows.iter().filter(|row| of_second(row)).count(), 2_000);
        assert!(rows.iter().all(|row| row.limit == plain(if of_second(row) { 2 } else { 1 })));
        let mut versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 9_000, "no two rows have one version");
    });
}

#[test]
fn the_audit_tells_who_changed_what() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let (anna, bob) = (Actor("anna".into()), Actor("10.0.0.9".into()));
        limits.create(&id("a"), limit(1), &bob).unwrap();
        limits.put_plan(&plan("free", 1), &Condition::None, &anna).unwrap();
        limits.put_limit(&id("a"), &of_plan("free"), &Condition::None, &anna).unwrap();
        limits.note_reset(&id("a"), &anna).unwrap();
        limits.delete(&id("a"), &bob).unwrap();
        assert!(limits.delete(&id("a"), &bob).is_err());
        assert_eq!(limits.note_reset(&id("a"), &bob).err(), Some(StoreError::NotFound));
        let batch = vec![BatchOp::Create(id("b"), plain(1)), BatchOp::Create(id("c"), plain(1))];
        limits.batch(batch, &anna).unwrap();
        limits.delete_plan(&name("free"), &Condition::None, &anna).unwrap();

        let rows = limits.audit(None, 100).unwrap();
        let told: Vec<_> = rows.iter().rev().map(|row| (&*row.actor, &*row.action, &*row.target)).collect();
        assert_eq!(
            told,
            [
                ("10.0.0.9", "create", r#"{"client_id":"a"}"#),
                ("anna", "create", r#"{"plan":"free"}"#),
                ("anna", "put", r#"{"client_id":"a"}"#),
                ("anna", "reset", r#"{"client_id":"a"}"#),
                ("10.0.0.9", "delete", r#"{"client_id":"a"}"#),
                ("anna", "batch", r#"{"operations":2}"#),
                ("anna", "delete", r#"{"plan":"free"}"#),
            ]
        );
        let put = &rows[4];
        assert!(put.before.contains(r#""capacity":10"#) && put.after.contains(r#""plan":"free""#), "{put:?}");
        assert_eq!((rows[6].before.as_str(), rows[2].after.as_str()), ("null", "null"));
        assert!(rows[1].after.contains(r#""client_id":"c""#), "{:?}", rows[1]);
        assert!(rows.windows(2).all(|pair| pair[0].seq > pair[1].seq && pair[0].at_us >= pair[1].at_us));
        // 2020-01-01.
        assert!(rows.iter().all(|row| row.at_us > 1_577_836_800_000_000));
        let page = limits.audit(Some(rows[1].seq), 2).unwrap();
        assert_eq!(page, rows[2..4]);
    });
}

#[test]
fn the_audit_is_bounded_by_rows_and_by_age() {
    on_both(|setup| {
        let setup = Setup { audit_rows: 70, ..setup.clone() };
        let limits = setup.start().unwrap();
        limits.create(&id("a"), limit(1), &tester()).unwrap();
        for n in 0..140 {
            limits.update(&id("a"), limit(n % 9), &tester()).unwrap();
        }
        let kept = limits.audit(None, 1_000).unwrap();
        assert!((70..70 + 64).contains(&kept.len()), "{}", kept.len());
        limits.stop();
        let limits = Setup { audit_keep: std::time::Duration::from_millis(1), ..setup }.start().unwrap();
        for n in 0..64 {
            limits.update(&id("a"), limit(n % 9), &tester()).unwrap();
        }
        assert!(limits.audit(None, 1_000).unwrap().len() <= 64);
    });
}
