//! What is recorded of a request, and what goes on to its backend then.

use crossbeam_channel::Receiver;

use super::*;
use crate::error::Reject;
use crate::otel::Tracer;
use crate::otel::encode::encode;
use crate::otel::span::RequestSpans;
use balancer_http::message::Reason;
use balancer_pool::backends::Operator;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Records what a fixture does from now on.
fn record(fixture: &Fixture) -> Receiver<Box<RequestSpans>> {
    let (tracer, queue) = Tracer::into_queue(8, &fixture.metrics, &fixture.clock);
    let policy = ProxyPolicy::clone(&fixture.proxy.accounts.policy.load()).tracing(Some(tracer));
    fixture.proxy.accounts.policy.store(Arc::new(policy));
    queue
}

/// The values of a field as a story sends it on.
fn sent_on(story: &Story, head: &RequestHead, call: &Call, name: &str) -> Vec<String> {
    let mut sent = Vec::new();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    story.outgoing(head, &call.endpoint, |fields| sent.extend(fields.all(name).map(text)));
    sent
}

#[test]
fn the_parent_says_whether_it_is_recorded_and_the_backend_is_told_of_the_attempt() {
    let fixture = Fixture::still(1, &settings(policy()));
    let queue = record(&fixture);
    let parent =
        |flags: &str| format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}\r\ntracestate: a=1\r\n");
    let both = format!("{}tracestate: b=2\r\n", parent("01"));
    for (fields, recorded, state) in [
        ("", true, ""),
        ("traceparent: garbage\r\ntracestate: a=1\r\n", true, ""),
        (&*parent("01"), true, "a=1"),
        (&*both, true, "a=1,b=2"),
        (&*parent("ff"), true, "a=1"),
        (&*parent("00"), false, ""),
        (&*parent("fe"), false, ""),
    ] {
        let has_parent = fields.contains(TRACE);
        let mut head = request(&format!("GET /path?q HTTP/1.1\r\nHost: a.test:81\r\n{fields}\r\n"));
        let (story, call) = fixture.sent(&mut head);
        let sent = sent_on(&story, &head, &call, "traceparent");
        let states = sent_on(&story, &head, &call, "tracestate");
        assert_eq!(states.join(","), if has_parent && !recorded { "a=1" } else { state }, "{fields}");
        let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 0")), &head, true));
        let log = fixture.settle(answer);
        let Ok(spans) = queue.try_recv() else {
            assert!(!recorded, "{fields}");
            // As it came.
            assert_eq!(
                sent,
                [head.fields.get("traceparent").map(|one| String::from_utf8_lossy(one)).unwrap()]
            );
            continue;
        };
        assert!(recorded, "{fields}");
        let trace = format!("{:032x}", spans.place.trace);
        assert_eq!((trace == TRACE, spans.parent), (has_parent, has_parent.then_some(0x00f0_67aa_0ba9_02b7)));
        assert_eq!((&*spans.state, &*log.trace_id), (state, &*trace));
        let attempt = &spans.attempts[0];
        assert!(attempt.id != spans.place.span && Some(spans.place.span) != spans.parent);
        // The flags that are defined go on.
        let flags = if fields.contains("-ff") { "03" } else { "01" };
        assert_eq!(sent, [format!("00-{trace}-{:016x}-{flags}", attempt.id)]);
        assert_eq!((&*spans.asked.method, &*spans.asked.path), ("GET", "/path"));
        assert_eq!((spans.status, attempt.result, spans.error), (Some(200), Some(Ok(200)), None));
    }
}

#[test]
fn each_attempt_is_a_span_inside_of_the_request() {
    let fixture = Fixture::still(3, &settings(policy()));
    let queue = record(&fixture);
    let mut head = get();
    let (mut story, mut call) = fixture.sent(&mut head);
    let mut told = Vec::new();
    for phase in [Phase::Connect, Phase::TimedOut] {
        told.extend(sent_on(&story, &head, &call, "traceparent"));
        fixture.clock.advance(Duration::from_millis(3));
        (story, call) = called(story.on(failure(phase), &head, true));
    }
    told.extend(sent_on(&story, &head, &call, "traceparent"));
    fixture.clock.advance(Duration::from_millis(3));
    let answer = answered(story.on(Event::Head(super::head("503 Busy\r\nContent-Length: 0")), &head, true));
    fixture.clock.advance(Duration::from_millis(3));
    fixture.settle(answer);
    let spans = queue.try_recv().expect("recorded");
    let results: Vec<_> = spans.attempts.iter().map(|one| (&*one.backend, one.resent, one.result)).collect();
    assert_eq!(
        results,
        [("b0", 0, Some(Err("connect"))), ("b1", 1, Some(Err("timeout"))), ("b2", 2, Some(Ok(503)))]
    );
    for (attempt, told) in spans.attempts.iter().zip(&told) {
        assert!(told.contains(&format!("-{:016x}-", attempt.id)), "{told}");
        assert_eq!(attempt.end - attempt.start, 3_000_000);
        assert!(spans.start <= attempt.start && attempt.end <= spans.end);
    }
    assert_eq!((spans.end - spans.start, spans.status), (12_000_000, Some(503)));
    assert_eq!(spans.pool.as_deref(), Some("default"));
}

