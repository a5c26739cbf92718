//! Delivers answers on this engine. The crate's `Response` strips fields, re-chunks and buffers, so everything is
//! written to its raw writer. That can't close a connection. So a body whose source may break off is either read whole
//! first, or sent chunked: then a break is an invalid chunk-size line.

use std::io::{self, Write};

use tiny_http::{Header, Request, Response, StatusCode};

use super::Unread;
use super::call::Incoming;
use super::steps::AnswerAndBody;
use crate::engine::render::{self, Framing, LAST_CHUNK};
use crate::proxy::exchange::{Answer, AnswerBody, DeliveryOutcome};
use balancer_http::message::{BodyLength, RequestHead};

/// What is sent in place of a chunk size when the backend broke off: no parser takes it for the end of the body.
const BROKEN_CHUNK: &[u8] = b"upstream broke off\r\n";
/// The longest body of unknown length that is read whole for a client of HTTP/1.0, which knows no chunks.
const MAX_HTTP10_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of one read from a backend.
const COPY_BYTES: usize = 64 * 1024;
const NO_BODY: &str = "the backend's answer has no body to read";

/// What an answer's delivery has to know of its request.
#[derive(Clone, Copy)]
pub(super) struct ClientFacts<'a> {
    pub head: &'a RequestHead,
    pub asked_to_keep: bool,
}

/// Sends the answer and settles its ticket.
pub(super) fn deliver(
    request: Request,
    (mut answer, mut incoming): AnswerAndBody,
    client: ClientFacts<'_>,
    unread: Unread,
    response_buffer_bytes: usize,
) {
    let ticket = answer.ticket.take();
    let broken = make_whole(&mut answer, &mut incoming, client, response_buffer_bytes).err();
    if let Some(cause) = &broken
        && let Some(source) = incoming.take()
    {
        answer = source.refusal.in_place_of(&answer, cause, client.head);
    }
    let (sent, delivery) = if unread == Unread::Something {
        respond_first(request, answer, incoming)
    } else {
        // The request's body was read to its end: the crate has nothing to wait for when the request is taken apart.
        let mut writer = request.into_writer();
        write(&mut writer, answer, incoming, client)
    };
    if let Some(ticket) = ticket {
        ticket.settle(sent, broken.map_or(delivery, DeliveryOutcome::Replaced));
    }
}

/// Reads a body whole where the client could not see a break otherwise.
fn make_whole(
    answer: &mut Answer,
    incoming: &mut Option<Incoming>,
    client: ClientFacts<'_>,
    response_buffer_bytes: usize,
) -> Result<(), String> {
    let AnswerBody::Relayed(length) = answer.body else { return Ok(()) };
    let bound = match length {
        BodyLength::Known(bytes) if bytes <= response_buffer_bytes as u64 => response_buffer_bytes,
        BodyLength::Known(_) if client.speaks_chunked() || !client.asked_to_keep => return Ok(()),
        _ if client.speaks_chunked() => return Ok(()),
        _ => MAX_HTTP10_BYTES,
    };
    answer.body = AnswerBody::Bytes(read_whole(incoming.as_mut(), bound)?);
    Ok(())
}

fn read_whole(incoming: Option<&mut Incoming>, bound: usize) -> Result<Vec<u8>, String> {
    let incoming = incoming.ok_or(NO_BODY)?;
    let mut whole = Vec::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match incoming.read(&mut buffer)? {
            0 => return Ok(whole),
            count if whole.len() + count <= bound => whole.extend_from_slice(&buffer[..count]),
            _ => return Err(format!("longer than the {bound} bytes kept for an HTTP/1.0 client")),
        }
    }
}

