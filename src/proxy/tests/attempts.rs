//! What follows when an attempt fails: another one, or which answer, and what the log and the pool are told.

use super::*;
use crate::proxy::Reuse;
use crate::proxy::exchange::BodyFault;
use balancer_pool::outlier::OutlierPolicy;
use balancer_pool::policy::StickyCookie;

const POST: &str = "POST /path HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";

/// Phases of the attempts in order; then the backend answers 200, unless the story is over.
struct Row {
    request: &'static str,
    fails: &'static [Phase],
    status: u16,
    /// As the log has them.
    retries: u32,
    backend: &'static str,
}

#[test]
fn failed_attempts_are_followed_by_others_where_that_is_safe() {
    use Phase::{Cancelled, Connect, ConnectTimedOut, Malformed, Reset, Shortage, Stale, TimedOut};
    let get = "GET /path HTTP/1.1\r\nHost: a\r\n\r\n";
    let row = |request, fails, status, retries, backend| Row { request, fails, status, retries, backend };
    let rows = [
        row(get, &[], 200, 0, "b0"),
        row(get, &[Reset], 200, 1, "b1"),
        row(get, &[Reset, TimedOut], 200, 2, "b2"),
        row(get, &[Reset, TimedOut, Malformed], 502, 2, "b2"),
        row(get, &[TimedOut, Reset, TimedOut], 504, 2, "b2"),
        // Refused connections are not counted: every backend is tried.
        row(get, &[Connect, Connect, Connect], 200, 3, "b3"),
        row(get, &[Connect, Connect, Connect, Connect], 502, 3, "b3"),
        row(get, &[ConnectTimedOut, ConnectTimedOut, ConnectTimedOut], 502, 2, "b2"),
        row(get, &[Stale], 200, 1, "b1"),
        row(get, &[Cancelled], 499, 0, "b0"),
        row(get, &[Shortage], 503, 0, "b0"),
        row(POST, &[Connect], 200, 1, "b1"),
        row(POST, &[Reset], 502, 0, "b0"),
        row(POST, &[TimedOut], 504, 0, "b0"),
        row(POST, &[Phase::RequestBody(BodyFault::TooLarge)], 413, 0, "b0"),
        row(POST, &[Phase::RequestBody(BodyFault::TimedOut)], 408, 0, "b0"),
        row(POST, &[Phase::RequestBody(BodyFault::Malformed)], 400, 0, "b0"),
        row(POST, &[Phase::RequestBody(BodyFault::ClientGone)], 499, 0, "b0"),
    ];
    for Row { request: text, fails, status, retries, backend } in rows {
        let fixture = Fixture::still(4, &settings(policy()));
        let mut head = request(text);
        let mut step = fixture.begin(&mut head);
        for (attempt, phase) in fails.iter().enumerate() {
            let (story, call) = called(step);
            assert_eq!(usize::from(call.endpoint.address.port()), 1000 + attempt, "{fails:?}");
            assert_eq!(fixture.leases(), 1, "the failed attempt's lease is back: {fails:?}");
            fixture.clock.advance(Duration::from_millis(5));
            step = story.on(failure(*phase), &head, true);
        }
        if let Step::Call(story, _) = step {
            fixture.clock.advance(Duration::from_millis(5));
            step = story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, true);
        }
        let answer = answered(step);
        let waits = answer.fields.has("Retry-After");
        let last = fails.last().filter(|_| status >= 400);
        let helps = last.is_some_and(|phase| !matches!(phase, Malformed | Cancelled | Phase::RequestBody(_)));
        assert_eq!(waits, helps, "Retry-After after {fails:?}");
        let record = fixture.settle(answer);
        assert_eq!((record.status, record.retries), (status, retries), "{fails:?}");
        assert_eq!(record.backend.as_deref(), Some(backend), "{fails:?}");
        assert_eq!(record.upstream_duration, Some(Duration::from_millis(5)), "{fails:?}");
        assert_eq!(record.cause.is_some(), status != 200, "{fails:?}");
        if status == 502 || status == 504 {
            assert_eq!(record.cause.as_deref(), Some(&*format!("backend {backend}: its cause")));
        }
    }
}

#[test]
fn what_was_sent_and_is_gone_is_not_sent_again() {
    let fixture = Fixture::still(2, &settings(policy()));
    for (replayable, status) in [(false, 502), (true, 200)] {
        let mut head = get();
        let (story, _) = fixture.sent(&mut head);
        let mut step = story.on(failure(Phase::Connect), &head, replayable);
        if let Step::Call(story, _) = step {
            step = story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, replayable);
        }
        assert_eq!(fixture.settle(answered(step)).status, status);
    }
}

