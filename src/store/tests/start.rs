//! Starts: migrations, several instances at once, databases that are not ours; and bounds of the database.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;

use super::super::v1::BatchOp;
use super::super::{Limits, StartError, StoreError};
use super::{Setup, find, id, limit, on_both, postgres, tester, until};
use crate::config::DatabaseUrl;
use balancer_limiter::answer::EntryKind;
use balancer_limiter::terms::ClientLimit;

/// Runs statements on a database, past the store.
pub(super) fn by_hand(url: &DatabaseUrl, sql: &str) {
    match url {
        DatabaseUrl::Memory => unreachable!("each connection by hand would be another one"),
        DatabaseUrl::Sqlite(path) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
        }
        DatabaseUrl::Postgres(url) => {
            ::postgres::Client::connect(url.reveal(), ::postgres::NoTls).unwrap().batch_execute(sql).unwrap();
        }
    }
}

fn number(url: &DatabaseUrl, sql: &str) -> i64 {
    match url {
        DatabaseUrl::Memory => unreachable!("each connection by hand would be another one"),
        DatabaseUrl::Sqlite(path) => {
            rusqlite::Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
        }
        DatabaseUrl::Postgres(url) => {
            let mut client = ::postgres::Client::connect(url.reveal(), ::postgres::NoTls).unwrap();
            client.query_one(sql, &[]).unwrap().get(0)
        }
    }
}

#[test]
fn several_instances_may_start_at_once_on_an_empty_database() {
    on_both(|setup| {
        let barrier = Barrier::new(6);
        std::thread::scope(|scope| {
            let starters: Vec<_> = (0..6)
                .map(|n| {
                    let (setup, barrier) = (Setup { pool_size: 1, ..setup.clone() }, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let limits = setup.start().unwrap();
                        assert!(limits.up());
                        limits.create(&id(&format!("10.0.0.{n}")), limit(1), &tester()).unwrap();
                    })
                })
                .collect();
            for starter in starters {
                starter.join().unwrap();
            }
        });
        assert_eq!(number(&setup.url, "SELECT count(*) FROM balancer_migrations"), 7);
        assert_eq!(number(&setup.url, "SELECT count(*) FROM limits"), 6);
    });
}

#[test]
fn a_database_that_is_newer_than_the_program_is_refused() {
    on_both(|setup| {
        setup.start().unwrap().stop();
        by_hand(&setup.url, "INSERT INTO balancer_migrations (number) VALUES (99)");
        let Err(StartError::Schema(text)) = setup.start() else { panic!("it started") };
        assert!(text.contains("newer than this program") && text.contains("migration 99"), "{text}");
    });
}

#[test]
fn a_wrong_schema_is_refused_with_what_is_wrong() {
    on_both(|setup| {
        setup.start().unwrap().stop();
        by_hand(&setup.url, "ALTER TABLE limits RENAME COLUMN max_in_flight TO bound");
        let Err(StartError::Schema(text)) = setup.start() else { panic!("it started") };
        assert!(text.contains("limits.max_in_flight"), "{text}");
    });
    on_both(|setup| {
        by_hand(&setup.url, "CREATE TABLE limits (speed integer)");
        let Err(StartError::Schema(text)) = setup.start() else { panic!("it started") };
        assert!(text.contains("migration 1 can't be applied"), "{text}");
        // The migration was undone as a whole.
        by_hand(&setup.url, "CREATE TABLE balancer_migrations (x integer)");
    });
    on_both(|setup| {
        setup.start().unwrap().stop();
        by_hand(&setup.url, "DROP TABLE balancer_migrations");
        assert!(matches!(setup.start(), Err(StartError::Schema(_))));
    });
}

