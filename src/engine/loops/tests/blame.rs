//! Who is said to be at fault where a connection or an answer ends early.

use super::backends::{GET, OLD, Proxied};
use super::*;
use std::time::SystemTime;

use crate::proxy::exchange::Handshake;
use crate::proxy::tests::{policy, settings};
use crate::tls::tests::Papers;
use balancer_pool::policy::{CallPolicy, PoolPolicy};

#[test]
fn a_wrong_proxy_header_in_front_of_tls_is_a_handshake_that_failed() {
    let papers = Papers::new();
    let front = FrontTls::new(&papers.front(&[papers.pair("a", &["a.test"])]), true, SystemTime::UNIX_EPOCH);
    let option = Frontend { proxy_protocol: true, ..config() };
    let front = Some(Arc::new(front.expect("certificates")));
    let door = Door::by(&Clock::real(), front, &option, Ends::default(), lane);
    // Nothing but a TLS alert can be sent before there are keys.
    let said = door.ask(b"PROXY nonsense\r\n");
    assert!(said.is_empty() || said.starts_with('\u{15}'), "{said:?}");
    door.until_empty();
    let events = door.service.events.lock();
    assert!(events.contains(&FrontendEvent::Rejected(Rejection::ProxyProtocol)), "{events:?}");
    let is_failed = |event: &FrontendEvent| matches!(event, FrontendEvent::Handshake(Handshake::Failed, _));
    assert!(events.iter().any(is_failed), "{events:?}");
    assert_eq!(*door.service.ends.lock(), [], "no answer was delivered");
}

#[test]
fn a_client_that_reads_too_slowly_for_the_request_is_not_the_backends_fault() {
    let times = PoolPolicy { request_timeout: Some(Duration::from_millis(500)), ..policy() };
    let proxied = Proxied::with(&config(), &settings(times));
    let client = proxied.door.send(GET.as_bytes());
    let (mut backend, _) = proxied.asked();
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").expect("sent");
    let sender = thread::spawn(move || while backend.write_all(&[b'x'; 65_536]).is_ok() {});
    let ended = &proxied.fixture.journal.records;
    until("the request is over", || !ended.lock().is_empty());
    let accounts = &proxied.fixture.proxy.accounts;
    assert!(accounts.log_limit.admit("broke off: b0", accounts.clock.now()).is_some(), "the log blames b0");
    drop(client);
    sender.join().expect("the sender ends");
}

/// So that `upstream.max_head_bytes` does not decide how much of a body is kept in memory.
#[test]
fn a_body_is_gathered_up_to_the_same_size_however_long_heads_may_be() {
    let long = CallPolicy { max_head_bytes: 1 << 20, ..policy().call };
    let proxied = Proxied::with(&config(), &settings(PoolPolicy { call: long, ..policy() }));
    let answer = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(300_000));
    let (_, bytes, _) = proxied.once(OLD, answer.as_bytes());
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("\r\nConnection: close\r\n") && text.ends_with('x'), "{}", &text[..300]);
    assert!(!text.contains("Content-Length"), "{}", &text[..300]);
}
