//! `balancer limits` and `balancer plans`, one client at a time.

use serde_json::json;

use super::{Cli, Ground};
use crate::support::engine::each_store;
use crate::support::{Backend, Database, Setup, request};

each_store! {
    a_limit_is_set_in_force_explained_and_removed,
    every_form_of_a_limit_comes_back,
    conditions_keep_others_work,
    a_plan_is_changed_for_all_its_clients,
    listings_are_filtered_and_have_many_pages,
    refusals_are_told_in_one_line_and_exit_with_1,
}

fn a_limit_is_set_in_force_explained_and_removed(database: &Database) {
    let ground = Ground::new(database);
    assert_eq!(ground.good(&["limits", "ls"]), "");
    assert_eq!(ground.good(&["limits", "set", "127.0.0.1", "2/h"]), "set 127.0.0.1: 2/h\n");
    for _ in 0..2 {
        ground.balancer.get("/").expect(200);
    }
    ground.balancer.get("/").problem(429);

    let said = ground.good(&["limits", "explain", "127.0.0.1"]);
    assert!(
        said.starts_with("GET / from 127.0.0.1: would be refused\nIt is taken for 127.0.0.1.\n"),
        "{said}"
    );
    for line in [
        "  127.0.0.1: decides\n",
        "The limit of 127.0.0.1 is in force: 2/h.\n",
        "  default: 0 of 2 tokens left: empty\n",
        "Refused in the last hour, as it was decided then: 1.\n  1 by the bucket default of its own limit\n",
    ] {
        assert!(said.contains(line), "{line:?} in\n{said}");
    }
    assert_eq!(ground.json(&["limits", "explain", "127.0.0.1"])["decision"], "denied");
    let said = ground.good(&["limits", "explain", "10.0.0.1"]);
    assert!(said.contains("would be allowed") && said.contains("Nothing limits it."), "{said}");

    let shown = ground.good(&["limits", "get", "127.0.0.1"]);
    assert!(shown.contains("limit\t2/h\n") && shown.contains("left\tdefault 0 of 2\n"), "{shown}");
    assert_eq!(ground.good(&["limits", "reset", "127.0.0.1"]), "filled 127.0.0.1\n");
    ground.balancer.get("/").expect(200);

    assert_eq!(
        ground.good(&["limits", "set", "127.0.0.1", "600/m", "burst", "50"]),
        "replaced 127.0.0.1: 600/m burst 50\n"
    );
    assert_eq!(ground.good(&["limits", "ls"]), "127.0.0.1\t600/m burst 50\n");
    assert_eq!(ground.good(&["limits", "rm", "127.0.0.1"]), "removed 127.0.0.1\n");
    assert_eq!(ground.good(&["limits", "ls"]), "");
    assert_eq!(ground.good(&["limits", "rm", "127.0.0.1", "--if-exists"]), "");
    let json = ground.json(&["limits", "rm", "127.0.0.1", "--if-exists"]);
    assert_eq!(json, json!({ "removed": [], "absent": ["127.0.0.1"] }));
    let err = ground.cli(&["limits", "rm", "127.0.0.1"]).run().bad(1);
    assert_eq!(err, "127.0.0.1 has no limit\n");
}

fn every_form_of_a_limit_comes_back(database: &Database) {
    let ground = Ground::new(database);
    ground.good(&["plans", "set", "pro", "10/m"]);
    let key = Cli::new(&["limits", "id"]).stdin("a secret key\n").run().good();
    for (client, words, shown) in [
        ("10.0.0.1", &["0.5/s", "burst", "3"][..], "0.5/s burst 3"),
        ("10.0.0.2", &["5/s", "--shadow", "--max-in-flight", "7"], "5/s shadow; at most 7 at once"),
        (
            "10.0.0.3",
            &["--bucket", "second=10/s burst 20", "--bucket", "day=10000/d utc"],
            "second 10/s burst 20, day 10000/d utc",
        ),
        ("10.0.0.4", &["--exempt"], "exempt"),
        ("10.1.0.0/16", &["7/90s", "--shared"], "7/90s; shared"),
        ("tenant=a b/c%é🦀", &["--plan", "pro"], "plan pro"),
        (key.trim(), &["--plan", "pro", "--max-in-flight", "1"], "plan pro; at most 1 at once"),
    ] {
        let said = ground.good(&[&["limits", "set", client][..], words].concat());
        assert_eq!(said, format!("set {client}: {shown}\n"));
        let listed = ground.good(&["limits", "ls", "--prefix", client]);
        assert_eq!(listed, format!("{client}\t{shown}\n"));
        let got = ground.json(&["limits", "get", client]);
        assert_eq!(got["client_id"], client);
    }
}