#[test]
fn answers_of_our_own_and_clients_that_leave_are_recorded_too() {
    let fixture = Fixture::still(1, &settings(policy()));
    let queue = record(&fixture);
    for (text, status) in [
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204),
        ("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 balancer (0123456789abcdef)\r\n\r\n", 508),
    ] {
        fixture.settle(answered(fixture.begin(&mut request(text))));
        let spans = queue.try_recv().expect("recorded");
        assert_eq!((spans.status, spans.attempts.len()), (Some(status), 0), "{text:?}");
    }
    // A frontend refuses what it can't read.
    let reject = Reject::new(Reason::BadRequest, "no").because("a cause");
    let blank = RequestHead::blank(SocketAddr::from(([1, 2, 3, 4], 5)));
    fixture.settle(fixture.proxy.accounts.refuse(&blank, &reject, fixture.clock.now()));
    let spans = queue.try_recv().expect("recorded");
    assert_eq!((spans.status, &*spans.asked.method, spans.asked.version), (Some(400), "", None));
    // Its client leaves while the answer is awaited.
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    story.abandon(&head);
    fixture.record();
    let spans = queue.try_recv().expect("recorded");
    assert_eq!((spans.status, spans.error), (None, Some("client_gone")));
    assert_eq!(spans.attempts[0].result, Some(Err("client_gone")));
    // How a delivery may end.
    for (delivery, status, error) in [
        (DeliveryOutcome::ClientGone, 200, Some("client_gone")),
        (DeliveryOutcome::BackendBroke("x".into()), 200, Some("backend_broke_off")),
        (DeliveryOutcome::Replaced("x".into()), 502, Some("backend_broke_off")),
    ] {
        let (story, _) = fixture.sent(&mut head);
        let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 9")), &head, true));
        answer.ticket.expect("a ticket").settle(5, delivery);
        fixture.record();
        let spans = queue.try_recv().expect("recorded");
        assert_eq!((spans.status, spans.error), (Some(status), error));
    }
    fixture.pool.backends.backends()[0].set_operator(Operator::Down);
    fixture.settle(answered(fixture.begin(&mut head)));
    assert_eq!(queue.try_recv().expect("recorded").status, Some(503));
}

#[test]
fn no_secret_of_a_request_is_in_its_spans() {
    let fixture = Fixture::still(1, &settings(policy()));
    let queue = record(&fixture);
    let text = "GET /path?key=secret HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\nCookie: a=secret\r\n\
                X-Api-Key: secret\r\nReferer: http://a/?secret\r\nProxy-Authorization: Basic secret\r\n\
                User-Agent: probe/1\r\n\r\n";
    let mut head = request(text);
    let (story, _) = fixture.sent(&mut head);
    let answer = super::head("200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=secret\r\nLocation: /?secret");
    fixture.settle(answered(story.on(Event::Head(answer), &head, true)));
    let spans = queue.try_recv().expect("recorded");
    let sent = encode(&[*spans], "i");
    let sent = String::from_utf8(sent).expect("JSON");
    assert!(sent.contains("probe/1") && sent.contains("\"/path\"") && !sent.contains("secret"), "{sent}");
}

/// One request, from its head to its end.
fn allocated(fixture: &Fixture, fields: &str) -> u64 {
    let mut head = request(&format!("GET /path HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let once = |head: &mut RequestHead| {
        let (story, call) = fixture.sent(head);
        story.outgoing(head, &call.endpoint, |_| {});
        let answer = super::head("200 OK\r\nContent-Length: 0");
        answered(story.on(Event::Head(answer), head, true))
            .ticket
            .expect("a ticket")
            .settle(0, DeliveryOutcome::Complete);
        fixture.journal.records.lock().clear();
    };
    // What is made once is there then.
    once(&mut head);
    allocation_counter::measure(|| once(&mut head)).count_total
}

#[test]
fn a_request_that_is_not_recorded_allocates_as_much_as_one_where_nothing_is() {
    let fixture = Fixture::still(1, &settings(policy()));
    let parent = |flags: &str| format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-{flags}\r\n");
    let off = allocated(&fixture, &parent("00"));
    let _queue = record(&fixture);
    assert_eq!(allocated(&fixture, &parent("00")), off);
    let on = allocated(&fixture, &parent("01"));
    assert!((off + 1..=off + 20).contains(&on), "{off} allocations, recorded {on}");
}