#[test]
fn which_kept_connections_may_be_taken_follows_from_the_request() {
    let fixture = Fixture::still(1, &settings(policy()));
    for (text, in_memory, reuse) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, Reuse::Any),
        (POST, true, Reuse::Recent),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", false, Reuse::Recent),
    ] {
        let mut head = request(text);
        let (story, call) = called(fixture.begin_as(&mut head, |asked| asked.in_memory = in_memory));
        assert_eq!(call.reuse, reuse, "{text:?}");
        // Only a connection was bad: with no other backend the same one gets it, on a new connection.
        if reuse == Reuse::Any {
            let (story, call) = called(story.on(failure(Phase::Stale), &head, true));
            assert_eq!(call.reuse, Reuse::Never);
            story.abandon(&head);
        } else {
            story.abandon(&head);
        }
        assert_eq!(fixture.record().status, 499);
    }
}

#[test]
fn the_budget_bounds_what_sending_again_adds() {
    for (phase, status) in [(Phase::Reset, 502), (Phase::Connect, 200), (Phase::Stale, 200)] {
        let fixture = Fixture::still(2, &settings(PoolPolicy { retry_budget: 0.0, ..policy() }));
        let (mut seen, mut head) = (0, get());
        // A hundred places are there however few requests there are.
        for _ in 0..101 {
            let (story, _) = fixture.sent(&mut head);
            let step = story.on(failure(phase), &head, true);
            let answer = match step {
                Step::Call(story, _) => {
                    answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, true))
                }
                step => answered(step),
            };
            seen = fixture.settle(answer).status;
        }
        assert_eq!(seen, status, "{phase:?}");
    }
}

#[test]
fn a_status_that_asks_for_it_is_followed_by_another_try() {
    let retried = PoolPolicy { retry_statuses: vec![(503, 504)], ..policy() };
    for (backends, text, status, answers) in [
        (2, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 503, 200),
        (2, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 504, 200),
        (2, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 502, 502),
        // The answer that there is beats none.
        (1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 503, 503),
        (2, POST, 503, 503),
    ] {
        let fixture = Fixture::still(backends, &settings(retried.clone()));
        let mut head = request(text);
        let (story, _) = fixture.sent(&mut head);
        let bad = super::head(&format!("{status} Bad\r\nContent-Length: 2"));
        let mut step = story.on(Event::Head(bad), &head, true);
        if let Step::Call(story, call) = step {
            assert_eq!(call.endpoint.address.port(), 1001);
            step = story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, true);
        }
        let record = fixture.settle(answered(step));
        assert_eq!((record.status, record.retries), (answers, u32::from(answers == 200)), "{status}");
    }
}

/// A pool that ejects for one failure.
fn strict(policy: PoolPolicy) -> Settings {
    let outlier = OutlierPolicy { consecutive: 1, ratio: None, window: 1 << 33, base_time: 1 << 35 };
    Settings { outlier: Some(outlier), max_ejected: 1.0, ..settings(policy) }
}

fn is_ejected(fixture: &Fixture) -> bool {
    fixture.pool.backends.snapshot().endpoints()[0].is_ejected()
}

#[test]
fn who_is_ejected_for_an_attempt() {
    for (phase, ejected) in [
        (Phase::Connect, true),
        (Phase::ConnectTimedOut, true),
        (Phase::Reset, true),
        (Phase::TimedOut, true),
        (Phase::Malformed, true),
        (Phase::Stale, false),
        (Phase::Cancelled, false),
        (Phase::Shortage, false),
        (Phase::RequestBody(BodyFault::ClientGone), false),
    ] {
        let fixture = Fixture::still(2, &strict(policy()));
        let mut head = get();
        let (story, _) = fixture.sent(&mut head);
        let step = story.on(failure(phase), &head, true);
        assert_eq!(is_ejected(&fixture), ejected, "{phase:?}");
        if let Step::Call(story, _) = step {
            story.abandon(&head);
        }
    }
    for (status, ejected) in [(200, false), (404, false), (500, true), (599, true), (600, false)] {
        let fixture =
            Fixture::still(2, &strict(PoolPolicy { outlier_statuses: vec![(500, 599)], ..policy() }));
        let mut head = get();
        let (story, _) = fixture.sent(&mut head);
        let mut answer = super::head("200 OK\r\nContent-Length: 2");
        answer.status = status;
        drop(story.on(Event::Head(answer), &head, true));
        assert_eq!(is_ejected(&fixture), ejected, "{status}");
    }
}