fn conditions_keep_others_work(database: &Database) {
    let ground = Ground::new(database);
    ground.good(&["limits", "set", "a", "1/s", "--only-new"]);
    let err = ground.cli(&["limits", "set", "a", "2/s", "--only-new"]).run().bad(1);
    assert_eq!(err, "a has a limit already\n");
    let shown = ground.good(&["limits", "get", "a"]);
    let tag = shown.lines().find_map(|line| line.strip_prefix("etag\t")).expect("an etag");
    ground.good(&["limits", "set", "a", "3/s", "--if-match", tag]);
    let err = ground.cli(&["limits", "set", "a", "4/s", "--if-match", tag]).run().bad(1);
    assert_eq!(err, "a: its limit is another by now\n");
    assert_eq!(ground.good(&["limits", "ls"]), "a\t3/s\n");
}

fn a_plan_is_changed_for_all_its_clients(database: &Database) {
    let ground = Ground::new(database);
    let err = ground.cli(&["limits", "set", "127.0.0.1", "--plan", "free"]).run().bad(1);
    assert!(err.starts_with("400 ") && err.contains("plan"), "{err}");
    assert_eq!(ground.good(&["plans", "set", "free", "1/h"]), "made plan free: 1/h\n");
    ground.good(&["limits", "set", "127.0.0.1", "--plan", "free"]);
    ground.balancer.get("/").expect(200);
    ground.balancer.get("/").problem(429);
    assert_eq!(
        ground.good(&["plans", "set", "free", "3/h", "--max-in-flight", "9"]),
        "changed plan free: 3/h; at most 9 at once\n"
    );
    ground.balancer.get("/").expect(200);

    assert_eq!(ground.good(&["plans", "ls"]), "free\t3/h; at most 9 at once\n");
    let shown = ground.good(&["plans", "get", "free"]);
    assert!(shown.starts_with("plan\tfree\ndefault\t3/h\nat once\tat most 9\netag\t"), "{shown}");
    assert_eq!(ground.json(&["plans", "get", "free"])["name"], "free");
    let err = ground.cli(&["plans", "rm", "free"]).run().bad(1);
    assert!(err.starts_with("409 ") && err.contains("1 limits name this plan"), "{err}");
    ground.good(&["limits", "rm", "127.0.0.1"]);
    assert_eq!(ground.good(&["plans", "rm", "free"]), "removed plan free\n");
    assert_eq!(ground.good(&["plans", "ls"]), "");
}

fn listings_are_filtered_and_have_many_pages(database: &Database) {
    let ground = Ground::new(database);
    ground.good(&["plans", "set", "p", "1/s"]);
    // Three pages.
    let lines: String = (0..2_500)
        .map(|n| format!("{}\n", json!({ "client_id": format!("k{n:05}"), "plan": if n == 7 { Some("p") } else { None }, "rate": if n == 7 { None } else { Some("2/s") } })))
        .collect();
    ground.cli(&["limits", "import"]).stdin(lines).run().good();
    let listed = ground.good(&["limits", "ls"]);
    let listed: Vec<&str> = listed.lines().collect();
    assert_eq!(listed.len(), 2_500);
    assert!(listed.is_sorted(), "in byte order");
    assert_eq!(ground.good(&["limits", "ls", "--plan", "p"]), "k00007\tplan p\n");
    let json = ground.json(&["limits", "ls", "--prefix", "k024"]);
    assert_eq!((json["limits"].as_array().map(Vec::len), &json["next_cursor"]), (Some(100), &json!(null)));
    assert_eq!(
        ground.json(&["limits", "ls", "--prefix", "none"]),
        json!({ "limits": [], "next_cursor": null })
    );
    assert_eq!(ground.json(&["plans", "ls"])["plans"][0]["name"], "p");
}

