use proptest::prelude::*;

use super::*;

/// Decodes `pieces` one after the other. Returns the body and, if it ended, how many bytes belong to it.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Option<usize>), ChunkFault> {
    decode_by(ChunkDecoder::new(), pieces)
}

fn decode_by<'a>(
    mut decoder: ChunkDecoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, Option<usize>), ChunkFault> {
    let mut body = Vec::new();
    let mut used_before = 0;
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.step(&piece[at..])? {
                ChunkStep::Data { start, end } => {
                    assert!(start < end, "data is never empty");
                    body.extend_from_slice(&piece[at + start..at + end]);
                    at += end;
                }
                ChunkStep::More => break,
                ChunkStep::End { used } => {
                    assert_eq!(decoder.step(b"abc"), Ok(ChunkStep::End { used: 0 }), "the end is repeated");
                    return Ok((body, Some(used_before + at + used)));
                }
            }
        }
        used_before += piece.len();
    }
    Ok((body, None))
}

#[test]
fn whole_bodies_are_decoded_and_end_where_they_end() {
    // Wire, body, bytes that belong to it; each with its section of RFC 9112.
    let rows: &[(&[u8], &[u8], usize)] = &[
        (b"0\r\n\r\n", b"", 5),                     // §7.1: nothing but the last chunk
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", 15), // §7.1
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", 26),
        (b"00a\r\n0123456789\r\n000\r\n\r\n", b"0123456789", 24), // §7.1: leading zeros
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", 20),     // §7.1: either case
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", 12),                 // data may look like framing
        (b"1;a\r\nx\r\n0;b=c\r\n\r\n", b"x", 17),                 // §7.1.1: extensions are dropped
        (b"1 \t; a = \"q;\\\"\"\r\nx\r\n0\r\n\r\n", b"x", 25),    // §7.1.1: bad whitespace, quoted
        (b"0\r\nA: b\r\nX-Y:\r\n\r\n", b"", 17),                  // §7.1.2: trailers are dropped
        (b"0\r\nContent-Length: 9\r\n\r\n", b"", 24),             // §7.1.2: whatever they say
        (b"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"x", 11),     // what follows is not ours
    ];
    for (wire, body, used) in rows {
        let decoded = decode([*wire]);
        assert_eq!(decoded, Ok((body.to_vec(), Some(*used))), "{:?}", wire.escape_ascii().to_string());
    }
}

/// What is between a chunk's size and its line end. `None`: a request may have it; else the index of the first wrong
/// byte.
const EXTENSIONS: &[(&[u8], Option<usize>)] = &[
    (b";a", None),
    (b";a;b;c", None),
    (b" ;a", None),
    (b"\t ; \ta \t= \tb \t; c", None),
    (b";a=b", None),
    (b";a=\"\"", None),
    (b";a=\"b c;d=\\\"e\\\\\"", None),
    (b";a=\"\xE4\t\"", None),
    (b";a=\"\\\t\\\xFF\" ;b", None),
    (b";!#$%&'*+-.^_`|~=!#$%&'*+-.^_`|~", None),
    (b";", Some(2)),
    (b"; ", Some(3)),
    (b";;a", Some(2)),
    (b";a;", Some(4)),
    (b";=b", Some(2)),
    (b";a=", Some(4)),
    (b";a=;b", Some(4)),
    (b";a ", Some(4)),
    (b";a b", Some(4)),
    (b";a=b ", Some(6)),
    (b";a=b c", Some(6)),
    (b";a=b=c", Some(5)),
    (b";a=b\"", Some(5)),
    (b";a=\"b", Some(6)),
    (b";a=\"b\\", Some(7)),
    (b";a=\"b\"c", Some(7)),
    (b";a=\"b\"=c", Some(7)),
    (b";a=\"b\\\x00\"", Some(7)),
    (b";\"a\"", Some(2)),
    (b";a,b", Some(3)),
    (b";a/b", Some(3)),
    (b";\xE4", Some(2)),
    (b";a=\xE4", Some(4)),
    (b";a\x00", Some(3)),
    (b";a=\x7F", Some(4)),
];

#[test]
fn an_extension_keeps_its_grammar_in_requests_and_is_text_in_answers() {
    for (extension, broken_at) in EXTENSIONS {
        let wire = [b"1", *extension, b"\r\nx\r\n0\r\n\r\n"].concat();
        let text = extension.escape_ascii().to_string();
        match broken_at {
            None => assert_eq!(decode([&wire[..]]), Ok((b"x".to_vec(), Some(wire.len()))), "{text}"),
            Some(at) => {
                assert_eq!(decode([&wire[..]]), Err(ChunkFault::Extension), "{text}");
                assert!(decode([&wire[..*at]]).is_ok(), "{text} was refused too early");
                assert!(decode([&wire[..=*at]]).is_err(), "{text} was refused too late");
            }
        }
        let answer = decode_by(ChunkDecoder::of_answer(), [&wire[..]]);
        let is_text = extension.iter().all(|byte| is(*byte, VALUE));
        assert_eq!(answer.is_ok(), is_text, "{text} in an answer");
    }
}

#[test]
fn what_breaks_the_coding_is_refused_at_the_byte_that_breaks_it() {
    use ChunkFault::*;
    // Wire, fault, and how many bytes are needed to see it; RFC 9112 §7.1 throughout.
    let rows: &[(&[u8], ChunkFault, usize)] = &[
        (b"\r\nhello", Size, 1), // no size
        (b";ext\r\n", Size, 1),
        (b" 5\r\n", Size, 1), // whitespace before
        (b"+5\r\n", Size, 1),
        (b"-1\r\n", Size, 1),
        (b"0x5\r\n", Size, 2),
        (b"5g\r\n", Size, 2),
        (b"5_0\r\n", Size, 2),
        (b"5 \r\n", Size, 3), // whitespace behind
        (b"5\x0b\r\n", Size, 2),
        (b"5\x00\r\n", Size, 2),
        (b"\xef\xbc\x95\r\n", Size, 1), // a full-width five
        (b"5\nhello", LineEnd, 2),      // bare LF
        (b"5\rhello", LineEnd, 3),      // bare CR
        (b"5\r\rhello", LineEnd, 3),
        (b"5;a\nhello", LineEnd, 4),
        (b"5;a\rb\r\n", LineEnd, 5),
        (b"5;a\x00\r\n", Extension, 4),
        (b"5;\x7f\r\n", Extension, 3),
        (b"5\r\nhelloX\r\n", DataEnd, 9), // too long for its size
        (b"5\r\nhello0\r\n", DataEnd, 9),
        (b"5\r\nhello\n0\r\n", DataEnd, 9),
        (b"5\r\nhello\r0\r\n", DataEnd, 10),
        (b"5\r\nhell\r\n0\r\n", DataEnd, 9), // too short for its size
        (b"10000000000000000\r\n", SizeOverflow, 17),
        (b"00000000000000001\r\n", SizeOverflow, 17),
        (b"fffffffffffffffff\r\n", SizeOverflow, 17),
        (b"0\r\n\n", LineEnd, 4),
        (b"0\r\n\rX", LineEnd, 5),
        (b"0\r\nA b: c\r\n", Trailer, 5), // §7.1.2 with RFC 9110 §5.1
        (b"0\r\nA : c\r\n", Trailer, 5),
        (b"0\r\n: c\r\n", Trailer, 4),
        (b"0\r\nA\r\n", Trailer, 5),           // no colon
        (b"0\r\nA: b\r\n c\r\n", Trailer, 10), // obs-fold
        (b"0\r\nA: b\n", LineEnd, 8),
        (b"0\r\nA: \x00\r\n", Trailer, 7),
        (b"0\r\nA: b\rc\r\n", LineEnd, 9),
    ];
    for (wire, fault, seen) in rows {
        let text = wire.escape_ascii().to_string();
        assert_eq!(decode([*wire]).map(|_| ()), Err(*fault), "{text}");
        assert!(decode([&wire[..seen - 1]]).is_ok(), "{text} was refused too early");
        assert_eq!(decode([&wire[..*seen]]).map(|_| ()), Err(*fault), "{text} was refused too late");
    }
}

#[test]
fn each_fault_is_told_in_its_own_words() {
    use ChunkFault::*;
    let all = [Size, SizeOverflow, Extension, ExtensionsTooLong, LineEnd, DataEnd, Trailer, TrailerTooLong];
    let mut told: Vec<String> = all.iter().map(ChunkFault::to_string).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), all.len(), "{told:?}");
}

