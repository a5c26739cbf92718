use super::*;
use crate::clock::Clock;
use balancer_pool::backends::Settings;
use balancer_pool::strategy::Strategy;
use balancer_time::nanos;
use parking_lot::Mutex;

const TICK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer for each host. The look-up of a host that is not there hangs.
type Zone = Arc<Mutex<HashMap<&'static str, Result<Vec<SocketAddr>, io::ErrorKind>>>>;

struct OfZone {
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameLookup for OfZone {
    fn addresses(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().push(host.to_owned());
        loop {
            if let Some(answer) = self.zone.lock().get(host) {
                return answer.clone().map_err(io::Error::from);
            }
            std::thread::sleep(TICK);
        }
    }

    fn services(&self, _: &str) -> io::Result<Vec<SrvRecord>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn lookup(zone: &Zone, asked: &Arc<Mutex<Vec<String>>>) -> Lookup {
    Arc::new(OfZone { zone: Arc::clone(zone), asked: Arc::clone(asked) })
}

fn entries(hosts: &[&str]) -> Vec<BackendEntry> {
    hosts.iter().map(|host| BackendEntry::new(&format!("of {host}"), host, 80)).collect()
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn addresses(pool: &Backends) -> Vec<SocketAddr> {
    pool.snapshot().endpoints().iter().map(|one| one.address).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let clock = Clock::real();
    let deadline = clock.now() + nanos(PATIENCE);
    while !holds() {
        assert!(clock.now() < deadline, "still not: {what}");
        std::thread::sleep(TICK);
    }
}

#[test]
fn addresses_are_never_looked_up() {
    let entries = entries(&["127.0.0.1", "::1", "[::2]"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries));
    let asked = Arc::default();
    let resolver =
        Resolver::start(&pool, &entries, TICK, &lookup(&Zone::default(), &asked), &Clock::real()).unwrap();
    assert!(resolver.wait_first(PATIENCE));
    let expected = ["127.0.0.1:80", "[::1]:80", "[::2]:80"].map(|text| text.parse().unwrap());
    assert_eq!(addresses(&pool), expected);
    assert!(asked.lock().is_empty());
}

#[test]
fn addresses_follow_the_name_and_bad_answers_change_nothing() {
    let entries = entries(&["a.test", "10.0.0.9"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries));
    let (zone, asked) = (Zone::default(), Arc::default());
    zone.lock().insert("a.test", Ok(vec![address(2), address(1), address(2)]));
    let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&zone, &asked), &Clock::real()).unwrap();
    assert!(resolver.wait_first(PATIENCE));
    assert_eq!(addresses(&pool), [address(1), address(2), address(9)]);
    let kept = Arc::clone(&pool.snapshot().endpoints()[1]);

    for bad in [Ok(Vec::new()), Err(io::ErrorKind::TimedOut)] {
        zone.lock().insert("a.test", bad);
        let before = asked.lock().len();
        wait_until("it was asked twice more", || asked.lock().len() > before + 2);
        assert_eq!(addresses(&pool), [address(1), address(2), address(9)]);
    }
    zone.lock().insert("a.test", Ok(vec![address(2), address(3)]));
    wait_until("it moved", || addresses(&pool) == [address(2), address(3), address(9)]);
    assert!(Arc::ptr_eq(&kept, &pool.snapshot().endpoints()[0]), "the one that stayed is the same");
}

#[test]
fn a_name_that_hangs_holds_up_no_other_and_one_that_is_missing_comes_later() {
    let entries = entries(&["hangs.test", "missing.test", "a.test"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries));
    let (zone, asked) = (Zone::default(), Arc::default());
    zone.lock().insert("missing.test", Err(io::ErrorKind::NotFound));
    zone.lock().insert("a.test", Ok(vec![address(1)]));
    let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&zone, &asked), &Clock::real()).unwrap();
    wait_until("the good name is there", || addresses(&pool) == [address(1)]);
    assert!(!resolver.wait_first(TICK), "one is still without an answer");
    zone.lock().insert("missing.test", Ok(vec![address(2)]));
    wait_until("the missing name came", || addresses(&pool) == [address(2), address(1)]);
    zone.lock().insert("hangs.test", Ok(vec![address(3)]));
    assert!(resolver.wait_first(PATIENCE));
    assert_eq!(addresses(&pool), [address(3), address(2), address(1)]);
}

#[test]
fn dropping_it_ends_the_look_ups() {
    let entries = entries(&["a.test"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries));
    let zone = Zone::default();
    zone.lock().insert("a.test", Ok(vec![address(1)]));
    let resolver =
        Resolver::start(&pool, &entries, TICK, &lookup(&zone, &Arc::default()), &Clock::real()).unwrap();
    assert!(resolver.wait_first(PATIENCE));
    drop(resolver);
    wait_until("its thread has ended", || Arc::strong_count(&pool) == 1);
}