fn refusals_are_told_in_one_line_and_exit_with_1(database: &Database) {
    let ground = Ground::new(database);
    let err = ground.cli(&["limits", "get", "nobody"]).run().bad(1);
    assert!(err.starts_with("404 ") && err.lines().count() == 1, "{err}");
    let err = ground.cli(&["limits", "set", "a\nb", "1/s"]).run().bad(1);
    assert!(err.contains("control"), "{err}");
    let err = ground.cli(&["limits", "set", "10.0.0.1", "1/s", "--shared"]).run().bad(1);
    assert!(err.lines().any(|line| line.starts_with("  /shared: ")), "fields are named: {err}");
    let err = ground.cli(&["limits", "reset", "nobody"]).run().bad(1);
    assert!(err.starts_with("404 "), "{err}");
}

#[test]
fn a_client_with_a_key_is_explained_without_the_key() {
    let backend = Backend::named("a");
    let balancer =
        Setup::auto().backend(backend.address()).set("rate_limit.key", json!(["header:X-Key", "ip"])).start();
    let cli = |args: &[&str]| Cli::new(args).env("BALANCER_URL", &balancer.admin.to_string());
    let key = "a secret key";
    let id = Cli::new(&["limits", "id"]).stdin(key).run().good();
    let id = id.trim();
    cli(&["limits", "set", id, "1/h"]).run().good();
    for status in [200, 429] {
        request(balancer.address, "GET", "/", &[("X-Key", key)], b"").expect(status);
    }
    let explain = ["limits", "explain", "127.0.0.1", "--headers-file", "-"];
    let said = cli(&explain).stdin(format!("X-Key: {key}\n")).run().good();
    assert!(said.contains("would be refused") && said.contains(&format!("It is taken for {id}.")), "{said}");
    assert!(said.contains(&format!("  {id}: decides\n")) && !said.contains(key), "{said}");
    // No client has this key: the address decides.
    let said = cli(&explain).stdin("X-Key: unknown\n").run().good();
    assert!(said.contains("would be allowed") && said.contains("Nothing limits it."), "{said}");
}

#[test]
fn an_id_is_made_from_stdin_alone() {
    let id = |key: &str| Cli::new(&["limits", "id"]).stdin(key).run();
    // FIPS 180-2, appendix B.1: SHA-256("abc").
    assert_eq!(id("abc\n").good(), "sha256:ba7816bf8f01cfea414140de5dae2223\n");
    let json = Cli::new(&["limits", "id", "--json"]).stdin("abc").run().good();
    assert_eq!(json, "{\"client_id\":\"sha256:ba7816bf8f01cfea414140de5dae2223\"}\n");
    let ran = id("Bearer abc");
    assert!(ran.code == Some(0) && ran.err.contains("Bearer"), "{ran:?}");
    for key in ["", "\n", "two\nlines"] {
        id(key).bad(2);
    }
    let err = Cli::new(&["limits", "id", "hunter2"]).run().bad(2);
    assert!(err.contains("stdin") && !err.contains("hunter2"), "{err}");
}

#[test]
fn words_that_make_no_sense_ask_nobody() {
    for args in [
        &["limits", "set", "a"][..],
        &["limits", "set", "a", "fast"],
        &["limits", "set", "a", "2/s", "--plan", "p"],
        &["limits", "set", "a", "--bucket", "2/s"],
        &["limits", "explain", "tenant=a"],
        &["limits", "explain", "127.0.0.1", "--header", "Authorization: Bearer x"],
        &["limits", "explain", "127.0.0.1", "--method"],
        &["limits"],
        &["plans", "set", "p"],
        &["plans"],
        &["top", "--window", "2h"],
        &["top", "--every", "fast"],
    ] {
        // Nothing listens on port 1: a command that asks there would end with another exit code.
        Cli::new(args).env("BALANCER_URL", "http://127.0.0.1:1").run().bad(2);
    }
}
