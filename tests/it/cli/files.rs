//! `balancer limits import` and `export`.

use serde_json::{Value, json};

use super::Ground;
use crate::support::engine::each_store;
use crate::support::{Database, until};

each_store! {
    what_is_exported_is_imported_byte_for_byte,
    wrong_lines_are_named_by_number_and_the_others_are_imported,
    an_import_can_be_repeated,
    a_file_of_many_limits_goes_in_by_batches,
}

/// A limit of every form, in more than one page with `many`.
fn fill(ground: &Ground, many: usize) {
    ground.good(&["plans", "set", "pro; \"x\", y", "10/m"]);
    let odd = json!([
        { "name": "a; b=c", "amount": 0.000001, "per": "90s", "capacity": 3, "mode": "shadow" },
        { "name": "day", "amount": 5, "per": "1d", "capacity": 9, "reset": "utc" },
    ]);
    let mut lines = vec![
        json!({ "client_id": "10.0.0.1", "capacity": 10, "rate_per_sec": 999999999.999999 }),
        json!({ "client_id": "10.0.0.0/8", "rate": "600/m burst 50 shadow", "shared": true }),
        json!({ "client_id": "[2001:DB8::1]:443", "mode": "exempt" }),
        json!({ "client_id": " a, \"b\"; 🦀\u{a0}", "plan": "pro; \"x\", y", "max_in_flight": 4 }),
        json!({ "client_id": "say \\\"hi\\\"", "buckets": odd }),
    ];
    lines.extend((0..many).map(|n| json!({ "client_id": format!("k{n:04}"), "rate": "2/s" })));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    ground.cli(&["limits", "import"]).stdin(text).run().good();
}

fn what_is_exported_is_imported_byte_for_byte(database: &Database) {
    let ground = Ground::new(database);
    fill(&ground, 1_200);
    for format in ["jsonl", "csv"] {
        let export = || ground.good(&["limits", "export", "--format", format]);
        let first = export();
        assert_eq!(first.lines().count(), 1_205 + usize::from(format == "csv"), "{first}");
        let clients = ground.json(&["limits", "ls"]);
        for chunk in clients["limits"].as_array().expect("a list").chunks(300) {
            let ids: Vec<&str> = chunk.iter().filter_map(|limit| limit["client_id"].as_str()).collect();
            ground.good(&[&["limits", "rm"][..], &ids].concat());
        }
        assert_eq!(ground.good(&["limits", "ls"]), "");
        let said = ground.cli(&["limits", "import"]).stdin(first.clone()).run().good();
        assert!(said.starts_with("imported 1205 limits in "), "{said}");
        assert_eq!(export(), first, "{format}");
    }
    let one = ground.good(&["limits", "export", "--format", "csv", "--prefix", "10.0.0.0/"]);
    let expected = "client_id,plan,buckets,max_in_flight,mode,shared,per_instance,weight,priority\n10.0.0.0/8,,default=600/m burst 50 shadow,,,true,,,\n";
    assert_eq!(one, expected);
}

