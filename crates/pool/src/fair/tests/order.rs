//! Which client goes next.

use super::*;

#[test]
fn who_has_used_least_goes_next() {
    // Clients in the order that they join; how long each turn lasts; the order of turns.
    let table: [(&[u64], Option<Nanos>, &[u64]); 5] = [
        (&[1, 1, 1, 1, 2, 2, 3], Some(10 * MS), &[1, 2, 3, 1, 2, 1, 1]),
        // Of clients with the same use, the one that came first.
        (&[3, 2, 1], Some(10 * MS), &[3, 2, 1]),
        // Requests in flight count before any time has passed.
        (&[1, 1, 1, 2, 2], None, &[1, 2, 1, 2, 1]),
        (&[5], Some(MS), &[5]),
        (&[], Some(MS), &[]),
    ];
    for (joins, held, expected) in table {
        let (mut line, mut now) = (line(100, None), S);
        join_all(&mut line, joins.iter().copied(), S);
        assert_eq!(served(&mut line, 100, held, &mut now), expected, "{joins:?}");
        assert!(line.is_empty() && line.next(now).is_none());
    }
}

#[test]
fn one_dear_request_counts_as_much_as_many_cheap_ones() {
    let (mut line, mut now) = (line(100, None), S);
    for _ in 0..30 {
        join(&mut line, 1, now);
        join(&mut line, 2, now);
    }
    let mut dear = 0;
    for _ in 0..33 {
        let turn = line.next(now).expect("somebody waits");
        let held = if turn.ticket.who.client == 1 { 100 * MS } else { 10 * MS };
        dear += u32::from(held == 100 * MS);
        now += held;
        line.end(turn.ticket.who, Some(held), now);
    }
    assert_eq!(dear, 3, "30 of 10 ms for 3 of 100 ms");
}

#[test]
fn weights_and_priorities_share_the_places() {
    use Priority::{Background, Critical, Normal};
    let of = |priority, client| Who { client, priority };
    // The clients and their weights; the parts of the turns that they get.
    type Row<'a> = (&'a [(Who, u32)], &'a [usize]);
    let table: [Row; 4] = [
        (&[(who(1), 1), (who(2), 2), (who(3), 4)], &[1, 2, 4]),
        (&[(who(1), 1), (who(2), 1000)], &[1, 1000]),
        (&[(of(Critical, 1), 1), (of(Normal, 1), 1), (of(Background, 1), 1)], &[16, 4, 1]),
        // The clients of a priority share its part, so two get no more than one.
        (&[(of(Normal, 1), 1), (of(Background, 1), 7), (of(Background, 2), 7)], &[8, 1, 1]),
    ];
    for (clients, parts) in table {
        let whole: usize = parts.iter().sum();
        let (mut line, mut now) = (line(usize::MAX, None), S);
        for (who, weight) in clients {
            for _ in 0..2 * whole {
                let joining = Joining { weight: *weight, ..joining(*who, now) };
                line.join(&joining, now).expect("no bound");
            }
        }
        let mut turns = vec![0usize; clients.len()];
        for _ in 0..2 * whole {
            let who = line.next(now).expect("somebody waits").ticket.who;
            now += MS;
            line.end(who, Some(MS), now);
            turns[clients.iter().position(|(one, _)| *one == who).expect("one of them")] += 1;
        }
        for (turns, part) in turns.iter().zip(parts) {
            assert!(turns.abs_diff(2 * part) <= 2, "{clients:?}: {turns} of {}", 2 * part);
        }
    }
}

#[test]
fn a_newcomer_starts_where_the_line_is() {
    let (mut line, mut now) = (line(100, None), S);
    for _ in 0..60 {
        join(&mut line, 1, now);
    }
    served(&mut line, 50, Some(10 * MS), &mut now);
    // If it started at zero, it would have the next 50 turns.
    join_all(&mut line, [2; 5], now);
    assert_eq!(served(&mut line, 6, Some(10 * MS), &mut now), [2, 1, 2, 1, 2, 1]);
}

#[test]
fn debts_end() {
    // How long client 1 held a place alone; how many turns of 10 ms a newcomer has before client 1 gets one again.
    for (held, before) in [(100 * MS, 10), (S, 100), (60 * S, 200), (3600 * S, 200)] {
        let (mut line, mut now) = (line(10_000, None), S);
        join(&mut line, 1, now);
        join(&mut line, 1, now);
        served(&mut line, 1, Some(held), &mut now);
        join_all(&mut line, [2; 1000], now);
        let turns = served(&mut line, 400, Some(10 * MS), &mut now);
        let found = turns.iter().position(|client| *client == 1).expect("a turn");
        assert!(found.abs_diff(before) <= 2, "{held}: after {found}, not {before}");
    }
}

/// A priority that had all places for an hour does not wait for hours.
#[test]
fn debts_of_a_priority_end_too() {
    let (mut line, mut now) = (line(10_000, None), S);
    let batch = Who { client: 1, priority: Priority::Background };
    for _ in 0..2 {
        line.join(&joining(batch, now), now).expect("room");
    }
    served(&mut line, 1, Some(3600 * S), &mut now);
    join_all(&mut line, [2; 2000], now);
    let turns = served(&mut line, 2000, Some(10 * MS), &mut now);
    let found = turns.iter().position(|client| *client == 1).expect("a turn");
    assert!((790..=810).contains(&found), "2 s of four parts are 8 s of places: {found}");
}