#[test]
fn nobody_is_ejected_for_the_time_that_a_request_had_spent_before() {
    let timed = PoolPolicy { request_timeout: Some(Duration::from_secs(10)), ..policy() };
    // Seconds before it was sent, seconds that the attempt took, how it failed, whether that is the backend's fault.
    for (before, took, phase, ejected) in [
        (8, 2, Phase::TimedOut, false),
        (8, 2, Phase::ConnectTimedOut, false),
        (6, 4, Phase::TimedOut, false),
        (5, 5, Phase::TimedOut, true),
        (0, 10, Phase::TimedOut, true),
        (8, 1, Phase::TimedOut, true),
        (8, 2, Phase::Reset, true),
    ] {
        let fixture = Fixture::still(2, &strict(timed.clone()));
        let received_at = fixture.clock.now();
        fixture.clock.advance(Duration::from_secs(before));
        let mut head = get();
        let (story, call) = called(fixture.begin_as(&mut head, |asked| asked.received_at = received_at));
        assert_eq!(call.deadline, Some(received_at + 10_000_000_000));
        fixture.clock.advance(Duration::from_secs(took));
        let step = story.on(failure(phase), &head, true);
        assert_eq!(is_ejected(&fixture), ejected, "{before} {took} {phase:?}");
        let is_over = before + took >= 10;
        assert_eq!(
            matches!(step, Step::Answer(_)),
            is_over,
            "no attempt after the deadline: {before} {took}"
        );
        if let Step::Call(story, _) = step {
            story.abandon(&head);
        }
    }
    // Without such a bound there is nothing to have spent.
    let fixture = Fixture::still(1, &strict(policy()));
    let mut head = get();
    let (story, call) = fixture.sent(&mut head);
    assert_eq!(call.deadline, None);
    drop(story.on(failure(Phase::TimedOut), &head, false));
    assert!(is_ejected(&fixture));
}

#[test]
fn a_client_that_left_is_written_down_and_holds_nothing() {
    let fixture = Fixture::still(1, &settings(policy()));
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    fixture.clock.advance(Duration::from_millis(30));
    story.abandon(&head);
    let record = fixture.record();
    assert_eq!((record.status, record.body_bytes, record.backend.as_deref()), (499, 0, Some("b0")));
    assert_eq!(record.duration, Duration::from_millis(30));
    assert_eq!(record.cause.as_deref(), Some("the client left before it had an answer"));
}

#[test]
fn the_cookie_of_sticky_sessions_brings_its_client_back() {
    let sticky = Some(StickyCookie { name: "at".into(), secure: true });
    let mut settings = settings(PoolPolicy { sticky, ..policy() });
    settings.sticky = Some(balancer_pool::sticky::SigningKey::new(b"a key of at least thirty-two bytes"));
    let fixture = Fixture::still(2, &settings);
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    // Its first try fails, so that it is with the second backend.
    let (story, _) = called(story.on(failure(Phase::Connect), &head, true));
    let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, true));
    let cookie = answer.fields.get("Set-Cookie").map(|value| String::from_utf8_lossy(value).into_owned());
    let cookie = cookie.expect("a cookie");
    fixture.settle(answer);
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
    let mut head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {pair}\r\n\r\n"));
    let (story, call) = fixture.sent(&mut head);
    assert_eq!(call.endpoint.address.port(), 1001);
    let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, true));
    assert!(!answer.fields.has("Set-Cookie"), "it has it already");
    fixture.settle(answer);
}

#[test]
fn a_cookie_that_was_given_over_tls_is_sent_over_tls_alone() {
    let sticky = Some(StickyCookie { name: "at".into(), secure: false });
    let mut settings = settings(PoolPolicy { sticky, ..policy() });
    settings.sticky = Some(balancer_pool::sticky::SigningKey::new(b"a key of at least thirty-two bytes"));
    let fixture = Fixture::still(1, &settings);
    for secure in [None, Some(session())] {
        let is_secure = secure.is_some();
        let mut head = RequestHead { secure, ..get() };
        let (story, _) = fixture.sent(&mut head);
        let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 2")), &head, true));
        let cookie = String::from_utf8_lossy(answer.fields.get("Set-Cookie").expect("a cookie")).into_owned();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{cookie}");
        fixture.settle(answer);
    }
}

#[test]
fn a_connection_with_credentials_of_its_own_stays_with_its_endpoint() {
    let fixture = Fixture::still(2, &settings(policy()));
    let second = fixture.pool.backends.snapshot().endpoints()[1].id;
    for (bound_to, port) in [(None, 1000), (Some(second), 1001)] {
        let mut head = get();
        let (story, call) = called(fixture.begin_as(&mut head, |asked| asked.bound_to = bound_to));
        assert_eq!(call.endpoint.address.port(), port);
        story.abandon(&head);
        fixture.record();
    }
}
