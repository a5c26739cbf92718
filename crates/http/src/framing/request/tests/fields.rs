//! What becomes of the fields, and what they say about body and connection.

use super::*;
use crate::message::BodyLength;

#[test]
fn framing_is_taken_out_of_the_fields_and_the_rest_stays_in_order() {
    let (head, _) = parsed(
        b"PUT /x HTTP/1.1\r\nB: 1\r\nHost: h\r\nContent-Length: 7\r\nExpect: 100-continue\r\nTrailer: T\r\n\
          b:  2 \r\nC: \r\n\r\n",
    );
    let fields: Vec<_> = head.fields.iter().collect();
    assert_eq!(fields, [("B", &b"1"[..]), ("Host", b"h"), ("b", b"2"), ("C", b"")]);
    assert_eq!((head.length, head.expects_continue), (BodyLength::Known(7), true));
    assert_eq!((head.method.as_str(), head.version), ("PUT", Version::Http11));
}

#[test]
fn a_name_of_the_same_length_as_one_of_the_framing_is_any_name() {
    let fields = "Hast: a b\r\nExpact: x\r\nTrailed: T\r\nDisconnect: close\r\nContent-Langth: x\r\n\
                  Transfer-Encodong: chunked\r\n";
    let text = format!("POST / HTTP/1.1\r\n{fields}Host: a\r\n\r\n");
    let (head, keep_alive) = parsed(text.as_bytes());
    let names: Vec<_> = head.fields.iter().map(|(name, _)| name).collect();
    let expected = ["Hast", "Expact", "Trailed", "Disconnect", "Content-Langth", "Transfer-Encodong", "Host"];
    assert_eq!(names, expected);
    assert_eq!((head.length, keep_alive), (BodyLength::Empty, true));
}

#[test]
fn each_way_in_which_a_line_is_broken_is_told_in_its_own_words() {
    let broken: [&[u8]; 9] = [
        b" A: b\r\n",
        b": b\r\n",
        b"A : b\r\n",
        b"A(b: c\r\n",
        b"A: b\0c\r\n",
        b"A: b\rc\r\n",
        b"A: b\n",
        b"Content-Length: x\r\n",
        b"Content-Length: 18446744073709551616\r\n",
    ];
    let mut told = Vec::new();
    for fields in broken {
        match parse(&with_fields(fields), &BOUNDS, &mut blank()) {
            HeadVerdict::Refused(refusal) => told.push(refusal.detail),
            other => panic!("{other:?} for {}", fields.escape_ascii()),
        }
    }
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), broken.len(), "{told:?}");
}

#[test]
fn underscored_names_that_could_pass_for_ours_are_dropped() {
    let mut head = blank();
    let bounds = Bounds { max_headers: 32, ..BOUNDS };
    let verdict = parse(
        b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\nx-forwarded_anything: 2\r\nX_Request-ID: 3\r\n\
          Content_Length: 4\r\nTransfer_Encoding: chunked\r\nX_Real_IP: 6\r\nx_client-ip: 7\r\nTrue_Client_IP: 8\r\n\
          CF_Connecting_IP: 9\r\nX_Forwarded: 9\r\nCLIENT_IP: 9\r\nMax_Forwards: 0\r\nmy_own: 5\r\n\r\n",
        &bounds,
        &mut head,
    );
    assert!(matches!(verdict, HeadVerdict::Complete { .. }), "{verdict:?}");
    assert_eq!(head.fields.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["Host", "my_own"]);
    assert_eq!((head.length, head.lost_claim), (BodyLength::Empty, true));
    // `lost_claim` says something about the last head alone.
    parse(b"GET / HTTP/1.1\r\nHost: a\r\nX_Request_ID: 3\r\n\r\n", &bounds, &mut head);
    assert_eq!((head.fields.len(), head.lost_claim), (1, false));
}

#[test]
fn the_connection_is_kept_as_version_and_options_say() {
    let rows = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: a, Close\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, fields, keep) in rows {
        let text = format!("GET / {version}\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(parsed(text.as_bytes()).1, keep, "{text:?}");
    }
}

#[test]
fn an_expectation_counts_in_http_1_1_and_where_a_body_follows() {
    use BodyLength::{Chunked, Empty, Known};
    let expect = "Expect: 100-continue\r\n";
    for (version, fields, expectation, length, expects) in [
        ("1.1", "", expect, Empty, false),
        ("1.1", "Content-Length: 0\r\n", expect, Empty, false),
        ("1.1", "Content-Length: 1\r\n", expect, Known(1), true),
        ("1.1", "Content-Length: 1\r\n", "", Known(1), false),
        ("1.1", "Transfer-Encoding: chunked\r\n", expect, Chunked, true),
        ("1.0", "Content-Length: 1\r\n", expect, Known(1), false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{expectation}{fields}\r\n");
        let (head, _) = parsed(text.as_bytes());
        assert_eq!((head.length, head.expects_continue), (length, expects), "{text:?}");
    }
}
