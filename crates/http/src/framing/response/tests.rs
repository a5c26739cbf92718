use proptest::prelude::*;

use super::*;

const STRICT: HeadRules = HeadRules::SHIPPED;
const LENIENT: HeadRules = HeadRules { accept_invalid: true, ..STRICT };

/// Status, reason, fields, length of the body of an answer to GET, whether the connection may be kept.
type Expected<'a> = (u16, &'a [u8], &'a [(&'a str, &'a [u8])], BodyLength, bool);

#[test]
fn proper_heads_are_understood() {
    use BodyLength::{Chunked, Empty, Known, UntilClose};
    let rows: &[(&[u8], Expected<'_>)] = &[
        // RFC 9112 §4: status line.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", (200, b"OK", &[], Known(3), true)),
        (b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", (200, b"", &[], Known(3), true)),
        (b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", (200, b"", &[], Known(3), true)),
        (
            b"HTTP/1.1 404 Nicht  da\t\xe4\r\nContent-Length: 0\r\n\r\n",
            (404, b"Nicht  da\t\xe4", &[], Empty, true),
        ),
        // RFC 9110 §2.5: a higher minor version.
        (b"HTTP/1.2 200 OK\r\nContent-Length: 3\r\n\r\n", (200, b"OK", &[], Known(3), true)),
        (b"HTTP/1.9 200 OK\r\nContent-Length: 3\r\n\r\n", (200, b"OK", &[], Known(3), true)),
        (b"HTTP/1.1 599 x\r\nContent-Length: 007\r\n\r\n", (599, b"x", &[], Known(7), true)),
        // RFC 9112 §5: fields, their order, their spelling, whitespace around values.
        (
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nX:\r\nset-cookie:\t b c \t\r\nContent-Length:1\r\n\r\n",
            (200, b"OK", &[("Set-Cookie", b"a"), ("X", b""), ("set-cookie", b"b c")], Known(1), true),
        ),
        (
            b"HTTP/1.1 200 OK\r\n!#$%&'*+-.^_`|~9: \xff\r\n\r\n",
            (200, b"OK", &[("!#$%&'*+-.^_`|~9", b"\xff")], UntilClose, true),
        ),
        // RFC 9112 §6: framing.
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", (200, b"OK", &[], Chunked, true)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked \r\n\r\n", (200, b"OK", &[], Chunked, true)),
        (b"HTTP/1.1 200 OK\r\n\r\n", (200, b"OK", &[], UntilClose, true)),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n",
            (200, b"OK", &[], Known(u64::MAX), true),
        ),
        // RFC 9112 §6.3: no body, whatever is declared.
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"No Content", &[], Empty, true)),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", (204, b"No Content", &[], Empty, true)),
        (b"HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n", (204, b"x", &[], Empty, false)),
        (b"HTTP/1.1 204 x\r\nContent-Length:\r\n\r\n", (204, b"x", &[], Empty, false)),
        (b"HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", (204, b"x", &[], Empty, false)),
        (
            b"HTTP/1.1 204 x\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            (204, b"x", &[], Empty, false),
        ),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, b"Not Modified", &[], Empty, true)),
        (
            b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            (304, b"Not Modified", &[], Empty, true),
        ),
        // RFC 9112 §9.3: persistence.
        (
            b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\n",
            (200, b"OK", &[("Connection", b"x, Close")], Known(1), false),
        ),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", (200, b"OK", &[], Known(1), false)),
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            (200, b"OK", &[("Connection", b"keep-alive")], Known(1), true),
        ),
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 1\r\n\r\n",
            (200, b"OK", &[("Connection", b"keep-alive, close")], Known(1), false),
        ),
    ];
    for (wire, (status, reason, fields, length, keep_alive)) in rows {
        let text = wire.escape_ascii().to_string();
        let with_body = [wire, &b"rest"[..]].concat();
        let (head, used) = parse(&with_body, &STRICT).expect(&text).expect(&text);
        assert_eq!(used, wire.len(), "{text}");
        assert_eq!((head.status, &head.reason[..]), (*status, *reason), "{text}");
        assert_eq!(head.fields.iter().collect::<Vec<_>>(), *fields, "{text}");
        assert_eq!((head.body_length(false), head.keep_alive), (*length, *keep_alive), "{text}");
        assert_eq!(head.body_length(true), Empty, "{text}: an answer to HEAD");
        for end in 0..wire.len() {
            assert!(parse(&wire[..end], &STRICT).is_ok_and(|found| found.is_none()), "{text} cut at {end}");
        }
    }
}

