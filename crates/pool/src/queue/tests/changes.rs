//! Which requests are refused, and a change of the order while requests wait.

use super::*;

const MS: Nanos = 1_000_000;

/// A request that joins and sleeps, after a try without success if it may try.
fn asleep(queue: &Arc<Queue>, client: u64, now: Nanos) -> QueuePlace {
    let mut place = queue.join(member(client, now), now).expect("room");
    if may_try(&place) {
        assert!(place.sleep(false, now));
    }
    place
}

/// Sends all requests in line, each when the one before it has ended. Returns their names in the order of their turns.
fn served(queue: &Arc<Queue>, mut places: Vec<(u64, QueuePlace)>, mut now: Nanos) -> Vec<u64> {
    let mut order = Vec::new();
    queue.freed();
    while let Some(at) = places.iter().position(|(_, place)| may_try(place)) {
        let (name, place) = places.remove(at);
        order.push(name);
        let passage = place.leave(false);
        now += 10 * MS;
        queue.ended(passage, Some(10 * MS), Some(now));
    }
    assert!(places.is_empty() && queue.is_empty());
    order
}

#[test]
fn the_greedy_ones_newest_is_refused_and_told_once() {
    let queue = queue(QueueOrder::Fair, 4);
    let calls = Arc::default();
    let greedy: Vec<_> = (0..3).map(|at| asleep(&queue, 1, at)).collect();
    assert!(greedy[2].on_turn(waker(&calls, "refused")));
    let modest = asleep(&queue, 2, 5);
    assert_eq!((queue.len(), queue.clients()), (4, 2));
    // Its client has the most requests in line, so the newcomer itself is refused.
    assert_eq!(queue.join(member(1, 6), 6).err(), Some(LineRefusal::Full));
    let other = asleep(&queue, 3, 7);
    assert_eq!(greedy[2].standing(), LineStanding::Refused(LineRefusal::Full));
    assert_eq!(*calls.lock(), ["refused"]);
    assert!(!greedy[2].on_turn(waker(&calls, "again")), "there is nothing to wait for");
    assert_eq!((queue.len(), queue.clients()), (4, 3), "it counts no more");
    drop(greedy);
    assert_eq!(
        (queue.len(), modest.standing(), other.standing()),
        (2, LineStanding::Asleep, LineStanding::Asleep)
    );
    assert_eq!(*calls.lock(), ["refused"]);
}

#[test]
fn a_full_line_by_arrival_refuses_who_comes() {
    let line = queue(QueueOrder::Fifo, 2);
    let _greedy = [asleep(&line, 1, 0), asleep(&line, 1, 1)];
    assert_eq!(line.join(member(2, 2), 2).err(), Some(LineRefusal::Full));
    assert!(queue(QueueOrder::Fifo, 0).join(member(1, 0), 0).is_err(), "there is no line");
}

#[test]
fn who_waits_beyond_the_target_in_a_line_that_stands_is_refused() {
    let queue = queue(QueueOrder::Fair, 100);
    queue.configure(QueuePolicy { order: QueueOrder::Fair, size: 100, target: Some(500 * MS) });
    let first = asleep(&queue, 1, 0);
    let second = asleep(&queue, 1, 900 * MS);
    let third = asleep(&queue, 1, 1_100 * MS);
    assert_eq!(first.standing(), LineStanding::Refused(LineRefusal::Target));
    assert_eq!((second.standing(), third.standing()), (LineStanding::Asleep, LineStanding::Asleep));
    assert_eq!(queue.len(), 2);
    // In the order of arrival there is no target.
    queue.configure(QueuePolicy { order: QueueOrder::Fifo, size: 100, target: Some(500 * MS) });
    let _fourth = asleep(&queue, 1, 5_000 * MS);
    assert_eq!(second.standing(), LineStanding::Asleep);
}

/// A request that is sent again goes before the requests that its client sent later.
#[test]
fn who_joins_again_keeps_its_arrival() {
    for (_, order) in QueueOrder::ALL {
        let queue = queue(order, 9);
        let mut places = Vec::new();
        for (name, arrived, now) in [(1, 10, 10), (2, 20, 20), (3, 30, 30), (4, 15, 40)] {
            let mut place = queue.join(member(7, arrived), now).expect("room");
            if may_try(&place) {
                assert!(place.sleep(false, now));
            }
            places.push((name, place));
        }
        assert_eq!(served(&queue, places, 50), [1, 4, 2, 3], "{order:?}");
    }
}

#[test]
fn another_order_holds_for_who_waits() {
    let come = |queue: &Arc<Queue>| -> Vec<_> {
        let clients = [1, 1, 1, 2, 1, 3];
        clients.into_iter().zip(0..).map(|(client, now)| (client, asleep(queue, client, now))).collect()
    };
    let policy = |order| QueuePolicy { order, size: 9, target: None };
    let by_use = queue(QueueOrder::Fair, 9);
    let places = come(&by_use);
    assert_eq!(served(&by_use, places, 10), [1, 2, 3, 1, 1, 1]);
    let changed = queue(QueueOrder::Fifo, 9);
    let places = come(&changed);
    assert_eq!(changed.clients(), 1, "nobody tells them apart");
    changed.configure(policy(QueueOrder::Fair));
    assert_eq!((changed.clients(), changed.len()), (3, 6));
    assert_eq!(served(&changed, places, 10), [1, 2, 3, 1, 1, 1]);
    let places = come(&changed);
    changed.configure(policy(QueueOrder::Fifo));
    assert_eq!(served(&changed, places, 20), [1, 1, 1, 2, 1, 3]);
}