/// A stream that goes on for an hour makes no endless debt either, neither for its client nor for its priority.
#[test]
fn debts_that_still_grow_are_bounded_when_their_client_waits_again() {
    use Priority::{Background, Critical, Normal};
    // The stream's priority and weight; the priority of the others. It is charged while its client waits.
    for (priority, weight, others) in [(Normal, 4, Normal), (Critical, 1, Background)] {
        let (mut line, mut now) = (line(10_000, None), S);
        let streams = Joining { weight, ..joining(Who { client: 1, priority }, now) };
        let come = |line: &mut FairLine, client, times, now| {
            for _ in 0..times {
                line.join(&joining(Who { client, priority: others }, now), now).expect("room");
            }
        };
        line.join(&streams, now).expect("room");
        let stream = line.next(now).expect("it waits").ticket.who;
        now += 3600 * S;
        line.join(&streams, now).expect("room");
        come(&mut line, 2, 400, now);
        let turns = served(&mut line, 400, Some(20 * MS), &mut now);
        let found = turns.iter().position(|client| *client == 1).expect("a turn");
        assert!((90..150).contains(&found), "{priority:?}: 2 s of debt, 20 ms a turn: {found}");
        // Clients that come now do not start with that debt.
        come(&mut line, 2, 200, now);
        come(&mut line, 3, 200, now);
        let turns = served(&mut line, 400, Some(20 * MS), &mut now);
        let found = turns.iter().position(|client| *client == 3).expect("a turn");
        assert!(found <= 110, "{priority:?}: {found}");
        line.end(stream, None, now);
    }
}

#[test]
fn a_line_that_nobody_stood_in_has_no_debts() {
    // How long no request was in line; which client goes first then.
    for (empty, first) in [(2_000 * MS, 2), (2_001 * MS, 1)] {
        let (mut line, mut now) = (line(100, None), S);
        join(&mut line, 1, now);
        served(&mut line, 1, Some(S), &mut now);
        now = S + empty;
        join(&mut line, 1, now);
        join(&mut line, 2, now);
        assert_eq!(served(&mut line, 1, Some(MS), &mut now), [first], "{empty}");
    }
}

#[test]
fn what_went_straight_through_counts_once_a_line_stands() {
    for straight in [0, 1, 4] {
        let (mut line, mut now) = (line(100, None), S);
        line.join(&Joining { straight, ..joining(who(1), now) }, now).expect("room");
        join_all(&mut line, [2; 20], now);
        // The turns take no time: client 2 keeps the key of newcomers, and client 1 is behind it by its requests in
        // flight.
        let turns = served(&mut line, 5, Some(0), &mut now);
        assert_eq!(turns, if straight > 0 { [2; 5] } else { [1, 2, 2, 2, 2] }, "{straight}");
        // The requests in flight end, and no time was charged for them, so client 1 has as small a key as client 2.
        line.straight_ended(who(1), 0, Some(20 * MS), now);
        assert_eq!(served(&mut line, 2, Some(0), &mut now).contains(&1), straight > 0, "{straight}");
    }
}

/// The places that they hold are charged while their client waits.
#[test]
fn what_went_straight_through_is_charged_while_its_client_waits() {
    let (mut line, mut now) = (line(1000, None), S);
    line.join(&Joining { straight: 3, ..joining(who(1), now) }, now).expect("room");
    now += 100 * MS;
    line.straight_ended(who(1), 0, None, now);
    join_all(&mut line, [2; 50], now);
    let turns = served(&mut line, 50, Some(10 * MS), &mut now);
    assert_eq!(turns.iter().position(|client| *client == 1), Some(30), "3 times 100 ms at 10 ms a turn");
}

#[test]
fn what_went_straight_through_is_not_charged_once_its_client_does_not_wait() {
    let (mut line, mut now) = (line(100, None), S);
    line.join(&Joining { straight: 3, ..joining(who(1), now) }, now).expect("room");
    assert_eq!(served(&mut line, 1, None, &mut now), [1]);
    now += 100 * MS;
    line.end(who(1), None, now);
    // At its turn its key was 60 ms (three in flight, each for a mean of 20 ms), where newcomers start. After that only
    // the request that waited is charged: 100 ms for one, not for four.
    join(&mut line, 1, now);
    join_all(&mut line, [2; 50], now);
    let turns = served(&mut line, 50, Some(10 * MS), &mut now);
    assert_eq!(turns.iter().position(|client| *client == 1), Some(4));
}

#[test]
fn another_weight_counts_from_now_on() {
    let (mut line, mut now) = (line(usize::MAX, None), S);
    let turns_of_one = |line: &mut FairLine, weight, now: &mut Nanos| {
        for _ in 0..100 {
            line.join(&Joining { weight, ..joining(who(1), *now) }, *now).expect("no bound");
            join(line, 2, *now);
        }
        served(line, 100, Some(MS), now).iter().filter(|client| **client == 1).count()
    };
    assert!(turns_of_one(&mut line, 1, &mut now).abs_diff(50) <= 1);
    assert!(turns_of_one(&mut line, 4, &mut now).abs_diff(80) <= 1);
    assert!(turns_of_one(&mut line, 1, &mut now).abs_diff(50) <= 1);
}

#[test]
fn a_clock_that_went_back_changes_nothing() {
    let mut line = line(100, Some(500 * MS));
    join(&mut line, 1, 10 * S);
    join(&mut line, 2, 5 * S);
    let turn = line.next(3 * S).expect("somebody waits");
    line.end(turn.ticket.who, Some(MS), 0);
    assert_eq!(line.next(11 * S).expect("the other").ticket.who, who(2));
}
