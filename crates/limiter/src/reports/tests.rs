use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::identity::Crowds;
use crate::limit::MAX_PER_SECS;

fn any_client() -> impl Strategy<Value = ClientKey> {
    prop_oneof![
        any::<u32>().prop_map(|bits| ClientKey::address(Ipv4Addr::from(bits).into())),
        any::<u128>().prop_map(|bits| ClientKey::group(std::net::Ipv6Addr::from(bits).into(), 64)),
        any::<u64>().prop_map(|bits| ClientKey::digest(&bits.to_be_bytes())),
    ]
}

fn any_reset() -> impl Strategy<Value = Option<(Reset, u32)>> {
    let period = prop_oneof![Just(Reset::Hour), Just(Reset::Day), Just(Reset::Month)];
    prop::option::of((period, any::<u32>()))
}

fn any_report() -> impl Strategy<Value = SpentReport> {
    let numbers = (0..=Limit::MAX_CAPACITY, 0..=Rate::MAX_MICRO, 1..=MAX_PER_SECS);
    let counts = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>());
    (any_client(), any::<u64>(), any::<[bool; 2]>(), numbers, any_reset(), counts).prop_map(
        |(
            client,
            bucket,
            [of_rule, has_own_row],
            (capacity, micro, per_secs),
            reset,
            (episode, spent, part, rate),
        )| {
            SpentReport {
                client,
                bucket: BucketId(bucket),
                of_rule,
                has_own_row,
                limit: Limit { capacity, rate: Rate { micro, per_secs } },
                reset,
                episode,
                spent,
                fresh: spent.min(part),
                rate_micro: rate,
            }
        },
    )
}

fn usual(client: ClientKey) -> SpentReport {
    SpentReport {
        client,
        bucket: BucketId::of("default"),
        of_rule: false,
        has_own_row: false,
        limit: Limit { capacity: 1000, rate: Rate::per_second(500_000_000) },
        reset: None,
        episode: 1000,
        spent: 20_000,
        fresh: 100,
        rate_micro: 400_000_000,
    }
}

#[test]
fn a_usual_report_is_short() {
    let mut bytes = Vec::new();
    usual(ClientKey::address(Ipv4Addr::LOCALHOST.into())).write(&mut bytes);
    assert_eq!(bytes.len(), 33);
    bytes.clear();
    usual(ClientKey::digest(b"tenant")).write(&mut bytes);
    assert_eq!(bytes.len(), 45);
    // Bucket, flags, and seven numbers.
    assert_eq!(SpentReport::MAX_BYTES - ClientKey::BYTES, 8 + 1 + 70);
}

#[test]
fn what_can_be_no_report_is_none() {
    let mut bytes = Vec::new();
    usual(ClientKey::digest(b"tenant")).write(&mut bytes);
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        bytes
    };
    let mut crowd = usual(ClientKey::digest(b"tenant"));
    crowd.client = Crowds::OF_DEFAULT.key(7);
    let mut of_crowd = Vec::new();
    crowd.write(&mut of_crowd);
    let mut more_fresh = Vec::new();
    SpentReport { fresh: 20_001, ..usual(ClientKey::digest(b"tenant")) }.write(&mut more_fresh);
    let rows = [
        ("nothing", Vec::new()),
        ("cut short", bytes[..bytes.len() - 1].to_vec()),
        ("no kind of client", changed(0, 200)),
        ("a crowd", of_crowd),
        ("no period", changed(25, 0x10)),
        ("less spent than fresh", more_fresh),
    ];
    for (what, bytes) in rows {
        assert_eq!(SpentReport::read(&mut bytes.as_slice()), None, "{what}");
    }
    let endless = [0xff; 11];
    assert_eq!(read_varint(&mut endless.as_slice()), None);
    let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
    assert_eq!(read_varint(&mut too_large.as_slice()), None);
}

#[test]
fn a_number_takes_a_byte_for_each_seven_bits() {
    for (number, length) in [
        (0, 1),
        (127, 1),
        (128, 2),
        (16_383, 2),
        (16_384, 3),
        ((1 << 63) - 1, 9),
        (1 << 63, 10),
        (u64::MAX, 10),
    ] {
        let mut bytes = Vec::new();
        write_varint(number, &mut bytes);
        assert_eq!((bytes.len(), read_varint(&mut bytes.as_slice())), (length, Some(number)));
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read_again(reports in prop::collection::vec(any_report(), 0..5)) {
        let mut bytes = Vec::new();
        for report in &reports {
            let before = bytes.len();
            report.write(&mut bytes);
            prop_assert!(bytes.len() - before <= SpentReport::MAX_BYTES);
        }
        let mut rest = bytes.as_slice();
        let read: Vec<_> = std::iter::from_fn(|| SpentReport::read(&mut rest)).collect();
        prop_assert_eq!(read, reports);
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut rest = bytes.as_slice();
        while let Some(report) = SpentReport::read(&mut rest) {
            prop_assert!(report.limit.capacity <= Limit::MAX_CAPACITY && report.fresh <= report.spent);
        }
    }
}
