//! Upgrades: a 101 and what is not one.

use super::support::*;
use crate::proxy::exchange::{Abort, Upgrade};
use crate::proxy::{Answered, Outgoing, Phase, Reuse, Upstream, UpstreamError};
use crate::upstream::UreqUpstream;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;

fn upgrade(backend: &Backend, upstream: &UreqUpstream) -> Result<Answered, UpstreamError> {
    let mut fields = Fields::new();
    fields.push("Host", b"h");
    fields.push("Upgrade", b"h2c");
    fields.push("Connection", b"HTTP2-Settings");
    fields.push("Sec-WebSocket-Key", b"k");
    let outgoing = Outgoing {
        method: "GET",
        target: "/s",
        fields: &fields,
        length: BodyLength::Empty,
        reuse: Reuse::Any,
        deadline: None,
    };
    upstream.upgrade(&backend.endpoint, &outgoing, "websocket", &Abort::default())
}

#[test]
fn an_upgrade_gets_a_connection_of_its_own_and_what_came_behind_the_head() {
    let backend = Backend::start(|_, peer| {
        let head = peer.head()?;
        let expected = "GET /s HTTP/1.1\r\nSec-WebSocket-Key: k\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(head, expected);
        peer.write(
            "HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nX: y\r\n\r\nearly",
        )?;
        let echo = peer.exactly(4)?;
        peer.write(echo)
    });
    let Ok(Answered::Switched { reason, fields, connection }) = upgrade(&backend, &upstream()) else {
        panic!("not switched")
    };
    assert_eq!((&reason[..], fields.get("x")), (&b"Switching"[..], Some(&b"y"[..])));
    let Upgrade { mut backend, early } = connection;
    assert_eq!(early, b"early");
    assert_eq!(backend.read_timeout().expect("a socket"), None);
    let mut echo = Vec::new();
    std::io::Write::write_all(&mut backend, b"ping").expect("sent");
    std::io::Read::read_to_end(&mut backend, &mut echo).expect("received");
    assert_eq!(echo, b"ping");
}

#[test]
fn an_upgrade_that_is_refused_is_an_ordinary_answer_and_a_false_one_is_none() {
    let refusing = Backend::answering("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno");
    let shared = upstream();
    let Ok(Answered::Http(mut incoming)) = upgrade(&refusing, &shared) else { panic!("no answer") };
    assert_eq!((incoming.status, read(&mut *incoming.body)), (426, Ok(b"no".to_vec())));
    get_body(&shared, &refusing);
    assert_eq!(refusing.connections(), 1, "its connection is an ordinary one, too");

    let switching = |fields: &str| Backend::answering(format!("HTTP/1.1 101 x\r\n{fields}\r\n"));
    for fields in ["", "Upgrade: h2c\r\nConnection: upgrade\r\n", "Upgrade: websocket\r\n"] {
        let result = upgrade(&switching(fields), &shared).map(|_| ());
        assert_eq!(result.expect_err("false").phase, Phase::Malformed, "{fields:?}");
    }
}
