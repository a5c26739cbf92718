use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::NameLookup;
use super::*;

/// What is answered: records as `PRIORITY WEIGHT PORT TARGET`, and addresses of targets. A target that is not there
/// fails.
#[derive(Default)]
struct Zone {
    records: Mutex<Vec<SrvRecord>>,
    hosts: Mutex<HashMap<String, Vec<&'static str>>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl NameLookup for Zone {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        let found =
            self.hosts.lock().get(host).map(|list| {
                list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect::<Vec<_>>()
            });
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        found.ok_or_else(|| io::Error::other(format!("{host} hangs")))
    }

    fn services(&self, _: &str) -> io::Result<Vec<SrvRecord>> {
        Ok(self.records.lock().clone())
    }
}

fn records(lines: &[&str]) -> Vec<SrvRecord> {
    lines
        .iter()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let number = |at: usize| words[at].parse().unwrap();
            SrvRecord { priority: number(0), weight: number(1), port: number(2), target: words[3].to_owned() }
        })
        .collect()
}

impl Zone {
    fn of(lines: &[&str], hosts: &[(&str, &[&'static str])]) -> Arc<Self> {
        let zone = Self::default();
        *zone.records.lock() = records(lines);
        *zone.hosts.lock() = hosts.iter().map(|(host, ips)| ((*host).to_owned(), ips.to_vec())).collect();
        Arc::new(zone)
    }
}

const HOSTS: &[(&str, &[&str])] = &[
    ("a.", &["10.0.0.1"]),
    ("b.", &["10.0.0.2"]),
    ("c.", &["10.0.0.3"]),
    ("two.", &["10.0.1.1", "fd00::1"]),
    ("also-a.", &["10.0.0.1"]),
    ("empty.", &[]),
];

fn find(targets: &mut Targets, zone: &Arc<Zone>) -> io::Result<Answer> {
    let lookup: Lookup = Arc::clone(zone) as Lookup;
    targets.find("_http._tcp.test", &lookup)
}

fn shown(answer: &Answer) -> Vec<String> {
    let one = |one: &Located| format!("{} {} {}", one.tier, one.address, one.weight);
    answer.addresses.iter().map(one).collect()
}

/// Tier, address and weight of each, in ten-thousandths of the backend's.
#[test]
fn weights_are_shares_of_a_priority_and_priorities_are_tiers() {
    let table: &[(&[&str], &[&str])] = &[
        (&["10 60 9001 a."], &["0 10.0.0.1:9001 10000"]),
        // Alike, whatever the number; a name of two addresses weighs twice what one of one does, as for A records.
        (&["0 0 80 a.", "0 0 80 b."], &["0 10.0.0.1:80 10000", "0 10.0.0.2:80 10000"]),
        (&["0 7 80 a.", "0 7 80 b."], &["0 10.0.0.1:80 10000", "0 10.0.0.2:80 10000"]),
        (&["0 1 80 a.", "0 3 80 b."], &["0 10.0.0.1:80 5000", "0 10.0.0.2:80 15000"]),
        // 0 is a hundredth of 1, where others have more; a canary of one in a thousand gets that.
        (&["0 0 80 a.", "0 1 80 b."], &["0 10.0.0.1:80 198", "0 10.0.0.2:80 19802"]),
        (&["0 1 80 a.", "0 999 80 b."], &["0 10.0.0.1:80 20", "0 10.0.0.2:80 19980"]),
        (&["0 0 80 a.", "0 65535 80 b."], &["0 10.0.0.1:80 1", "0 10.0.0.2:80 20000"]),
        // Several addresses divide their target's share.
        (&["0 1 80 a.", "0 3 80 two."], &["0 10.0.0.1:80 5000", "0 10.0.1.1:80 7500", "0 [fd00::1]:80 7500"]),
        // Shares are those of a priority alone. One target may have several ports.
        (
            &["20 5 80 a.", "10 1 80 b.", "10 1 81 b.", "30 9 80 c."],
            &["0 10.0.0.2:80 10000", "0 10.0.0.2:81 10000", "1 10.0.0.1:80 10000", "2 10.0.0.3:80 10000"],
        ),
        // An address that several lead to: the lower priority, and the sum there.
        (
            &["1 1 80 a.", "1 1 80 also-a.", "1 2 80 b.", "2 9 80 a."],
            &["0 10.0.0.1:80 15000", "0 10.0.0.2:80 15000"],
        ),
        (&["1 1 80 a.", "1 1 80 A.", "1 1 80 a."], &["0 10.0.0.1:80 10000"]),
        // What can't be used is passed over.
        (&["0 0 0 .", "1 9 0 c.", "5 5 80 a."], &["0 10.0.0.1:80 10000"]),
    ];
    for (lines, expected) in table {
        let answer = find(&mut Targets::default(), &Zone::of(lines, HOSTS)).unwrap();
        assert_eq!(shown(&answer), *expected, "{lines:?}");
        assert!(answer.cut == 0 && answer.troubled.is_empty());
    }
}

#[test]
fn no_service_is_an_answer_and_nothing_to_call_is_a_failure() {
    for lines in [&["0 0 0 ."] as &[&str], &["1 1 80 .", "2 2 0 ."]] {
        assert!(find(&mut Targets::default(), &Zone::of(lines, HOSTS)).unwrap().addresses.is_empty());
    }
    for (lines, cause) in [
        (&[] as &[&str], "no SRV records with a port"),
        (&["0 0 0 a."], "no SRV records with a port"),
        (&["0 0 80 empty."], "its target empty. has no address: no addresses"),
        (&["0 0 80 x.", "0 0 80 y."], "its target x. has no address: x. hangs"),
    ] {
        let error = find(&mut Targets::default(), &Zone::of(lines, HOSTS)).err().unwrap();
        assert_eq!(error.to_string(), cause);
    }
}

#[test]
fn a_target_that_fails_keeps_its_last_addresses_as_long_as_it_is_named() {
    let zone = Zone::of(&["0 1 80 a.", "0 3 80 b.", "0 4 80 x."], HOSTS);
    let mut targets = Targets::default();
    let answer = find(&mut targets, &zone).unwrap();
    assert_eq!(shown(&answer), ["0 10.0.0.1:80 5000", "0 10.0.0.2:80 15000"]);
    let trouble = |target: &str, text: &str| (target.to_owned(), format!("its target {target} {text}"));
    assert_eq!(answer.troubled, [trouble("x.", "has no address: x. hangs")]);

    zone.hosts.lock().remove("b.");
    zone.hosts.lock().insert("a.".to_owned(), Vec::new());
    zone.hosts.lock().insert("x.".to_owned(), vec!["10.0.0.9"]);
    *zone.records.lock() = records(&["0 1 80 a.", "0 1 81 b.", "1 1 80 x."]);
    for _ in 0..2 {
        let answer = find(&mut targets, &zone).unwrap();
        assert_eq!(shown(&answer), ["0 10.0.0.1:80 10000", "0 10.0.0.2:81 10000", "1 10.0.0.9:80 10000"]);
        assert_eq!(
            answer.troubled,
            [
                trouble("a.", "keeps its last addresses: no addresses"),
                trouble("b.", "keeps its last addresses: b. hangs")
            ]
        );
    }
    // No longer named: forgotten.
    *zone.records.lock() = records(&["1 1 80 x."]);
    assert_eq!(shown(&find(&mut targets, &zone).unwrap()), ["0 10.0.0.9:80 10000"]);
    *zone.records.lock() = records(&["0 1 80 a.", "1 1 80 x."]);
    assert_eq!(shown(&find(&mut targets, &zone).unwrap()), ["0 10.0.0.9:80 10000"]);
}

#[test]
fn targets_addresses_and_look_ups_at_a_time_are_bounded() {
    let line = |at: usize| format!("{} 1 80 t{at:04}.", at % 7);
    let lines: Vec<String> = (0..3_000).map(line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let zone = Zone::of(&lines, &[]);
    *zone.hosts.lock() =
        (0..3_000).map(|at| (format!("t{at:04}."), vec!["10.0.0.1", "10.0.0.2", "fd00::1"])).collect();
    for (at, line) in zone.records.lock().iter_mut().enumerate() {
        line.port = u16::try_from(at + 1).unwrap();
    }
    let answer = find(&mut Targets::default(), &zone).unwrap();
    assert_eq!(answer.addresses.len(), MAX_ADDRESSES);
    assert_eq!(answer.cut, 3_000 - MAX_ADDRESSES + 2 * MAX_ADDRESSES);
    assert!(answer.addresses.iter().all(|one| one.tier == 0), "the lowest priorities are kept");
    let most = zone.most_under_way.load(Ordering::SeqCst);
    assert!((1..=AT_ONCE).contains(&most), "{most}");
}
