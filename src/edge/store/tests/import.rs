//! Many limits at once from elsewhere.

use super::super::v1::{BatchError, Imported, LimitFilter, LimitsV1};
use super::super::{Limits, StoreError};
use super::v1::{name, of_plan, plain, plan, rich};
use super::{id, limit, on_both, tester, until};
use crate::rules::identity::ClientId;
use crate::rules::terms::ClientLimit;

fn import(limits: &Limits, chunk: &[(ClientId, ClientLimit)]) -> Result<Imported, BatchError> {
    limits.import(chunk.to_vec(), &tester())
}

#[test]
fn an_import_adds_replaces_and_leaves_alone_what_is_so_already() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create_plan(&plan("free", 1), &tester()).unwrap();
        limits.create(&id("::ffff:1.2.3.4"), limit(1), &tester()).unwrap();
        let seen = |client: &str| limits.find(client.parse().unwrap(), Some(7), 1).entry;
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
        // In force here.
        until("the range is there", || (limits.ranges().len() == 1).then_some(()));
        until("the new numbers are", || {
            let row = limits.get(&id("1.2.3.4")).unwrap();
            (row.limit == limit(2) && seen("10.1.1.1").as_deref() == Some("10.0.0.0/8")).then_some(())
        });

        let again = import(&limits, &chunk).unwrap();
        assert_eq!(again, Imported { created: 0, replaced: 0, unchanged: 6 });
        assert_eq!(limits.limits(&LimitFilter::default(), None, 100).unwrap(), rows, "no version moved");
        assert_eq!(limits.audit(None, 1).unwrap(), audit);
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
        // The connection is as good as before.
        import(&limits, &[(id("a"), plain(1))]).unwrap();
        assert_eq!(limits.plan(&name("gold")), Err(StoreError::NotFound));
        assert_eq!(import(&limits, &[]).unwrap(), Imported::default());
    });
}
