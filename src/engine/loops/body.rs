//! Requests' bodies: small ones are read before the service is asked, large ones stream to the backend as they come.

use super::conn::{Client, Conn, Stage};
use super::exchange::{Doing, Exchange, Upload};
use super::keys::BackSlot;
use super::lane::LaneJob;
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use crate::engine::render;
use crate::error::Reject;
use crate::proxy::exchange::BodyFault;
use balancer_http::fields::Fields;
use balancer_http::framing::chunk::ChunkStep;
use balancer_http::message::{BodyLength, Reason, RequestHead};
use balancer_time::Nanos;

/// 100 Continue (RFC 9110 §15.2.1).
const CONTINUE: (u16, &[u8], &Fields) = (100, b"Continue", &Fields::EMPTY);
/// Reads of one body before others have their turn.
const READS: usize = 4;
/// Most bytes that one loop gathers for bodies of API calls.
const MOST_GATHERED: usize = 64 * 1024 * 1024;

impl Upload {
    /// Takes what came of the body. Returns how many bytes of the input belong to it.
    pub fn add(&mut self, input: &[u8], most: u64) -> Result<usize, BodyFault> {
        match self.length {
            BodyLength::Empty | BodyLength::UntilClose => Ok(0),
            BodyLength::Known(_) => {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                self.body.extend_from_slice(&input[..taken]);
                self.came += taken as u64;
                self.left -= taken as u64;
                self.is_whole = self.left == 0;
                Ok(taken)
            }
            BodyLength::Chunked => self.decode(input, most),
        }
    }

    /// Takes the framing off.
    fn decode(&mut self, input: &[u8], most: u64) -> Result<usize, BodyFault> {
        let mut at = 0;
        loop {
            match self.decoder.step(&input[at..]) {
                Ok(ChunkStep::Data { start, end }) => {
                    self.came += (end - start) as u64;
                    if self.came > most {
                        return Err(BodyFault::TooLarge);
                    }
                    self.body.extend_from_slice(&input[at + start..at + end]);
                    at += end;
                }
                Ok(ChunkStep::More) => return Ok(input.len()),
                Ok(ChunkStep::End { used }) => {
                    self.is_whole = true;
                    return Ok(at + used);
                }
                Err(_) => return Err(BodyFault::Malformed),
            }
        }
    }
}

/// How far reading a body got.
enum Read {
    /// Something came.
    Some,
    /// Nothing more is there now.
    Empty,
}

impl Loop {
    /// Reads a small body until it is whole. A large one streams, and so does one that its client sends only after a
    /// 100.
    pub(super) fn read_ahead(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        buffers: &mut Buffers,
    ) -> Go {
        for _ in 0..READS {
            let upload = &exchange.upload;
            let bound = self.shared.request_buffer_bytes;
            let is_large = match upload.length {
                BodyLength::Known(bytes) => bytes > bound as u64,
                _ => upload.body.len() > bound,
            };
            let asks = upload.owes_continue && upload.body.is_empty();
            if upload.is_whole || is_large || asks {
                return self.begin(conn, exchange, buffers);
            }
            match self.read_body(conn, exchange, buffers) {
                Ok(Read::Some) => {}
                Ok(Read::Empty) => return Go::Wait,
                Err(fault) => return self.refuse_body(conn, exchange, fault, buffers),
            }
        }
        Go::On
    }

    /// Reads the body of an API call until it is whole, or longer than it may be, and hands the call to the lane.
    pub(super) fn gather_call(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        most: usize,
        buffers: &mut Buffers,
    ) -> Go {
        if std::mem::take(&mut exchange.upload.owes_continue)
            && !exchange.upload.is_whole
            && conn.inform(CONTINUE, &mut buffers.together, self.now).is_err()
        {
            return Go::On;
        }
        loop {
            let upload = &exchange.upload;
            let is_over = match upload.length {
                BodyLength::Known(bytes) => bytes > most as u64,
                _ => upload.body.len() > most,
            };
            if upload.is_whole || is_over {
                return self.hand_over(conn, exchange, is_over, buffers);
            }
            if self.gathered > MOST_GATHERED {
                self.ungather(exchange);
                let reject = Reject::new(Reason::Unavailable, "too many large calls at once").retry_after(1);
                return self.refuse_exchange(conn, exchange, &reject, buffers);
            }
            let before = upload.body.len();
            match self.read_body(conn, exchange, buffers) {
                Ok(Read::Some) => self.gathered += exchange.upload.body.len() - before,
                Ok(Read::Empty) => return Go::Wait,
                Err(fault) => {
                    // `gathered` has only the pieces before this one.
                    self.gathered = self.gathered.saturating_sub(before);
                    return self.refuse_body(conn, exchange, fault, buffers);
                }
            }
        }
    }

    /// Takes the bytes of a call's body off the loop's count.
    pub(super) fn ungather(&mut self, exchange: &Exchange) {
        self.gathered = self.gathered.saturating_sub(exchange.upload.body.len());
    }

    /// Counts anew what calls have gathered, after a panic has taken one of them.
    pub(super) fn count_gathered(&mut self) {
        let bytes = |client: &Client| match &client.stage {
            Stage::Busy(exchange) if matches!(exchange.doing, Doing::Gathering(_)) => {
                exchange.upload.body.len()
            }
            _ => 0,
        };
        self.gathered = self.clients.values().flatten().map(|client| bytes(client)).sum();
    }

