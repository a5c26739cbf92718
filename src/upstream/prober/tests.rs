use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use super::*;
use balancer_http::framing::response::HeadRules;
use balancer_pool::backend::BackendEntry;
use balancer_pool::backend_state::Failed;
use balancer_pool::backends::Settings;
use balancer_pool::backends::{Lease, Wanted};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(timeout: Duration) -> HealthCheck {
    HealthCheck {
        path: "/".into(),
        expect: vec![(200, 399)],
        interval: Duration::from_millis(10),
        timeout,
        rise: 2,
        fall: 3,
        head_rules: HeadRules::SHIPPED,
    }
}

fn entry() -> BackendEntry {
    BackendEntry::new("a", "a.test", 80)
}

/// Somebody that a request could go to.
fn pick(pool: &Backends) -> Option<Lease> {
    let wanted = Wanted { tried: &[], key: 0, now: 1, may_probe: true, preferred: &[] };
    pool.snapshot().pick(&wanted).ok()
}

fn pool(addresses: &[SocketAddr]) -> Arc<Backends> {
    let settings =
        Settings { checked: true, ..Settings::of(balancer_pool::strategy::Strategy::LeastConnections) };
    let pool = Backends::new(&settings, &[entry()]);
    pool.resolved(&entry(), addresses, 1);
    Arc::new(pool)
}

/// A server that answers every connection with the status that stands in `status`.
fn server(status: &Arc<AtomicU16>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::clone(status);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 1024]);
            let _ = write!(socket, "HTTP/1.1 {} x\r\n\r\n", status.load(Ordering::SeqCst));
        }
    });
    address
}