#[test]
fn a_name_of_the_same_length_as_one_of_the_framing_is_any_name() {
    let text =
        b"HTTP/1.1 200 OK\r\nDisconnect: close\r\nContent-Langth: 1\r\nTransfer-Encodong: chunked\r\n\r\n";
    let (head, _) = parse(text, &STRICT).expect("proper").expect("whole");
    let names: Vec<_> = head.fields.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Disconnect", "Content-Langth", "Transfer-Encodong"]);
    assert_eq!((head.body_length(false), head.keep_alive), (BodyLength::UntilClose, true));
}

#[test]
fn a_head_tells_the_length_that_a_get_would_have_had() {
    let rows: &[(&[u8], BodyLength)] = &[
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BodyLength::Known(0)), // RFC 9110 §9.3.2
        (b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", BodyLength::Known(5)),  // RFC 9110 §8.6
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", BodyLength::Chunked),
        (b"HTTP/1.1 200 OK\r\n\r\n", BodyLength::Empty),
    ];
    for (wire, length) in rows {
        let (head, _) = parse(wire, &STRICT).expect("proper").expect("whole");
        assert_eq!(head.declared_length(), *length, "{}", wire.escape_ascii());
    }
}

/// Heads that are refused, whatever follows. The comment is the section of RFC 9112 unless it says otherwise.
const BROKEN: &[&[u8]] = &[
    // §4, §2.3: status line and version.
    b"\r\nHTTP/1.1 200 OK\r\n",
    b" HTTP/1.1 200 OK\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"ICY 200 OK\r\n",
    b"http/1.1 200 OK\r\n",
    b"HTTP/2 200\r\n",
    b"HTTP/2.0 200 OK\r\n",
    b"HTTP/1.10 200 OK\r\n",
    b"HTTP/0.9 200 OK\r\n",
    b"HTTP/1.1  200 OK\r\n",
    b"HTTP/1.1\t200 OK\r\n",
    b"HTTP/1.1 20 OK\r\n",
    b"HTTP/1.1 2000 OK\r\n",
    b"HTTP/1.1 200OK\r\n",
    b"HTTP/1.1 +20 OK\r\n",
    b"HTTP/1.1 099 x\r\n", // RFC 9110 §15: 100 to 599
    b"HTTP/1.1 600 x\r\n",
    b"HTTP/1.1 999 x\r\n",
    b"HTTP/1.1 200 O\x00K\r\n",
    b"HTTP/1.1 200 O\x7fK\r\n",
    b"HTTP/1.1 200 OK\n",
    b"HTTP/1.1 200\n",
    b"HTTP/1.1 200 OK\rX",
    b"HTTP/1.1 200 OK\r\r\n",
    // §5: field lines.
    b"HTTP/1.1 200 OK\r\n X: folded at once\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n", // §5.2: obs-fold
    b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n",
    b"HTTP/1.1 200 OK\r\nX : a\r\n", // §5.1
    b"HTTP/1.1 200 OK\r\nX\t: a\r\n",
    b"HTTP/1.1 200 OK\r\n: a\r\n",
    b"HTTP/1.1 200 OK\r\nX\r\n",
    b"HTTP/1.1 200 OK\r\nX Y: a\r\n",
    b"HTTP/1.1 200 OK\r\nX(: a\r\n",
    b"HTTP/1.1 200 OK\r\nX\xe4: a\r\n",
    b"HTTP/1.1 200 OK\r\nX\x00: a\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n", // RFC 9110 §5.5
    b"HTTP/1.1 200 OK\r\nX: a\x01b\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x7fb\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rY: b\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n\rX",
    // RFC 9110 §8.6, §6.2: Content-Length.
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3x\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3 3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3.0\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\ncontent-length: 4\r\n",
    // §6.1: Transfer-Encoding.
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", // §6.3
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
];

#[test]
fn broken_and_ambiguous_heads_are_refused_whatever_follows() {
    for wire in BROKEN {
        let text = wire.escape_ascii().to_string();
        assert!(parse(wire, &STRICT).is_err(), "{text} passed");
        let more = [wire, &b"X: y\r\n\r\n"[..]].concat();
        assert!(parse(&more, &STRICT).is_err(), "{text} passed with more behind it");
    }
}