    fn hand_over(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        is_over: bool,
        buffers: &mut Buffers,
    ) -> Go {
        self.ungather(exchange);
        let head = std::mem::replace(&mut exchange.head, RequestHead::blank(conn.peer));
        // The delivery of the answer needs these two.
        exchange.head.version = head.version;
        exchange.head.method.push_str(&head.method);
        let job = LaneJob {
            number: self.number,
            client: conn.key,
            head,
            body: std::mem::take(&mut exchange.upload.body),
            is_too_large: is_over,
            received_at: exchange.received_at,
        };
        let waits = self.shared.service.waits(&job.head);
        match self.lane.send(job, waits) {
            Ok(()) => {
                exchange.doing = Doing::InLane;
                Go::Wait
            }
            Err(job) => {
                exchange.head = job.head;
                let reject = Reject::new(Reason::Unavailable, "too many calls at once").retry_after(1);
                self.refuse_exchange(conn, exchange, &reject, buffers)
            }
        }
    }

    /// Reads once from the client into the body. What comes behind the body goes into the inbox.
    fn read_body(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        buffers: &mut Buffers,
    ) -> Result<Read, BodyFault> {
        let upload = &mut exchange.upload;
        // Never more than the body, so that nothing of the next request is taken.
        let room = match upload.length {
            BodyLength::Known(_) => {
                usize::try_from(upload.left).unwrap_or(usize::MAX).min(buffers.inbox.len())
            }
            _ => buffers.inbox.len(),
        };
        let Some(bytes) = receive(conn, &mut buffers.inbox[..room], &mut buffers.cipher, self.now)? else {
            return Ok(Read::Empty);
        };
        upload.pace.moved(bytes, self.now);
        let most = upload.most.unwrap_or(self.shared.max_body_bytes);
        let used = upload.add(&buffers.inbox[..bytes], most)?;
        if used < bytes {
            conn.inbox.extend_from_slice(&buffers.inbox[used..bytes]);
            conn.look_first = true;
        }
        Ok(Read::Some)
    }

    /// Moves a streamed body on, as far as both sides go now. `Err`: the client's side is at fault.
    pub(super) fn upload(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        back: BackSlot,
        buffers: &mut Buffers,
    ) -> Result<(), BodyFault> {
        for _ in 0..READS {
            let upload = &mut exchange.upload;
            let Some(to) = self.backs.get(back) else { return Ok(()) };
            if !upload.is_under_way() || to.is_connecting || !to.is_flushed() {
                return Ok(());
            }
            if std::mem::take(&mut upload.owes_continue) && matches!(exchange.doing, Doing::Calling(_)) {
                // If the client is gone, the next step finds that out.
                let _ = conn.inform(CONTINUE, &mut buffers.together, self.now);
            }
            let upload = &mut exchange.upload;
            if !upload.body.is_empty() || upload.is_whole {
                upload.is_gone |= !upload.body.is_empty();
                frame(upload, &mut buffers.out);
                upload.is_sent = upload.is_whole;
                // The pace measures the client alone, which can't send while the backend takes nothing.
                upload.pace.moved(0, self.now);
                if to.send(&buffers.out).is_err() {
                    // The backend may have answered why before it closed.
                    upload.is_stopped = true;
                    to.may_keep = false;
                    to.readable = true;
                }
                continue;
            }
            let read = match upload.length {
                BodyLength::Known(_) => self.pass_on(conn, exchange, back, buffers)?,
                _ => self.read_body(conn, exchange, buffers)?,
            };
            if matches!(read, Read::Empty) {
                return Ok(());
            }
        }
        self.again.push(conn.key);
        Ok(())
    }

    /// Moves one piece of a body of known length straight to the backend.
    fn pass_on(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        back: BackSlot,
        buffers: &mut Buffers,
    ) -> Result<Read, BodyFault> {
        let upload = &mut exchange.upload;
        let room = usize::try_from(upload.left).unwrap_or(usize::MAX).min(buffers.piece);
        let Some(bytes) = receive(conn, &mut buffers.scratch[..room], &mut buffers.cipher, self.now)? else {
            return Ok(Read::Empty);
        };
        upload.pace.moved(bytes, self.now);
        upload.came += bytes as u64;
        upload.left -= bytes as u64;
        upload.is_gone = true;
        upload.is_whole = upload.left == 0;
        upload.is_sent = upload.is_whole;
        if let Some(to) = self.backs.get(back)
            && to.send(&buffers.scratch[..bytes]).is_err()
        {
            upload.is_stopped = true;
            to.may_keep = false;
            to.readable = true;
        }
        Ok(Read::Some)
    }
}

/// Reads once from the client, in the middle of a body. `None`: nothing is there now.
fn receive(
    conn: &mut Conn,
    buffer: &mut [u8],
    cipher: &mut [u8],
    now: Nanos,
) -> Result<Option<usize>, BodyFault> {
    if !conn.readable {
        return Ok(None);
    }
    match conn.receive(buffer, cipher) {
        Got::Bytes(bytes) => {
            conn.moved_at = now;
            Ok(Some(bytes))
        }
        Got::Nothing => Ok(None),
        Got::End => Err(BodyFault::ClientGone),
        Got::Broken(_) => {
            conn.broken = true;
            Err(BodyFault::ClientGone)
        }
    }
}

/// Writes the gathered part of the body as the backend gets it, and clears it.
fn frame(upload: &mut Upload, out: &mut Vec<u8>) {
    out.clear();
    if upload.length == BodyLength::Chunked {
        render::chunk(out, &upload.body);
        if upload.is_whole {
            out.extend_from_slice(render::LAST_CHUNK);
        }
    } else {
        out.extend_from_slice(&upload.body);
    }
    upload.body.clear();
}
