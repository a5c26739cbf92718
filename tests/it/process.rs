//! Signals, draining, an address that is in use, and inherited sockets.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;
use serde_json::json;

use crate::support::balancer::listening;
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Gate, Setup, Then, get, until};

each_engine! {
    sigterm_lets_requests_end_and_exits_0,
    sigint_exits_0,
    readiness_ends_before_accepting_does,
    a_second_signal_ends_at_once,
    sighup_sigusr1_and_sigusr2_kill_nobody,
    an_address_in_use_is_exit_1,
    stdout_holds_the_listening_lines_and_nothing_else,
    an_inherited_socket_replaces_listen,
}

/// A backend that answers when the gate opens.
fn waiting(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::scripted(move |_, stream| {
        gate.wait();
        let _ = std::io::Write::write_all(stream, crate::support::backend::OK);
        Then::Keep
    })
}

fn sigterm_lets_requests_end_and_exits_0(engine: Engine) {
    let gate = Gate::default();
    let backend = waiting(&gate);
    let mut balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    until("the request is at the backend", || (backend.seen().len() == 1).then_some(()));

    balancer.proc.signal(Signal::TERM);
    until("new connections are refused", || {
        Conn::try_from("127.0.0.1".parse().unwrap(), balancer.address).is_err().then_some(())
    });
    assert!(balancer.proc.poll().is_none(), "it waits for the request\n{}", balancer.proc.story());
    gate.open();
    let answer = conn.read("GET").expect("the request that was under way is answered");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.story());
}

fn sigint_exits_0(engine: Engine) {
    let backend = Backend::named("a");
    let mut balancer = Setup::on(engine).backend(backend.address()).start();
    // A kept connection that is idle must not keep the process.
    let mut idle = Conn::open(balancer.address);
    idle.get("/").expect(200);
    balancer.proc.signal(Signal::INT);
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.story());
}

fn readiness_ends_before_accepting_does(engine: Engine) {
    let backend = Backend::named("a");
    let mut balancer =
        Setup::on(engine).backend(backend.address()).set("shutdown_delay", json!("5s")).start();
    balancer.get("/-/readyz").expect(200);
    balancer.proc.signal(Signal::TERM);
    until("it is not ready any more", || (balancer.get("/-/readyz").status == 503).then_some(()));
    // Clients that do not know yet are still served.
    balancer.get("/").expect(200);
    balancer.get("/-/livez").expect(200);
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.story());
}

fn a_second_signal_ends_at_once(engine: Engine) {
    let gate = Gate::default();
    let backend = waiting(&gate);
    let mut balancer =
        Setup::on(engine).backend(backend.address()).set("shutdown_timeout", json!("1h")).start();
    let mut conn = Conn::open(balancer.address);
    conn.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    until("the request is at the backend", || (backend.seen().len() == 1).then_some(()));
    balancer.proc.signal(Signal::TERM);
    until("it drains", || {
        Conn::try_from("127.0.0.1".parse().unwrap(), balancer.address).is_err().then_some(())
    });
    assert!(balancer.proc.poll().is_none(), "{}", balancer.proc.story());
    balancer.proc.signal(Signal::TERM);
    let status = balancer.proc.wait();
    assert!(status.code() == Some(128 + 15) || status.signal() == Some(15), "{}", balancer.proc.story());
    gate.open();
}

fn sighup_sigusr1_and_sigusr2_kill_nobody(engine: Engine) {
    let backend = Backend::named("a");
    let mut balancer = Setup::on(engine).backend(backend.address()).start();
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        let before = balancer.proc.err_lines();
        balancer.proc.signal(signal);
        balancer.proc.wait_err(before, "the signal is logged", |line| line.contains(name));
        balancer.get("/").expect(200);
    }
    assert!(balancer.proc.poll().is_none());
}

fn an_address_in_use_is_exit_1(engine: Engine) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let backend = Backend::named("a");
    for key in ["listen", "admin.listen"] {
        let setup = Setup::on(engine).backend(backend.address()).set(key, json!(address.to_string()));
        let mut proc = setup.launch();
        assert_eq!(proc.wait().code(), Some(1), "{key}\n{}", proc.story());
        assert!(proc.err().contains(&address.to_string()), "{key}\n{}", proc.story());
    }
}

fn stdout_holds_the_listening_lines_and_nothing_else(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0"));
    let mut balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.proc.signal(Signal::TERM);
    balancer.proc.wait();
    let expected = format!("listening on http://{}\nadmin on http://{}", balancer.address, balancer.admin);
    assert_eq!(balancer.proc.out(), expected);
    assert_ne!(balancer.address.port(), 0);
}

fn an_inherited_socket_replaces_listen(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("listen", json!("127.0.0.1:1"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let proc = setup.launch_on(&socket);
    assert_eq!(listening(&proc.wait_out("listening on http://")), address);
    drop(socket);
    get(address, "/").expect(200);
}
