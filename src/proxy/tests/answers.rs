//! What becomes of a backend's answer, and of requests that never reach a backend.

use super::*;
use crate::proxy::exchange::AnswerBody;
use balancer_http::message::BodyLength;
use balancer_pool::backends::Operator;

fn body(answer: &Answer) -> String {
    match &answer.body {
        AnswerBody::None { declared } => format!("none {declared:?}"),
        AnswerBody::Bytes(bytes) => format!("bytes {}", bytes.len()),
        AnswerBody::Relayed(BodyLength::Known(bytes)) => format!("known {bytes}"),
        AnswerBody::Relayed(length) => format!("{length:?}"),
        AnswerBody::Tunnel => "tunnel".into(),
    }
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn an_answers_body_follows_from_its_head_and_the_request() {
    let (get, of_head) = ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let fixture = Fixture::still(1, &settings(policy()));
    for (text, answer, status, expected) in [
        (get, "200 OK\r\nContent-Length: 9", 200, "known 9"),
        (get, "200 OK\r\nTransfer-Encoding: chunked", 200, "Chunked"),
        (get, "200 OK", 200, "UntilClose"),
        (get, "200 OK\r\nContent-Length: 0", 200, "bytes 0"),
        (get, "204 No Content", 204, "none None"),
        (get, "304 Not Modified\r\nContent-Length: 9", 304, "none Some(9)"),
        (get, "304 Not Modified", 304, "none None"),
        (of_head, "200 OK\r\nContent-Length: 9", 200, "none Some(9)"),
        (of_head, "200 OK\r\nTransfer-Encoding: chunked", 200, "none None"),
        (UPGRADE, "101 S\r\nConnection: Upgrade\r\nUpgrade: websocket", 101, "tunnel"),
        (UPGRADE, "101 S\r\nConnection: Upgrade\r\nUpgrade: h2c", 502, "bytes"),
        (UPGRADE, "101 S\r\nUpgrade: websocket", 502, "bytes"),
        (get, "101 S\r\nConnection: Upgrade\r\nUpgrade: websocket", 502, "bytes"),
    ] {
        let mut head = request(text);
        let (story, _) = fixture.sent(&mut head);
        let answer = answered(story.on(Event::Head(super::head(answer)), &head, false));
        assert_eq!(answer.status, status, "{text:?}");
        assert!(body(&answer).starts_with(expected), "{text:?}: {}", body(&answer));
        if status == 101 {
            assert_eq!(answer.fields.get("Upgrade"), Some(&b"websocket"[..]));
        }
        assert!(answer.fields.has("Date") && answer.fields.has("X-Request-Id"));
        assert_eq!(fixture.settle(answer).status, status);
    }
}

#[test]
fn an_engine_that_can_not_upgrade_is_asked_for_none() {
    let fixture = Fixture::still(1, &settings(policy()));
    for (text, can_upgrade, protocol) in [
        (UPGRADE, true, Some("websocket")),
        (UPGRADE, false, None),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", true, None),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", true, None),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            true,
            None,
        ),
    ] {
        let mut head = request(text);
        let (story, _) = called(fixture.begin_as(&mut head, |asked| asked.can_upgrade = can_upgrade));
        assert_eq!(story.protocol(&head), protocol, "{text:?} {can_upgrade}");
        story.abandon(&head);
        fixture.record();
    }
}

