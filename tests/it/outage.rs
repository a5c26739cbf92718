//! The database is stopped, paused and started again, under load: requests never notice, the API answers 503, the log says
//! it once each way, and nothing needs a restart. Only for PostgreSQL, since a file does not go down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Conn, Setup, until};

/// `database.timeout`: longer than a busy machine lets the database take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Clients that must be answered 200 all the time, each from an address of its own.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    /// Those of them that took as long as [`TIMEOUT`].
    slow: Arc<AtomicUsize>,
    slowest_ms: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(balancer: &Balancer) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let [served, slow, slowest_ms] = <[Arc<AtomicUsize>; 3]>::default();
        let clients = (0..4u8)
            .map(|i| {
                let stop = Arc::clone(&stop);
                let [served, slow, slowest] = [&served, &slow, &slowest_ms].map(Arc::clone);
                let address = balancer.address;
                std::thread::spawn(move || {
                    let mut third = 0u8;
                    while !stop.load(Ordering::SeqCst) {
                        // A new address now and then: a client that no cache knows.
                        third = third.wrapping_add(1);
                        let mut conn = Conn::from([127, 20 + i, third, 1].into(), address);
                        for _ in 0..5 {
                            let start = Instant::now();
                            let answer = conn.get("/");
                            assert_eq!(answer.status, 200, "{}", answer.text());
                            let took = start.elapsed();
                            slowest.fetch_max(took.as_millis() as usize, Ordering::SeqCst);
                            slow.fetch_add(usize::from(took >= TIMEOUT), Ordering::SeqCst);
                            served.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        Self { stop, served, slow, slowest_ms, clients }
    }

    /// Waits for more requests. One of ten may be slow, because the machine is busy. If each request of a client that no
    /// cache knows waited for the database, it would be one of five.
    fn goes_on(&self) {
        let counts = || [&self.served, &self.slow].map(|count| count.load(Ordering::SeqCst));
        let before = counts();
        let [served, slow] = until("the load goes on", || {
            let now = counts();
            let more = [now[0] - before[0], now[1] - before[1]];
            (more[0] > 300).then_some(more)
        });
        assert!(slow * 10 <= served, "{slow} of {served} requests took as long as database.timeout");
    }

    /// Waits until it goes on, and ends it. Every client must have been answered 200, and soon.
    fn ends_well(self) {
        self.goes_on();
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("every request was answered 200");
        }
        let slowest = self.slowest_ms.load(Ordering::SeqCst);
        assert!(slowest < 10_000, "a request took {slowest} ms");
    }
}

fn setup(server: &Postgres, backend: &Backend) -> Setup {
    Setup::auto()
        .store(&server.database("outage"))
        .backend(backend.address())
        .set("database.timeout", json!(format!("{}ms", TIMEOUT.as_millis())))
        // So that the cache can't hide the store's absence.
        .set("cache.ttl", json!("100ms"))
}

/// A balancer under load that knows a client with one token of two left.
fn at_work(server: &Postgres, backend: &Backend) -> (Balancer, Load) {
    let balancer = setup(server, backend).start();
    // The database has just started, and the first change may take it longer than that.
    until("the limit is set", || {
        matches!(create(&balancer, "127.0.0.66", 2).status, 201 | 409).then_some(())
    });
    balancer.get_from("127.0.0.66", "/").expect(200);
    let load = Load::on(&balancer);
    load.goes_on();
    (balancer, load)
}

/// The limits of that client, also when they are older than `cache.ttl`.
fn known_limits_are_in_force(balancer: &Balancer) {
    balancer.get_from("127.0.0.66", "/").expect(200);
    balancer.get_from("127.0.0.66", "/").problem(429);
}

fn create(balancer: &Balancer, client: &str, capacity: u32) -> crate::support::Response {
    let limit = json!({ "client_id": client, "capacity": capacity, "rate_per_sec": 0 });
    balancer.api("POST", "/limits/create", &limit)
}

/// 503, soon, with a hint when to come again, and no word about the cause.
fn is_down(balancer: &Balancer) {
    let start = Instant::now();
    let answer = balancer.api("GET", "/limits", &Value::Null);
    let problem = answer.problem(503);
    assert!(start.elapsed() < Duration::from_secs(10), "the API hung for {:?}", start.elapsed());
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    let text = problem.to_string();
    assert!(!text.contains("127.0.0.1") && !text.to_lowercase().contains("postgres"), "{text}");
    create(balancer, "while-down", 1).problem(503);
}

fn comes_back(balancer: &Balancer) {
    until("the store is up again", || {
        (balancer.api("GET", "/limits", &Value::Null).status == 200).then_some(())
    });
    // After its recovery the database may need longer than `database.timeout` for the first change.
    until("it takes changes", || {
        matches!(create(balancer, "behind-the-outage", 1).status, 201 | 409).then_some(())
    });
    // In force on the next request.
    balancer.limit("127.0.0.77", 1, 0);
    balancer.get_from("127.0.0.77", "/").expect(200);
    balancer.get_from("127.0.0.77", "/").problem(429);
}

/// The log says once that the store went, and once that it came.
fn it_is_said_once_each_way(balancer: &Balancer) {
    // Not the lines of refused API calls, which quote the cause: PostgreSQL's own words may be "is shutting down".
    let [went, came] = ["store: the database is down", "store: the database is back"];
    balancer.proc.wait_err(0, came, |line| line.contains(came));
    let err = balancer.proc.err();
    let about = |words: &str| err.lines().filter(|line| line.contains(words)).count();
    assert_eq!((about(went), about(came)), (1, 1), "{err}");
}

#[test]
fn a_stopped_database_is_noticed_by_no_client() {
    let Some(mut server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let (balancer, load) = at_work(&server, &backend);

    server.stop();
    is_down(&balancer);
    load.goes_on();
    is_down(&balancer);
    known_limits_are_in_force(&balancer);
    balancer.get("/-/livez").expect(200);
    balancer.get("/-/readyz").expect(200);

    server.run();
    comes_back(&balancer);
    load.ends_well();
    it_is_said_once_each_way(&balancer);
}

#[test]
fn a_paused_database_is_noticed_by_no_client() {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let (balancer, load) = at_work(&server, &backend);

    server.pause();
    is_down(&balancer);
    load.goes_on();
    is_down(&balancer);
    known_limits_are_in_force(&balancer);

    server.resume();
    comes_back(&balancer);
    load.ends_well();
    it_is_said_once_each_way(&balancer);
}

#[test]
fn a_killed_database_is_noticed_by_no_client() {
    let Some(mut server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let (balancer, load) = at_work(&server, &backend);

    server.kill();
    is_down(&balancer);
    load.goes_on();
    known_limits_are_in_force(&balancer);

    // It recovers from its log, with what was answered 201.
    server.run();
    comes_back(&balancer);
    balancer.api("GET", "/limits/get?client_id=127.0.0.66", &Value::Null).expect(200);
    load.ends_well();
    it_is_said_once_each_way(&balancer);
}

/// Other clients hold every connection that the server allows; ours were ended, and new ones are refused.
#[test]
fn a_database_without_a_connection_left_is_noticed_by_no_client() {
    const CONNECTIONS: usize = 20;
    let most = format!("max_connections={CONNECTIONS}");
    let Some(server) = Postgres::start_with(&[&most], |_| {}) else { return };
    let backend = Backend::named("a");
    let (balancer, load) = at_work(&server, &backend);

    let connect = || postgres::Client::connect(&server.url(), postgres::NoTls);
    let mut others = vec![connect().expect("one is left")];
    let end_ours = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'outage'";
    // We and the others compete for a free connection: ours are ended until the others have all of them.
    until("the others have every connection", || {
        others[0].query_one(end_ours, &[]).expect("a superuser");
        loop {
            match connect() {
                Ok(other) => others.push(other),
                Err(error) => {
                    assert!(format!("{error:?}").contains("too many clients"), "{error:?}");
                    break;
                }
            }
        }
        (others.len() == CONNECTIONS).then_some(())
    });
    is_down(&balancer);
    load.goes_on();
    is_down(&balancer);
    known_limits_are_in_force(&balancer);

    drop(others);
    comes_back(&balancer);
    load.ends_well();
}

#[test]
fn it_starts_without_its_database_and_finds_it_later() {
    let Some(mut server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let setup =
        setup(&server, &backend).set("rate_limit.default", json!({ "capacity": 1, "rate_per_sec": 0 }));
    server.stop();
    let balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.get("/").problem(429);
    is_down(&balancer);
    server.run();
    // The migrations come with it.
    comes_back(&balancer);
}

/// Where unknown keys are refused, a key that can't be looked up is not let through by its client's address.
#[test]
fn whether_a_key_is_known_is_no_guess() {
    let Some(mut server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let keyed = setup(&server, &backend).set("rate_limit.key", json!("bearer"));
    let balancer = keyed.set("rate_limit.unknown_keys", json!("401")).set("log.access", json!(true)).start();
    // `printf alice | sha256sum`, the first half.
    balancer.limit("sha256:2bd806c97f0e00af1a1fc3328fa763a9", 100, 0);
    let with = |token: &str| {
        let bearer = format!("Bearer {token}");
        crate::support::request(balancer.address, "GET", "/", &[("Authorization", &bearer)], b"")
    };
    with("alice").expect(200);
    server.stop();
    is_down(&balancer);
    with("alice").expect(200);
    let answer = with("mallory");
    let problem = answer.problem(503);
    assert_eq!(problem["detail"], "whether this key is known can't be told now");
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    balancer.proc.wait_out("the store did not say whether a key has a limit");
    let question = json!({ "address": "127.0.0.1", "headers": { "authorization": ["Bearer mallory"] } });
    let verdict = balancer.api("POST", "/-/v1/check", &question).expect(200).json();
    assert_eq!(verdict["decision"], "denied", "{verdict}");
    balancer.get("/").expect(200);
    server.run();
    until("the key is known to be unknown", || (with("mallory").status == 401).then_some(()));
    assert_eq!(backend.seen().len(), 3);
}

#[test]
fn a_paused_database_does_not_hold_up_the_end() {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let mut balancer = setup(&server, &backend).start();
    server.pause();
    is_down(&balancer);
    balancer.get("/").expect(200);
    balancer.proc.signal(rustix::process::Signal::TERM);
    let status = balancer.proc.wait_at_most(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0), "{}", balancer.proc.story());
}