#[test]
fn what_an_older_program_stored_keeps_its_meaning() {
    on_both(|setup| {
        let (first, made) = match &setup.url {
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => {
                (include_str!("../../../sql/sqlite/0001_limits.sql"), "TEXT")
            }
            DatabaseUrl::Postgres(_) => {
                (include_str!("../../../sql/postgres/0001_limits.sql"), "timestamptz")
            }
        };
        let bytes = |hex: &str| match &setup.url {
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => format!("x'{hex}'"),
            DatabaseUrl::Postgres(_) => format!("'\\x{hex}'::bytea"),
        };
        by_hand(&setup.url, first);
        by_hand(
            &setup.url,
            &format!(
                "CREATE TABLE balancer_migrations (number bigint PRIMARY KEY, applied_at {made}); \
                 INSERT INTO balancer_migrations (number) VALUES (1); \
                 INSERT INTO limits VALUES ('1.2.3.4', '::ffff:1.2.3.4', 1, {}, NULL, 10, 1500000, 1, 4), \
                 ('1.2.3.4:5', '1.2.3.4:5', 2, {}, 5, 0, 0, 60, 5), \
                 ('10.0.0.0/8', '10.0.0.0/8', 3, {}, NULL, 1000000000, 1, 86400, 6), \
                 ('x', 'x', 0, NULL, NULL, 7, 1000000000000000, 1, 7); \
                 INSERT INTO changes (seq, kind, id) VALUES (7, 'limit', 'x')",
                bytes("01020304"),
                bytes("01020304"),
                bytes("0a000000")
            ),
        );
        if let DatabaseUrl::Postgres(_) = &setup.url {
            by_hand(&setup.url, "ALTER SEQUENCE change_seq RESTART WITH 8");
        }
        let limits = setup.start().unwrap();
        let rows = limits.list(None, 10).unwrap();
        let shown: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    &*row.client_id,
                    row.limit.capacity,
                    row.limit.rate.micro,
                    row.limit.rate.per_secs,
                    row.version,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("1.2.3.4:5", 0, 0, 60, 5),
                ("10.0.0.0/8", 1_000_000_000, 1, 86_400, 6),
                ("::ffff:1.2.3.4", 10, 1_500_000, 1, 4),
                ("x", 7, 1_000_000_000_000_000, 1, 7),
            ]
        );
        let entry = |port| find(&limits, "1.2.3.4", Some(port), 1).entry.unwrap().to_string();
        assert_eq!((entry(5), entry(6)), ("1.2.3.4:5".into(), "::ffff:1.2.3.4".into()));
        assert_eq!(limits.ranges().len(), 1);
        limits.create(&id("new"), limit(1), &tester()).unwrap();
        assert!(limits.get(&id("new")).unwrap().version > 7);
    });
}

#[test]
fn a_file_that_is_no_database_or_can_not_be_opened_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits.db");
    std::fs::write(&path, "something else, and long enough to be looked at as a header of a database")
        .unwrap();
    let Err(error) = Setup::new(DatabaseUrl::Sqlite(path.clone())).start() else { panic!("it started") };
    assert!(error.to_string().contains("limits.db"), "{error}");
    let below_a_file = path.join("x.db");
    assert!(matches!(Setup::new(DatabaseUrl::Sqlite(below_a_file)).start(), Err(StartError::System(_))));
    let a_folder = folder.path().to_path_buf();
    assert!(matches!(Setup::new(DatabaseUrl::Sqlite(a_folder)).start(), Err(StartError::System(_))));
}

#[test]
fn every_mutation_appends_its_change_in_order_and_failed_ones_append_none() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
        limits.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
        assert_eq!(limits.create(&id("1.2.3.4"), limit(1), &tester()), Err(StoreError::Exists));
        assert_eq!(limits.update(&id("5.5.5.5"), limit(1), &tester()), Err(StoreError::NotFound));
        limits.update(&id("1.2.3.4"), limit(2), &tester()).unwrap();
        limits.delete(&id("1.2.3.4"), &tester()).unwrap();
        let version = limits.get(&id("10.0.0.0/8")).unwrap().version;
        let count = |what: &str| number(&setup.url, &format!("SELECT count(*) FROM changes WHERE {what}"));
        assert_eq!(count("kind = 'limit' AND id = '1.2.3.4'"), 3);
        assert_eq!(count(&format!("kind = 'range' AND id = '10.0.0.0/8' AND seq = {version}")), 1);
        assert_eq!(count("1 = 1"), 4);
    });
}

