//! The wall clock is set back by an hour and then forward by two, under load. Only times that are shown may follow it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::traffic::{Traffic, others};
use crate::support::engine::each_store;
use crate::support::{Backend, Balancer, Database, Engine, Setup, aloud, installed, until};

each_store! { a_wall_clock_that_jumps_changes_nothing_but_dates }

/// Builds the library that moves a process's wall clock. `None`, said aloud, without a C compiler.
fn library(folder: &Path) -> Option<String> {
    if !installed("cc") {
        aloud("skipped: moving a process's wall clock needs a C compiler (cc)");
        return None;
    }
    let path = folder.join("clock.so");
    let source = crate::support::root().join("tests/it/drills/clock.c");
    let mut build = Command::new("cc");
    build.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&path).arg(source);
    let status = build.status().expect("cc starts");
    assert!(status.success(), "cc: {status}");
    Some(path.to_str().expect("UTF-8").to_owned())
}

/// How far an answer's date is from the real time, in whole seconds.
fn date_offset(balancer: &Balancer) -> i64 {
    let answer = balancer.get_from("127.0.0.9", "/-/livez");
    let date = httpdate::parse_http_date(answer.field("date").expect("a date")).expect("a date");
    match date.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs() as i64,
        Err(behind) => -(behind.duration().as_secs() as i64),
    }
}

fn a_wall_clock_that_jumps_changes_nothing_but_dates(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::on(Engine::Epoll)
        .store(database)
        .backend(backend.address())
        .set("cache.ttl", json!("200ms"))
        .set("log.access", json!("file:access.log"));
    let Some(library) = library(setup.folder()) else { return };
    let offset = setup.folder().join("offset");
    std::fs::write(&offset, "0\n").expect("written");
    let balancer = setup
        .clone()
        .env("LD_PRELOAD", &library)
        .env("CLOCK_OFFSET_FILE", offset.to_str().expect("UTF-8"))
        .start();
    assert!(date_offset(&balancer).abs() < 10);
    balancer.limit("127.0.0.66", 1, 0);
    balancer.limit("127.0.0.77", 1, 5);
    balancer.get_from("127.0.0.66", "/").expect(200);
    balancer.get_from("127.0.0.66", "/").problem(429);
    let traffic = Traffic::start(balancer.address, Engine::Epoll);
    traffic.goes_on(200);
    for (number, seconds) in ["-3600", "+3600"].into_iter().enumerate() {
        std::fs::write(&offset, format!("{seconds}\n")).expect("written");
        let wanted: i64 = seconds.parse().expect("a number");
        until("the process's clock has jumped", || {
            ((date_offset(&balancer) - wanted).abs() < 30).then_some(())
        });
        traffic.goes_on(300);
        // No bucket is filled or emptied by it, and one that fills goes on filling at its rate.
        balancer.get_from("127.0.0.66", "/").problem(429);
        let began = Instant::now();
        for _ in 0..3 {
            until("a token in a fifth of a second", || {
                (balancer.get_from("127.0.0.77", "/").status == 200).then_some(())
            });
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        // Writes, and what is known of them, go on.
        let id = format!("new-{number}");
        balancer.limit(&id, 1, 1);
        balancer.api("GET", &format!("/limits/get?client_id={id}"), &Value::Null).expect(200);
        balancer.limit(&format!("127.0.1.{}", number + 1), 1, 0);
        balancer.get_from(&format!("127.0.1.{}", number + 1), "/").expect(200);
        balancer.get_from(&format!("127.0.1.{}", number + 1), "/").problem(429);
    }
    let (tally, slowest) = traffic.finish();
    assert_eq!(others(&tally, "200"), 0, "{tally:?}\n{}", balancer.proc.story());
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    // Durations are measured by the monotonic clock: none is an hour long.
    let lines = until("the log is written", || {
        let log = std::fs::read_to_string(setup.folder().join("access.log")).ok()?;
        // The last line may not be whole yet.
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() > 500).then_some(lines)
    });
    for line in lines {
        let took = line["duration"].as_f64().unwrap_or_else(|| panic!("no duration in {line}"));
        assert!((0.0..20.0).contains(&took), "{line}");
    }
}