/// A server that takes connections and never says a word.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn health_of(pool: &Backends, address: SocketAddr) -> Option<Status> {
    pool.snapshot().endpoints().iter().find(|one| one.address == address).map(|one| one.health())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = Clock::real();
    let deadline = clock.now() + nanos(PATIENCE);
    while !holds() {
        assert!(clock.now() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn twenty_that_hang_delay_nobody() {
    let good = server(&Arc::new(AtomicU16::new(200)));
    let hanging: Vec<_> = (0..20).map(|_| silent()).collect();
    let mut addresses: Vec<_> = hanging.iter().map(|one| one.local_addr().unwrap()).collect();
    addresses.push(good);
    let pool = pool(&addresses);
    let prober = Prober::start(Arc::clone(&pool), settings(PATIENCE * 4), Clock::real()).unwrap();
    wait_until("the good one is up", || health_of(&pool, good) == Some(Status::Up));
    wait_until("and was checked often", || pool.backends()[0].checks().0 >= 10);
    let unknown = pool.snapshot().endpoints().iter().filter(|one| one.health() == Status::Unknown).count();
    assert_eq!(unknown, 20, "the others hang in their first check");
    assert!(!prober.wait_first(Duration::from_millis(1)), "which is not over");
    for _ in 0..20 {
        assert_eq!(pick(&pool).map(|lease| lease.endpoint.address), Some(good));
    }
}

#[test]
fn first_checks_decide_alone_and_are_awaited() {
    let up = server(&Arc::new(AtomicU16::new(204)));
    let failing = server(&Arc::new(AtomicU16::new(500)));
    // Bound and not listening: refused, and nobody else can get the port meanwhile.
    let unheard = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    unheard.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let closed = unheard.local_addr().unwrap().as_socket().unwrap();
    let hanging = silent();
    let pool = pool(&[up, failing, closed, hanging.local_addr().unwrap()]);
    let slow = HealthCheck { interval: PATIENCE * 4, ..settings(Duration::from_millis(200)) };
    let prober = Prober::start(Arc::clone(&pool), slow, Clock::real()).unwrap();
    assert!(prober.wait_first(PATIENCE));
    assert_eq!(health_of(&pool, up), Some(Status::Up));
    for down in [failing, closed, hanging.local_addr().unwrap()] {
        assert_eq!(health_of(&pool, down), Some(Status::Down));
    }
    assert_eq!(pool.backends()[0].checks(), (1, 3));
}

#[test]
fn one_goes_after_fall_failures_and_comes_back() {
    let status = Arc::new(AtomicU16::new(200));
    let address = server(&status);
    let pool = pool(&[address]);
    let prober = Prober::start(Arc::clone(&pool), settings(PATIENCE), Clock::real()).unwrap();
    assert!(prober.wait_first(PATIENCE));
    for _ in 0..3 {
        let (_, failed) = pool.backends()[0].checks();
        status.store(503, Ordering::SeqCst);
        wait_until("it is down", || health_of(&pool, address) == Some(Status::Down));
        assert!(pool.backends()[0].checks().1 >= failed + 3 && pick(&pool).is_none());
        let (passed, _) = pool.backends()[0].checks();
        status.store(200, Ordering::SeqCst);
        wait_until("it is up", || health_of(&pool, address) == Some(Status::Up));
        assert!(pool.backends()[0].checks().0 >= passed + 2 && pick(&pool).is_some());
    }
}

#[test]
fn new_endpoints_are_checked_and_removed_ones_no_more() {
    let (one, two) = (server(&Arc::new(AtomicU16::new(200))), server(&Arc::new(AtomicU16::new(200))));
    let pool = pool(&[one]);
    let prober = Prober::start(Arc::clone(&pool), settings(PATIENCE), Clock::real()).unwrap();
    assert!(prober.wait_first(PATIENCE));
    let removed = Arc::clone(&pool.snapshot().endpoints()[0]);
    pool.resolved(&entry(), &[two], 1);
    wait_until("the new one is up", || health_of(&pool, two) == Some(Status::Up));
    wait_until("nobody holds the old one", || Arc::strong_count(&removed) == 1);

    let kept = Arc::clone(&pool.snapshot().endpoints()[0]);
    drop(prober);
    wait_until("the last thread has ended", || Arc::strong_count(&kept) == 2);
}

#[test]
fn a_new_prober_goes_on_from_what_is_known() {
    let status = Arc::new(AtomicU16::new(200));
    let address = server(&status);
    let pool = pool(&[address]);
    drop(
        Prober::start(Arc::clone(&pool), settings(PATIENCE), Clock::real())
            .map(|one| one.wait_first(PATIENCE)),
    );
    status.store(500, Ordering::SeqCst);
    let (_, failed) = pool.backends()[0].checks();
    let stubborn = HealthCheck { fall: 1_000_000, ..settings(PATIENCE) };
    let _prober = Prober::start(Arc::clone(&pool), stubborn, Clock::real()).unwrap();
    wait_until("it was checked", || pool.backends()[0].checks().1 > failed);
    assert_eq!(health_of(&pool, address), Some(Status::Up));
}

#[test]
fn a_change_of_state_is_one_line_with_its_cause() {
    let endpoint = Endpoint::alone("a", SocketAddr::from(([127, 0, 0, 1], 9001)));
    for (state, cause, count, line) in [
        (State::Down, "x", "3 in a row", "backend a (127.0.0.1:9001) is down: x (3 in a row)"),
        (State::Up, "y", "first check", "backend a (127.0.0.1:9001) is up: y (first check)"),
    ] {
        assert_eq!(change_line(&endpoint, state, cause, count), line);
    }
}

/// What stands in the API is what was said last: another cause takes its place after `fall` of it in a row, and one that
/// comes and goes does not.
#[test]
fn another_cause_is_said_once_it_lasts() {
    let pool = pool(&[SocketAddr::from(([127, 0, 0, 1], 9001))]);
    let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
    let mut course = Course::new(&settings(PATIENCE), Status::Unknown);
    let failed = |failed| Err(NotPassed::Failed(failed));
    let cause = || endpoint.cause().map(|cause| cause.split(';').next().unwrap_or_default().to_owned());
    for (result, expected) in [
        (Err(NotPassed::Shortage("too many open files".into())), None),
        (failed(Failed::Refused), Some("GET /: connection refused")),
        (failed(Failed::Status(500)), Some("GET /: connection refused")),
        (failed(Failed::Status(500)), Some("GET /: connection refused")),
        (failed(Failed::Refused), Some("GET /: connection refused")),
        (failed(Failed::Status(500)), Some("GET /: connection refused")),
        (failed(Failed::Status(500)), Some("GET /: connection refused")),
        (failed(Failed::Status(500)), Some("GET /: status 500")),
        (Err(NotPassed::Shortage("too many open files".into())), Some("GET /: status 500")),
        (Ok(200), Some("GET /: status 500")),
        (Ok(200), None),
        (Err(NotPassed::Shortage("too many open files".into())), None),
    ] {
        course.take(&result, &endpoint, &pool, 0);
        assert_eq!(cause().as_deref(), expected, "{result:?}");
    }
    assert_eq!(pool.backends()[0].checks(), (2, 7), "what could not be made is not counted");
}

/// So `rise` checks of a backend that is back fit in `rise` intervals, even after one that timed out.
#[test]
fn checks_start_at_most_an_interval_apart() {
    let ms = Duration::from_millis;
    for (took, random, expected) in
        [(0, 0.0, 2_000), (0, 0.5, 1_900), (1_000, 0.0, 1_000), (1_000, 0.5, 900), (2_500, 0.0, 0)]
    {
        assert_eq!(pause(ms(2_000), ms(took), random), ms(expected), "{took} {random}");
    }
}