#[test]
fn the_list_of_changes_is_bounded() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        limits.create(&id("a"), limit(1), &tester()).unwrap();
        // A large number, close to one at which old changes are removed.
        let jump = match setup.url {
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => {
                "UPDATE sqlite_sequence SET seq = 6400000 WHERE name = 'changes'"
            }
            DatabaseUrl::Postgres(_) => "ALTER SEQUENCE change_seq RESTART WITH 6400001",
        };
        by_hand(&setup.url, jump);
        for _ in 0..64 {
            limits.update(&id("a"), limit(2), &tester()).unwrap();
        }
        assert_eq!(number(&setup.url, "SELECT count(*) FROM changes"), 64, "the first is pruned");
    });
}

#[test]
fn a_user_without_the_right_to_make_tables_may_use_those_that_are_there() {
    let Some(database) = postgres::Database::postgres() else { return };
    let admin = Setup::postgres(&database.url);
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    by_hand(
        &admin.url,
        &format!("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE user_{name} LOGIN"),
    );
    let user = Setup::postgres(&database.url.replace("postgres@", &format!("user_{name}@")));
    let Err(StartError::Schema(text)) = user.start() else { panic!("it started") };
    assert!(text.contains("a user who may create tables"), "{text}");
    admin.start().unwrap().stop();
    by_hand(
        &admin.url,
        &format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO user_{name}; \
             GRANT USAGE ON SEQUENCE change_seq TO user_{name}"
        ),
    );
    let limits = user.start().unwrap();
    limits.create(&id("1.2.3.4"), limit(1), &tester()).unwrap();
}

/// Inserts `count` rows of the address 10.0.0.`last` with one statement. `client_id` and `port` are SQL expressions of the
/// row's number `n`.
fn fill(setup: &Setup, count: u32, last: u8, client_id: &str, kind: u8, port: &str) {
    let address = match setup.url {
        DatabaseUrl::Sqlite(_) | DatabaseUrl::Memory => format!("x'0a0000{last:02x}'"),
        DatabaseUrl::Postgres(_) => format!("'\\x0a0000{last:02x}'::bytea"),
    };
    by_hand(
        &setup.url,
        &format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {count}) \
             INSERT INTO limits (canonical, client_id, kind, address, port, buckets, version) \
             SELECT {client_id}, {client_id}, {kind}, {address}, {port}, \
             '[{{\"name\":\"default\",\"amount\":1,\"per\":\"1s\",\"capacity\":10,\"mode\":\"enforced\",\"reset\":null}}]', \
             n FROM numbers"
        ),
    );
}

/// The SQL of the row `n`'s range: 10.0.0.0/32 and those after it.
const RANGE: &str = "'10.' || (n / 65536) || '.' || (n / 256 % 256) || '.' || (n % 256) || '/32'";

#[test]
fn ranges_have_a_bound() {
    on_both(|setup| {
        let limits = setup.start().unwrap();
        // Past the store, which need not read them: it is the database that counts.
        fill(setup, 99_999, 0, RANGE, 3, "NULL");
        limits.create(&id("10.1.134.159/32"), limit(1), &tester()).unwrap();
        let Err(StoreError::Full(text)) = limits.create(&id("11.0.0.0/8"), limit(1), &tester()) else {
            panic!("no bound")
        };
        assert!(text.contains("100000"), "{text}");
        // Limits that are not ranges still have room.
        limits.create(&id("11.0.0.1"), limit(1), &tester()).unwrap();
        limits.delete(&id("10.0.0.0/32"), &tester()).unwrap();
        limits.create(&id("11.0.0.0/8"), limit(1), &tester()).unwrap();
    });
}