#[test]
fn an_answer_is_bounded() {
    let entries = entries(&["a.test"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries));
    let zone = Zone::default();
    let many = (0..300u16).map(|index| SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 80)));
    zone.lock().insert("a.test", Ok(many.collect()));
    let resolver =
        Resolver::start(&pool, &entries, TICK, &lookup(&zone, &Arc::default()), &Clock::real()).unwrap();
    assert!(resolver.wait_first(PATIENCE));
    assert_eq!(addresses(&pool).len(), MAX_ADDRESSES);
}

#[test]
fn a_change_is_told_in_one_line() {
    let change = AddressChange {
        added: vec![address(1), address(2)],
        removed: vec![address(3)],
        changed: vec![address(4)],
        left_out: 0,
    };
    assert_eq!(
        change_line(&BackendEntry::new("a", "a.test", 80), 3, &change),
        "a.test resolves to 3 addresses; new: 10.0.0.1, 10.0.0.2; gone: 10.0.0.3; of another weight or priority: 10.0.0.4"
    );
    let change = AddressChange { added: vec![address(1)], ..AddressChange::default() };
    assert_eq!(
        change_line(&BackendEntry::new("a", "_http._tcp.a.test", 0), 1, &change),
        "_http._tcp.a.test resolves to 1 addresses; new: 10.0.0.1:80"
    );
}

/// The pool follows what is configured: a name that stays is looked up as before, one that goes no more, one that moves
/// anew.
#[test]
fn other_backends_are_followed_and_those_that_stay_are_left_alone() {
    let long = PATIENCE * 100;
    let before = entries(&["stays.test", "goes.test", "moves.test"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &before));
    let (zone, asked): (_, Arc<Mutex<Vec<String>>>) = (Zone::default(), Arc::default());
    for (name, last) in
        [("stays.test", 1), ("goes.test", 2), ("moves.test", 3), ("new.test", 4), ("there.test", 5)]
    {
        zone.lock().insert(name, Ok(vec![address(last)]));
    }
    let ask = lookup(&zone, &asked);
    let mut resolver = Resolver::start(&pool, &before, long, &ask, &Clock::real()).unwrap();
    assert!(resolver.wait_first(PATIENCE));
    let stayed = Arc::clone(&pool.snapshot().endpoints()[0]);

    let mut after = entries(&["stays.test", "moves.test", "new.test"]);
    after[1].host = "there.test".to_owned();
    let new = pool.new_among(&after);
    assert_eq!(new.iter().map(|entry| entry.host.as_str()).collect::<Vec<_>>(), ["there.test", "new.test"]);
    let found = look_up_once(&new, &ask, PATIENCE);
    assert_eq!(found, [[Located::from(address(5))], [address(4).into()]]);
    let mut found = found.into_iter();
    let placed: Vec<_> = after
        .iter()
        .map(|entry| {
            let is_new = entry.host != "stays.test";
            let addresses = if is_new { found.next().unwrap() } else { Vec::new() };
            balancer_pool::backends::Placed { entry: entry.clone(), addresses, operator: None }
        })
        .collect();
    pool.reconfigure(&Settings::of(Strategy::RoundRobin), &placed, 1);
    assert_eq!(addresses(&pool), [address(1), address(5), address(4)]);
    let before = asked.lock().len();
    resolver.follow(&after, long, &ask).unwrap();
    assert!(Arc::ptr_eq(&stayed, &pool.snapshot().endpoints()[0]));

    // Another name server is asked at once.
    for (name, last) in [("stays.test", 9), ("there.test", 8), ("new.test", 7)] {
        zone.lock().insert(name, Ok(vec![address(last)]));
    }
    resolver.follow(&after, long, &lookup(&zone, &asked)).unwrap();
    wait_until("everybody was looked up again", || addresses(&pool) == [address(9), address(8), address(7)]);
    // Not before that: these have addresses, and their time to be looked up has not come.
    assert_eq!(asked.lock().len(), before + 3);
}

/// An answer about the place where a backend was before is dropped.
#[test]
fn an_answer_for_the_place_before_is_dropped() {
    let before = entries(&["slow.test"]);
    let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &before));
    let mut moved = before[0].clone();
    moved.host = "10.0.0.7".to_owned();
    let placed =
        balancer_pool::backends::Placed { entry: moved, addresses: vec![address(7).into()], operator: None };
    pool.reconfigure(&Settings::of(Strategy::RoundRobin), &[placed], 1);
    assert_eq!(pool.resolved(&before[0], &[address(1)], 1), AddressChange::default());
    assert_eq!(addresses(&pool), [address(7)]);
}

#[test]
fn one_look_up_waits_only_so_long() {
    let list = entries(&["hangs.test", "bad.test", "10.0.0.3", "good.test"]);
    let zone = Zone::default();
    zone.lock().insert("bad.test", Err(io::ErrorKind::NotFound));
    zone.lock().insert("good.test", Ok(vec![address(2), address(1), address(2)]));
    let all: Vec<_> = list.iter().collect();
    let found = look_up_once(&all, &lookup(&zone, &Arc::default()), TICK * 100);
    let [third, first, second] = [3, 1, 2].map(|last| Located::from(address(last)));
    assert_eq!(found, [vec![], vec![], vec![third], vec![first, second]]);
    zone.lock().insert("hangs.test", Ok(Vec::new()));
}
