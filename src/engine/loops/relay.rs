//! Relays the body of a backend's answer: takes its framing off, puts the client's on, and reads no more than the
//! client takes.

use super::back::Back;
use super::conn::{Conn, Gone};
use super::exchange::{After, Delivery, Gather};
use super::turn::Buffers;
use super::wire::Got;
use crate::engine::render::{Framing, LAST_CHUNK, Persistence, chunk_size};

/// Pieces of one body before others have their turn. With more, large bodies would delay small ones.
const PIECES: usize = 1;

/// How far relaying got.
pub(super) enum Pumped {
    /// The client's connection has all of the body.
    Done,
    /// The backend has sent nothing more, or the client takes no more, for now.
    Later,
    /// There is more; others have their turn first.
    Again,
    Gone,
    /// The backend broke off.
    Broke(String),
}

/// Relays until [`PIECES`] are moved, the backend has no more, or the client takes no more.
pub(super) fn pump(
    conn: &mut Conn,
    delivery: &mut Delivery,
    back: &mut Back,
    now: u64,
    buffers: &mut Buffers,
) -> Pumped {
    buffers.out.clear();
    for _ in 0..PIECES {
        if !back.readable {
            return Pumped::Later;
        }
        let piece = match back.receive(&mut buffers.scratch[..buffers.piece], &mut buffers.cipher) {
            Got::Bytes(bytes) => bytes,
            Got::Nothing => return Pumped::Later,
            Got::End => match back.coding.end() {
                Ok(()) => {
                    back.may_keep = false;
                    return close_body(conn, delivery, now, buffers);
                }
                Err(cause) => return Pumped::Broke(cause),
            },
            Got::Broken(error) => {
                let cause = back.fault().unwrap_or_else(|| std::io::Error::from(error).to_string());
                return Pumped::Broke(format!("broke off inside the body: {cause}"));
            }
        };
        if let Some(origin) = &mut delivery.source {
            origin.last = now;
        }
        match pass(conn, delivery, back, (piece, now), buffers) {
            Pumped::Again => {}
            other => return other,
        }
        if !conn.is_flushed() {
            return Pumped::Later;
        }
    }
    Pumped::Again
}

/// Passes on the first `piece` bytes of the scratch memory, behind the head if the buffers' `out` has one.
pub(super) fn pass(
    conn: &mut Conn,
    delivery: &mut Delivery,
    back: &mut Back,
    (piece, now): (usize, u64),
    buffers: &mut Buffers,
) -> Pumped {
    let (body, used) = match back.coding.take(&mut buffers.scratch[..piece]) {
        Ok(taken) => taken,
        Err(fault) => {
            // Sends the head all the same, so that the client sees an answer that is broken.
            let _ = conn.emit(&[&buffers.out], &mut buffers.together, now);
            return Pumped::Broke(fault.to_string());
        }
    };
    let is_last = back.coding.is_done();
    back.may_keep &= used == piece || !is_last;
    if let Some(gather) = &mut delivery.gather {
        gather.collected.extend_from_slice(&buffers.scratch[..body]);
        if !is_last && gather.collected.len() <= buffers.piece {
            return Pumped::Again;
        }
        return gathered(conn, delivery, is_last, now, buffers);
    }
    delivery.body_bytes += body as u64;
    let bytes = &buffers.scratch[..body];
    let end: &[u8] = if is_last { LAST_CHUNK } else { b"" };
    let mut size = [0; 18];
    let emitted = match delivery.framing {
        Framing::Chunked if body == 0 => conn.emit(&[&buffers.out, end], &mut buffers.together, now),
        Framing::Chunked => {
            let size = chunk_size(body, &mut size);
            conn.emit(&[&buffers.out, size, bytes, b"\r\n", end], &mut buffers.together, now)
        }
        _ => conn.emit(&[&buffers.out, bytes], &mut buffers.together, now),
    };
    buffers.out.clear();
    match emitted {
        Err(Gone) => Pumped::Gone,
        Ok(()) if is_last => Pumped::Done,
        Ok(()) => Pumped::Again,
    }
}

/// Ends a body that the end of the backend's connection has ended.
fn close_body(conn: &mut Conn, delivery: &mut Delivery, now: u64, buffers: &mut Buffers) -> Pumped {
    if delivery.gather.is_some() {
        return gathered(conn, delivery, true, now, buffers);
    }
    if delivery.framing == Framing::Chunked && conn.emit(&[LAST_CHUNK], &mut buffers.together, now).is_err() {
        return Pumped::Gone;
    }
    Pumped::Done
}

/// Writes the head of a gathered answer, and what was gathered. If the body is whole, the head has its length. If it is
/// too long to wait for, the end of the connection ends it.
fn gathered(
    conn: &mut Conn,
    delivery: &mut Delivery,
    is_whole: bool,
    now: u64,
    buffers: &mut Buffers,
) -> Pumped {
    let Some(gather) = delivery.gather.take() else { return Pumped::Done };
    let Gather { answer, collected } = *gather;
    let persistence = if is_whole {
        delivery.framing = Framing::Length(collected.len() as u64);
        Persistence::KeptAsAsked
    } else {
        Persistence::Closed
    };
    delivery.after = After::of(persistence, false);
    buffers.out.clear();
    conn.write_head(&mut buffers.out, &answer, delivery.framing, persistence);
    delivery.body_bytes = collected.len() as u64;
    let emitted = conn.emit(&[&buffers.out, &collected], &mut buffers.together, now);
    buffers.out.clear();
    match emitted {
        Err(Gone) => Pumped::Gone,
        Ok(()) if is_whole => Pumped::Done,
        Ok(()) => Pumped::Again,
    }
}
