use super::super::tests::{WITHIN, add, batch, empty};
use super::*;

#[test]
fn a_prefix_is_a_range_in_byte_order() {
    for (prefix, high) in [
        ("", None),
        ("a", Some("b")),
        ("10.", Some("10/")),
        ("a%_", Some("a%`")),
        ("é", Some("ê")),
        ("a\u{d7ff}", Some("a\u{e000}")),
        ("a\u{10ffff}", Some("b")),
        ("\u{10ffff}", None),
    ] {
        assert_eq!(behind(prefix).as_deref(), high, "{prefix:?}");
        for text in [format!("{prefix}x"), prefix.to_owned(), format!("{prefix}\u{10ffff}")] {
            assert!(high.is_none_or(|high| text.as_str() < high));
        }
    }
}

#[test]
fn ranges_are_read_page_by_page_up_to_their_bound() {
    let (store, mut there) = (empty(), Vec::new());
    for number in 0..8 {
        for page_rows in 1..=4 {
            let rows = ranges_by(&store, WITHIN, page_rows, 5).unwrap();
            let read: Vec<&str> = rows.iter().map(|row| &*row.client_id).collect();
            assert_eq!(read, there[..there.len().min(5)], "{page_rows} a page");
        }
        there.push(format!("10.{number}.0.0/16"));
        add(&store, &there[number..]);
    }
}

#[test]
fn a_range_that_can_not_be_read_ends_no_page() {
    for (wrong, page_rows) in [("10.0.", 1), ("10.0.", 2), ("10.1.", 2), ("10.2.", 3), ("10.", 2)] {
        let store = empty();
        let ids = ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "11.0.0.0/16"];
        add(&store, &ids);
        batch(
            &store,
            &format!("UPDATE limits SET client_id = CAST(client_id AS BLOB) WHERE client_id LIKE '{wrong}%'"),
        );
        let rows = ranges_by(&store, WITHIN, page_rows, 9).unwrap();
        let read: Vec<&str> = rows.iter().map(|row| &*row.client_id).collect();
        let right: Vec<&str> = ids.into_iter().filter(|id| !id.starts_with(wrong)).collect();
        assert_eq!(read, right, "{wrong} {page_rows}");
    }
}

#[test]
fn groups_are_read_whole_in_their_order_as_far_as_a_statement_goes() {
    let store = empty();
    let ids = ["10.0.0.1", "10.0.0.1:1", "10.0.0.1:2", "10.0.0.3:1", "10.0.0.3:2", "2001:db8::1"];
    add(&store, &ids);
    let read = |networks: &[IpNet], most| {
        let groups =
            inside(&store, WITHIN, Access::Read, |session| groups_by(session, networks, most)).unwrap();
        for (row, network) in
            groups.iter().zip(networks).flat_map(|(rows, net)| rows.iter().map(move |row| (row, net)))
        {
            assert!(network.contains(&id(row).address().unwrap()), "{network}: {row:?}");
        }
        groups.iter().map(Vec::len).collect::<Vec<_>>()
    };
    fn id(row: &LimitRow) -> ClientId {
        ClientId::parse(&row.client_id).unwrap()
    }
    let networks = ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "2001:db8::/64"];
    let networks = networks.map(|text| text.parse::<IpNet>().unwrap());
    for (most, sizes) in [
        (7, &[3, 0, 2, 1][..]),
        // The last group that a full statement returns may lack rows.
        (6, &[3, 0, 2]),
        (5, &[3, 0]),
        (4, &[3, 0]),
        (3, &[3]),
        // The first one is read as far as it goes, since it would be cut off again.
        (2, &[2]),
    ] {
        assert_eq!(read(&networks, most), sizes, "{most}");
    }
    // More networks than one statement takes, of which the last one alone has rows.
    let mut many: Vec<IpNet> =
        (0..500).map(|n| format!("10.1.{}.{}/32", n / 256, n % 256).parse().unwrap()).collect();
    many.push(networks[2]);
    for (most, size) in [(3, 2), (1, 1)] {
        let mut sizes = vec![0; 500];
        sizes.push(size);
        assert_eq!(read(&many, most), sizes, "{most}");
    }
}

#[test]
fn a_group_that_a_shorter_prefix_made_larger_than_its_bound_is_loaded_whole() {
    let store = empty();
    let ids: Vec<String> = (0..5_000).map(|n| format!("2001:db8::{n:x}")).collect();
    // Each is a group of its own.
    add(&store, &ids);
    let group = CacheGroup::Group("2001:db8::/64".parse().unwrap());
    assert_eq!(load(&store, WITHIN, Access::Read, &group).unwrap().len(), ids.len());
}

#[test]
fn neighbours_with_the_same_buckets_share_them_in_memory() {
    let store = empty();
    add(&store, &["a", "b"]);
    let rows = list(&store, WITHIN, &LimitFilter::default(), "", 10).unwrap();
    let [one, two] = rows.try_into().unwrap();
    assert!(Arc::ptr_eq(&one.limit.own.buckets, &two.limit.own.buckets));
}
