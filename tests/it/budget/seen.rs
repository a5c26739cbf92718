//! Which instances are there, in `/v1/status` and in metrics, while they come, go, and are cut off.

use std::time::Duration;

use postgres::fallible_iterator::FallibleIterator;
use rustix::process::Signal;
use serde_json::json;

use super::{instances, knows, setup, takes, told_of};
use crate::support::backend::refusing;
use crate::support::browser::here;
use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Browser, Database, aloud, until};

fn is_cut_off(balancer: &Balancer) -> bool {
    told_of(balancer)[0]["cut_off"] == true
}

#[test]
fn instances_of_one_database_see_each_other_come_and_go() {
    let Some(database) = Database::postgres() else { return };
    const COUNT: usize = 5;
    let mut all = instances(&database, COUNT);
    let ids = |balancer: &Balancer| -> Vec<String> {
        let mut ids: Vec<_> = told_of(balancer).iter().map(|one| one["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let third = all.list.pop().expect("many");
    let (one, two) = (&all.list[0], &all.list[1]);
    assert!(ids(one) == ids(two) && ids(two) == ids(&third), "{:?} {:?}", ids(one), ids(two));
    let own = &told_of(one)[0];
    assert_eq!((&own["address"], &own["age"]), (&json!(one.address.to_string()), &json!(0.0)));
    let addresses: Vec<_> = told_of(one).iter().map(|one| one["address"].to_string()).collect();
    assert!(addresses.contains(&json!(third.address.to_string()).to_string()), "{addresses:?}");
    assert_eq!(one.series("balancer_budget_peers"), (COUNT - 1) as f64);
    assert_eq!(one.series("balancer_budget_cut_off"), 0.0);
    for name in ["sent", "received"] {
        assert!(one.series(&format!("balancer_budget_messages_{name}_total")) > 0.0, "{name}");
    }
    assert!(one.series("balancer_budget_lag_seconds") > 0.0);
    assert_eq!(one.series("balancer_budget_messages_dropped_total"), 0.0);

    // An instance that is killed is missed after 3 s; one that ends tells the others.
    third.proc.signal(Signal::KILL);
    let took = takes("the killed one is gone", || (told_of(one).len() == COUNT - 1).then_some(()));
    aloud(&format!("budget: an instance that was killed is gone after {took:?}"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    // The best of them counts, since the machine may be busy. Without a word none would be gone within a second.
    let soonest = (1..COUNT - 1).rev().map(|left| {
        let mut ends = all.list.pop().expect("several");
        ends.proc.signal(Signal::TERM);
        assert_eq!(ends.proc.wait().code(), Some(0));
        takes("the ended one is gone", || (told_of(&all.list[0]).len() == left).then_some(()))
    });
    let soonest = soonest.min().expect("several");
    assert!(soonest < Duration::from_secs(1), "they said that they end, and were there for {soonest:?}");
}

#[test]
fn garbage_and_what_is_sent_again_is_counted_and_nothing_comes_of_it() {
    let Some(database) = Database::postgres() else { return };
    let all = instances(&database, 2);
    let balancer = &all.list[0];
    balancer.limit("127.0.71.1", 5, 0);
    let mut client = postgres::Client::connect(&database.url, postgres::NoTls).expect("it answers");
    client.batch_execute("LISTEN balancer_budget").expect("anybody may");
    let overheard = {
        let mut words = client.notifications();
        let mut words = words.blocking_iter();
        words.next().expect("connected").expect("a message").payload().to_owned()
    };
    let before = balancer.series("balancer_budget_messages_dropped_total");
    let texts = ["", "x", "'; DROP TABLE limits; --", &"A".repeat(7_999), &overheard, &overheard];
    for text in texts {
        client.execute("SELECT pg_notify('balancer_budget', $1)", &[&text]).expect("told");
    }
    until("all of it is counted", || {
        let dropped = balancer.series("balancer_budget_messages_dropped_total") - before;
        (dropped == texts.len() as f64).then_some(())
    });
    for _ in 0..5 {
        balancer.get_from("127.0.71.1", "/").expect(200);
    }
    balancer.get_from("127.0.71.1", "/").problem(429);
    knows(balancer, 2);
}

#[test]
fn a_key_that_was_replaced_is_noticed_by_those_that_run() {
    let Some(database) = Database::postgres() else { return };
    let backend = Backend::named("a");
    let setup = setup(&database, &backend);
    let first = setup.start();
    knows(&first, 1);
    let mut client = postgres::Client::connect(&database.url, postgres::NoTls).expect("it answers");
    let replaced = client.execute("UPDATE budget_key SET key = sha256(key)", &[]).expect("a key");
    assert_eq!(replaced, 1);
    let second = setup.start();
    for balancer in [&first, &second] {
        knows(balancer, 2);
    }
}

/// A stopped process takes no notifications from the server, and would fill the queue that all listeners share.
#[test]
#[ignore = "a quarter of a minute"]
fn a_listener_that_stands_still_is_given_up_by_the_server() {
    let Some(database) = Database::postgres() else { return };
    let all = instances(&database, 1);
    let mut client = postgres::Client::connect(&database.url, postgres::NoTls).expect("it answers");
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%LISTEN balancer%' \
               AND pid <> pg_backend_pid()";
    let listens = client.query_one(sql, &[]).expect("one listens").get::<_, i32>(0);
    all.list[0].proc.signal(Signal::STOP);
    // More than the buffers of both kernels hold.
    let much = "SELECT pg_notify('balancer_budget', repeat('x', 7900 + n % 50) || n) FROM generate_series(1, 5000) n";
    client.execute(much, &[]).expect("told");
    let took = takes("the server gave it up", || {
        let there = "SELECT 1 FROM pg_stat_activity WHERE pid = $1";
        client.query(there, &[&listens]).expect("it answers").is_empty().then_some(())
    });
    aloud(&format!("budget: a listener that was stopped is given up after {took:?}"));
    all.list[0].proc.signal(Signal::CONT);
    knows(&all.list[0], 1);
}

#[test]
fn a_paused_database_cuts_instances_off_and_they_come_back() {
    let Some(server) = Postgres::start() else { return };
    let all = instances(&server.database("paused"), 2);
    server.pause();
    for balancer in &all.list {
        until("it is cut off", || is_cut_off(balancer).then_some(()));
        assert_eq!(balancer.series("balancer_budget_cut_off"), 1.0);
        let line = balancer.proc.wait_err(0, "the words", |line| line.contains("cut off")).1;
        assert!(line.contains("holds each client to a part"), "{line}");
        balancer.get("/").expect(200);
    }
    server.resume();
    let took = takes("both are back", || {
        let back = |balancer: &Balancer| !is_cut_off(balancer) && told_of(balancer).len() == 2;
        all.list.iter().all(back).then_some(())
    });
    aloud(&format!("budget: after a pause of the database the instances hear each other within {took:?}"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    for balancer in &all.list {
        balancer.proc.wait_err(0, "the words", |line| line.contains("heard again"));
    }
}

#[test]
fn an_instance_that_can_not_listen_is_cut_off_and_says_so() {
    let Some(database) = Database::postgres() else { return };
    let backend = Backend::named("a");
    let nowhere = format!("postgres://postgres@{}/x", refusing());
    let balancer = setup(&database, &backend).set("database.listen_url", json!(nowhere)).start();
    until("it is cut off", || is_cut_off(&balancer).then_some(()));
    balancer.proc.wait_err(0, "the words", |line| line.contains("budget: this instance is cut off"));
    balancer.get("/").expect(200);
}

#[test]
fn on_sqlite_each_process_counts_alone_and_says_so() {
    let backend = Backend::named("a");
    let balancer = setup(&Database::sqlite(), &backend).start();
    balancer.proc.wait_err(0, "the words", |line| line.contains("each process counts alone"));
    let own = told_of(&balancer);
    assert_eq!(own.len(), 1, "{own:?}");
    assert_eq!((&own[0]["lag"], &own[0]["cut_off"]), (&json!(null), &json!(false)));
    assert_eq!(balancer.series("balancer_budget_messages_sent_total"), 0.0);
}

/// Like an instance of the version before, which sends no heartbeats.
#[test]
fn an_instance_that_takes_no_part_lives_beside_those_that_do() {
    let Some(database) = Database::postgres() else { return };
    let all = instances(&database, 2);
    let backend = Backend::named("b");
    let alone = setup(&database, &backend).set("rate_limit.shared_budget", json!("off")).start();
    alone.proc.wait_err(0, "the words", |line| line.contains("this instance counts alone"));
    alone.limit("127.0.71.2", 2, 0);
    for balancer in [&all.list[0], &alone] {
        until("the limit is in force", || {
            let answer = balancer.get_from("127.0.71.2", "/");
            (answer.status == 429).then_some(())
        });
    }
    assert_eq!((told_of(&alone).len(), told_of(&all.list[0]).len()), (1, 2));
    assert_eq!(alone.series("balancer_budget_messages_sent_total"), 0.0);
    assert_eq!(all.list[0].series("balancer_budget_messages_dropped_total"), 0.0);
}

#[test]
fn the_dashboard_lists_the_instances_where_there_are_several() {
    if !here() {
        return;
    }
    let Some(database) = Database::postgres() else { return };
    let all = instances(&database, 2);
    let page = |balancer: &Balancer| {
        let browser = Browser::start();
        browser.open(&format!("http://{}/-/dashboard", balancer.address));
        browser.sees("#link", "live");
        browser
    };
    let browser = page(&all.list[0]);
    for one in &told_of(&all.list[0]) {
        let row = format!("#instance-rows tr[data-key=\"{}\"]", one["id"].as_str().expect("text"));
        browser.sees(&row, one["address"].as_str().expect("text"));
        browser.sees(&row, "connected");
    }
    browser.sees("#instance-rows tr:first-child", "(this one)");
    assert_eq!(browser.faults(), Vec::<String>::new());
    let backend = Backend::named("b");
    let alone = setup(&Database::sqlite(), &backend).start();
    let hidden = page(&alone).run("return document.getElementById('instances').hidden", &[]);
    assert_eq!(hidden, true);
}