/// A request that has its turn when the order changes keeps it, and one that is in flight from before the change is
/// counted for no client.
#[test]
fn turns_and_leases_of_another_order_end_well() {
    let queue = queue(QueueOrder::Fair, 9);
    let [one, mut other] = [1, 2].map(|client| asleep(&queue, client, 0));
    queue.freed();
    let passage = one.leave(false);
    queue.freed();
    assert!(may_try(&other));
    queue.configure(QueuePolicy { order: QueueOrder::Fifo, size: 9, target: None });
    assert!(may_try(&other));
    assert!(other.sleep(false, 3));
    queue.ended(passage, Some(3), Some(4));
    assert!(may_try(&other), "what ended makes room");
    assert!(matches!(other.leave(false), Passage::Waited { era: 1, .. }));
    assert!(queue.is_empty());
}

#[test]
fn the_view_names_who_has_the_most_places() {
    let queue = queue(QueueOrder::Fair, 99);
    assert_eq!(queue.view(8, 0), LineView::default());
    let places: Vec<_> =
        [1, 1, 2, 3, 2, 2].into_iter().zip(1..).map(|(one, now)| asleep(&queue, one, now)).collect();
    queue.freed();
    let view = queue.view(2, 101);
    assert_eq!((view.waiting, view.clients, view.oldest), (6, 3, Some(100)));
    let shown: Vec<_> = view.busiest.iter().map(|one| (&*one.name, one.in_flight, one.waiting)).collect();
    assert_eq!(
        shown,
        [("client 1", Some(1), 1), ("client 2", Some(0), 3)],
        "at most two, and who tries has a place"
    );
    // In the order of arrival the places of clients are not counted.
    queue.configure(QueuePolicy { order: QueueOrder::Fifo, size: 99, target: None });
    let view = queue.view(2, 101);
    assert_eq!((view.waiting, view.clients, view.oldest), (6, 1, Some(100)));
    let shown: Vec<_> = view.busiest.iter().map(|one| (&*one.name, one.in_flight, one.waiting)).collect();
    assert_eq!(shown, [("client 2", None, 3), ("client 1", None, 1)]);
    drop(places);
    assert_eq!(queue.view(8, 0), LineView::default());
}

#[test]
fn whose_turn_it_is_still_has_a_place_in_a_full_line() {
    let queue = queue(QueueOrder::Fair, 2);
    let [mut one, _other] = [1, 2].map(|client| asleep(&queue, client, 0));
    queue.changed();
    assert!(may_try(&one));
    assert_eq!(queue.join(member(3, 1), 1).err(), Some(LineRefusal::Full), "it may come back");
    assert!(one.sleep(false, 2));
    assert_eq!(queue.len(), 2);
}

/// After any number of changes only one request tries at a time.
#[test]
fn changes_do_not_wake_everybody() {
    let queue = queue(QueueOrder::Fair, 9);
    let mut places: Vec<_> = (0..5).map(|client| asleep(&queue, client, 0)).collect();
    let trying = |places: &[QueuePlace]| places.iter().filter(|place| may_try(place)).count();
    (0..5).for_each(|_| queue.changed());
    assert_eq!(trying(&places), 1);
    let at = places.iter().position(may_try).expect("one of them");
    queue.changed();
    assert!(!places[at].sleep(false, 1), "it looked before the last change, and looks again");
    assert!(may_try(&places[at]) && places[at].sleep(false, 1));
    assert_eq!((trying(&places), queue.len()), (0, 5));
}

/// A place that is freed while a request tries on the mere chance is for that one, not for the next, which could be
/// quicker and so overtake it.
#[test]
fn who_tries_by_chance_is_not_overtaken() {
    for (_, order) in QueueOrder::ALL {
        let queue = queue(order, 9);
        let [mut a, b, c, d] = [0, 1, 2, 3].map(|now| asleep(&queue, 7, now));
        let trying = || [&b, &c, &d].map(may_try);
        queue.changed();
        assert!(may_try(&a));
        queue.freed();
        assert_eq!(trying(), [false; 3], "that place is a's");
        assert!(!a.sleep(false, 9), "it looked before the place was freed, and looks again");
        queue.freed();
        assert_eq!(trying(), [true, false, false], "the second place is b's");
        assert!(may_try(&a));
        // There may have been room beside both places.
        let _ = a.leave(false);
        assert_eq!(trying(), [true, true, false]);
        queue.freed();
        assert_eq!(trying(), [true, true, false], "c, too, tries by chance");
        // c leaves without having used either.
        drop(c);
        assert!(may_try(&d));
    }
}

/// What may be free besides is for the next one that joins if there is nobody asleep to be told.
#[test]
fn room_by_chance_is_left_to_who_joins() {
    let queue = queue(QueueOrder::Fair, 9);
    let [a, mut b] = [0, 1].map(|now| asleep(&queue, 7, now));
    queue.changed();
    queue.freed();
    queue.freed();
    assert!(may_try(&a) && may_try(&b));
    let _ = a.leave(false);
    let mut c = queue.join(member(8, 3), 3).expect("room in the line");
    assert!(may_try(&c));
    assert!(b.sleep(false, 9) && c.sleep(false, 9));
    assert!(!may_try(&queue.join(member(9, 4), 4).expect("room in the line")), "there was none");
}
