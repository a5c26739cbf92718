//! Several pools, which share a driver.

use super::*;

/// A server that takes connections and says nothing, and a pool of so many endpoints there.
fn hanging(count: usize) -> (TcpListener, Arc<Backends>) {
    let (listener, address) = everywhere();
    let pool = pool(&many(address, count));
    (listener, pool)
}

fn good() -> (SocketAddr, Arc<Backends>) {
    let address = server(&Arc::new(AtomicU16::new(200)));
    (address, pool(&[address]))
}

/// A pool has been checked so often that whatever was under way before has come to its end.
fn goes_on(pool: &Backends) {
    let (passed, _) = pool.backends()[0].checks();
    wait_until("the other pool's checks go on", || pool.backends()[0].checks().0 >= passed + 20);
}

#[test]
fn all_pools_are_checked_by_one_thread_that_the_first_starts_and_the_last_ends() {
    for driver in DRIVERS {
        let prober = prober(*driver);
        assert!(prober.running.lock().is_none());
        let pools: Vec<_> = (0..20).map(|_| good().1).collect();
        let checks: Vec<_> =
            pools.iter().map(|pool| prober.check(pool, settings(PATIENCE)).unwrap()).collect();
        assert!(checks.iter().all(|one| one.wait_first(PATIENCE)));
        assert!(checks.iter().all(|one| Arc::ptr_eq(&one.running, &checks[0].running)));
        let running = Arc::downgrade(&checks[0].running);
        drop((prober, checks));
        assert!(running.upgrade().is_none(), "it was awaited");
    }
}

#[test]
fn each_pool_is_checked_as_it_says() {
    let status = Arc::new(AtomicU16::new(404));
    let address = server(&status);
    for driver in DRIVERS {
        let (prober, pools) = (prober(*driver), [pool(&[address]), pool(&[address])]);
        let lenient = HealthCheck { expect: vec![(404, 404)], ..settings(PATIENCE) };
        let strict = prober.check(&pools[0], settings(PATIENCE)).unwrap();
        let lenient = prober.check(&pools[1], lenient).unwrap();
        assert!(strict.wait_first(PATIENCE) && lenient.wait_first(PATIENCE));
        assert_eq!(health_of(&pools[0], address), Some(Status::Down));
        assert_eq!(health_of(&pools[1], address), Some(Status::Up));
    }
}

#[test]
fn a_pool_whose_checks_change_is_asked_anew_though_the_former_check_hangs() {
    for driver in DRIVERS {
        let prober = prober(*driver);
        let ((listener, pool), (_, other)) = (hanging(1), good());
        let _others = prober.check(&other, settings(PATIENCE)).unwrap();
        let checks = prober.check(&pool, settings(PATIENCE * 4)).unwrap();
        let (former, _) = listener.accept().unwrap();
        drop(checks);
        let once = HealthCheck { interval: PATIENCE * 4, ..settings(Duration::from_millis(50)) };
        let checks = prober.check(&pool, once).unwrap();
        assert!(checks.wait_first(PATIENCE));
        let cause = pool.snapshot().endpoints()[0].cause().unwrap();
        assert!(cause.starts_with("GET /: no answer within 50ms"), "{driver:?}: {cause}");
        drop(former);
        goes_on(&other);
        assert_eq!(pool.backends()[0].checks(), (0, 1), "{driver:?}: the former one counts for nothing");
    }
}

#[test]
fn a_pool_that_goes_while_its_check_hangs_is_let_go() {
    for driver in DRIVERS {
        let prober = prober(*driver);
        let ((listener, pool), (_, other)) = (hanging(1), good());
        let _others = prober.check(&other, settings(PATIENCE)).unwrap();
        let checks = prober.check(&pool, settings(PATIENCE * 4)).unwrap();
        let (mut former, _) = listener.accept().unwrap();
        assert!(!checks.wait_first(Duration::from_millis(1)));
        drop(checks);
        assert_eq!(Arc::strong_count(&pool), 1, "nothing holds it");
        #[cfg(all(target_os = "linux", feature = "epoll"))]
        if *driver == CheckDriver::Epoll {
            former.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut request = String::new();
            former.read_to_string(&mut request).expect("its connection was closed");
        }
        let _ = former.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        drop(former);
        goes_on(&other);
        assert_eq!((unknown(&pool), pool.backends()[0].checks()), (1, (0, 0)), "{driver:?}");
    }
}

/// Of those that are known to hang there are far more than ureq has threads.
#[test]
fn a_pool_of_hanging_backends_delays_no_other_pools_checks() {
    for driver in DRIVERS {
        let prober = prober(*driver);
        let (_listener, pool) = hanging(60);
        let (address, other) = good();
        let hang = prober.check(&pool, settings(Duration::from_millis(50))).unwrap();
        assert!(hang.wait_first(PATIENCE));
        let checks = prober.check(&other, settings(PATIENCE)).unwrap();
        assert!(checks.wait_first(PATIENCE));
        assert_eq!(health_of(&other, address), Some(Status::Up));
        let (_, failed) = pool.backends()[0].checks();
        wait_until("they go on being checked", || pool.backends()[0].checks().1 >= failed + 120);
        goes_on(&other);
    }
}

/// All threads are with first checks that hang, and more of them are due: the other pool's comes next all the same.
#[test]
fn a_pool_of_many_first_checks_that_hang_lets_others_go_before() {
    for driver in DRIVERS {
        let prober = prober(*driver);
        let (listener, pool) = hanging(80);
        let (_, other) = good();
        // The driver with few threads must get some back.
        let long = if *driver == CheckDriver::Blocking { Duration::from_secs(1) } else { PATIENCE };
        let _hang = prober.check(&pool, settings(long)).unwrap();
        let _first = listener.accept().unwrap();
        let checks = prober.check(&other, settings(PATIENCE)).unwrap();
        assert!(checks.wait_first(PATIENCE));
        assert!(unknown(&pool) > 20, "{driver:?}: only {} were still to be checked", unknown(&pool));
    }
}
