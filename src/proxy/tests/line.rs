//! Requests that find every backend full.

use super::*;
use crate::metrics::SeriesValue;
use balancer_pool::queue::QueuePolicy;
use std::sync::atomic::AtomicUsize;

const S: u64 = 1_000_000_000;

fn full(policy: PoolPolicy) -> (Fixture, Box<Story>, RequestHead) {
    let settings = Settings { max_in_flight: Some(1), ..settings(policy) };
    let fixture = Fixture::still(1, &settings);
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    (fixture, story, head)
}

fn lined() -> PoolPolicy {
    PoolPolicy { queue: of_size(2), queue_timeout: Duration::from_secs(3), ..policy() }
}

fn of_size(size: usize) -> QueuePolicy {
    QueuePolicy { size, ..QueuePolicy::default() }
}

#[track_caller]
fn waiting(step: Step) -> (Box<Story>, u64) {
    match step {
        Step::Wait(story, until) => (story, until),
        _ => panic!("it does not wait"),
    }
}

fn ends(answer: Answer) {
    answer.ticket.expect("every answer has one").settle(0, DeliveryOutcome::Complete);
}

#[test]
fn they_wait_in_line_as_long_as_they_may_and_no_more_than_may() {
    let (fixture, first, head) = full(lined());
    let (mut other, mut third) = (get(), get());
    let (second, until) = waiting(fixture.begin(&mut other));
    assert_eq!(until, fixture.clock.now() + 3 * S);
    let woken = Arc::new(AtomicUsize::new(0));
    let wakes = Arc::clone(&woken);
    assert!(second.listen(Box::new(move || {
        wakes.fetch_add(1, Ordering::SeqCst);
    })));
    let (behind, _) = waiting(fixture.begin(&mut third));
    ends(answered(fixture.begin(&mut get())));
    // Woken for nothing, it keeps its place.
    let (second, _) = waiting(second.resume(&other, false));
    let wakes = Arc::clone(&woken);
    assert!(second.listen(Box::new(move || {
        wakes.fetch_add(1, Ordering::SeqCst);
    })));
    let answer = answered(first.on(Event::Head(super::head("204 No Content")), &head, true));
    let before = woken.load(Ordering::SeqCst);
    ends(answer);
    assert_eq!(woken.load(Ordering::SeqCst), before + 1, "the next one is told of the room");
    behind.abandon(&third);
    // A newcomer does not overtake.
    let (newest, _) = waiting(fixture.begin(&mut get()));
    let (second, _) = called(second.resume(&other, false));
    fixture.clock.advance(Duration::from_secs(3));
    ends(answered(newest.resume(&third, true)));
    second.abandon(&other);
    let expected = [(503, "queue_full"), (204, ""), (499, "left"), (503, "queue_timeout"), (499, "left")];
    assert_eq!(fixture.journal.records.lock().len(), expected.len());
    for (record, (status, cause)) in fixture.journal.records.lock().iter().zip(expected) {
        assert_eq!(record.status, status);
        assert!(record.cause.as_deref().unwrap_or_default().contains(cause), "{:?}", record.cause);
    }
    assert_eq!(fixture.leases(), 0);
}

/// The answer that there is beats one that may come: it is not thrown away to wait in line.
#[test]
fn an_answer_that_asks_for_another_try_is_the_clients_when_every_backend_is_full() {
    let policy = PoolPolicy { retry_statuses: vec![(503, 503)], ..lined() };
    let settings = Settings { max_in_flight: Some(1), ..settings(policy) };
    let fixture = Fixture::still(2, &settings);
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    let answer = answered(story.on(Event::Head(super::head("503 Service Unavailable")), &head, true));
    assert_eq!(answer.status, 503);
    ends(answer);
    assert_eq!((fixture.record().status, fixture.leases()), (503, 0));
}

#[test]
fn without_a_line_they_are_refused() {
    let (fixture, first, head) = full(policy());
    let refused = answered(fixture.begin(&mut get()));
    assert_eq!(refused.status, 503);
    assert!(refused.fields.has("Retry-After"));
    ends(refused);
    first.abandon(&head);
}

#[test]
fn the_requests_own_time_ends_its_wait_first_where_it_is_shorter() {
    let (fixture, first, head) =
        full(PoolPolicy { request_timeout: Some(Duration::from_secs(2)), ..lined() });
    let mut other = get();
    let (second, until) = waiting(fixture.begin(&mut other));
    assert_eq!(until, fixture.clock.now() + 2 * S);
    fixture.clock.advance(Duration::from_secs(2));
    ends(answered(second.resume(&other, true)));
    let record = fixture.journal.records.lock().remove(0);
    assert_eq!(record.status, 504);
    assert!(record.cause.is_some_and(|cause| cause.contains("upstream.request_timeout")));
    first.abandon(&head);
}

