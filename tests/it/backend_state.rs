//! The state of a backend, and its cause: the same words on stderr, in `/-/readyz?verbose`, in `/v1/backends` and in `balancer
//! backends ls`; draining, which is independent of health; and `balancer_backend_state` for alerts.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli;
use crate::support::backend::refusing;
use crate::support::balancer::{PROGRAM, listening};
use crate::support::client::{head, request};
use crate::support::engine::{Case, each_engine, each_store};
use crate::support::{Backend, Balancer, Conn, Database, Engine, Proc, Setup, Then, until};

each_engine! {
    an_api_whose_root_is_no_200_works,
    one_cause_reads_the_same_everywhere,
    an_ejection_reads_the_same_everywhere,
}

each_store! {
    a_drain_is_said_audited_and_shown_apart_from_health,
}

/// The cause of a backend. Checks that it is the same wherever it can be read.
#[track_caller]
fn cause(balancer: &Balancer, name: &str) -> String {
    let shown = balancer.api("GET", &format!("/-/v1/backends/{name}"), &Value::Null).expect(200).json();
    let cause = shown["cause"].as_str().unwrap_or_else(|| panic!("no cause: {shown}")).to_owned();
    let ready = request(balancer.address, "GET", "/-/readyz?verbose", &[], b"").json();
    let rows = ready["backends"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["name"] == name).expect("listed");
    for member in ["cause", "state", "health", "up"] {
        assert_eq!(row[member], shown[member], "{ready}");
    }
    let list = cli::backends(balancer, &["ls"]);
    let line = list.lines().find(|line| line.starts_with(&format!("{name}\t"))).expect("listed");
    assert!(line.ends_with(&format!("\t{cause}")), "{list}");
    cause
}

/// The state that holds in the metrics: exactly one.
fn state(balancer: &Balancer, name: &str) -> String {
    let page = balancer.get("/-/metrics").expect(200).text();
    let prefix = format!("balancer_backend_state{{pool=\"default\",backend=\"{name}\",state=\"");
    let lines: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
    assert_eq!(lines.len(), 4, "{page}");
    let holds: Vec<_> = lines.iter().filter_map(|line| line.strip_suffix("\"} 1")).collect();
    assert_eq!(holds.len(), 1, "{lines:?}");
    holds[0].to_owned()
}

/// With a file that says nothing about health checks, and without any file.
fn an_api_whose_root_is_no_200_works(engine: Engine) {
    for (code, says) in [(401, "Unauthorized"), (404, "Not Found")] {
        let answer = format!("HTTP/1.1 {code} {says}\r\nContent-Length: 0\r\n\r\n");
        let api = Backend::answering(answer);
        let balancer = Setup::on(engine).backend(api.address()).set("health_check", json!({})).start();
        assert_eq!(balancer.get("/").status, code);
        assert_eq!(state(&balancer, "a"), "up");
        balancer.get("/-/readyz").expect(200);

        let folder = tempfile::tempdir().expect("a folder");
        let address = api.address().to_string();
        let args = ["run", "--to", &address, "--listen", "127.0.0.1:0"];
        let env = [("BALANCER__FRONTEND__ENGINE".to_owned(), engine.name().to_owned())];
        let proc = Proc::start(PROGRAM, &args, folder.path(), &env);
        let address = listening(&proc.wait_out("listening on http://"));
        assert_eq!(request(address, "GET", "/", &[], b"").status, code, "{}", proc.story());
    }
}

