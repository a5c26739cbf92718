use super::*;
use crate::limit::{Limit, Rate};
use proptest::prelude::*;

fn range(net: &str, version: u64) -> Range {
    let limit = Limit { capacity: version as u32, rate: Rate::per_second(0) };
    Range::new(net.parse().unwrap(), Arc::new(ClientLimit::of_numbers(limit)), net.into(), version)
}

fn ranges(nets: &[&str]) -> Ranges {
    Ranges::new(nets.iter().zip(1..).map(|(net, version)| range(net, version))).unwrap()
}

#[test]
fn the_longest_range_that_holds_an_address_decides() {
    let ranges = ranges(&[
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.255.255.255/32",
        "255.255.255.0/24",
        "0.0.0.0/32",
        "2001:db8::/32",
        "2001:db8:0:1::/64",
        "ffff::/16",
        "::ffff:192.168.1.1/112",
    ]);
    let rows = [
        ("9.255.255.255", ""),
        ("10.0.0.0", "10.0.0.0/8"),
        ("10.0.255.255", "10.0.0.0/8"),
        ("10.1.0.0", "10.1.0.0/16"),
        ("10.1.1.255", "10.1.0.0/16"),
        ("10.1.2.2", "10.1.2.0/24"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.4", "10.1.2.0/24"),
        ("10.1.3.0", "10.1.0.0/16"),
        ("10.2.0.0", "10.0.0.0/8"),
        ("10.255.255.254", "10.0.0.0/8"),
        ("10.255.255.255", "10.255.255.255/32"),
        ("11.0.0.0", ""),
        ("0.0.0.0", "0.0.0.0/32"),
        ("0.0.0.1", ""),
        ("255.255.255.255", "255.255.255.0/24"),
        ("192.168.9.9", "::ffff:192.168.1.1/112"),
        ("2001:db8::1", "2001:db8::/32"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::", "2001:db8::/32"),
        ("2001:db9::", ""),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff::/16"),
        ("::", ""),
    ];
    for (address, id) in rows {
        let found = ranges.longest(address.parse().unwrap()).map_or("", |range| &range.id);
        assert_eq!(found, id, "{address}");
    }
}

#[test]
fn a_group_is_decided_by_a_range_that_holds_all_of_it() {
    let ranges = ranges(&["2001:db8::/32", "2001:db8::/96", "2001:db8::/128", "2001:db8:1::/48"]);
    let rows = [
        ("2001:db8::/64", "2001:db8::/32"),
        ("2001:db8::/96", "2001:db8::/96"),
        ("2001:db8::/128", "2001:db8::/128"),
        ("2001:db8::1/128", "2001:db8::/96"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db9::/64", ""),
        ("2001::/16", ""),
        ("10.0.0.0/32", ""),
    ];
    for (net, id) in rows {
        assert_eq!(ranges.holding(net.parse().unwrap()).map_or("", |range| &range.id), id, "{net}");
    }
}

#[test]
fn a_range_is_one_entry_by_value_and_the_newest_version_counts() {
    let snapshot = Ranges::new([range("10.0.0.9/8", 5), range("::ffff:10.9.9.9/104", 4)]).unwrap();
    assert_eq!((snapshot.len(), snapshot.is_empty()), (1, false));
    assert_eq!(snapshot.get("10.0.0.0/8".parse().unwrap()).unwrap().version, 5);
    let changed = snapshot.with(range("::ffff:10.1.1.1/104", 6)).unwrap();
    assert_eq!((changed.len(), changed.longest("10.3.3.3".parse().unwrap()).unwrap().version), (1, 6));
    let gone = changed.without("10.77.0.0/8".parse().unwrap());
    assert!(gone.is_empty() && gone.longest("10.3.3.3".parse().unwrap()).is_none());
    assert_eq!(snapshot.len(), 1, "a snapshot never changes");
    // Of two with one version the later one counts.
    let twice = Ranges::new([range("10.0.0.9/8", 4), range("10.0.0.8/8", 4)]).unwrap();
    assert_eq!(twice.iter().map(|range| &*range.id).collect::<Vec<_>>(), ["10.0.0.8/8"]);
}

#[test]
fn members_share_a_bucket_or_a_crowd_as_their_range_says() {
    let address: IpAddr = "10.1.2.3".parse().unwrap();
    let own = range("10.0.0.9/8", 1);
    assert_eq!((own.client(address, 64), own.shared_key()), (ClientKey::address(address), None));
    let limit = ClientLimit { shared: true, ..(*own.limit).clone() };
    let shared = Range::new(own.net, Arc::new(limit), "10.0.0.9/8".into(), 1);
    let key = ClientKey::digest(b"10.0.0.0/8");
    assert_eq!((shared.client(address, 64), shared.shared_key()), (key, Some(key)));
    // 2^20 crowds for all ranges together.
    for (count, crowds) in [(1, 1_024), (1_024, 1_024), (1_025, 512), (4_096, 256)] {
        let net = |i: u32| format!("{}/32", std::net::Ipv4Addr::from(i));
        let ranges = Ranges::new((0..count).map(|i| range(&net(i), 1))).unwrap();
        let first = ranges.get("0.0.0.0/32".parse().unwrap()).unwrap();
        assert_eq!(ranges.crowds(first), Crowds::of_range(first.net).at_most(crowds), "{count}");
        assert_eq!(first.crowds(), Crowds::of_range(first.net));
    }
}

#[test]
fn there_is_a_bound_and_everything_up_to_it_is_found() {
    let net = |i: u32| format!("{}/32", std::net::Ipv4Addr::from(i * 2));
    let all: Vec<Range> = (0..MAX_RANGES as u32).map(|i| range(&net(i), u64::from(i))).collect();
    let snapshot = Ranges::new(all.iter().cloned()).unwrap();
    assert_eq!(snapshot.len(), MAX_RANGES);
    for i in [0u32, 1, 777, MAX_RANGES as u32 - 1] {
        assert_eq!(snapshot.longest(std::net::Ipv4Addr::from(i * 2).into()).unwrap().version, u64::from(i));
        assert!(snapshot.longest(std::net::Ipv4Addr::from(i * 2 + 1).into()).is_none());
    }
    let one_more = range("2001:db8::/32", 1);
    assert_eq!(snapshot.with(one_more.clone()).unwrap_err(), TooManyRanges(MAX_RANGES + 1));
    assert!(Ranges::new(all.into_iter().chain([one_more])).is_err());
}

/// Networks that lie close together, so that many are nested or adjacent.
fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (0u32..64, 24u8..=32, any::<bool>()).prop_map(|(low, prefix, high)| {
            let bits = if high { u32::MAX - low } else { low };
            IpNet::new(IpAddr::V4(bits.into()), prefix).unwrap()
        }),
        (0u128..64, prop_oneof![Just(0u8), 120u8..=128], any::<bool>()).prop_map(|(low, prefix, high)| {
            let bits = if high { u128::MAX - low } else { low };
            IpNet::new(IpAddr::V6(bits.into()), prefix).unwrap()
        }),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_looking_at_every_range(nets in prop::collection::vec(any_net(), 0..40),
                                             asked in prop::collection::vec(any_net(), 1..40)) {
        let list: Vec<Range> = nets.iter().zip(1..).map(|(net, version)| {
            Range::new(*net, range("0.0.0.0/0", version).limit, "".into(), version)
        }).collect();
        let at_once = Ranges::new(list.iter().cloned()).unwrap();
        let mut one_by_one = Ranges::default();
        for range in &list {
            one_by_one = one_by_one.with(range.clone()).unwrap();
        }
        for net in asked {
            let address = net.addr();
            let plain = nets.iter().map(IpNet::trunc).filter(|range| range.contains(&address))
                .max_by_key(IpNet::prefix_len);
            prop_assert_eq!(at_once.longest(address).map(|range| range.net), plain, "{}", address);
            prop_assert_eq!(one_by_one.longest(address), at_once.longest(address));
            let net = net.trunc();
            let plain = nets.iter().map(IpNet::trunc).filter(|range| range.contains(&net))
                .max_by_key(IpNet::prefix_len);
            prop_assert_eq!(at_once.holding(net).map(|range| range.net), plain, "{}", net);
        }
    }
}
