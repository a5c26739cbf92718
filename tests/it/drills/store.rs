//! The disk under SQLite is full. Failures of PostgreSQL are tested in `outage`.

use serde_json::{Value, json};

use super::traffic::{Traffic, others};
use crate::support::engine::each_engine;
use crate::support::{Backend, Engine, Proc, Setup, aloud, installed, until};

each_engine! { a_full_disk_under_sqlite_costs_writes_alone }

/// A file system of that size at `path`, seen by the returned process and by whoever shares its mounts; gone with it.
/// `None`, said aloud, where it can't be had.
pub(crate) fn small_disk(path: &std::path::Path, kib: usize) -> Option<Proc> {
    if !rustix::process::geteuid().is_root() || !installed("unshare") || !installed("nsenter") {
        aloud("skipped: a small file system needs root, unshare and nsenter");
        return None;
    }
    std::fs::create_dir_all(path).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size={kib}k none '{}' && echo mounted && exec sleep 1000 || echo refused",
        path.display()
    );
    let holder = Proc::start("unshare", &["-m", "sh", "-c", &script], path, &[]);
    let said = holder.wait_out("");
    if said.contains("refused") {
        aloud(&format!("skipped: a file system may not be mounted: {}", holder.err()));
        return None;
    }
    Some(holder)
}

fn a_full_disk_under_sqlite_costs_writes_alone(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine)
        .backend(backend.address())
        .set("database.url", json!("sqlite:small/balancer.db"))
        .set("cache.ttl", json!("100ms"));
    let Some(holder) = small_disk(&setup.folder().join("small"), 2048) else { return };
    let setup = setup.with_mounts_of(holder.pid());
    let disk = format!("/proc/{}/root{}/small", holder.pid(), setup.folder().display());
    let mut balancer = setup.start();
    balancer.limit("127.0.0.66", 1, 0);
    balancer.get_from("127.0.0.66", "/").expect(200);
    let traffic = Traffic::start(balancer.address, engine);
    traffic.goes_on(200);

    let filler = format!("{disk}/filler");
    let full = std::fs::write(&filler, vec![0; 4 << 20]).expect_err("the disk is full");
    assert_eq!(full.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{full}");
    // Changes are written until the database's log has no room left.
    let mut created: Vec<String> = Vec::new();
    let refused = until("a write is refused", || {
        let id = format!("full-{}-{}", created.len(), "x".repeat(200));
        let body = json!({ "client_id": id, "capacity": 1, "rate_per_sec": 0 });
        let answer = balancer.api("POST", "/limits/create", &body);
        if answer.status == 201 {
            created.push(id);
            return None;
        }
        Some(answer)
    });
    let problem = refused.problem(503).to_string();
    assert!(!problem.contains("disk") && !problem.contains("small"), "no cause for clients: {problem}");
    assert!(refused.field("retry-after").is_some(), "{refused:?}");
    balancer.proc.wait_err(0, "the operator is told", |line| line.contains("full"));
    let word = || balancer.get("/-/readyz?verbose").expect(200).json()["store"].clone();
    assert_eq!(word(), "full", "{}", balancer.proc.story());
    // Nothing else is affected: limits stay in force, requests are served, and the process lives.
    traffic.goes_on(500);
    balancer.get_from("127.0.0.66", "/").problem(429);
    balancer.get("/-/livez").expect(200);
    assert!(std::fs::write(format!("{disk}/more"), [0; 8192]).is_err(), "it is full all the time");

    std::fs::remove_file(&filler).expect("room again");
    let _ = std::fs::remove_file(format!("{disk}/more"));
    // The very next change is taken.
    balancer.limit("after", 1, 0);
    until("it says so", || (word() == "up").then_some(()));
    traffic.goes_on(200);
    let (tally, _) = traffic.finish();
    assert_eq!(others(&tally, "200"), 0, "{tally:?}\n{}", balancer.proc.story());
    // Every 201 is kept, also over the end of the process.
    balancer.proc.kill();
    let balancer = setup.start();
    for id in created.iter().map(String::as_str).chain(["127.0.0.66", "after"]) {
        balancer.api("GET", &format!("/limits/get?client_id={id}"), &Value::Null).expect(200);
    }
}
