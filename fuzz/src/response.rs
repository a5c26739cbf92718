//! The answer of a backend, read strictly and with `upstream.accept_invalid`: the same head found however the stream is
//! cut, past the interim answers; what is accepted is in order, and strictly what it is with the key; and what we write to
//! the client is clean and reads as the same answer.

use balancer_http::framing::response::{Head, HeadRules, parse};
use balancer_http::framing::write::{self, AnswerLines, BodyShape, Framing, Persistence};
use balancer_http::headers::to_client;
use balancer_http::message::{BodyLength, Version};

use super::cuts;

const STRICT: HeadRules = HeadRules::SHIPPED;
const LENIENT: HeadRules = HeadRules { accept_invalid: true, ..STRICT };

/// See the module.
pub fn check(data: &[u8]) {
    for rules in [STRICT, LENIENT] {
        check_with(data, &rules);
    }
    match (parse(data, &STRICT), parse(data, &LENIENT)) {
        (Ok(Some((strict, used))), Ok(Some((lenient, same)))) => {
            assert_eq!(
                (Said::by(&strict), used),
                (Said::by(&lenient), same),
                "the key changes a proper answer"
            );
        }
        (Ok(Some(_)), other) => panic!("the key refuses what is proper: {:?}", other.err()),
        (Ok(None), Err(fault)) => panic!("the key refuses what may become proper: {fault}"),
        _ => {}
    }
}

fn check_with(data: &[u8], rules: &HeadRules) {
    let whole = find([data], rules);
    for ends in cuts::ways(data) {
        assert_eq!(find(cuts::pieces(data, &ends), rules), whole, "cut at {ends:?}");
    }
    match parse(data, rules) {
        Ok(Some((head, used))) => {
            assert!(used <= data.len().min(rules.max_head_bytes));
            assert!(matches!(parse(&data[..used], rules), Ok(Some((_, again))) if again == used));
            assert!(matches!(parse(&data[..used - 1], rules), Ok(None)), "taken before its end");
            in_order(&head, rules);
            for is_head in [false, true] {
                written_anew(&head, is_head);
            }
        }
        Ok(None) => assert!(data.len() < rules.max_head_bytes, "waits for ever"),
        Err(_) => {}
    }
}

/// Everything that a head says, so that two can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    version: Version,
    status: u16,
    reason: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
    lengths: [BodyLength; 3],
    keep_alive: bool,
}

impl Said {
    fn by(head: &Head) -> Self {
        Self {
            version: head.version,
            status: head.status,
            reason: head.reason.clone(),
            fields: head.fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            lengths: [head.body_length(false), head.body_length(true), head.declared_length()],
            keep_alive: head.keep_alive,
        }
    }
}

/// The final head with where its body starts in the stream; `None`: not there yet.
fn find<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    rules: &HeadRules,
) -> Result<Option<(Said, usize)>, &'static str> {
    let (mut buffer, mut at) = (Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some((head, used)) = parse(&buffer[at..], rules).map_err(|fault| fault.0)? {
            at += used;
            if !head.is_interim() {
                return Ok(Some((Said::by(&head), at)));
            }
        }
    }
    Ok(None)
}

fn in_order(head: &Head, rules: &HeadRules) {
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7F);
    assert!((100..if rules.accept_invalid { 1000 } else { 600 }).contains(&head.status));
    assert!(head.reason.iter().all(is_text));
    assert!(head.fields.len() <= rules.max_headers);
    for (name, value) in head.fields.iter() {
        http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        assert!(value.iter().all(is_text) && value.trim_ascii().len() == value.len(), "{name}");
        let framing =
            ["content-length", "transfer-encoding"].iter().any(|one| name.eq_ignore_ascii_case(one));
        assert!(!framing, "{name} is framing");
    }
    let bodiless = matches!(head.status, 100..=199 | 204 | 304);
    assert_eq!(head.body_length(true), BodyLength::Empty);
    assert!(!bodiless || head.body_length(false) == BodyLength::Empty);
}

fn written_anew(head: &Head, is_head: bool) {
    if head.status < 200 {
        return;
    }
    let length = if is_head { head.declared_length() } else { head.body_length(is_head) };
    let bodiless = is_head || matches!(head.status, 204 | 304);
    let declared = match head.declared_length() {
        BodyLength::Known(bytes) => Some(bytes),
        _ => None,
    };
    let body = match length {
        _ if bodiless => BodyShape::Absent { declared },
        BodyLength::Empty => BodyShape::Whole(0),
        _ => BodyShape::Streamed(length),
    };
    let fields = to_client(head.status, head.fields.clone());
    let framing = Framing::of(body, head.status, Version::Http11, is_head);
    let persistence = Persistence::of(framing, Version::Http11, true);
    let mut wire = Vec::new();
    let lines = AnswerLines { status: head.status, reason: Some(&head.reason), fields: &fields };
    write::head(&mut wire, lines, framing, persistence);
    if wire.len() > STRICT.max_head_bytes || fields.len() == STRICT.max_headers {
        // Beyond what we take from others; clients have bounds of their own.
        return;
    }
    // Clean, but for a status that nobody can write otherwise.
    let rules = if head.status < 600 { STRICT } else { LENIENT };
    let (read, used) = parse(&wire, &rules).expect("we take what we write").expect("a whole head");
    assert_eq!(used, wire.len());
    assert_eq!((read.status, &read.reason), (head.status, &head.reason));
    assert!(read.fields.iter().eq(fields.iter()));
    let expected = match head.body_length(is_head) {
        BodyLength::UntilClose => BodyLength::Chunked,
        length => length,
    };
    assert_eq!(read.body_length(is_head), expected);
    assert!(read.keep_alive, "nothing asked for a close");
    if bodiless && !matches!(head.status, 204) {
        assert_eq!(read.declared_length(), declared.map_or(BodyLength::Empty, BodyLength::Known));
    }
}
