//! The chunked coding: the decoder beside a second one, written another way, that sees the whole stream at once; the
//! same verdict and body however the stream is cut; and whatever decodes can be written anew and decodes to the same.

use balancer_http::framing::chunk::{ChunkDecoder, ChunkStep, MAX_EXTENSION_BYTES, MAX_TRAILER_BYTES};
use balancer_http::framing::write;

use super::cuts;

/// What a stream comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The body, and how many bytes of the stream belong to it.
    Whole(Vec<u8>, usize),
    /// The body so far.
    Unfinished(Vec<u8>),
    /// The body before the fault.
    Broken(Vec<u8>),
}

/// See the module.
pub fn check(data: &[u8]) {
    check_with(data, Of::Request);
    check_with(data, Of::Answer);
}

/// Whose body it is: in an answer blanks may stand behind a size, and extensions are any text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A request.
    Request,
    /// An answer.
    Answer,
}

fn check_with(data: &[u8], of: Of) {
    let whole = decode([data], of);
    assert_eq!(whole, reference(data, of), "the two decoders differ");
    for ends in cuts::ways(data) {
        assert_eq!(decode(cuts::pieces(data, &ends), of), whole, "cut at {ends:?}");
    }
    let (Outcome::Whole(body, _) | Outcome::Unfinished(body) | Outcome::Broken(body)) = &whole;
    assert!(body.len() <= data.len());
    let mut wire = Vec::new();
    for part in body.chunks(body.len() / 3 + 1) {
        write::chunk(&mut wire, part);
    }
    wire.extend_from_slice(write::LAST_CHUNK);
    assert_eq!(
        decode([&wire[..]], Of::Request),
        Outcome::Whole(body.clone(), wire.len()),
        "what we write, we read"
    );
}

/// Our decoder over a stream that comes in pieces.
pub fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, of: Of) -> Outcome {
    let mut decoder = if of == Of::Answer { ChunkDecoder::of_answer() } else { ChunkDecoder::new() };
    let mut body = Vec::new();
    let mut before = 0;
    for piece in pieces {
        let mut at = 0;
        loop {
            match decoder.step(&piece[at..]) {
                Err(_) => return Outcome::Broken(body),
                Ok(ChunkStep::More) => break,
                Ok(ChunkStep::Data { start, end }) => {
                    assert!(start < end, "data is never empty");
                    body.extend_from_slice(&piece[at + start..at + end]);
                    at += end;
                }
                Ok(ChunkStep::End { used }) => {
                    assert_eq!(decoder.step(b"abc"), Ok(ChunkStep::End { used: 0 }), "the end is repeated");
                    return Outcome::Whole(body, before + at + used);
                }
            }
        }
        before += piece.len();
    }
    Outcome::Unfinished(body)
}

/// RFC 9112 §7.1 again, line by line over the whole stream.
fn reference(data: &[u8], of: Of) -> Outcome {
    let (mut body, mut at, mut extensions) = (Vec::new(), 0, 0);
    loop {
        let line = Line::at(&data[at..]);
        let Some(size) = size(&line, of, &mut extensions) else { return Outcome::Broken(body) };
        if !line.whole {
            return Outcome::Unfinished(body);
        }
        at += line.text.len() + 2;
        if size == 0 {
            return trailers(data, at, body);
        }
        let rest = &data[at..];
        let taken = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        body.extend_from_slice(&rest[..taken]);
        match &rest[taken..] {
            [b'\r', b'\n', ..] => at += taken + 2,
            [] | [b'\r'] => return Outcome::Unfinished(body),
            _ => return Outcome::Broken(body),
        }
    }
}

/// A line and how far it is there.
struct Line<'a> {
    /// Without its end.
    text: &'a [u8],
    /// A CR was seen.
    ended: bool,
    /// The whole CRLF was seen.
    whole: bool,
    /// Something else ends it.
    broken: bool,
}

impl<'a> Line<'a> {
    fn at(data: &'a [u8]) -> Self {
        let end = data.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(data.len());
        let behind = &data[end..];
        let whole = behind.starts_with(b"\r\n");
        let ended = behind.first() == Some(&b'\r');
        let broken = behind.first() == Some(&b'\n') || (behind.len() > 1 && !whole);
        Self { text: &data[..end], ended, whole, broken }
    }
}

/// The chunk's size; 0 while it is not there yet. `None`: no size, and none can become of it.
fn size(line: &Line<'_>, of: Of, extensions: &mut usize) -> Option<u64> {
    let digits = line.text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.text.split_at(digits);
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let behind = &rest[blanks..];
    *extensions += blanks + behind.len().saturating_sub(1);
    let nothing_yet = line.text.is_empty() && !line.ended && !line.broken;
    let complete = !line.ended || behind.starts_with(b";") || blanks == 0 || of == Of::Answer;
    let valid = (behind.is_empty() || behind[0] == b';')
        && behind.iter().all(|byte| is_text(*byte))
        && (of == Of::Answer || keeps_its_grammar(behind, line.ended))
        && digits.len() <= 16
        && (!digits.is_empty() || nothing_yet)
        && *extensions <= MAX_EXTENSION_BYTES as usize
        && complete
        && !line.broken;
    let text = std::str::from_utf8(digits).ok()?;
    valid.then(|| u64::from_str_radix(text, 16).unwrap_or(0))
}

/// RFC 9112 §7.1.1, from the first semicolon on; what has not ended may be the beginning of one.
fn keeps_its_grammar(text: &[u8], ended: bool) -> bool {
    let mut text = text;
    while let Some(behind) = text.strip_prefix(b";") {
        let (name, behind) = token(blanks_off(behind));
        if name == 0 {
            return behind.is_empty() && !ended;
        }
        let value = blanks_off(behind).strip_prefix(b"=");
        let behind = match value.map(blanks_off) {
            None => behind,
            Some([b'"', quoted @ ..]) => match closing_quote(quoted) {
                Some(end) => &quoted[end + 1..],
                None => return !ended,
            },
            Some(value) => match token(value) {
                (0, rest) => return rest.is_empty() && !ended,
                (_, rest) => rest,
            },
        };
        text = blanks_off(behind);
        if text.is_empty() && !behind.is_empty() {
            // Blanks at the end of the line belong to nothing.
            return !ended;
        }
    }
    text.is_empty()
}

fn blanks_off(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

fn token(text: &[u8]) -> (usize, &[u8]) {
    let length = text.iter().take_while(|byte| is_token(**byte)).count();
    (length, &text[length..])
}

/// Where a quoted string ends that has begun.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

fn trailers(data: &[u8], mut at: usize, body: Vec<u8>) -> Outcome {
    let mut bytes = 0;
    loop {
        let line = Line::at(&data[at..]);
        let name = line.text.iter().take_while(|byte| is_token(**byte)).count();
        let (name, rest) = line.text.split_at(name);
        bytes += line.text.len() + usize::from(line.ended && !line.text.is_empty());
        let complete = !line.ended || line.text.is_empty() || rest.starts_with(b":");
        let valid = (rest.is_empty() || (rest[0] == b':' && !name.is_empty()))
            && rest.iter().all(|byte| is_text(*byte))
            && bytes <= MAX_TRAILER_BYTES as usize
            && complete
            && !line.broken;
        if !valid {
            return Outcome::Broken(body);
        }
        if !line.whole {
            return Outcome::Unfinished(body);
        }
        at += line.text.len() + 2;
        if line.text.is_empty() {
            return Outcome::Whole(body, at);
        }
    }
}

/// RFC 9110 §5.5: what a field value, and here an extension, is made of.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7F)
}

/// RFC 9110 §5.6.2, by its list.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
