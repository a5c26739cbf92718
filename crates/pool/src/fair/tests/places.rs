//! Which requests are refused, keep their turn or leave.

use super::*;
use LineRefusal::{Full, Target};

#[test]
fn a_full_line_refuses_the_newest_of_who_has_the_most() {
    // Clients in line: number, weight, requests. The newcomer's client and its weight. The client whose newest
    // request is refused; `None` is the newcomer itself.
    type Row = (&'static [(u64, u32, usize)], (u64, u32), Option<u64>);
    let table: [Row; 8] = [
        (&[(1, 1, 10), (2, 1, 1)], (3, 1), Some(1)),
        (&[(1, 1, 10), (2, 1, 1)], (2, 1), Some(1)),
        (&[(1, 1, 10), (2, 1, 1)], (1, 1), None),
        // With the newcomer, client 2 would have as many as client 1.
        (&[(1, 1, 3), (2, 1, 2)], (2, 1), None),
        (&[(1, 1, 3), (2, 1, 1)], (2, 1), Some(1)),
        // Ten requests at weight 10 are fewer than two at weight 1.
        (&[(1, 10, 10), (2, 1, 2)], (3, 1), Some(2)),
        // The only request of a client stays, however small its weight.
        (&[(1, 1000, 10), (2, 1, 1)], (3, 1), Some(1)),
        (&[(1, 1, 1), (2, 1, 1)], (3, 1000), None),
    ];
    for (waiting, (client, weight), expected) in table {
        let size = waiting.iter().map(|(_, _, count)| count).sum();
        let mut line = line(size, None);
        let mut newest = None;
        for (client, weight, count) in waiting {
            for at in 0..*count {
                let joining = Joining { weight: *weight, ..joining(who(*client), at as Nanos) };
                let ticket = line.join(&joining, S).expect("room");
                newest = if Some(*client) == expected { Some(ticket) } else { newest };
            }
        }
        let joined = line.join(&Joining { weight, ..joining(who(client), S) }, S);
        assert_eq!(joined.is_err(), expected.is_none(), "{waiting:?} {client}");
        assert_eq!(line.refused(), newest.map(|ticket| (ticket, Full)), "{waiting:?} {client}");
        assert_eq!((line.refused(), line.len()), (None, size));
    }
}

#[test]
fn a_full_line_of_single_requests_has_room_for_each_priority() {
    use Priority::{Background, Critical, Normal};
    // Priorities in line, and their requests, each of another client. The newcomer's priority. The priority whose
    // newest request is refused; `None` is the newcomer itself.
    type Row = (&'static [(Priority, u64)], Priority, Option<Priority>);
    let table: [Row; 6] = [
        (&[(Background, 20)], Critical, Some(Background)),
        (&[(Background, 20)], Background, None),
        (&[(Critical, 16), (Background, 2)], Critical, Some(Background)),
        // Critical has its part of the line already.
        (&[(Critical, 32), (Background, 2)], Critical, None),
        (&[(Critical, 40), (Background, 1)], Background, Some(Critical)),
        (&[(Critical, 40), (Normal, 20), (Background, 1)], Critical, Some(Normal)),
    ];
    for (waiting, newcomer, expected) in table {
        let mut line = line(waiting.iter().map(|(_, count)| *count as usize).sum(), None);
        let mut newest = None;
        for (priority, count) in waiting {
            for client in 0..*count {
                let ticket = line.join(&joining(Who { client, priority: *priority }, S), S).expect("room");
                newest = if Some(*priority) == expected { Some(ticket) } else { newest };
            }
        }
        let joined = line.join(&joining(Who { client: 99, priority: newcomer }, S), S);
        assert_eq!(joined.is_err(), expected.is_none(), "{waiting:?} {newcomer:?}");
        assert_eq!(line.refused(), newest.map(|ticket| (ticket, Full)), "{waiting:?} {newcomer:?}");
    }
}

/// Its priority's part of a line of single requests is for other clients, and not for a second one of the same.
#[test]
fn a_client_in_a_line_of_single_requests_has_no_room_for_a_second() {
    let mut line = line(20, None);
    for (client, priority) in
        (0..19).map(|client| (client, Priority::Background)).chain([(1, Priority::Critical)])
    {
        line.join(&joining(Who { client, priority }, S), S).expect("room");
    }
    let again = Who { client: 1, priority: Priority::Critical };
    assert_eq!((line.join(&joining(again, S), S), line.refused()), (Err(Full), None));
}

#[test]
fn a_standing_line_refuses_what_has_waited_for_the_target() {
    // When requests of one client join, in ms; when the last one joins; how many are refused.
    let table: [(&[Nanos], Nanos, usize); 9] = [
        (&[0, 1], 900, 0),
        // Its line was never empty for 1 s, and the first has waited for more than 500 ms.
        (&[0, 900], 1001, 1),
        (&[0, 400, 700], 1001, 2),
        (&[0, 600, 700], 1050, 1),
        // The second one has waited for exactly 500 ms.
        (&[0, 700, 800], 1200, 1),
        // All but the newest are refused.
        (&[0, 600, 700], 1300, 2),
        (&[0], 10_000, 0),
        (&[0, 999], 1000, 0),
        (&[], 5000, 0),
    ];
    for (joins, last, expected) in table {
        let mut line = line(100, Some(500 * MS));
        for at in joins {
            join(&mut line, 1, at * MS);
        }
        join(&mut line, 1, last * MS);
        assert_eq!(refused(&mut line), vec![(1, Target); expected], "{joins:?} {last}");
        assert_eq!(line.len(), joins.len() + 1 - expected);
    }
    // Without a target none is refused, and a request that joins has no effect on the line of another client.
    let mut patient = line(100, None);
    join(&mut patient, 1, 0);
    join(&mut patient, 1, 10 * S);
    assert_eq!(refused(&mut patient), []);
    let mut line = line(100, Some(500 * MS));
    join_all(&mut line, [1, 1], 0);
    join(&mut line, 2, 10 * S);
    assert_eq!(refused(&mut line), []);
    // A request whose turn comes too late is refused at its turn.
    assert_eq!(served(&mut line, 2, None, &mut { 12 * S }), [1, 2]);
    assert_eq!(refused(&mut line), [(1, Target)]);
}

/// A client that sends one request at a time is served when a place gets free, however slow the backends are.
#[test]
fn nobodys_only_request_waits_for_too_long() {
    let mut line = line(100, Some(500 * MS));
    join_all(&mut line, [1, 2, 3], 0);
    assert_eq!(served(&mut line, 3, Some(3 * S), &mut { 3 * S }), [1, 2, 3]);
    assert_eq!(refused(&mut line), []);
}

#[test]
fn who_cannot_use_the_place_keeps_its_turn() {
    let mut line = line(100, None);
    join_all(&mut line, [1, 1, 2, 3], S);
    let first = line.next(S).expect("1");
    let second = line.pass(first, S).expect("2");
    let third = line.pass(second, S).expect("3");
    assert_eq!([first, second, third].map(|turn| turn.ticket.who.client), [1, 2, 3]);
    // All clients have tried, so the next is the second request of the first client.
    let fourth = line.pass(third, S).expect("1 again");
    assert!(fourth.ticket.who == who(1) && fourth.ticket != first.ticket);
    assert_eq!(line.pass(fourth, S), None, "nobody is left");
    assert_eq!(line.len(), 4);
    // The next place is offered to the same requests in the same order: a try is not charged.
    assert_eq!(line.next(S).map(|turn| turn.ticket), Some(first.ticket));
    assert_eq!(line.next(S).map(|turn| turn.ticket), Some(second.ticket));
}

/// Among clients that all have tried, the one that tried with the fewest requests is next; of several, the first.
#[test]
fn each_client_tries_a_place_with_as_many_requests() {
    for (clients, tries) in
        [([1, 1, 2, 2], [1, 2, 1, 2]), ([1, 1, 1, 2], [1, 2, 1, 1]), ([1, 2, 2, 2], [1, 2, 2, 2])]
    {
        let mut line = line(100, None);
        join_all(&mut line, clients, S);
        let mut turn = line.next(S);
        for client in tries {
            let tried = turn.expect("one that has not tried");
            assert_eq!(tried.ticket.who.client, client, "{clients:?}");
            turn = line.pass(tried, S);
        }
        assert_eq!(turn, None, "{clients:?}");
    }
}

/// Of clients with the same use, one that tried without success for some time does not fall behind the others.
#[test]
fn trying_in_vain_costs_nothing() {
    let (mut line, mut now) = (line(100, None), S);
    for _ in 0..2 {
        join_all(&mut line, 0..5, now);
    }
    for _ in 0..3 {
        let turn = line.next(now).expect("somebody waits");
        assert_eq!(turn.ticket.who.client, 0);
        now += 100 * MS;
        let other = line.pass(turn, now).expect("the next");
        assert_eq!(other.ticket.who.client, 1);
        now += 100 * MS;
        let third = line.pass(other, now).expect("one more").ticket.who;
        assert!(third != who(0) && third != who(1));
        line.end(third, None, now);
        join(&mut line, third.client, now);
    }
    assert_eq!(served(&mut line, 2, Some(MS), &mut now), [0, 1]);
}

/// A try without success is not charged to the priority either.
#[test]
fn trying_in_vain_costs_no_priority_anything() {
    let of = |priority| Who { client: 1, priority };
    let (mut line, mut now) = (line(100, None), S);
    for priority in [Priority::Critical, Priority::Normal] {
        line.join(&joining(of(priority), now), now).expect("room");
    }
    for _ in 0..3 {
        let turn = line.next(now).expect("somebody waits");
        assert_eq!(turn.ticket.who, of(Priority::Critical));
        now += S;
        let other = line.pass(turn, now).expect("the other");
        assert_eq!(line.pass(other, now), None);
    }
}

/// An arrival in the future counts as the present time.
#[test]
fn nobody_comes_later_than_now() {
    let mut line = line(100, None);
    let first = line.join(&joining(who(1), 100 * S), S).expect("room");
    join(&mut line, 1, 2 * S);
    assert_eq!(line.next(2 * S).map(|turn| turn.ticket), Some(first));
}

#[test]
fn a_place_that_is_none_after_all_leaves_the_line_as_it_was() {
    let mut line = line(3, None);
    join_all(&mut line, [1, 2, 1], S);
    let turn = line.next(S).expect("1");
    join(&mut line, 3, S);
    line.put_back(turn, 2 * S);
    assert_eq!((line.len(), line.clients()), (4, 3), "it has a place even where that is one too many");
    assert_eq!(served(&mut line, 4, None, &mut { 2 * S }), [1, 2, 3, 1]);
}

/// The line may be long: with the order of arrival all requests are in the line of one client.
#[test]
fn each_request_of_a_long_line_tries_a_place_once() {
    const LONG: u64 = 600;
    let mut line = line(usize::MAX, None);
    let tickets: Vec<_> = (0..LONG).map(|_| join(&mut line, 1, S)).collect();
    let (mut last, mut tried) = (line.next(S).expect("somebody waits"), Vec::new());
    loop {
        tried.push(last.ticket);
        assert!(tried.len() <= tickets.len(), "somebody tries again and again");
        let next = line.pass(last, S).or_else(|| line.pass_on(&last, S));
        let Some(next) = next else { break };
        last = next;
    }
    assert_eq!(tried, tickets);
    // Requests that leave in between do not make the line skip another one.
    let mut last = line.next(S).expect("somebody waits");
    for ticket in &tickets[1..300] {
        last = line.pass(last, S).or_else(|| line.pass_on(&last, S)).expect("somebody has not tried");
        assert_eq!(last.ticket, *ticket);
    }
    tickets[..299].iter().for_each(|ticket| assert!(line.leave(*ticket, S)));
    assert_eq!(
        line.pass(last, S).or_else(|| line.pass_on(&last, S)).map(|turn| turn.ticket),
        Some(tickets[300])
    );
}

/// A request that joins in front of one that tries, or comes back from the try of another place, has not tried this
/// place.
#[test]
fn who_comes_in_front_of_one_that_tries_has_its_try() {
    let mut line = line(100, None);
    join(&mut line, 1, S);
    join(&mut line, 1, 3 * S);
    let first = line.next(4 * S).expect("the first");
    let second = line.pass(first, 4 * S).expect("the second");
    let between = line.join(&joining(who(1), 2 * S), 4 * S).expect("room");
    let mut tried = Vec::new();
    let mut turn = line.pass(second, 4 * S);
    while let Some(now) = turn {
        tried.push(now.ticket);
        assert!(tried.len() < 10, "{tried:?}");
        turn = line.pass(now, 4 * S);
    }
    assert!(tried.contains(&between), "{tried:?}");
    // Two places get free at once, and both requests try both.
    let (one, other) = (line.next(5 * S).expect("one"), line.next(5 * S).expect("another"));
    assert!(one.ticket == first.ticket && other.ticket == between);
    line.put_back(one, 5 * S);
    assert_eq!(line.pass(other, 5 * S).map(|turn| turn.ticket), Some(first.ticket));
}

#[test]
fn at_most_eight_try_one_place() {
    let mut line = line(100, None);
    join_all(&mut line, 0..20, S);
    let (mut turn, mut tries) = (line.next(S), Vec::new());
    while let Some(now) = turn {
        tries.push(now.ticket.who.client);
        assert!(tries.len() < 20, "{tries:?}");
        turn = line.pass(now, S);
    }
    assert_eq!(tries, (0..8).collect::<Vec<_>>());
    assert_eq!(line.len(), 20);
}

#[test]
fn who_comes_back_stands_where_it_came_first() {
    let mut line = line(100, None);
    let late = join(&mut line, 1, 3 * S);
    let again = line.join(&joining(who(1), S), 4 * S).expect("room");
    assert_eq!(line.next(4 * S).map(|turn| turn.ticket), Some(again));
    assert_eq!(line.next(4 * S).map(|turn| turn.ticket), Some(late));
}

#[test]
fn who_leaves_frees_its_place() {
    let mut line = line(2, None);
    let (one, _two) = (join(&mut line, 1, S), join(&mut line, 2, S));
    assert_eq!(line.join(&joining(who(3), S), S), Err(Full));
    assert!(line.leave(one, S));
    assert!(!line.leave(one, S), "once");
    let three = join(&mut line, 3, S);
    assert_eq!(line.next(S).map(|turn| turn.ticket.who), Some(who(2)));
    let turn = line.next(S).expect("3");
    assert!(turn.ticket == three && !line.leave(three, S), "it has its turn already");
    // The request left at its turn, before it was sent.
    line.end(turn.ticket.who, None, S);
    line.end(who(2), Some(MS), S);
    assert_eq!((line.len(), line.clients()), (0, 0));
}
