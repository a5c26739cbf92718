//! `balancer top`: once into a pipe, and live on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::Ground;
use crate::support::balancer::PROGRAM;
use crate::support::{Database, PATIENCE, terminal, until, watchdog};

/// A ground whose one client sent 5 requests, 3 of them refused.
fn busy() -> Ground {
    let ground = Ground::new(&Database::sqlite());
    ground.good(&["limits", "set", "127.0.0.1", "2/h"]);
    for allowed in [true, true, false, false, false] {
        ground.balancer.get("/").expect(if allowed { 200 } else { 429 });
    }
    ground
}

#[test]
fn piped_it_prints_all_tables_once() {
    let ground = busy();
    let out = until("the counts are there", || {
        let out = ground.good(&["top", "--window", "5m"]);
        out.contains("127.0.0.1").then_some(out)
    });
    let (clients, backends) = out.rsplit_once("\n\n").expect("three tables");
    assert_eq!(clients, "127.0.0.1\t5\t0.0\t3\t60\n\n127.0.0.1\t3\t0.0");
    assert!(backends.starts_with("a\tup\t0\t") && backends.trim_end().split('\t').count() == 6, "{out}");
    let json = ground.json(&["top"]);
    assert_eq!(json["clients"][0]["requests"], 5, "{json}");
    assert_eq!(json["limited"][0]["denied"], 3, "{json}");
    assert!(json["instance"].is_string(), "{json}");
    assert_eq!(
        (&json["backends"][0]["title"], &json["backends"][0]["is"]),
        (&json!("a"), &json!("up")),
        "{json}"
    );
}

/// Waits for what is written to a terminal next.
fn read(mut ours: &File, seen: &mut String) {
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(ours, PollFlags::IN)], Some(&patience));
    assert_eq!(ready, Ok(1), "nothing more is written: {seen:?}");
    let mut bytes = [0; 4096];
    let count = ours.read(&mut bytes).expect("the terminal is open");
    seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
}

#[test]
fn on_a_terminal_it_is_drawn_again_and_q_gives_the_screen_back() {
    let ground = busy();
    let (ours, theirs) = terminal(60, 20);
    let clone = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("cloned"));
    let mut child = Command::new(PROGRAM)
        .args(["top", "--every", "1s", "--url", &ground.balancer.admin.to_string()])
        .env_clear()
        .stdin(clone(&theirs))
        .stdout(clone(&theirs))
        .stderr(clone(&theirs))
        .spawn()
        .expect("the program starts");
    watchdog::kill(child.id());
    let mut seen = String::new();
    until("all tables are drawn", || {
        read(&ours, &mut seen);
        let has = |text| seen.contains(text);
        (has("BUSIEST") && has("127.0.0.1  5") && has("1 of 1 backends up")).then_some(())
    });
    assert!(seen.starts_with("\x1b[?1049h"), "it takes the other screen: {seen:?}");
    // A sixth request is seen without asking again.
    ground.balancer.get("/").problem(429);
    until("it is drawn again", || {
        read(&ours, &mut seen);
        seen.contains("127.0.0.1  6").then_some(())
    });
    for drawn in seen.split("\x1b[H").skip(1) {
        let lines = drawn.trim_end_matches(['\r', '\n']).split("\r\n");
        assert!(
            lines.clone().count() <= 20 && lines.clone().all(|line| line.chars().count() < 70),
            "{drawn:?}"
        );
    }
    (&ours).write_all(b"q").expect("typed");
    let status = until("it ends", || child.try_wait().expect("waitpid works"));
    watchdog::gone(child.id());
    assert!(status.success(), "{status}");
    // The other end is still open here, so that what was written last can be read.
    let mut rest = String::new();
    while !rest.ends_with("\x1b[?1049l") {
        read(&ours, &mut rest);
    }
    drop(theirs);
}
