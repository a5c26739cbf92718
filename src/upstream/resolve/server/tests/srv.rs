//! SRV records (RFC 2782) in answers of all kinds.

use super::*;
use crate::upstream::resolve::server::services_of_first;

const NAME: &str = "_http._tcp.a.test";
/// Where a message has the question's name, and `a.test` in it.
const AT_NAME: [u8; 2] = [0xC0, 12];
const AT_DOMAIN: [u8; 2] = [0xC0, 23];
/// Where the data of the first record begins, whose own name is a pointer.
const DATA: u8 = 12 + 19 + 4 + 12;

const TYPE_CNAME: u16 = 5;
const TYPE_SRV: u16 = 33;

/// A record with that name and data.
fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length.to_be_bytes(), data].concat()
}

/// The data of an SRV record: priority 1, weight 2, port 3.
fn to(target: &[u8]) -> Vec<u8> {
    [&[0, 1, 0, 2, 0, 3], target].concat()
}

fn srv(target: &[u8]) -> Vec<u8> {
    record(&AT_NAME, TYPE_SRV, &to(target))
}

/// A message that says it has so many records.
fn message(question: &[u8], flags: [u8; 2], count: usize, records: &[u8]) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let count = u16::try_from(count).unwrap().to_be_bytes();
    [&question[..2], &flags, &[0, 1], &count, &[0; 4], &question[12..end], records].concat()
}

/// What comes of an answer with these records.
fn answered(count: usize, records: Vec<u8>) -> Result<Vec<String>, String> {
    let server = Server::answering(move |question, _| Some(message(question, [0x81, 0x80], count, &records)));
    let found = server.within(Duration::from_secs(20)).services(NAME);
    let shown = |one: SrvRecord| format!("{} {} {} {}", one.priority, one.weight, one.port, one.target);
    found.map(|all| all.into_iter().map(shown).collect()).map_err(|error| error.to_string())
}

#[test]
fn records_are_read_however_their_names_are_written() {
    let long = [&[63u8; 1][..], &[b'x'; 63]].concat();
    let cname = |name: &[u8], to: &[u8]| record(name, TYPE_CNAME, to);
    for (count, records, expected) in [
        (0, vec![], vec![]),
        (1, srv(b"\x01n\x04test\0"), vec!["1 2 3 n.test."]),
        (1, srv(b"\x02N1\xC0\x17"), vec!["1 2 3 N1.a.test."]),
        (2, [srv(&[0]), srv(&AT_DOMAIN)].concat(), vec!["1 2 3 .", "1 2 3 a.test."]),
        // Records of other names and types are not asked for.
        (
            3,
            [
                record(&AT_DOMAIN, TYPE_SRV, &to(&[0])),
                record(&AT_NAME, TYPE_A, &[10, 0, 0, 1]),
                srv(&AT_DOMAIN),
            ]
            .concat(),
            vec!["1 2 3 a.test."],
        ),
        // Another name, whose target is written as a pointer to that.
        (
            2,
            [cname(&AT_NAME, b"\x01c\xC0\x17"), record(&[0xC0, DATA], TYPE_SRV, &to(&[0xC0, DATA]))].concat(),
            vec!["1 2 3 c.a.test."],
        ),
        // A name of a name of itself leads nowhere.
        (2, [cname(&AT_NAME, &AT_NAME), cname(&AT_NAME, &AT_DOMAIN)].concat(), vec![]),
        (1, srv(&[&long[..], &[0]].concat()), vec!["long"]),
    ] {
        let found = answered(count, records).unwrap();
        if expected == ["long"] {
            assert_eq!(found, [format!("1 2 3 {}.", "x".repeat(63))]);
        } else {
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn an_answer_with_a_fault_is_none() {
    let long = [&[63u8; 1][..], &[b'x'; 63]].concat().repeat(4);
    for (count, records, cause) in [
        // Names that point at themselves, ahead, nowhere; that never end, or are none.
        (1, srv(&[0xC0, DATA + 6]), "pointer"),
        (1, srv(&[1, b'a', 0xC0, DATA + 6]), "pointer"),
        (1, srv(&[0xC0, DATA + 8, 0]), "pointer"),
        (1, srv(&[0xFF, 0xFF]), "pointer"),
        (1, srv(&[0x80, 0]), "label type"),
        (1, srv(b"\x03a\nb\0"), "invalid character"),
        (1, srv(b"\x03a b\0"), "invalid character"),
        (1, srv(&[&long[..], &[0]].concat()), "length exceeds"),
        (1, srv(b"\x05a"), "buffer"),
        // Data that is shorter or longer than what is in it.
        (1, record(&AT_NAME, TYPE_SRV, &[0, 1, 0, 2]), "buffer"),
        (1, record(&AT_NAME, TYPE_SRV, &to(&[0, 0])), "window"),
        (2, srv(&[0]), "buffer"),
        (1, srv(&[0])[..8].to_vec(), "buffer"),
    ] {
        let error = answered(count, records.clone()).unwrap_err();
        assert!(error.contains(cause) && error.starts_with("name server 127.0.0.1:"), "{records:?}: {error}");
    }
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    let server = Server::answering(|question, by_udp| {
        let count = if by_udp { 0 } else { 3_000 };
        Some(message(question, [0x81 | u8::from(by_udp) << 1, 0x80], count, &srv(&AT_DOMAIN).repeat(count)))
    });
    assert_eq!(server.within(Duration::from_secs(20)).services(NAME).unwrap().len(), 3_000);
    assert_eq!(server.asked(), [1, 1]);
}

#[test]
fn the_first_name_server_that_answers_is_believed() {
    let silent = Server::answering(|_, _| None);
    let fails = Server::answering(|question, _| Some(message(question, [0x81, 0x82], 0, &[])));
    let good = Server::answering(|question, _| Some(message(question, [0x81, 0x80], 1, &srv(&AT_DOMAIN))));
    let patience = Duration::from_millis(300);
    let ask = |servers: &[&Server]| {
        let addresses: Vec<_> = servers.iter().map(|one| one.address).collect();
        services_of_first(&addresses, patience, NAME)
    };
    assert_eq!(ask(&[&silent, &fails, &good]).unwrap()[0].target, "a.test.");
    assert_eq!(ask(&[&good, &silent]).unwrap().len(), 1);
    let error = ask(&[&silent, &fails]).unwrap_err().to_string();
    for part in [silent.address.to_string(), fails.address.to_string(), "SERVFAIL".into(), "; ".into()] {
        assert!(error.contains(&part), "{error}");
    }
}
