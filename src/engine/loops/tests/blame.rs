//! Who is said to be at fault where a connection or an answer ends early.

use super::*;
use std::time::SystemTime;

use crate::proxy::exchange::Handshake;
use crate::tls::tests::Papers;

#[test]
fn a_wrong_proxy_header_in_front_of_tls_is_a_handshake_that_failed() {
    let papers = Papers::new();
    let front = FrontTls::new(&papers.front(&[papers.pair("a", &["a.test"])]), true, SystemTime::UNIX_EPOCH);
    let option = Frontend { proxy_protocol: true, ..config() };
    let door = Door::speaking(Some(Arc::new(front.expect("certificates"))), &option, Ends::default(), lane);
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
