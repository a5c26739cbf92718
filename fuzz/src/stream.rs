//! A client's whole connection, requests behind each other with their bodies, read as the engine reads it: the same
//! requests, bodies and end however the stream is cut, so that nobody's body becomes somebody's request.

use balancer_http::framing::chunk::{ChunkDecoder, ChunkStep};
use balancer_http::framing::request::{HeadVerdict, parse};
use balancer_http::message::{BodyLength, RequestHead};

use super::cuts;
use super::request::{SHIPPED, blank, written};

/// What came out of a connection, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole request: the head as it would go upstream, and its body.
    Request(Vec<u8>, Vec<u8>),
    /// The head of the last one and as much of its body as there is.
    Unfinished(Vec<u8>, Vec<u8>),
    /// That many bytes that are no whole head yet.
    Waiting(usize),
    /// Refused with that status; nothing behind it is read.
    Refused(u16),
    /// The chunked coding of a body broke behind those bytes of it.
    BrokenBody(Vec<u8>, Vec<u8>),
}

/// See the module.
pub fn check(data: &[u8]) {
    let whole = read([data]);
    for ends in cuts::ways(data) {
        assert_eq!(read(cuts::pieces(data, &ends)), whole, "cut at {ends:?}");
    }
}

enum Body {
    Known(u64),
    Chunked(ChunkDecoder),
}

/// One connection's reader; keeps only what it can't decide on yet.
struct Reader {
    buffer: Vec<u8>,
    under_way: Option<(RequestHead, Body, Vec<u8>)>,
    events: Vec<Event>,
    over: bool,
}

/// Reads a stream that comes in pieces to its end.
pub fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut reader = Reader { buffer: Vec::new(), under_way: None, events: Vec::new(), over: false };
    for piece in pieces {
        if !reader.over {
            reader.buffer.extend_from_slice(piece);
            while !reader.over && reader.advance() {}
        }
    }
    if let Some((head, _, body)) = reader.under_way.take() {
        reader.events.push(Event::Unfinished(written(&head), body));
    } else if !reader.over {
        reader.events.push(Event::Waiting(reader.buffer.len()));
    }
    reader.events
}

impl Reader {
    /// Takes one step; false: more input is needed.
    fn advance(&mut self) -> bool {
        let Some((head, body, mut taken)) = self.under_way.take() else { return self.head() };
        let (used, done) = match body {
            Body::Known(left) => {
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                taken.extend_from_slice(&self.buffer[..used]);
                let left = left - used as u64;
                (used, if left == 0 { None } else { Some(Body::Known(left)) })
            }
            Body::Chunked(mut decoder) => match decoder.step(&self.buffer) {
                Err(_) => {
                    self.events.push(Event::BrokenBody(written(&head), taken));
                    self.over = true;
                    return false;
                }
                Ok(ChunkStep::End { used }) => (used, None),
                Ok(ChunkStep::More) => (self.buffer.len(), Some(Body::Chunked(decoder))),
                Ok(ChunkStep::Data { start, end }) => {
                    taken.extend_from_slice(&self.buffer[start..end]);
                    (end, Some(Body::Chunked(decoder)))
                }
            },
        };
        self.buffer.drain(..used);
        match done {
            None => self.events.push(Event::Request(written(&head), taken)),
            Some(body) => {
                self.under_way = Some((head, body, taken));
                return used > 0 && !self.buffer.is_empty();
            }
        }
        true
    }

    fn head(&mut self) -> bool {
        let mut head = blank();
        match parse(&self.buffer, &SHIPPED, &mut head) {
            HeadVerdict::Incomplete => return false,
            HeadVerdict::Refused(refusal) => {
                self.events.push(Event::Refused(refusal.reason.status().0));
                self.over = true;
                return false;
            }
            HeadVerdict::Complete { consumed, .. } => self.buffer.drain(..consumed),
        };
        let body = match head.length {
            BodyLength::Known(bytes) => Body::Known(bytes),
            BodyLength::Chunked => Body::Chunked(ChunkDecoder::new()),
            BodyLength::Empty | BodyLength::UntilClose => Body::Known(0),
        };
        self.under_way = Some((head, body, Vec::new()));
        true
    }
}
