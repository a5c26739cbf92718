//! Many clients: how many of them are remembered, and how little one of them can take from the others.

use super::*;
use crate::fair::line::MAX_DEBTORS;

#[test]
fn ten_thousand_made_up_clients_leave_nothing_behind() {
    let mut line = line(256, Some(500 * MS));
    let mut now = S;
    let mut most = 0;
    for round in 0..3 {
        for client in 0..10_000 {
            let _ = line.join(&joining(who(client + 10_000 * round), now), now);
            assert!(std::iter::from_fn(|| line.refused()).take(1_000).count() < 1_000);
            if client % 3 == 0 {
                served(&mut line, 1, Some(MS), &mut now);
            }
            assert!(line.len() <= 256);
            most = most.max(line.remembered());
        }
    }
    assert!(most <= 256 + MAX_DEBTORS, "{most}");
    while !served(&mut line, 1, Some(MS), &mut now).is_empty() {}
    // Debts are forgotten with time.
    now += 3 * S;
    join(&mut line, 1, now);
    assert_eq!((line.remembered(), line.clients()), (1, 1));
}

#[test]
fn a_client_is_forgotten_with_its_last_request() {
    let mut line = line(100, None);
    let ticket = join(&mut line, 1, S);
    assert_eq!(line.remembered(), 1);
    assert!(line.leave(ticket, S));
    assert_eq!(line.remembered(), 0, "it used nothing");
    join(&mut line, 1, S);
    join(&mut line, 2, S);
    let turn = line.next(S).expect("1");
    assert_eq!(line.remembered(), 2, "in flight");
    line.end(turn.ticket.who, Some(50 * MS), S + 50 * MS);
    assert_eq!(line.remembered(), 2, "it has used more than newcomers start with");
    let mut now = S + 50 * MS;
    join_all(&mut line, [2; 10], now);
    served(&mut line, 11, Some(50 * MS), &mut now);
    assert_eq!(line.remembered(), 1, "the line is past that");
}

/// If there are too many, the client with the largest debt is kept.
#[test]
fn the_smallest_debts_are_forgotten_first() {
    let (mut line, mut now) = (line(usize::MAX, None), S);
    for client in 0..MAX_DEBTORS as u64 + 10 {
        join(&mut line, client, now);
    }
    let turns: Vec<_> = std::iter::from_fn(|| line.next(now)).take(2 * MAX_DEBTORS).collect();
    for turn in turns {
        now += MS;
        line.end(turn.ticket.who, Some(MS), now);
    }
    assert_eq!(line.remembered(), MAX_DEBTORS);
    let last = MAX_DEBTORS as u64 + 9;
    join_all(&mut line, [0, last], now);
    assert_eq!(served(&mut line, 2, Some(MS), &mut now), [0, last]);
}

/// One client asks for ten times as many places as there are. Twenty modest clients get nearly all that they ask for.
#[test]
fn the_modest_are_served_beside_a_greedy_one() {
    let (mut line, mut now) = (line(64, Some(500 * MS)), S);
    let (mut modest, mut greedy) = (0, 0);
    for round in 0..1000 {
        for _ in 0..10 {
            let _ = line.join(&joining(who(0), now), now);
        }
        // The modest clients ask for nine in ten places.
        if round % 10 > 0 {
            join(&mut line, 1 + round % 20, now);
        }
        let turn = line.next(now).expect("somebody waits");
        if turn.ticket.who == who(0) {
            greedy += 1
        } else {
            modest += 1
        }
        now += 10 * MS;
        line.end(turn.ticket.who, Some(10 * MS), now);
        for (client, why) in refused(&mut line) {
            assert_eq!(client, 0, "{why:?}");
        }
    }
    assert!(modest >= 890 && greedy >= 90, "{modest} {greedy}");
}