fn wrong_lines_are_named_by_number_and_the_others_are_imported(database: &Database) {
    let ground = Ground::new(database);
    let text = "\
client_id,rate,plan,shared

10.0.0.1,2/s,,
10.0.0.2,2 a second,,
10.0.0.3,,nowhere,
10.0.0.4,3/s,,
,4/s,,
10.0.0.5,5/s,,true
\"10.0.0.6,6/s,,
10.0.0.7,7/s,,
";
    let dry = ground.cli(&["limits", "import", "--dry-run"]).stdin(text).run();
    assert!(dry.out.starts_with("5 lines are good; nothing was changed"), "{dry:?}");
    dry.bad(1);
    assert_eq!(ground.good(&["limits", "ls"]), "");

    let ran = ground.cli(&["limits", "import"]).stdin(text).run();
    assert!(ran.out.starts_with("imported 3 limits in "), "{ran:?}");
    let err = ran.bad(1);
    let mut named: Vec<&str> =
        err.lines().filter_map(|line| line.strip_prefix("stdin:")?.split(':').next()).collect();
    // Some are judged at once, others by the balancer when it gets them.
    named.sort_unstable();
    assert_eq!(named, ["4", "5", "7", "8", "9"], "{err}");
    assert!(err.lines().any(|line| line.starts_with("stdin:5: ") && line.contains("plan")), "{err}");
    assert!(err.ends_with("5 wrong lines were left out\n"), "{err}");
    assert_eq!(ground.good(&["limits", "ls"]), "10.0.0.1\t2/s\n10.0.0.4\t3/s\n10.0.0.7\t7/s\n");

    let told = ground.cli(&["limits", "import", "--json"]).stdin(text).run();
    assert_eq!(told.code, Some(1));
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!((&told["imported"], told["bad"].as_array().map(Vec::len)), (&json!(3), Some(5)), "{told}");

    let lines = "nonsense\n".repeat(20);
    let ran = ground.cli(&["limits", "import", "--format", "jsonl", "--max-errors", "3"]).stdin(lines).run();
    assert!(ran.err.contains("3 wrong lines: given up"), "{ran:?}");
    ran.bad(1);
    let err = ground.cli(&["limits", "import"]).stdin("client,rate\na,1/s\n").run().bad(1);
    assert!(err.contains("stdin:1: \"client\" is no column"), "{err}");
    ground.cli(&["limits", "import", "nowhere.csv"]).run().bad(2);
}

fn an_import_can_be_repeated(database: &Database) {
    let ground = Ground::new(database);
    let text = "client_id,rate\na,1/s\nb,2/s\na,3/s\n";
    for _ in 0..3 {
        ground.cli(&["limits", "import", "-"]).stdin(text).run().good();
        assert_eq!(ground.good(&["limits", "ls"]), "a\t3/s\nb\t2/s\n", "the last line of a client stands");
    }
    // A put of the same numbers leaves the levels alone.
    ground.cli(&["limits", "import"]).stdin("client_id,rate\n127.0.0.1,2/h\n").run().good();
    until("the import is in force", || {
        (ground.json(&["limits", "explain", "127.0.0.1"])["policy"] == "client").then_some(())
    });
    ground.balancer.get("/").expect(200);
    let said = ground.cli(&["limits", "import"]).stdin("client_id,rate\n127.0.0.1,2/h\n").run().good();
    assert!(said.ends_with(": 0 new, 0 changed, 1 as they were\n"), "{said}");
    ground.balancer.get("/").expect(200);
    ground.balancer.get("/").problem(429);
}

fn a_file_of_many_limits_goes_in_by_batches(database: &Database) {
    let ground = Ground::new(database);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("many.csv");
    let rows: String = (0..12_000).map(|n| format!("c{n},2/s\n")).collect();
    std::fs::write(&file, format!("client_id,rate\n{rows}")).expect("written");
    let said = ground.good(&["limits", "import", file.to_str().expect("UTF-8")]);
    assert!(
        said.starts_with("imported 12000 limits in ")
            && said.ends_with(": 12000 new, 0 changed, 0 as they were\n"),
        "{said}"
    );
    assert_eq!(ground.good(&["limits", "ls"]).lines().count(), 12_000);
    // One wrong line in the middle of a batch costs that line alone.
    let rows: String = (0..3_000)
        .map(|n| if n == 1_234 { "c1234,,nowhere\n".to_owned() } else { format!("c{n},3/s,\n") })
        .collect();
    let ran = ground.cli(&["limits", "import"]).stdin(format!("client_id,rate,plan\n{rows}")).run();
    assert!(ran.out.starts_with("imported 2999 limits"), "{ran:?}");
    assert!(ran.bad(1).starts_with("stdin:1236: "), "the head is line 1");
}