#[test]
fn blanks_behind_a_size_are_taken_in_an_answer() {
    let of_answer = |wire: &[u8]| {
        let (mut decoder, mut at, mut body) = (ChunkDecoder::of_answer(), 0, Vec::new());
        loop {
            match decoder.step(&wire[at..])? {
                ChunkStep::Data { start, end } => {
                    body.extend_from_slice(&wire[at + start..at + end]);
                    at += end;
                }
                ChunkStep::More => return Ok((body, false)),
                ChunkStep::End { used } => return Ok((body, at + used == wire.len())),
            }
        }
    };
    for wire in
        [&b"1 \t\r\nx\r\n0   \r\n\r\n"[..], b"1 ;a=b\r\nx\r\n0\r\n\r\n", b"1\r\nx\r\n0\t\r\nA: b\r\n\r\n"]
    {
        assert_eq!(of_answer(wire), Ok((b"x".to_vec(), true)), "{}", wire.escape_ascii());
    }
    for (wire, fault) in [
        (&b" 1\r\n"[..], ChunkFault::Size),
        (b"1 1\r\n", ChunkFault::Size),
        (b"1 \n", ChunkFault::Size),
        (b"1 \r\r\n", ChunkFault::LineEnd),
    ] {
        assert_eq!(of_answer(wire), Err(fault), "{}", wire.escape_ascii());
    }
    let blanks = format!("1{}\r\n", " ".repeat(MAX_EXTENSION_BYTES as usize + 1));
    assert_eq!(of_answer(blanks.as_bytes()), Err(ChunkFault::ExtensionsTooLong));
}

