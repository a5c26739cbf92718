use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use super::*;
use balancer_http::framing::response::HeadRules;
use balancer_pool::backend::BackendEntry;
use balancer_pool::backends::{Lease, Settings, Wanted};

mod answers;
mod pools;
#[cfg(all(target_os = "linux", feature = "epoll"))]
mod tls;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn settings(timeout: Duration) -> HealthCheck {
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

pub(super) fn entry() -> BackendEntry {
    BackendEntry::new("a", "a.test", 80)
}

/// Every driver that is built.
const DRIVERS: &[CheckDriver] = &[
    #[cfg(all(target_os = "linux", feature = "epoll"))]
    CheckDriver::Epoll,
    CheckDriver::Blocking,
];

/// The checks of a pool by themselves.
fn start(driver: CheckDriver, pool: &Arc<Backends>, settings: HealthCheck) -> PoolChecks {
    prober(driver).check(pool, settings).unwrap()
}

fn prober(driver: CheckDriver) -> Prober {
    Prober::new(driver, &Arc::default(), Clock::real())
}

/// An endpoint that a request could go to.
fn pick(pool: &Backends) -> Option<Lease> {
    let wanted = Wanted { tried: &[], key: 0, now: 1, may_probe: true, preferred: &[], bound_to: None };
    pool.snapshot().pick(&wanted).ok()
}

pub(super) fn pool(addresses: &[SocketAddr]) -> Arc<Backends> {
    let settings =
        Settings { checked: true, ..Settings::of(balancer_pool::strategy::Strategy::LeastConnections) };
    let pool = Backends::new(&settings, &[entry()]);
    pool.resolved(&entry(), addresses, 1);
    Arc::new(pool)
}

/// A listener on every address of this machine, and one of them.
fn everywhere() -> (TcpListener, SocketAddr) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    // Hundreds of checks may come in a moment.
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    (listener, address)
}

/// A server that answers every connection with the status in `status`, on every address of this machine.
fn server(status: &Arc<AtomicU16>) -> SocketAddr {
    let (listener, address) = everywhere();
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

/// The same server under that many addresses.
fn many(server: SocketAddr, count: usize) -> Vec<SocketAddr> {
    let address = |at: usize| SocketAddr::from(([127, 0, (at >> 8) as u8, at as u8], server.port()));
    (1..=count).map(address).collect()
}

/// A server that takes connections and never says a word.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn unknown(pool: &Backends) -> usize {
    pool.snapshot().endpoints().iter().filter(|one| one.health() == Status::Unknown).count()
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
    // ureq holds a thread for each that hangs: that there is one left is what it promises.
    for (driver, hanging) in DRIVERS.iter().zip(if DRIVERS.len() == 2 { [20, 15] } else { [15, 15] }) {
        let pool = pool(&addresses[20 - hanging..]);
        let checks = start(*driver, &pool, settings(PATIENCE * 4));
        wait_until("the good one is up", || health_of(&pool, good) == Some(Status::Up));
        wait_until("and was checked often", || pool.backends()[0].checks().0 >= 10);
        assert_eq!(unknown(&pool), hanging, "the others hang in their first check");
        assert!(!checks.wait_first(Duration::from_millis(1)), "which is not over");
        for _ in 0..20 {
            assert_eq!(pick(&pool).map(|lease| lease.endpoint.address), Some(good));
        }
    }
}

/// Far more that hang than ureq has threads.
#[test]
fn those_that_hang_again_and_again_delay_nobody_either() {
    let good = server(&Arc::new(AtomicU16::new(200)));
    let (_hanging, address) = everywhere();
    let addresses = [many(address, 60), vec![good]].concat();
    for driver in DRIVERS {
        let pool = pool(&addresses);
        let _checks = start(*driver, &pool, settings(Duration::from_millis(50)));
        wait_until("all were checked", || unknown(&pool) == 0);
        let (passed, failed) = pool.backends()[0].checks();
        wait_until("they go on being checked", || pool.backends()[0].checks().1 >= failed + 120);
        wait_until("and the good one does", || pool.backends()[0].checks().0 >= passed + 20);
    }
}

/// More endpoints than are checked at once.
#[test]
fn each_of_a_thousand_is_checked_at_once() {
    let addresses = many(server(&Arc::new(AtomicU16::new(200))), 1000);
    for driver in DRIVERS {
        let pool = pool(&addresses);
        let slow = HealthCheck { interval: PATIENCE * 4, ..settings(PATIENCE) };
        let checks = start(*driver, &pool, slow);
        assert!(checks.wait_first(PATIENCE), "{driver:?}: {} are left", unknown(&pool));
        assert_eq!(pool.backends()[0].checks(), (1000, 0));
    }
}

