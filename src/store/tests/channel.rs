//! The channel of the shared budget: all instances of a database hear what one tells, and no other role can read the key.

use std::time::Duration;

use super::start::by_hand;
use super::{PATIENCE, Setup, postgres, until};
use crate::config::{DatabaseUrl, Secret};
use crate::store::BudgetChannel;
use balancer_limiter::message::{BudgetKey, BudgetMessage, MAX_REPORT_BYTES};

/// Opens the channel as soon as possible.
fn open(channel: &mut BudgetChannel) -> BudgetKey {
    until("the channel is open", || channel.notifier.open().ok()).key
}

/// Waits until that text is heard; others that come before it are skipped.
fn hears(channel: &BudgetChannel, text: &str) {
    until("it is heard", || channel.heard.recv_timeout(PATIENCE).ok().filter(|heard| heard == text));
}

#[test]
fn what_one_instance_tells_all_of_its_database_hear() {
    let Some(database) = postgres::Database::postgres() else { return };
    let setup = Setup::postgres(&database.url);
    let (here, there) = (setup.start().unwrap(), setup.another().start().unwrap());
    let [mut one, mut two] = [&here, &there].map(|limits| limits.take_budget_channel().unwrap());
    assert!(here.take_budget_channel().is_none(), "one takes part");
    let (key, same) = (open(&mut one), open(&mut two));
    let message = BudgetMessage {
        instance: 1,
        epoch: 1,
        sequence: 1,
        lag_ms: 0,
        hot_clients: 0,
        cut_off: false,
        leaving: false,
        address: String::new(),
        heard: Vec::new(),
        reports: vec![7; MAX_REPORT_BYTES],
    };
    let text = message.to_text(&key);
    until("somebody listens", || {
        one.notifier.tell(&[text.clone(), "second".into()]).unwrap();
        two.heard.recv_timeout(Duration::from_millis(100)).ok()
    });
    hears(&two, "second");
    hears(&one, &text);
    let read = BudgetMessage::from_text(&text, &same);
    assert_eq!(read, Ok(message), "the key is the database's");
}

#[test]
fn a_notifier_gives_up_on_a_paused_server_and_comes_back() {
    let Some(server) = postgres::Postgres::start() else { return };
    let setup = Setup { timeout: Duration::from_millis(300), ..Setup::postgres(&server.url()) };
    let limits = setup.start().unwrap();
    let mut channel = limits.take_budget_channel().unwrap();
    open(&mut channel);
    until("it is heard", || {
        channel.notifier.tell(&["before".into()]).unwrap();
        channel.heard.recv_timeout(Duration::from_millis(100)).ok()
    });
    server.pause();
    let cause = channel.notifier.tell(&["meanwhile".into()]).unwrap_err();
    assert!(cause.contains("did not answer in time"), "{cause}");
    assert_eq!(channel.notifier.tell(&["again".into()]).unwrap_err(), "it is not connected");
    assert!(!channel.notifier.open().unwrap_err().is_refusal);
    server.resume();
    open(&mut channel);
    channel.notifier.tell(&["after".into()]).unwrap();
    hears(&channel, "after");
}

#[test]
fn the_key_is_random_and_for_balancers_role_alone() {
    let Some(one) = postgres::Database::postgres() else { return };
    let two = postgres::Database::postgres().unwrap();
    let keys = [&one, &two].map(|database| -> Vec<u8> {
        Setup::postgres(&database.url).start().unwrap().stop();
        let mut client = ::postgres::Client::connect(&database.url, ::postgres::NoTls).unwrap();
        client.query_one("SELECT key FROM budget_key", &[]).unwrap().get(0)
    });
    assert_eq!(keys[0].len(), BudgetKey::BYTES);
    assert_ne!(keys[0], keys[1]);
    // Roles are the whole server's, which other tests use, too.
    let role = format!("reader_{}", one.url.rsplit_once('/').unwrap().1);
    by_hand(&DatabaseUrl::Postgres(Secret::new(&one.url)), &format!("CREATE ROLE {role} LOGIN"));
    let other = one.url.replace("postgres@", &format!("{role}@"));
    let mut client = ::postgres::Client::connect(&other, ::postgres::NoTls).unwrap();
    let refused = client.query("SELECT key FROM budget_key", &[]).unwrap_err();
    assert_eq!(refused.code(), Some(&::postgres::error::SqlState::INSUFFICIENT_PRIVILEGE));
}

#[test]
fn a_database_that_has_no_key_for_it_refuses() {
    let Some(database) = postgres::Database::postgres() else { return };
    let limits = Setup::postgres(&database.url).start().unwrap();
    let mut channel = limits.take_budget_channel().unwrap();
    open(&mut channel);
    let url = DatabaseUrl::Postgres(Secret::new(&database.url));
    for (change, cause) in
        [("DELETE FROM budget_key", "is empty"), ("DROP TABLE budget_key", "does not exist")]
    {
        by_hand(&url, change);
        let unopened = channel.notifier.open().unwrap_err();
        assert!(unopened.is_refusal && unopened.cause.contains(cause), "{unopened:?}");
    }
}

#[test]
fn on_sqlite_nobody_can_tell_others_anything() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Setup::sqlite(folder.path()).start().unwrap();
    assert!(limits.take_budget_channel().is_none());
}
