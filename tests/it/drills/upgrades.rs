//! Upgrades: WebSocket, with a client and a server of other projects; and no other protocol gets through.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::{may_open, setup, turn};
use crate::support::balancer::listening;
use crate::support::client::head;
use crate::support::{Backend, Conn, Proc, Then, aloud, until};

const SOCKETS: usize = 1000;
const SERVER: &str = include_str!("websockets_server.py");
const CLIENT: &str = include_str!("websockets_client.py");

/// A folder with the scripts and a Python that has the package; `None`, said aloud, where it can't be had.
fn python() -> Option<(TempDir, PathBuf)> {
    let folder = tempfile::Builder::new().prefix("balancer-it-ws-").tempdir().expect("a folder");
    std::fs::write(folder.path().join("server.py"), SERVER).expect("written");
    std::fs::write(folder.path().join("client.py"), CLIENT).expect("written");
    let venv = folder.path().join("venv");
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let python = venv.join("bin/python");
    let there = works(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        && works(Command::new(&python).args(["-m", "pip", "install", "--quiet", "websockets>=14"]))
        && works(Command::new(&python).arg(folder.path().join("server.py")).arg("version"));
    if !there {
        aloud("skipped: PyPI's `websockets` can't be installed (python3 -m venv, pip install)");
    }
    there.then_some((folder, python))
}

fn script(python: &Path, folder: &Path, args: &[&str]) -> Proc {
    Proc::start(python.to_str().expect("UTF-8"), args, folder, &[])
}

#[test]
fn a_thousand_real_websockets_need_no_thread() {
    let _turn = turn();
    if !may_open(4 * SOCKETS as u64) {
        return;
    }
    let Some((folder, python)) = python() else { return };
    let server = script(&python, folder.path(), &["server.py"]);
    let backend = listening(&server.wait_out("listening on http://"));
    let balancer = setup().backend(backend).start();
    let threads = balancer.proc.threads();
    let files = balancer.proc.files();
    let go = folder.path().join("go");
    let url = format!("ws://{}/chat", balancer.address);
    let args = ["client.py", &url, &SOCKETS.to_string(), go.to_str().expect("UTF-8")];
    let mut client = script(&python, folder.path(), &args);
    let patience = Duration::from_secs(60);
    client.wait_out_at_most(&format!("open {SOCKETS}"), patience);
    assert!(balancer.proc.files() >= files + 2 * SOCKETS, "each has two sockets: {}", balancer.proc.files());
    assert_eq!(balancer.proc.threads(), threads, "as many as with none");
    let metrics = balancer.get("/-/metrics").expect(200).text();
    for series in [
        r#"balancer_backend_in_flight{pool="default",backend="a"}"#,
        r#"balancer_connections{state="relay"}"#,
    ] {
        assert!(metrics.contains(&format!("{series} {SOCKETS}\n")), "{series} in {metrics}");
    }
    std::fs::write(&go, "").expect("written");
    client.wait_out_at_most(&format!("used {SOCKETS}"), patience);
    assert!(client.wait_at_most(patience).success(), "{}", client.story());
    until("both sides of each are closed", || (balancer.proc.files() <= files + 8).then_some(()));
    assert_eq!(balancer.proc.threads(), threads);
    until("their leases are given back", || {
        balancer
            .get("/-/metrics")
            .text()
            .contains("balancer_backend_in_flight{pool=\"default\",backend=\"a\"} 0\n")
            .then_some(())
    });
}

/// Answers a request for WebSocket with 101, everything else with 200, and `/lie` with a 101 that was not asked for.
fn backend() -> Backend {
    Backend::scripted(|seen, stream| {
        let lies = seen.request_line().contains("/lie");
        let answer: &[u8] = match seen.field("upgrade") {
            Some(protocol) if protocol == "websocket" => {
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
            }
            _ if lies => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            _ => crate::support::backend::OK,
        };
        let _ = std::io::Write::write_all(stream, answer);
        Then::Keep
    })
}

#[test]
fn no_other_protocol_gets_past() {
    let backend = backend();
    let balancer = setup().backend(backend.address()).start();
    const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let rows: &[&[(&str, &str)]] = &[
        &[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")],
        &[("Connection", "upgrade"), ("Upgrade", "h2c")],
        &[("Connection", "Upgrade"), ("Upgrade", "TLS/1.0")],
        &[("Connection", "Upgrade"), ("Upgrade", "websocket/13x")],
        // Named or not, these are hop-by-hop.
        &[("Upgrade", "h2c")],
        &[("HTTP2-Settings", "AAMAAABk")],
        &[("Upgrade", "websocket")],
    ];
    for fields in rows {
        for target in ["/", "/lie"] {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", target, fields, None));
            let answer = conn.read("GET").unwrap();
            let expected = if target == "/" { 200 } else { 502 };
            assert_eq!(answer.status, expected, "{fields:?} {target}");
            let seen = backend.seen().pop().unwrap();
            for name in ["upgrade", "http2-settings"] {
                assert_eq!(seen.field(name), None, "{fields:?}: {:?}", seen.lines());
            }
            let connection = seen.field("connection").unwrap_or_default().to_ascii_lowercase();
            assert!(!connection.contains("upgrade"), "{fields:?}: {connection}");
        }
        // What follows is a request like any other, and HTTP/2 is none.
        let before = backend.seen().len();
        let mut conn = Conn::open(balancer.address);
        conn.send(head("GET", "/", fields, None));
        conn.send(PREFACE);
        conn.read("GET").unwrap().expect(200);
        let refused = conn.read("GET").unwrap();
        assert!(matches!(refused.status, 400 | 505), "{}", refused.status);
        assert_eq!(backend.seen().len(), before + 1);
    }
}

#[test]
fn a_list_of_protocols_offers_the_backend_only_the_one_that_is_allowed() {
    let backend = backend();
    let balancer = setup().backend(backend.address()).start();
    for list in ["websocket, h2c", "h2c, websocket", "WebSocket"] {
        let mut conn = Conn::open(balancer.address);
        let fields =
            [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", list), ("HTTP2-Settings", "AAMAAABk")];
        conn.send(head("GET", "/", &fields, None));
        let answer = conn.read_head("GET").unwrap();
        let seen = backend.seen().pop().unwrap();
        assert!(!seen.lines().join("\n").to_ascii_lowercase().contains("h2c"), "{list}: {:?}", seen.lines());
        assert_eq!(seen.field("http2-settings"), None, "{list}");
        assert_eq!(answer.status, 101, "{list}");
        assert_eq!(seen.all("upgrade"), ["websocket"], "{list}");
        assert_eq!(answer.all("upgrade"), ["websocket"], "{list}");
        assert_eq!(answer.field("connection"), Some("upgrade"), "{list}");
        let mut hello = Vec::new();
        conn.exactly(5, &mut |bytes| hello.extend_from_slice(bytes)).unwrap();
        assert_eq!(hello, b"hello", "{list}");
    }
    // A body would have to be read first, and HTTP/1.0 knows no upgrades.
    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[("Connection", "Upgrade"), ("Upgrade", "websocket")], Some(2)));
    conn.send("hi");
    conn.read("POST").unwrap().expect(200);
    let mut conn = Conn::open(balancer.address);
    conn.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    conn.read("GET").unwrap().expect(200);
    assert_eq!(backend.seen().pop().unwrap().field("upgrade"), None);
    // With the option emptied, none is.
    let balancer = setup().backend(backend.address()).set("frontend.upgrades", json!([])).start();
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    crate::support::request(balancer.address, "GET", "/", &fields, b"").expect(200);
    assert_eq!(backend.seen().pop().unwrap().field("upgrade"), None);
}