#[test]
fn ranges_of_several_pages_are_all_in_force() {
    on_both(|setup| {
        setup.start().unwrap().stop();
        // Two pages of them and a part of a third.
        fill(setup, 11_000, 0, RANGE, 3, "NULL");
        let limits = setup.start().unwrap();
        until("all are read", || (limits.ranges().len() == 11_000).then_some(()));
        let (ranges, address) = (limits.ranges(), |n: u32| IpAddr::from(Ipv4Addr::from_bits((10 << 24) + n)));
        assert!((0..11_000).all(|n| ranges.longest(address(n)).is_some()));
        let is_range = |n| find(&limits, &address(n).to_string(), None, 1).source == EntryKind::Range;
        assert_eq!([0, 10_999, 11_000].map(is_range), [true, true, false]);
        limits.create(&id("10.0.42.248/32"), limit(1), &tester()).unwrap();
        limits.delete(&id("10.0.0.0/32"), &tester()).unwrap();
        assert_eq!([0, 1, 10_999, 11_000].map(is_range), [false, true, true, true]);
    });
}

#[test]
fn one_address_has_a_bound_of_entries_and_all_of_them_are_in_force() {
    on_both(|setup| {
        setup.start().unwrap().stop();
        fill(setup, 4_095, 0, "'10.0.0.0:' || (n + 1)", 2, "n + 1");
        let limits = setup.start().unwrap();
        limits.create(&id("10.0.0.0"), limit(1), &tester()).unwrap();
        let Err(StoreError::Full(text)) = limits.create(&id("10.0.0.0:5000"), limit(1), &tester()) else {
            panic!("no bound")
        };
        assert!(text.contains("4096"), "{text}");
        limits.create(&id("10.0.0.1:5000"), limit(1), &tester()).unwrap();
        let entry = |port| find(&limits, "10.0.0.0", Some(port), 1).entry.unwrap();
        assert_eq!((&*entry(1), &*entry(4_095), &*entry(4_096)), ("10.0.0.0:1", "10.0.0.0:4095", "10.0.0.0"));
    });
}

#[test]
fn crowded_addresses_that_change_together_keep_all_of_their_entries() {
    on_both(|setup| {
        setup.start().unwrap().stop();
        let clients = [1, 2, 3, 4, 5].map(|last: u8| (last, format!("10.0.0.{last}")));
        for (last, client) in &clients {
            fill(setup, 4_095, *last, &format!("'{client}:' || (n + 1)"), 2, "n + 1");
        }
        let (here, there) = (setup.start().unwrap(), setup.another().start().unwrap());
        // Some of the ports, with the first and the last: what a statement leaves out is everything behind a row.
        let lacking = |limits: &Limits, ports: std::ops::RangeInclusive<u16>| {
            let some = ports.clone().step_by(64).chain([*ports.end()]);
            let pairs = clients.iter().flat_map(|(_, client)| some.clone().map(move |port| (client, port)));
            pairs.filter(|(client, port)| find(limits, client, Some(*port), 1).entry.is_none()).count()
        };
        assert_eq!((lacking(&here, 1..=4_096), lacking(&there, 1..=4_096)), (5, 5));
        let batch = clients.iter().map(|(_, client)| {
            BatchOp::Create(id(&format!("{client}:4096")), ClientLimit::of_numbers(limit(1)))
        });
        here.batch(batch.collect(), &tester()).unwrap();
        assert_eq!(lacking(&here, 1..=4_096), 0, "here at once");
        until("the new entries are in force there", || (lacking(&there, 4_096..=4_096) == 0).then_some(()));
        assert_eq!(lacking(&there, 1..=4_096), 0, "there, too");
    });
}