#[test]
fn the_largest_size_is_read_without_overflow() {
    let mut decoder = ChunkDecoder::new();
    assert_eq!(decoder.step(b"ffffffffffffffff\r\nab"), Ok(ChunkStep::Data { start: 18, end: 20 }));
    assert_eq!(decoder.step(b"cd"), Ok(ChunkStep::Data { start: 0, end: 2 }));
    assert_eq!(decoder.step(b""), Ok(ChunkStep::More));
}

#[test]
fn extensions_and_trailers_have_bounds_over_the_whole_body() {
    let extension = |bytes: u32| format!("1;{}\r\nx\r\n", "e".repeat(bytes as usize));
    let fits = extension(MAX_EXTENSION_BYTES / 2).repeat(2) + "0\r\n\r\n";
    assert!(decode([fits.as_bytes()]).is_ok_and(|(body, _)| body == b"xx"));
    let over = extension(MAX_EXTENSION_BYTES / 2).repeat(2) + "0;e\r\n\r\n";
    assert_eq!(decode([over.as_bytes()]), Err(ChunkFault::ExtensionsTooLong));
    let blanks = format!("1{};", " ".repeat(MAX_EXTENSION_BYTES as usize + 1));
    assert_eq!(decode([blanks.as_bytes()]), Err(ChunkFault::ExtensionsTooLong));

    let trailer = |bytes: u32| format!("0\r\nA:{}\r\n\r\n", "v".repeat(bytes as usize - 3));
    assert!(decode([trailer(MAX_TRAILER_BYTES).as_bytes()]).is_ok_and(|(_, end)| end.is_some()));
    assert_eq!(decode([trailer(MAX_TRAILER_BYTES + 1).as_bytes()]), Err(ChunkFault::TrailerTooLong));
    let endless = "0\r\n".to_string() + &"A:b\r\n".repeat(MAX_TRAILER_BYTES as usize);
    assert_eq!(decode([endless.as_bytes()]), Err(ChunkFault::TrailerTooLong));
}

#[test]
fn the_end_is_repeated_and_uses_nothing() {
    let mut decoder = ChunkDecoder::new();
    assert_eq!(decoder.step(b"0\r\n\r\nnext"), Ok(ChunkStep::End { used: 5 }));
    assert_eq!(decoder.step(b"next"), Ok(ChunkStep::End { used: 0 }));
}

/// A well-formed body: chunks with sizes in either case, extensions and trailers.
fn wire() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        "(;[a-z]{1,6}(=\"[ -!#-\\[\\]-~]{0,6}\")?)?",
        any::<bool>(),
    );
    (prop::collection::vec(chunk, 0..6), prop::collection::vec("[A-Za-z-]{1,8}:[ -~]{0,12}", 0..3)).prop_map(
        |(chunks, trailers)| {
            let (mut wire, mut body) = (Vec::new(), Vec::new());
            for (data, extension, upper) in chunks {
                let size = if upper { format!("{:X}", data.len()) } else { format!("{:03x}", data.len()) };
                wire.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
                wire.extend_from_slice(&data);
                wire.extend_from_slice(b"\r\n");
                body.extend_from_slice(&data);
            }
            wire.extend_from_slice(b"0\r\n");
            trailers.iter().for_each(|line| wire.extend_from_slice(format!("{line}\r\n").as_bytes()));
            wire.extend_from_slice(b"\r\n");
            (wire, body)
        },
    )
}

/// `bytes` cut at the given places.
fn cut<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = at.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_is_cut(
        (wire, body) in wire(),
        behind in prop::collection::vec(any::<u8>(), 0..8),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = [&wire[..], &behind].concat();
        prop_assert_eq!(decode(cut(&stream, &places)), Ok((body, Some(wire.len()))));
    }

    #[test]
    fn the_verdict_on_a_damaged_body_is_the_same_however_it_is_cut(
        (mut wire, _) in wire(),
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(b"\r\n 0;:gZ\x00\xff".to_vec())),
            1..4,
        ),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        for (place, byte) in damage {
            let at = place.index(wire.len());
            wire[at] = byte;
        }
        let whole = decode([&wire[..]]);
        prop_assert_eq!(decode(cut(&wire, &places)), whole.clone());
        prop_assert_eq!(decode(wire.chunks(1)), whole);
    }

    #[test]
    fn arbitrary_bytes_never_end_a_body_beyond_themselves(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok((body, Some(used))) = decode([&bytes[..]]) {
            prop_assert!(used <= bytes.len() && body.len() + 5 <= used);
        }
    }
}