/// What a check may meet, with what has to be read of it: what was asked, what came, which key to look at.
fn one_cause_reads_the_same_everywhere(engine: Engine) {
    let full = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(40_000));
    let backends = [
        ("status", Backend::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
        ("silent", Backend::deaf()),
        ("closed", Backend::saying("", Then::Close)),
        ("other", Backend::saying("SSH-2.0-OpenSSH_9.2\r\n", Then::Close)),
        ("tls", Backend::saying(b"\x15\x03\x01\x00\x02\x02\x46".as_slice(), Then::Close)),
        ("malformed", Backend::answering("HTTP/1.1 2000 OK\r\n\r\n")),
        ("switching", Backend::answering("HTTP/1.1 101 Switching Protocols\r\n\r\n")),
        ("full", Backend::saying(full, Then::Close)),
    ];
    let mut setup = Setup::on(engine).set(
        "health_check",
        json!({ "path": "/well?a=1", "expect": "200-399,418", "interval": "1h", "timeout": "4s" }),
    );
    for (name, backend) in &backends {
        setup = setup.backend_with(json!({ "name": name, "url": backend.url() }));
    }
    let balancer = setup
        .backend_with(json!({ "name": "refusing", "url": format!("http://{}", refusing()) }))
        .backend_with(json!({ "name": "nowhere", "url": "http://nowhere.invalid:80" }))
        .start();
    // ureq does not say what is wrong with an answer that is not HTTP.
    let closely = |says| if engine.can(Case::Checks) { says } else { "not HTTP/1" };
    for (name, asked, came, key) in [
        ("status", "GET /well?a=1", "status 404", "health_check.expect, which is \"200-399,418\""),
        ("silent", "GET /well?a=1", "no answer within 4s", "health_check.timeout"),
        ("closed", "GET /well?a=1", "connection", "backends[].url"),
        ("other", "GET /well?a=1", "not HTTP/1", "backends[].url"),
        ("tls", "GET /well?a=1", closely("TLS"), "backends[].url"),
        ("malformed", "GET /well?a=1", closely("status line is malformed"), "backends[].url"),
        ("switching", "GET /well?a=1", "switches protocols", "health_check.path"),
        ("full", "GET /well?a=1", "larger than", "health_check.path"),
        ("refusing", "GET /well?a=1", "connection refused", "backends[].url"),
        ("nowhere", "nowhere.invalid", "does not resolve", "backends[].url"),
    ] {
        // The one that is silent may be found out a moment after it listens.
        until("it is down", || (state(&balancer, name) == "down").then_some(()));
        // A name server may take its time.
        let cause = until("the cause is there", || {
            Some(cause(&balancer, name)).filter(|cause| name != "nowhere" || cause.contains("resolve"))
        });
        for words in [asked, came, key] {
            assert!(cause.contains(words), "{name}: {words:?} is not in {cause:?}");
        }
        balancer.proc.wait_err(0, "the same on stderr", |line| {
            line.contains(&format!("backend {name} ")) && line.contains(&format!("is down: {cause}"))
        });
    }
}

fn an_ejection_reads_the_same_everywhere(engine: Engine) {
    let good = Backend::named("good");
    let balancer = Setup::on(engine)
        .backend(refusing())
        .backend(good.address())
        .set("balancing.strategy", json!("round_robin"))
        .set("outlier", json!({ "consecutive": 1, "base_time": "1h" }))
        .start();
    balancer.get("/").expect(200);
    balancer.get("/").expect(200);
    let cause = until("it is ejected", || {
        (state(&balancer, "a") == "ejected")
            .then(|| cause(&balancer, "a"))
            .filter(|cause| cause.contains("refused"))
    });
    assert!(cause.contains("ejected for 3600s"), "{cause}");
    assert!(cause.contains("1 failures in a row"), "{cause}");
    balancer.proc.wait_err(0, "the same on stderr", |line| line.contains(&format!("is {cause}")));
    assert_eq!(state(&balancer, "b"), "up");
}

fn a_drain_is_said_audited_and_shown_apart_from_health(database: &Database) {
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    let a = Backend::scripted(move |_, stream| {
        let code = says.load(Ordering::SeqCst);
        let _ = write!(stream, "HTTP/1.1 {code} Whatever\r\nContent-Length: 0\r\n\r\n");
        Then::Keep
    });
    let b = Backend::named("b");
    let setup = Setup::auto()
        .store(database)
        .backend(a.address())
        .backend(b.address())
        .set("health_check", json!({ "interval": "50ms", "timeout": "10s", "rise": 1, "fall": 1 }));
    let (balancer, other) = (setup.start(), setup.start());
    let turn = |said: Value, state: &str, line: &str| {
        let (from, there) = (balancer.proc.err_lines(), other.proc.err_lines());
        balancer.api("PATCH", "/-/v1/backends/a", &said).expect(200);
        for (proc, from) in [(&balancer.proc, from), (&other.proc, there)] {
            proc.wait_err(from, line, |text| text.ends_with(line));
        }
        assert_eq!(self::state(&balancer, "a"), state);
    };
    let health = || {
        let shown = balancer.api("GET", "/-/v1/backends/a", &Value::Null).expect(200).json();
        shown["health"].as_str().expect("a word").to_owned()
    };
    turn(json!({ "state": "drain" }), "drain", "backend a is in drain: the operator drains it");
    assert_eq!(cause(&balancer, "a"), "the operator drains it");
    assert_eq!(health(), "up", "a drained backend is well");
    // Its checks go on and say what they find, but the operator's word comes first.
    status.store(500, Ordering::SeqCst);
    until("its checks fail", || (health() == "down").then_some(()));
    assert!(cause(&balancer, "a").starts_with("the operator drains it; GET /: status 500; "));
    assert_eq!(state(&balancer, "a"), "drain");
    status.store(200, Ordering::SeqCst);
    until("they pass", || (health() == "up").then_some(()));
    turn(json!({ "state": "up" }), "up", "backend a is in service again");
    turn(json!({ "weight": 0 }), "drain", "backend a is in drain: its weight is 0");
    turn(json!({ "weight": 1 }), "up", "backend a is in service again");
    turn(json!({ "state": "down" }), "down", "backend a is down: the operator took it out of service");
    assert_eq!(cause(&balancer, "a"), "the operator took it out of service");
    turn(json!({ "state": "drain" }), "drain", "backend a is in drain: the operator drains it");
    let audit = balancer.api("GET", "/-/v1/audit", &Value::Null).expect(200).json();
    let entries = audit["entries"].as_array().expect("a list");
    assert!(entries.iter().all(|entry| entry["target"] == json!({ "backend": "a" })), "{audit}");
    let told: Vec<_> = entries.iter().map(|entry| entry["action"].as_str().expect("a word")).collect();
    assert_eq!(told, ["drain", "down", "put", "put", "undrain", "drain"]);
    // A balancer that starts says it, too.
    let late = setup.start();
    late.proc.wait_err(0, "said at start", |line| line.ends_with("is in drain: the operator drains it"));
}

