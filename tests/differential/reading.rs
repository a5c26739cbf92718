//! How a parser reads a stream, in a form in which our parsers and the others can be compared.

use balancer_http::fields::Fields;
use balancer_http::framing::chunk::{ChunkDecoder, ChunkStep};
use balancer_http::framing::request::{HeadVerdict, parse};
use balancer_http::framing::response::{self, HeadRules};
use balancer_http::message::{BodyLength, RequestHead, Version};
use serde::Deserialize;

use super::cases::{Case, Kind};
use super::properties::request::{SHIPPED, blank};

/// One message. Texts hold bytes as Latin-1 characters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// Method and target, or status and reason.
    pub start: (String, String),
    /// Such as `1.1`.
    pub version: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
    /// Whether it was read to its end.
    pub whole: bool,
}

/// How a parser read a stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Reading {
    pub messages: Vec<Message>,
    /// `open`, `closed` (no more is read), `upgraded`, or `refused: ` and why.
    pub end: String,
}

impl Reading {
    /// Why the stream was refused.
    pub fn refusal(&self) -> Option<&str> {
        self.end.strip_prefix("refused: ")
    }
}

/// How our parsers read a stream.
pub fn ours(case: &Case) -> Reading {
    let mut messages = Vec::new();
    let end = match case.kind {
        Kind::Requests => requests(&case.stream, &mut messages),
        Kind::Answers => answer(&case.stream, false, &mut messages),
        Kind::AnswersToHead => answer(&case.stream, true, &mut messages),
    };
    Reading { messages, end: end.map_or_else(|why| format!("refused: {why}"), str::to_owned) }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn fields(fields: &Fields) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), text(value))).collect()
}

fn requests(mut rest: &[u8], messages: &mut Vec<Message>) -> Result<&'static str, String> {
    loop {
        let mut head = blank();
        let keep_alive = match parse(rest, &SHIPPED, &mut head) {
            HeadVerdict::Incomplete => return Ok("open"),
            HeadVerdict::Refused(refusal) => return Err(refusal.detail.to_owned()),
            HeadVerdict::Complete { consumed, keep_alive } => {
                rest = &rest[consumed..];
                keep_alive
            }
        };
        messages.push(request(&head));
        let Some(used) = body(rest, head.length, ChunkDecoder::new(), messages)? else { return Ok("open") };
        if !keep_alive {
            return Ok("closed");
        }
        rest = &rest[used..];
    }
}

fn request(head: &RequestHead) -> Message {
    let version = if head.version == Version::Http10 { "1.0" } else { "1.1" };
    Message {
        start: (head.method.clone(), head.target.clone()),
        version: version.to_owned(),
        fields: fields(&head.fields),
        body: String::new(),
        whole: false,
    }
}

fn answer(stream: &[u8], to_head: bool, messages: &mut Vec<Message>) -> Result<&'static str, String> {
    let mut used = 0;
    let head = loop {
        let found =
            response::parse(&stream[used..], &HeadRules::SHIPPED).map_err(|fault| fault.to_string())?;
        let Some((head, bytes)) = found else { return Ok("open") };
        used += bytes;
        if head.status == 101 {
            return Err("a 101 that nobody asked for".to_owned());
        }
        if !head.is_interim() {
            break head;
        }
    };
    messages.push(Message {
        start: (head.status.to_string(), text(&head.reason)),
        version: if head.version == Version::Http10 { "1.0" } else { "1.1" }.to_owned(),
        fields: fields(&head.fields),
        body: String::new(),
        whole: false,
    });
    match body(&stream[used..], head.body_length(to_head), ChunkDecoder::of_answer(), messages)? {
        Some(_) => Ok("closed"),
        None => Ok("open"),
    }
}

/// Reads the body of the last message. Returns how many bytes it has in the stream; `None` when it is not whole.
fn body(
    rest: &[u8],
    length: BodyLength,
    mut decoder: ChunkDecoder,
    messages: &mut [Message],
) -> Result<Option<usize>, String> {
    let Some(message) = messages.last_mut() else { return Ok(None) };
    let known = match length {
        BodyLength::Empty => 0,
        BodyLength::Known(bytes) => bytes,
        BodyLength::UntilClose => u64::MAX,
        BodyLength::Chunked => {
            let mut at = 0;
            loop {
                match decoder.step(&rest[at..]).map_err(|fault| fault.to_string())? {
                    ChunkStep::More => return Ok(None),
                    ChunkStep::Data { start, end } => {
                        message.body.push_str(&text(&rest[at + start..at + end]));
                        at += end;
                    }
                    ChunkStep::End { used } => {
                        message.whole = true;
                        return Ok(Some(at + used));
                    }
                }
            }
        }
    };
    let here = usize::try_from(known).unwrap_or(usize::MAX).min(rest.len());
    message.body.push_str(&text(&rest[..here]));
    message.whole = here as u64 == known;
    Ok(message.whole.then_some(here))
}
