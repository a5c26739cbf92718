//! Sweeps: how much of the table each looks at, and what they leave.

use super::*;

#[test]
fn each_sweep_looks_at_a_sixteenth_of_the_table() {
    let limiter = Limiter::new(100_000);
    (0..16_000).for_each(|number| assert!(take(&limiter, client(number), &grant(10, 1), 1, SEC).allowed));
    for left in (0..SWEEP_CALLS).rev() {
        limiter.sweep(at(3 * SEC));
        // About a thousand in each sixteenth, by a random hash.
        let about = left * 1_000;
        assert!(limiter.clients().abs_diff(about) <= 600, "{} of {about}", limiter.clients());
    }
    assert_eq!(limiter.clients(), 0);
}

#[test]
fn who_is_never_full_does_not_keep_a_sweep_from_the_others() {
    let limiter = Limiter::new(3_000);
    // About four in each shard, which stay.
    (0..1_000).for_each(|number| assert!(take(&limiter, client(number), &grant(10, 0), 1, SEC).allowed));
    for number in 1_000..6_000u32 {
        // Ten others come before a bucket is full again.
        let now = SEC + Nanos::from(number) * SEC / 10;
        assert!(!take(&limiter, client(number), &grant(10, 1), 1, now).overflow, "{number}");
    }
    assert!((0..1_000).all(|number| peek(&limiter, client(number), 700 * SEC).is_some()));
}

#[test]
fn a_look_at_a_full_table_knows_whether_a_sweep_makes_room() {
    // Of the buckets that fill the table none, every eighth, or all are full again.
    for each in [0, 8, 1] {
        let limiter = Limiter::new(2_000);
        for number in 0..2_000 {
            let rate = u64::from(each > 0 && number % each == 0);
            assert!(take(&limiter, client(number), &grant(10, rate), 1, SEC).allowed);
        }
        let mut alone = 0;
        for number in 2_000..2_050 {
            let grant = grant(5, 0);
            let looked = limiter.preview(client(number), Ask::of(&grant), at(3 * SEC));
            let decision = take(&limiter, client(number), &grant, 1, 3 * SEC);
            assert_eq!(decision, looked, "{each} {number}");
            alone += u32::from(!decision.overflow);
        }
        let expected = [0..=0, 50..=50, 1..=50];
        assert!(expected[each.min(2) as usize].contains(&alone), "{each}: {alone}");
    }
}

#[test]
fn memory_is_that_of_all_shards_with_their_rows_and_hot_buckets() {
    let limiter = Limiter::new(1_000);
    let shards = SHARDS * size_of::<Shard>();
    let parts = || {
        let of = |shard: &Shard| {
            let rows = shard.0.lock();
            [rows.table.memory_bytes(), rows.hot.memory_bytes()]
        };
        limiter.shards.iter().map(of).fold([0, 0], |[rows, hot], [more, hotter]| [rows + more, hot + hotter])
    };
    let [rows, hot] = parts();
    assert_eq!((limiter.memory_bytes(), hot), (shards + rows, 0));
    limiter.link.set_members(2, false);
    limiter.link.heard(SEC, SEC);
    (0..100).for_each(|number| assert!(take(&limiter, client(number), &grant(10, 0), 9, SEC).allowed));
    let [rows, hot] = parts();
    assert!(rows > 100 * size_of::<TableRow>() && hot > 0, "{rows} {hot}");
    assert_eq!(limiter.memory_bytes(), shards + rows + hot);
}

#[test]
fn every_part_of_a_client_tells_its_shard() {
    let limiter = Limiter::new(1);
    let of = |text: &str| limiter.hash(ClientKey::group(text.parse().unwrap(), 64));
    assert_ne!(of("2001:db8:0:1::"), of("2001:db8:0:2::"));
    assert_ne!(of("2001:db8::"), of("2001:db9::"));
    assert_ne!(limiter.hash(client(1)), limiter.hash(client(1 << 24)));
    assert_eq!(limiter.hash(client(1)), limiter.hash(client(1)));
}
