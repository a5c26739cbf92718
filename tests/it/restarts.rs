//! Restarts without a gap: an activated socket under load, and what a service manager is told.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::balancer::listening;
use crate::support::client::head;
use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Conn, Engine, Fault, Load, PATIENCE, Setup, get, until};

each_engine! {
    fifty_restarts_behind_an_activated_socket_cost_no_request,
    the_service_manager_hears_of_every_state,
    requests_are_served_while_readiness_is_gone,
    a_client_that_is_silent_does_not_keep_the_process,
}

fn fifty_restarts_behind_an_activated_socket_cost_no_request(engine: Engine) {
    const RESTARTS: usize = 50;
    if !engine.can(Case::Restarts) {
        // The crate's thread accepts until the process ends, when no worker is left to answer.
        return;
    }
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let setup =
        Setup::on(engine).backend(a.address()).backend(b.address()).set("database.pool_size", json!(1));
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let mut proc = setup.launch_on(&socket);
    assert_eq!(listening(&proc.wait_out("listening on http://")), address);
    let load = Load::start(address, 64, true);
    for round in 0..RESTARTS {
        let before = load.answered();
        until("there is load", || (load.answered() > before + 64).then_some(()));
        proc.signal(Signal::TERM);
        assert_eq!(proc.wait().code(), Some(0), "restart {round}\n{}", proc.story());
        let faults = load.faults();
        assert!(faults.is_empty(), "restart {round}: {faults:?}\n{}", proc.story());
        proc = setup.launch_on(&socket);
    }
    let before = load.answered();
    until("it goes on", || (load.answered() > before + 64).then_some(()));
    let (answered, faults) = load.finish();
    assert!(faults.is_empty(), "{} of {answered}: {faults:?}\n{}", faults.len(), proc.story());
    assert!(a.seen().len() + b.seen().len() >= answered);
}

/// A socket that a service manager listens on.
struct Told(UnixDatagram);

impl Told {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Self(socket)
    }

    /// The next state, in lines.
    #[track_caller]
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).expect("a state");
        let text = String::from_utf8(buffer[..count].to_vec()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn expect(&self, state: &str) -> Vec<String> {
        let lines = self.next();
        assert!(lines.iter().any(|line| line == state), "{state} in {lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("STATUS=")), "{lines:?}");
        lines
    }
}

fn the_service_manager_hears_of_every_state(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine).backend(a.address());
    let path = setup.folder().join("notify.sock");
    let told = Told::at(&path);
    let setup = setup.env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"));
    let mut balancer = setup.start();
    told.expect("READY=1");

    balancer.proc.signal(Signal::HUP);
    let lines = told.expect("RELOADING=1");
    // systemd takes the reload for over only when READY comes with a later time than this.
    let now = lines.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse::<u64>().ok());
    let ours = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let ours_s = ours.tv_sec as f64 + ours.tv_nsec as f64 / 1e9;
    let now_s = now.expect("MONOTONIC_USEC") as f64 / 1e6;
    assert!((0.0..PATIENCE.as_secs_f64()).contains(&(ours_s - now_s)), "{now_s} of {ours_s}");
    told.expect("READY=1");
    // One that fails, too.
    std::fs::write(setup.folder().join("config.json"), "{").expect("written");
    balancer.api("POST", "/-/v1/reload", &Value::Null).problem(400);
    told.expect("RELOADING=1");
    told.expect("READY=1");

    balancer.proc.signal(Signal::TERM);
    told.expect("STOPPING=1");
    assert_eq!(balancer.proc.wait().code(), Some(0));

    // An abstract name will do. A name that is none is said on stderr, and requests are served all the same.
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::SocketAddr;
        let name = format!("balancer-it-{}-{}", std::process::id(), engine.name());
        let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
        let told = Told(UnixDatagram::bind_addr(&address).expect("a socket"));
        told.0.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let _balancer = setup.clone().env("NOTIFY_SOCKET", &format!("@{name}")).start();
        told.expect("READY=1");
    }
    let deaf = setup.env("NOTIFY_SOCKET", "nonsense").start();
    deaf.get("/").expect(200);
    deaf.proc.wait_err(0, "a word about the name", |line| line.contains("NOTIFY_SOCKET"));
}

fn requests_are_served_while_readiness_is_gone(engine: Engine) {
    let a = Backend::named("a");
    let setup = Setup::on(engine)
        .backend(a.address())
        .set("shutdown_delay", json!("5s"))
        .set("admin.listen", json!("127.0.0.1:0"));
    let mut balancer = setup.start();
    balancer.get("/-/readyz").expect(200);
    let mut kept = Conn::open(balancer.address);
    kept.get("/").expect(200);
    let load = Load::start(balancer.address, 8, engine.can(Case::ManyKept));
    until("there is load", || (load.answered() > 50).then_some(()));
    balancer.proc.signal(Signal::TERM);
    until("it is not ready", || (get(balancer.address, "/-/readyz").status == 503).then_some(()));
    // Everything is served as before: new connections, kept ones, the API.
    let problem = get(balancer.address, "/-/readyz").problem(503);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("shutting down")), "{problem}");
    assert_eq!(get(balancer.address, "/").expect(200).text(), "a");
    kept.get("/").expect(200);
    let body = json!({ "client_id": "1.2.3.4", "capacity": 1, "rate_per_sec": 1 });
    balancer.api("POST", "/limits/create", &body).expect(201);
    let before = load.answered();
    until("the load goes on", || (load.answered() > before + 50).then_some(()));
    let (_, faults) = load.finish();
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.story());
}

/// Kept connections that send nothing for two seconds are closed. One that sends a request by then is answered, and
/// told that this was the last answer.
fn a_client_that_is_silent_does_not_keep_the_process(engine: Engine) {
    if !engine.can(Case::ClosesAfterRefusal) {
        // It can't close a connection that its client wants to keep; its end is not held up by one either.
        return;
    }
    let a = Backend::named("a");
    // Silent connections end long before this would end them.
    let setup = Setup::on(engine).backend(a.address()).set("shutdown_timeout", json!("5m"));
    let is_answered = || {
        let mut balancer = setup.start();
        let (mut speaks, mut silent, fresh) =
            (Conn::open(balancer.address), Conn::open(balancer.address), Conn::open(balancer.address));
        speaks.get("/").expect(200);
        silent.get("/").expect(200);
        let told = Instant::now();
        balancer.proc.signal(Signal::TERM);
        until("new connections are refused", || {
            Conn::try_from("127.0.0.1".parse().expect("an address"), balancer.address).is_err().then_some(())
        });
        let _ = speaks.try_send(head("GET", "/", &[], None));
        let last = speaks.read("GET");
        assert_eq!(silent.wait_closed().0, b"");
        let waited = told.elapsed();
        assert!(waited >= Duration::from_millis(1500), "closed after {waited:?} already");
        assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.story());
        drop(fresh);
        match last {
            Ok(last) => {
                assert_eq!(last.expect(200).field("connection"), Some("close"));
                true
            }
            Err(Fault::Closed | Fault::Reset) => false,
            Err(fault) => panic!("{fault:?}"),
        }
    };
    // On a busy machine the request may come too late, but not every time.
    assert!((0..5).any(|_| is_answered()));
}