#[test]
fn who_waits_and_leaves_gives_its_place_up() {
    let (fixture, first, head) = full(PoolPolicy { queue: of_size(1), ..lined() });
    let mut other = get();
    let (second, _) = waiting(fixture.begin(&mut other));
    second.abandon(&other);
    assert_eq!(fixture.journal.records.lock().remove(0).status, 499);
    let (third, _) = waiting(fixture.begin(&mut other));
    third.abandon(&other);
    first.abandon(&head);
    assert_eq!(fixture.leases(), 0);
}

#[test]
fn a_story_that_is_told_what_it_does_not_wait_for_ends_with_500() {
    let (fixture, first, head) = full(lined());
    let mut other = get();
    let (second, _) = waiting(fixture.begin(&mut other));
    assert_eq!(answered(second.on(failure(Phase::Reset), &other, true)).status, 500);
    assert!(!first.listen(Box::new(|| {})), "it waits for nobody");
    assert_eq!(answered(first.resume(&head, false)).status, 500);
}

/// A pool of two places, both taken, and a line of that size. Requests that begin from now on came later.
fn both_full(backends: u16, size: usize) -> (Fixture, [(Box<Story>, RequestHead); 2]) {
    let settings =
        Settings { max_in_flight: Some(2), ..settings(PoolPolicy { queue: of_size(size), ..lined() }) };
    let fixture = Fixture::still(backends, &settings);
    let stories = std::array::from_fn(|_| {
        let mut head = get();
        (fixture.sent(&mut head).0, head)
    });
    fixture.clock.advance(Duration::from_millis(1));
    (fixture, stories)
}

/// Its place is the next one's; it joins in front of what came later, and is charged as all that waited.
#[test]
fn who_is_sent_again_joins_the_line_in_front_of_who_came_later() {
    let (fixture, [(first, head), (other, other_head)]) = both_full(2, 9);
    let mut heads = [get(), get()];
    let [next, last] = heads.each_mut().map(|head| waiting(fixture.begin(head)).0);
    let (again, _) = waiting(first.on(failure(Phase::Reset), &head, true));
    let (next, _) = called(next.resume(&heads[0], false));
    ends(answered(other.on(Event::Head(super::head("204 No Content")), &other_head, true)));
    let (last, _) = waiting(last.resume(&heads[1], false));
    let (again, _) = called(again.resume(&head, false));
    for (story, head) in [(next, &heads[0]), (again, &head), (last, &heads[1])] {
        story.abandon(head);
    }
    assert_eq!((fixture.leases(), fixture.pool.backends.queue().len()), (0, 0));
}

/// No other endpoint could ever take it, so there is nothing to wait for.
#[test]
fn who_may_be_sent_nowhere_else_does_not_join_the_line() {
    let (fixture, [(first, head), (other, other_head)]) = both_full(1, 9);
    let mut third = get();
    let (next, _) = waiting(fixture.begin(&mut third));
    let answer = answered(first.on(failure(Phase::Reset), &head, true));
    assert_eq!(answer.status, 502);
    ends(answer);
    let (next, _) = called(next.resume(&third, false));
    next.abandon(&third);
    other.abandon(&other_head);
}

/// Its client is told of the failure, so it is not counted as refused by the line.
#[test]
fn a_retry_that_finds_the_line_full_is_answered_with_its_failure() {
    let (fixture, [(first, head), (other, other_head)]) = both_full(2, 2);
    let refused = || {
        let mut count = None;
        fixture.metrics.visit(&mut |family, labels, value| {
            if family.about().0 == "balancer_queue_refused_total" && labels.contains(&("reason", "full")) {
                count = Some(value);
            }
        });
        count
    };
    let mut heads = [get(), get()];
    let waits = heads.each_mut().map(|head| waiting(fixture.begin(head)).0);
    let answer = answered(fixture.begin(&mut get()));
    assert_eq!((answer.status, refused()), (503, Some(SeriesValue::Counter(1))));
    ends(answer);
    fixture.pool.backends.queue().configure(of_size(1));
    let answer = answered(first.on(failure(Phase::Reset), &head, true));
    assert_eq!((answer.status, refused()), (502, Some(SeriesValue::Counter(1))));
    ends(answer);
    waits.into_iter().zip(&heads).for_each(|(story, head)| story.abandon(head));
    other.abandon(&other_head);
}

/// Its time is over, and a place is free: it takes the place, which would stay unused otherwise.
#[test]
fn who_is_told_at_the_last_moment_goes_on() {
    let (fixture, first, head) = full(lined());
    let mut other = get();
    let (second, _) = waiting(fixture.begin(&mut other));
    fixture.clock.advance(Duration::from_secs(3));
    ends(answered(first.on(Event::Head(super::head("204 No Content")), &head, true)));
    let (second, _) = called(second.resume(&other, true));
    second.abandon(&other);
    // Without a place it is refused, told or not.
    let mut head = get();
    let (third, _) = fixture.sent(&mut head);
    let (last, _) = waiting(fixture.begin(&mut other));
    fixture.clock.advance(Duration::from_secs(3));
    fixture.pool.backends.queue().changed();
    assert_eq!(answered(last.resume(&other, true)).status, 503);
    third.abandon(&head);
}