/// Answers a client that has not sent its whole body. Taking the request apart would wait for the rest, so the crate's
/// own `respond` is used, which answers first. Nearly all answers here are refusals, since ureq sends a body to its end
/// before it looks for the answer.
fn respond_first(request: Request, answer: Answer, mut incoming: Option<Incoming>) -> (u64, DeliveryOutcome) {
    let body = match answer.body {
        AnswerBody::Bytes(bytes) => bytes,
        AnswerBody::Relayed(_) => match read_whole(incoming.as_mut(), MAX_HTTP10_BYTES) {
            Ok(bytes) => bytes,
            Err(cause) => return (0, DeliveryOutcome::BackendBroke(cause)),
        },
        _ => Vec::new(),
    };
    let sent = body.len() as u64;
    let mut response = Response::from_data(body).with_status_code(StatusCode(answer.status));
    for (name, value) in answer.fields.iter() {
        // A field with bytes beyond ASCII, which the crate does not take, is left out.
        if let Ok(header) = Header::from_bytes(name.as_bytes(), value) {
            response.add_header(header);
        }
    }
    match request.respond(response) {
        Ok(()) => (sent, DeliveryOutcome::Complete),
        Err(_) => (0, DeliveryOutcome::ClientGone),
    }
}

fn write(
    writer: &mut dyn Write,
    answer: Answer,
    incoming: Option<Incoming>,
    client: ClientFacts<'_>,
) -> (u64, DeliveryOutcome) {
    let mut framing = render::framing(&answer, client.head.version, client.head.method == "HEAD");
    if let (AnswerBody::Relayed(_), Framing::Length(_), true) =
        (&answer.body, framing, client.speaks_chunked())
    {
        framing = Framing::Chunked;
    }
    let persistence = render::persistence(&answer, framing, client.head.version, client.asked_to_keep);
    let mut out = Vec::with_capacity(1024);
    render::head(&mut out, &answer, framing, persistence);
    match answer.body {
        AnswerBody::Bytes(bytes) if !matches!(framing, Framing::None(_)) => {
            out.extend_from_slice(&bytes);
            match flush(writer, &out) {
                Ok(()) => (bytes.len() as u64, DeliveryOutcome::Complete),
                Err(_) => (0, DeliveryOutcome::ClientGone),
            }
        }
        AnswerBody::Relayed(_) if !matches!(framing, Framing::None(_)) => {
            if flush(writer, &out).is_err() {
                return (0, DeliveryOutcome::ClientGone);
            }
            copy(writer, incoming, framing == Framing::Chunked)
        }
        _ => match flush(writer, &out) {
            Ok(()) => (0, DeliveryOutcome::Complete),
            Err(_) => (0, DeliveryOutcome::ClientGone),
        },
    }
}

/// Sends a body as it comes. Flushes after every read, so that event streams arrive.
fn copy(writer: &mut dyn Write, incoming: Option<Incoming>, chunked: bool) -> (u64, DeliveryOutcome) {
    let Some(mut incoming) = incoming else { return (0, DeliveryOutcome::BackendBroke(NO_BODY.to_owned())) };
    let mut buffer = vec![0; COPY_BYTES];
    let mut out = Vec::with_capacity(COPY_BYTES + 32);
    let mut sent = 0;
    loop {
        out.clear();
        let count = match incoming.read(&mut buffer) {
            Ok(0) => {
                let end = if chunked { flush(writer, LAST_CHUNK) } else { Ok(()) };
                return (
                    sent,
                    if end.is_ok() { DeliveryOutcome::Complete } else { DeliveryOutcome::ClientGone },
                );
            }
            Ok(count) => count,
            Err(cause) => {
                if chunked {
                    // The client may be gone, too. What is reported is the backend's break.
                    let _ = flush(writer, BROKEN_CHUNK);
                }
                return (sent, DeliveryOutcome::BackendBroke(cause));
            }
        };
        if chunked {
            render::chunk(&mut out, &buffer[..count]);
        } else {
            out.extend_from_slice(&buffer[..count]);
        }
        if flush(writer, &out).is_err() {
            return (sent, DeliveryOutcome::ClientGone);
        }
        sent += count as u64;
    }
}

fn flush(writer: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes)?;
    writer.flush()
}
