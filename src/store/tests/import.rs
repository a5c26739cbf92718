//! Imports of many limits, and saved levels.

use super::super::v1::{BatchError, Imported, LimitFilter, SavedSegment};
use super::super::{Limits, StoreError};
use super::v1::{name, of_plan, plain, plan, rich};
use super::{find, id, limit, on_both, tester, until};
use balancer_importance::Priority;
use balancer_limiter::identity::ClientId;
use balancer_limiter::importance::GivenImportance;
use balancer_limiter::terms::{ClientLimit, Terms};

fn import(limits: &Limits, chunk: &[(ClientId, ClientLimit)]) -> Result<Imported, BatchError> {
    limits.import(chunk.to_vec(), &tester())
}

#[test]
fn an_import_adds_replaces_and_leaves_alone_what_is_so_already() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create_plan(&plan("free", 1), &tester()).unwrap();
        limits.create(&id("::ffff:1.2.3.4"), limit(1), &tester()).unwrap();
        let seen = |client: &str| find(&limits, client, Some(7), 1).entry;
        assert_eq!(seen("1.2.3.4").as_deref(), Some("::ffff:1.2.3.4"));
        let chunk = [
            (id("1.2.3.4"), plain(2)),
            (id("a\\N\"b\\\\.%_"), rich()),
            (id("tenant=🦀"), of_plan("free")),
            (id("[2001:db8::1]:80"), plain(3)),
            (id("10.0.0.0/8"), rich()),
            (id("twice"), plain(1)),
            (id("twice"), plain(5)),
        ];
        let done = import(&limits, &chunk).unwrap();
        assert_eq!(done, Imported { created: 5, replaced: 1, unchanged: 0 });
        let rows = limits.limits(&LimitFilter::default(), None, 100).unwrap();
        assert_eq!(rows.len(), 6);
        for (id, limit) in chunk.iter().filter(|(_, limit)| *limit != plain(1)) {
            assert_eq!(limits.limit(id).unwrap().limit, *limit, "{id:?}");
        }
        assert_eq!(limits.limit(&id("1.2.3.4")).unwrap().client_id, "::ffff:1.2.3.4", "as it was created");
        let audit = limits.audit(None, 1).unwrap();
        assert_eq!((&*audit[0].action, &*audit[0].target), ("batch", r#"{"operations":6}"#));
        assert!(audit[0].after.contains("tenant=🦀") && audit[0].before.contains("::ffff:1.2.3.4"));
        // They are in force in this process.
        until("the range is there", || (limits.ranges().len() == 1).then_some(()));
        until("the new numbers are", || {
            let row = limits.get(&id("1.2.3.4")).unwrap();
            (row.limit == limit(2) && seen("10.1.1.1").as_deref() == Some("10.0.0.0/8")).then_some(())
        });

        let again = import(&limits, &chunk).unwrap();
        assert_eq!(again, Imported { created: 0, replaced: 0, unchanged: 6 });
        assert_eq!(limits.limits(&LimitFilter::default(), None, 100).unwrap(), rows, "no version moved");
        assert_eq!(limits.audit(None, 1).unwrap(), audit);
        // A row of which only the weight differs, then one of which only the priority differs.
        for importance in [
            GivenImportance { weight: None, ..rich().own.importance },
            GivenImportance { weight: None, priority: Some(Priority::Critical) },
        ] {
            let limit = ClientLimit { own: Terms { importance, ..rich().own }, ..rich() };
            let done = import(&limits, &[(id("10.0.0.0/8"), limit.clone())]).unwrap();
            assert_eq!(done, Imported { replaced: 1, ..Imported::default() });
            assert_eq!(limits.limit(&id("10.0.0.0/8")).unwrap().limit, limit);
        }
    });
}

#[test]
fn an_import_that_can_not_be_done_whole_does_nothing() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let chunk = [(id("a"), plain(1)), (id("b"), plain(1)), (id("c"), of_plan("gold"))];
        let failed = import(&limits, &chunk);
        assert_eq!(failed, Err(BatchError { index: Some(2), error: StoreError::NoPlan }));
        let crowd: Vec<_> = (1..=4_096).map(|port| (id(&format!("10.0.0.1:{port}")), plain(1))).collect();
        import(&limits, &crowd).unwrap();
        let more = [(id("a"), plain(1)), (id("10.0.0.1:5000"), plain(1))];
        let failed = import(&limits, &more);
        assert!(
            matches!(failed, Err(BatchError { index: Some(1), error: StoreError::Full(_) })),
            "{failed:?}"
        );
        assert_eq!(limits.limit(&id("a")), Err(StoreError::NotFound));
        // The connection can still be used.
        import(&limits, &[(id("a"), plain(1))]).unwrap();
        assert_eq!(limits.plan(&name("gold")), Err(StoreError::NotFound));
        assert_eq!(import(&limits, &[]).unwrap(), Imported::default());
    });
}

#[test]
fn saved_levels_come_back_with_their_age_and_are_forgotten_when_they_are_old() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        let segment = |n: u8| (n, vec![n, 0, 255, b'\\']);
        limits.save_levels("b", (0..=255).map(segment).collect()).unwrap();
        limits.save_levels("a", vec![segment(7)]).unwrap();
        limits.save_levels("a", vec![(7, vec![1]), (8, Vec::new())]).unwrap();
        limits.save_levels("a", Vec::new()).unwrap();
        let mut seen = Vec::new();
        loop {
            let after = seen.last().map(|last: &SavedSegment| (last.instance.clone(), last.segment));
            let page = limits.saved_levels(after, 100).unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        let shown: Vec<_> = seen.iter().map(|one| (&*one.instance, one.segment, one.bytes.clone())).collect();
        let mut wanted = vec![("a", 7, vec![1]), ("a", 8, Vec::new())];
        wanted.extend((0..=255).map(segment).map(|(n, bytes)| ("b", n, bytes)));
        assert_eq!(shown, wanted);
        assert!(seen.iter().all(|one| one.age < std::time::Duration::from_secs(60)), "{:?}", seen[0].age);
        limits.forget_levels(std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(limits.saved_levels(None, 1_000).unwrap().len(), 258);
        until("they are older than a millisecond", || {
            limits.forget_levels(std::time::Duration::from_millis(1)).unwrap();
            limits.saved_levels(None, 1_000).unwrap().is_empty().then_some(())
        });
    });
}