/// When waiting requests have taken every descriptor, no check can be made. That is our own fault, so the backend stays
/// up.
#[test]
fn what_we_lack_takes_no_backend_out() {
    let a = Backend::scripted(|seen, stream| {
        if seen.request_line().contains("/hang") {
            return Then::Hang;
        }
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let balancer = Setup::auto()
        .open_files(72)
        .backend(a.address())
        .set("health_check", json!({ "interval": "20ms", "timeout": "10s", "rise": 1, "fall": 1 }))
        .start();
    let mut held: Vec<Conn> = Vec::new();
    let line = until("it is said", || {
        if held.len() < 36 {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/hang", &[], None));
            held.push(conn);
        }
        balancer.proc.err().lines().find(|line| line.contains("is not checked")).map(str::to_owned)
    });
    assert!(line.contains("backend a (") && line.to_lowercase().contains("open files"), "{line}");
    held.into_iter().for_each(Conn::reset);
    until("it answers again", || (balancer.get("/").status == 200).then_some(()));
    let err = balancer.proc.err();
    assert!(!err.contains("is down"), "{err}");
}

/// The checks need two descriptors to begin, and at the first reload there is only one. The next reload tries again.
#[test]
fn checks_that_could_not_begin_do_with_the_next_reload() {
    const FILES: usize = 72;
    let a = Backend::scripted(|seen, stream| {
        if seen.request_line().contains("/hang") {
            return Then::Hang;
        }
        let _ = stream.write_all(crate::support::backend::OK);
        Then::Keep
    });
    let setup = Setup::auto().open_files(FILES).backend(a.address());
    let balancer = setup.start();
    let mut held: Vec<Conn> = Vec::new();
    // Descriptors that it inherited may have higher numbers; they are not counted.
    let taken = || {
        let folder =
            std::fs::read_dir(format!("/proc/{}/fd", balancer.proc.pid())).expect("a process of ours");
        let number = |name: std::ffi::OsString| name.to_str().and_then(|name| name.parse::<usize>().ok());
        folder.flatten().filter(|file| number(file.file_name()).is_some_and(|number| number < FILES)).count()
    };
    while taken() < FILES - 1 {
        let before = taken();
        let mut conn = Conn::open(balancer.address);
        // One for the client, and one for the backend.
        let more = if before < FILES - 4 { 2 } else { 1 };
        if more == 2 {
            conn.send(head("GET", "/hang", &[], None));
        }
        held.push(conn);
        until("it has its descriptors", || (taken() >= before + more).then_some(()));
    }
    let checked = setup.set("health_check", json!({ "path": "/probe", "interval": "20ms" }));
    checked.write();
    balancer.proc.signal(Signal::HUP);
    let (_, line) = balancer.proc.wait_err(0, "it is said", |line| line.contains("is not checked"));
    assert!(line.contains("the pool default is not checked: Too many open files"), "{line}");
    held.into_iter().for_each(Conn::reset);
    until("it answers again", || (balancer.get("/").status == 200).then_some(()));
    let asked = || a.seen().iter().any(|seen| seen.request_line().contains("/probe"));
    assert!(!asked());
    balancer.proc.signal(Signal::HUP);
    until("it is checked", || asked().then_some(()));
}
