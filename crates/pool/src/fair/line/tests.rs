use super::*;

#[test]
fn the_mean_is_learnt_slowly() {
    let (ms, client) = (1_000_000, Who { client: 1, priority: Priority::Normal });
    // How long requests were in flight; how many; the mean afterwards, in ms.
    for (held, times, mean) in [
        (None, 100, 20),
        (Some(20 * ms), 100, 20),
        (Some(0), 35, 9),
        (Some(100 * ms), 35, 60),
        // A request that took an hour counts as ten means.
        (Some(3_600_000 * ms), 1, 23),
        (Some(0), 10_000, 0),
    ] {
        let mut line = FairLine::new(LinePolicy { size: 1, target: None });
        (0..times).for_each(|_| line.end(client, held, ms));
        assert_eq!(line.mean / ms, mean, "{held:?} {times}");
        assert!(line.mean >= LEAST_MEAN);
    }
}

#[test]
fn a_renewed_line_keeps_time_mean_and_numbers_alone() {
    let mut line = FairLine::new(LinePolicy { size: 1, target: None });
    (line.now, line.emptied, line.number, line.chain, line.mean, line.served) = (5, 1, 7, 3, 9, 11);
    let new = line.renewed();
    assert_eq!((new.now, new.emptied, new.number, new.chain, new.mean, new.served), (5, 5, 7, 3, 9, 0));
}