/// Invalid heads with one sensible reading, and that reading.
const INVALID: &[(&[u8], Expected<'_>)] = &[
    // §2.2: a line may be recognised by its LF.
    (
        b"HTTP/1.1 200 OK\nX: y\nContent-Length: 3\n\n",
        (200, b"OK", &[("X", b"y")], BodyLength::Known(3), true),
    ),
    (b"HTTP/1.1 200\n\r\n", (200, b"", &[], BodyLength::UntilClose, true)),
    (b"HTTP/1.1 200 OK\r\nX: y\r\n\n", (200, b"OK", &[("X", b"y")], BodyLength::UntilClose, true)),
    // §5.2: obs-fold.
    (
        b"HTTP/1.1 200 OK\r\nX: a \r\n \t b\r\n\r\n",
        (200, b"OK", &[("X", b"a b")], BodyLength::UntilClose, true),
    ),
    (
        b"HTTP/1.1 200 OK\nX:\n\ta\n \n b\nY: z\n\n",
        (200, b"OK", &[("X", b"a b"), ("Y", b"z")], BodyLength::UntilClose, true),
    ),
    (
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        (200, b"OK", &[("X", b"a b")], BodyLength::Chunked, true),
    ),
    // RFC 9110 §15.
    (b"HTTP/1.1 600 x\r\n\r\n", (600, b"x", &[], BodyLength::UntilClose, true)),
    (b"HTTP/1.1 999\r\nContent-Length: 3\r\n\r\n", (999, b"", &[], BodyLength::Known(3), true)),
    // RFC 9110 §5.6.1: empty elements.
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\n\r\n", (200, b"OK", &[], BodyLength::Chunked, true)),
    (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ,\t, Chunked ,\r\n\r\n",
        (200, b"OK", &[], BodyLength::Chunked, true),
    ),
    // §6.1: the connection ends behind it.
    (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
        (200, b"OK", &[("Connection", b"keep-alive")], BodyLength::Chunked, false),
    ),
    // §5.1: the blanks are removed.
    (
        b"HTTP/1.1 200 OK\r\nX \t: a\r\nContent-Length : 3\r\n\r\n",
        (200, b"OK", &[("X", b"a")], BodyLength::Known(3), true),
    ),
];

#[test]
fn invalid_heads_are_taken_when_asked_for_and_else_the_key_is_named() {
    for (wire, (status, reason, fields, length, keep_alive)) in INVALID {
        let text = wire.escape_ascii().to_string();
        let fault = parse(wire, &STRICT).expect_err(&text);
        assert!(fault.0.ends_with("(upstream.accept_invalid takes such answers)"), "{text}: {fault}");
        let with_body = [wire, &b" rest"[..]].concat();
        let (head, used) = parse(&with_body, &LENIENT).expect(&text).expect(&text);
        assert_eq!((used, head.status, &head.reason[..]), (wire.len(), *status, *reason), "{text}");
        assert_eq!(head.fields.iter().collect::<Vec<_>>(), *fields, "{text}");
        assert_eq!((head.body_length(false), head.keep_alive), (*length, *keep_alive), "{text}");
        for end in 0..wire.len() {
            assert!(parse(&wire[..end], &LENIENT).is_ok_and(|found| found.is_none()), "{text} cut at {end}");
        }
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_even_when_invalid_answers_are_asked_for() {
    const WORDS: &str = "(upstream.accept_invalid takes such answers)";
    for wire in BROKEN {
        let text = wire.escape_ascii().to_string();
        let more = [wire, &b"X: y\r\n\r\n"[..]].concat();
        let fault = parse(&more, &STRICT).expect_err(&text);
        // The text names the key exactly where the key helps.
        assert_eq!(parse(&more, &LENIENT).is_ok(), fault.0.ends_with(WORDS), "{text}: {fault}");
    }
    let more: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked,\r\nTransfer-Encoding: chunked,\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ,\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\n X: folded at once\n\n",
        b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX \r\n\r\n",
    ];
    for wire in more {
        assert!(parse(wire, &LENIENT).is_err(), "{} passed", wire.escape_ascii());
    }
}

#[test]
fn heads_have_bounds() {
    let with = |fields: String| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
    for rules in [STRICT, LENIENT, HeadRules { max_head_bytes: 1024, max_headers: 3, accept_invalid: true }] {
        let HeadRules { max_head_bytes, max_headers, .. } = rules;
        let head = with("X: y\r\n".repeat(max_headers));
        assert_eq!(parse(&head, &rules).expect("fits").expect("whole").0.fields.len(), max_headers);
        let over = with("X: y\r\n".repeat(max_headers + 1));
        assert_eq!(
            parse(&over, &rules).expect_err("too many").0,
            "more header fields than upstream.max_headers"
        );

        let frame = with("X: \r\n".to_string()).len();
        let fits = with(format!("X: {}\r\n", "y".repeat(max_head_bytes - frame)));
        assert_eq!(fits.len(), max_head_bytes);
        assert!(parse(&fits, &rules).expect("fits").is_some());
        let over = with(format!("X: {}\r\n", "y".repeat(max_head_bytes - frame + 1)));
        let fault = parse(&over, &rules).expect_err("too large");
        assert_eq!(fault.0, "the head is larger than upstream.max_head_bytes");
        assert!(parse(&over[..max_head_bytes], &rules).is_err(), "refused as soon as it can't fit any more");
    }
    // A folded line is a line.
    let folded = with(format!("X: y\r\n{}", " z\r\n".repeat(LENIENT.max_headers)));
    assert!(parse(&folded, &LENIENT).is_err());
}

#[test]
fn interim_answers_come_before_the_final_one() {
    // Head, whether another follows, whether the connection may be kept.
    let rows: &[(&[u8], bool, bool)] = &[
        (b"HTTP/1.1 100 Continue\r\n\r\n", true, true),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", true, true),
        (b"HTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\n", true, false),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", false, true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, true),
    ];
    for (wire, is_interim, keep_alive) in rows {
        let text = wire.escape_ascii().to_string();
        let (head, used) = parse(&[wire, &b"HTTP/1.1"[..]].concat(), &STRICT).expect(&text).expect(&text);
        assert_eq!(
            (used, head.is_interim(), head.keep_alive),
            (wire.len(), *is_interim, *keep_alive),
            "{text}"
        );
    }
}

/// Parses after each piece, as the engine does. Returns the final answer's status and the bytes behind its head.
fn piecewise(
    bytes: &[u8],
    places: &[prop::sample::Index],
    rules: HeadRules,
) -> Result<Option<(u16, Vec<u8>)>, AnswerFault> {
    let mut ends: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut at = 0;
    for end in ends {
        while let Some((head, used)) = parse(&bytes[at..end], &rules)? {
            at += used;
            if !head.is_interim() {
                return Ok(Some((head.status, bytes[at..].to_vec())));
            }
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn the_verdict_is_the_same_however_the_stream_is_cut(
        interim in 0..3usize,
        fields in prop::collection::vec("[A-Za-z-]{1,10}: {0,2}[ -~]{0,20}", 0..5),
        framing in prop::sample::select(vec!["", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"]),
        damage in prop::option::of((any::<prop::sample::Index>(), prop::sample::select(b"\r\n :0\x00\xff".to_vec()))),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut wire = "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n".repeat(interim).into_bytes();
        wire.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        fields.iter().for_each(|line| wire.extend_from_slice(format!("{line}\r\n").as_bytes()));
        wire.extend_from_slice(format!("{framing}\r\nbody").as_bytes());
        if let Some((place, byte)) = damage {
            let at = place.index(wire.len());
            wire[at] = byte;
        }
        for rules in [STRICT, LENIENT] {
            let whole = piecewise(&wire, &[], rules);
            prop_assert_eq!(piecewise(&wire, &places, rules), whole);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for rules in [STRICT, LENIENT] {
            let _ = parse(&bytes, &rules);
            let _ = parse(&[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat(), &rules);
        }
    }
}

#[test]
fn a_status_line_is_read_alone() {
    for (bytes, accept_invalid, expected) in [
        (&b"HTTP/1.1 204 No"[..], false, Ok(None)),
        (b"HTTP/1.1 204 No Content\r\n", false, Ok(Some(204))),
        (b"HTTP/1.0 200\r\nwhatever follows", false, Ok(Some(200))),
        (b"HTTP/1.1 600 x\r\n", false, Err(HIGH_STATUS)),
        (b"HTTP/1.1 600 x\r\n", true, Ok(Some(600))),
    ] {
        assert_eq!(status(bytes, accept_invalid), expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}
