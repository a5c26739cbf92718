//! Backends in the store.

use std::time::Duration;

use super::super::StoreError;
use super::super::backends::BackendSettings;
use super::{Setup, on_both, tester};
use crate::config::DatabaseUrl;
use balancer_pool::backends::Operator;

fn settings(text: &str) -> BackendSettings {
    serde_json::from_str(text).unwrap()
}

#[test]
fn backends_are_kept_changed_audited_and_told_to_others() {
    on_both(|setup| {
        let (here, there) = (setup.start().unwrap(), setup.start().unwrap());
        let changes = there.backend_changes();
        let whole = settings(r#"{"url":"http://a:1","weight":3}"#);
        here.create_backend("a", whole.clone(), &tester()).unwrap();
        assert_eq!(here.create_backend("a", whole.clone(), &tester()), Err(StoreError::Exists));
        assert_eq!(here.backends()[0].settings, whole, "it is in memory at once");

        // For a backend of the file, only its changes are stored.
        let drained = settings(r#"{"state":"drain"}"#);
        assert_eq!(here.patch_backend("f", drained.clone(), false, &tester()), Err(StoreError::NotFound));
        here.patch_backend("f", drained.clone(), true, &tester()).unwrap();
        here.patch_backend("f", settings(r#"{"max_in_flight":null}"#), true, &tester()).unwrap();
        here.patch_backend("a", settings(r#"{"weight":0,"max_in_flight":9}"#), false, &tester()).unwrap();
        let expected = [
            ("a", settings(r#"{"url":"http://a:1","weight":0,"max_in_flight":9}"#)),
            ("f", settings(r#"{"state":"drain","max_in_flight":null}"#)),
        ];
        let rows = |limits: &super::super::Limits| {
            let rows = limits.backends();
            rows.iter().map(|row| (row.name.clone(), row.settings.clone())).collect::<Vec<_>>()
        };
        let expected = expected.map(|(name, settings)| (name.to_owned(), settings));
        assert_eq!(rows(&here), expected);
        while rows(&there) != expected {
            changes.recv_timeout(Duration::from_secs(30)).expect("the other instance gets a signal");
        }
        // Changes to a backend of the file can't be deleted like a stored backend.
        assert_eq!(here.delete_backend("f", &tester()), Err(StoreError::NotFound));
        here.delete_backend("a", &tester()).unwrap();
        assert_eq!(here.delete_backend("a", &tester()), Err(StoreError::NotFound));
        assert_eq!(rows(&here), expected[1..]);

        let audit = here.audit(None, 10).unwrap();
        let told: Vec<_> = audit.iter().map(|row| (row.action.as_str(), row.target.as_str())).collect();
        let (a, f) = (r#"{"backend":"a"}"#, r#"{"backend":"f"}"#);
        assert_eq!(told, [("delete", a), ("put", a), ("put", f), ("drain", f), ("create", a)]);
        assert_eq!(audit[0].after, "null");
        assert_eq!(audit[0].before, r#"{"url":"http://a:1","weight":0,"max_in_flight":9}"#);
        assert!(audit.iter().all(|row| row.actor == "tester"));

        // A change of state has a word of its own in the audit, also when other settings change with it. A change to a
        // backend of the file is never a "create".
        for (name, in_file, said, action) in [
            ("f", true, r#"{"state":"drain"}"#, "put"),
            ("f", true, r#"{"state":"up","weight":2}"#, "undrain"),
            ("f", true, r#"{"state":"down"}"#, "down"),
            ("f", true, r#"{"state":"drain"}"#, "drain"),
            ("g", true, r#"{"weight":0}"#, "put"),
            ("g", true, r#"{"state":"down"}"#, "down"),
            ("g", true, r#"{"state":"up"}"#, "up"),
        ] {
            here.patch_backend(name, settings(said), in_file, &tester()).unwrap();
            let row = here.audit(None, 1).unwrap().remove(0);
            assert_eq!(
                (row.action.as_str(), row.target),
                (action, format!(r#"{{"backend":"{name}"}}"#)),
                "{said}"
            );
        }
        here.create_backend("d", settings(r#"{"url":"http://d:1","state":"drain"}"#), &tester()).unwrap();
        assert_eq!(here.audit(None, 1).unwrap()[0].action, "create");
        here.delete_backend("d", &tester()).unwrap();

        // After a restart they are there from the beginning.
        drop(here);
        let again = setup.start().unwrap();
        assert_eq!(again.backends()[0].settings.state, Some(Operator::Drain));
    });
}

#[test]
fn a_stored_backend_that_is_in_the_file_by_now_keeps_its_changes_alone() {
    let limits = Setup::new(DatabaseUrl::Memory).start().unwrap();
    limits.create_backend("a", settings(r#"{"url":"http://a:1","weight":3}"#), &tester()).unwrap();
    limits.patch_backend("a", settings(r#"{"state":"drain"}"#), true, &tester()).unwrap();
    assert_eq!(limits.backends()[0].settings, settings(r#"{"weight":3,"state":"drain"}"#));
}