#[test]
fn first_checks_decide_alone_and_are_awaited() {
    let up = server(&Arc::new(AtomicU16::new(204)));
    let failing = server(&Arc::new(AtomicU16::new(500)));
    // Bound and not listening: connections are refused, and no other process can get the port meanwhile.
    let unheard = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    unheard.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let closed = unheard.local_addr().unwrap().as_socket().unwrap();
    let hanging = silent();
    for driver in DRIVERS {
        let pool = pool(&[up, failing, closed, hanging.local_addr().unwrap()]);
        let slow = HealthCheck { interval: PATIENCE * 4, ..settings(Duration::from_millis(200)) };
        let checks = start(*driver, &pool, slow);
        assert!(checks.wait_first(PATIENCE));
        assert_eq!(health_of(&pool, up), Some(Status::Up));
        for down in [failing, closed, hanging.local_addr().unwrap()] {
            assert_eq!(health_of(&pool, down), Some(Status::Down));
        }
        assert_eq!(pool.backends()[0].checks(), (1, 3));
    }
}

#[test]
fn one_goes_after_fall_failures_and_comes_back() {
    let status = Arc::new(AtomicU16::new(200));
    let address = server(&status);
    for driver in DRIVERS {
        let pool = pool(&[address]);
        let checks = start(*driver, &pool, settings(PATIENCE));
        assert!(checks.wait_first(PATIENCE));
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
}

#[test]
fn new_endpoints_are_checked_and_removed_ones_no_more() {
    let (one, two) = (server(&Arc::new(AtomicU16::new(200))), server(&Arc::new(AtomicU16::new(200))));
    for driver in DRIVERS {
        let pool = pool(&[one]);
        let checks = start(*driver, &pool, settings(PATIENCE));
        assert!(checks.wait_first(PATIENCE));
        let removed = Arc::clone(&pool.snapshot().endpoints()[0]);
        pool.resolved(&entry(), &[two], 1);
        wait_until("the new one is up", || health_of(&pool, two) == Some(Status::Up));
        wait_until("nobody holds the old one", || Arc::strong_count(&removed) == 1);

        let kept = Arc::clone(&pool.snapshot().endpoints()[0]);
        drop(checks);
        wait_until("the last thread has ended", || Arc::strong_count(&kept) == 2);
    }
}

/// Its check is under way for good; what comes at its place is checked all the same.
#[test]
fn a_name_that_comes_back_while_its_check_hangs_is_checked_anew() {
    let hanging = silent();
    let (address, status) = (hanging.local_addr().unwrap(), Arc::new(AtomicU16::new(200)));
    let good = server(&status);
    for driver in DRIVERS {
        let pool = pool(&[address]);
        let checks = start(*driver, &pool, settings(PATIENCE * 4));
        let first = hanging.accept().unwrap();
        let removed = Arc::clone(&pool.snapshot().endpoints()[0]);
        pool.resolved(&entry(), &[], 1);
        pool.resolved(&entry(), &[address, good], 1);
        wait_until("the other is up", || health_of(&pool, good) == Some(Status::Up));
        let second = hanging.accept().unwrap();
        drop((first, checks));
        assert_eq!((removed.health(), pool.backends()[0].checks().1), (Status::Unknown, 0));
        drop(second);
    }
}

#[test]
fn nothing_is_written_down_after_the_end() {
    let status = Arc::new(AtomicU16::new(200));
    let addresses = many(server(&status), 50);
    for driver in DRIVERS {
        let pool = pool(&addresses);
        let checks = start(*driver, &pool, settings(PATIENCE));
        wait_until("some were checked", || pool.backends()[0].checks().0 > 10);
        drop(checks);
        let checks = pool.backends()[0].checks();
        // Those whose checks were under way have answered by then.
        let other = start(*driver, &self::pool(&addresses), settings(PATIENCE));
        assert!(other.wait_first(PATIENCE));
        assert_eq!(pool.backends()[0].checks(), checks);
    }
}

#[test]
fn a_new_prober_goes_on_from_what_is_known() {
    let status = Arc::new(AtomicU16::new(200));
    let address = server(&status);
    for driver in DRIVERS {
        status.store(200, Ordering::SeqCst);
        let pool = pool(&[address]);
        assert!(start(*driver, &pool, settings(PATIENCE)).wait_first(PATIENCE));
        status.store(500, Ordering::SeqCst);
        let (_, failed) = pool.backends()[0].checks();
        let stubborn = HealthCheck { fall: 1_000_000, ..settings(PATIENCE) };
        let _checks = start(*driver, &pool, stubborn);
        wait_until("it was checked", || pool.backends()[0].checks().1 > failed);
        assert_eq!(health_of(&pool, address), Some(Status::Up));
    }
}