#[test]
fn the_end_is_written_down_as_it_was() {
    let fixture = Fixture::still(1, &settings(policy()));
    let cut = || DeliveryOutcome::BackendBroke("cut".into());
    for (delivery, status, cause) in [
        (DeliveryOutcome::Complete, 200, None),
        (DeliveryOutcome::ClientGone, 200, None),
        (cut(), 200, None),
        (DeliveryOutcome::Replaced("cut".into()), 502, Some("cut")),
    ] {
        let mut head = get();
        let (story, _) = fixture.sent(&mut head);
        let id = story.request_id().to_owned();
        let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 9")), &head, true));
        assert_eq!(answer.fields.get("X-Request-Id"), Some(id.as_bytes()));
        assert_eq!(fixture.leases(), 1, "until its answer is delivered");
        fixture.clock.advance(Duration::from_millis(9));
        answer.ticket.expect("a ticket").settle(5, delivery.clone());
        let record = fixture.record();
        assert_eq!((record.status, record.body_bytes), (status, 5), "{delivery:?}");
        assert_eq!(record.cause.as_deref(), cause, "{delivery:?}");
        assert_eq!((&*record.request_id, record.duration), (&*id, Duration::from_millis(9)));
        assert_eq!((&*record.method, &*record.path), ("GET", "/path"));
    }
    // An engine that fails drops the ticket: nothing stays counted.
    let mut head = get();
    let (story, _) = fixture.sent(&mut head);
    drop(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 9")), &head, true));
    assert_eq!((fixture.leases(), fixture.metrics.totals().in_flight), (0, 0));
}

#[test]
fn what_goes_to_the_backend() {
    let fixture = Fixture::still(1, &settings(PoolPolicy { via: true, ..policy() }));
    for (text, host, via) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a", "1.1 balancer (0123456789abcdef)"),
        ("GET / HTTP/1.0\r\n\r\n", "127.0.0.1:1000", "1.1 balancer (0123456789abcdef)"),
    ] {
        let mut head = request(text);
        let (story, call) = fixture.sent(&mut head);
        let mut sent = String::new();
        story.outgoing(&head, &call.endpoint, |fields| {
            for name in ["Host", "Via", "X-Forwarded-For", "X-Request-Id"] {
                let value = fields.get(name).unwrap_or_default();
                sent += &format!("{name}={} ", String::from_utf8_lossy(value));
            }
        });
        let id = story.request_id();
        assert_eq!(sent, format!("Host={host} Via={via} X-Forwarded-For=1.2.3.4 X-Request-Id={id} "));
        story.abandon(&head);
        fixture.record();
    }
    let mut head = request("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n");
    let (story, call) = fixture.sent(&mut head);
    story.outgoing(&head, &call.endpoint, |fields| {
        assert_eq!(fields.get("Max-Forwards"), Some(&b"2"[..]));
    });
    story.abandon(&head);
}

#[test]
fn what_is_answered_without_a_backend() {
    let fixture = Fixture::still(1, &settings(policy()));
    for (text, status) in [
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 204),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 204),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 200),
        ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 balancer (0123456789abcdef)\r\n\r\n", 508),
    ] {
        let record = fixture.settle(answered(fixture.begin(&mut request(text))));
        assert_eq!((record.status, record.retries, record.backend), (status, 0, None), "{text:?}");
    }
    fixture.pool.backends.backends()[0].set_operator(Operator::Down);
    let record = fixture.settle(answered(fixture.begin(&mut get())));
    assert_eq!((record.status, record.cause.as_deref()), (503, Some("no healthy backend")));
    let nobody = Fixture::still(0, &settings(policy()));
    let record = nobody.settle(answered(nobody.begin(&mut get())));
    let cause = "no route takes it, and there are no backends at the top";
    assert_eq!((record.status, record.cause.as_deref()), (404, Some(cause)));
}

#[test]
fn a_port_that_redirects_asks_neither_a_limit_nor_a_backend() {
    let fixture = Fixture::still(1, &settings(policy()));
    let policy = ProxyPolicy::clone(&fixture.proxy.accounts.policy.load()).redirecting(Some(8443));
    fixture.proxy.accounts.policy.store(Arc::new(policy));
    let mut plain = request("GET /path?q HTTP/1.1\r\nHost: a.test:80\r\n\r\n");
    let answer = answered(fixture.begin(&mut plain));
    assert_eq!((answer.status, body(&answer)), (308, "bytes 0".to_owned()));
    assert_eq!(answer.fields.get("Location"), Some(&b"https://a.test:8443/path?q"[..]));
    let record = fixture.settle(answer);
    assert!(record.limit.is_none() && record.backend.is_none() && record.secure.is_none(), "{record:?}");
    let mut by_tls = RequestHead { secure: Some(session()), ..get() };
    let (story, _) = fixture.sent(&mut by_tls);
    let answer = answered(story.on(Event::Head(super::head("200 OK\r\nContent-Length: 0")), &by_tls, false));
    assert_eq!(fixture.settle(answer).secure.as_deref(), Some(&*session()));
}
