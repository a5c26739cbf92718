use super::*;
use crate::limit::Rate;

const FULL: Limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };

#[test]
fn a_part_of_a_level_is_rounded_down_and_its_price_up_and_all_of_it_is_all() {
    let whole = 1_000_000_000_000_000;
    let rows = [(1.0, whole, whole), (0.5, 9, 4), (1.0 / 3.0, 100, 33), (0.0, 100, 0), (0.5, -9, 0)];
    for (part, level, expected) in rows {
        let mark = Mark::parted(part, 7);
        assert_eq!(mark.of(level), expected, "{part}");
        assert!(mark.is_parted() && mark.is_of(7) && !mark.is_of(8) && !mark.owes());
    }
    let prices =
        [(1.0, 7, 7 * MICRO), (0.5, 3, 6 * MICRO), (1.0 / 3.0, 1, 3 * MICRO), (0.0, 1 << 30, i64::MAX)];
    for (part, cost, expected) in prices {
        assert_eq!(Mark::parted(part, 7).price(cost), expected, "{part}");
    }
    let mut mark = Mark::parted(0.5, u32::MAX);
    mark.owe();
    assert!(mark.is_of(u32::MAX) && mark.owes() && mark.of(8) == 4);
    // Of a silence's number the lowest 30 bits are kept, and they reach no other bit.
    for (returns, other) in [(0, 1), (7, 5), (u32::MAX, u32::MAX - 1), (1 << 29, 0)] {
        let mark = Mark::parted(1.0, returns);
        assert!(mark.is_of(returns) && mark.is_of(returns ^ 1 << 30), "{returns}");
        assert!(!mark.is_of(other) && !mark.owes() && mark.is_parted(), "{returns}");
    }
}

#[test]
fn what_is_hidden_adds_up_until_a_quarter_of_an_even_part_and_flows_away_by_an_even_part() {
    let mut mark = Mark::QUIET;
    // Of 100, 8.3 may be hidden from two others.
    for (cost, loud, hidden) in [(1, false, 1), (7, false, 8), (1, true, 9), (3, true, 12), (200, true, 100)]
    {
        assert_eq!((mark.hide(cost, FULL, 3), mark.hidden()), (loud, hidden), "{cost}");
    }
    mark.leak(1_500_000, 3);
    assert_eq!(mark.hidden(), 99, "99.5 are rounded down");
    mark.leak(u64::MAX, 3);
    assert_eq!(mark, Mark::QUIET);
    mark.hide(2, FULL, 3);
    mark.publish();
    assert_eq!(mark, Mark::QUIET);
    // Exactly the quarter of the part is told, and less than one token never is.
    for (cost, capacity, loud) in [(10, 120, true), (9, 120, false), (0, 0, false)] {
        let mut mark = Mark::QUIET;
        assert_eq!(mark.hide(cost, Limit { capacity, ..FULL }, 3), loud, "{cost} of {capacity}");
    }
}

#[test]
fn a_mark_of_a_part_hides_nothing() {
    let parted = Mark::parted(0.5, 7);
    let mut mark = parted;
    mark.leak(3_000_000, 2);
    mark.publish();
    assert_eq!((mark, mark.hidden()), (parted, 0));
}

#[test]
fn a_part_of_what_flows_is_an_even_one_or_one_less() {
    let rows = [
        (3_000_000, 1, 2_999_999),
        (3_000_000, 2, 1_499_999),
        (3_000_001, 2, 1_500_000),
        (3_000_000, 3, 999_999),
        (64_000_000, 63, 1_015_873),
        (64_000_000, 64, 999_999),
        // As for 64: there are never more.
        (64_000_000, 65, 999_999),
        (u64::MAX, 4, (1 << 62) - 2),
        (0, 3, 0),
    ];
    for (whole, members, part) in rows {
        assert_eq!(part_of(whole, members), part, "{whole} / {members}");
    }
}
