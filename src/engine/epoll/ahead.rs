//! Bodies that are not whole when their head is: small ones are read ahead while no worker waits, others stream.

use std::sync::Arc;

use super::answer::{Asked, deliver, next_request, serve};
use super::body::{Decoded, Streaming, decode};
use super::conn::{Conn, Link, Next, Pending, Queued, State};
use super::head::{Source, Step, cut_short, malformed, nobody_free, too_large};
use super::wire::Received;
use super::worker::Worker;
use crate::clock::Clock;
use crate::proxy::exchange::{Parked, Served};
use balancer_http::message::{BodyLength, RequestHead};

impl Worker {
    /// A body that is not whole: read ahead when it is small, streamed when it is large or when its client waits to be
    /// asked for it.
    pub(super) fn await_or_stream(&mut self, conn: &mut Conn) -> Next {
        let State::Body(pending) = &mut conn.state else { return Next::Close };
        let bound = self.core.request_buffer_bytes;
        let large = match pending.head.length {
            BodyLength::Known(bytes) => bytes > bound as u64,
            _ => pending.body.len() > bound,
        };
        let asks = pending.head.expects_continue && pending.body.is_empty();
        if !large && !asks {
            return Next::Body;
        }
        if pending.place.is_none() {
            pending.place = self.core.uploads.take();
        }
        if pending.place.is_none() {
            return Next::UploadPlace;
        }
        self.stream_pending(conn)
    }

    fn stream_pending(&mut self, conn: &mut Conn) -> Next {
        match std::mem::replace(&mut conn.state, State::Head) {
            State::Body(pending) => self.stream(conn, *pending, None),
            _ => Next::Close,
        }
    }

    /// Reads on at a body.
    pub(super) fn receive_body(&mut self, conn: &mut Conn) -> Next {
        let State::Body(pending) = &mut conn.state else { return Next::Close };
        if !self.attended {
            return self.refuse_pending(conn, &nobody_free());
        }
        if pending.place.is_some() {
            return self.stream_pending(conn);
        }
        let bound = self.core.max_body_bytes;
        let (end, bytes) = match read_on(&conn.link, pending, &mut self.inbox, bound, &self.core.clock) {
            ReadOn::More => {
                self.desk.now = self.core.clock.now();
                return self.await_or_stream(conn);
            }
            ReadOn::End { used, have } => (used, have),
            ReadOn::Gone => return self.refuse_pending(conn, &cut_short()),
            ReadOn::TooLarge => return self.refuse_pending(conn, &too_large()),
            ReadOn::Malformed => return self.refuse_pending(conn, &malformed()),
        };
        let State::Body(pending) = std::mem::replace(&mut conn.state, State::Head) else {
            return Next::Close;
        };
        let Pending { head, keep_alive, received_at, body, .. } = *pending;
        self.desk.head = head;
        self.desk.body = body;
        self.core.gate.begin_work(self.number, conn.token.0, self.core.clock.now());
        let step = self.serve_buffered(conn, received_at, keep_alive, Source::Body, (end, bytes), None);
        self.after_body(conn, step, bytes)
    }

    /// What comes after a request that was read, or waited, by itself: `have` bytes of the inbox were.
    pub(super) fn after_body(&mut self, conn: &mut Conn, step: Step, have: usize) -> Next {
        match step {
            Step::Answered(end) => {
                self.keep(conn, end, have, Next::Readable);
                next_request(conn)
            }
            Step::Partial => Next::Readable,
            Step::Leave(next, end) => self.keep(conn, end, have, next),
        }
    }

    /// Serves a request whose body is read while it is served, or goes on with it. It has a place.
    pub(super) fn stream(
        &mut self,
        conn: &mut Conn,
        mut pending: Pending,
        parked: Option<Box<dyn Parked>>,
    ) -> Next {
        self.core.gate.begin_work(self.number, conn.token.0, self.core.clock.now());
        self.core.gate.begin_streaming(self.number);
        let mut asked = Asked::of(&pending.head, pending.keep_alive);
        let mut head = std::mem::replace(&mut pending.head, RequestHead::blank(conn.peer));
        pending.head.length = head.length;
        pending.head.expects_continue = head.expects_continue;
        let link = Arc::clone(&conn.link);
        let mut body = Streaming::new(&self.core, &link, &pending, &mut self.inbox);
        let answer = match serve(&self.core, conn, &mut head, &mut body, pending.received_at, parked) {
            Served::Answer(answer) => answer,
            // Nothing was read of the body: what streams parks before it is sent, not afterwards.
            Served::Parked(parked) => {
                pending.head = head;
                conn.state = State::Queued(Box::new(Queued {
                    pending,
                    parked,
                    seat: None,
                    is_watched: true,
                    is_late: false,
                    is_put_off: false,
                }));
                return Next::Backend;
            }
        };
        asked.unread = !body.is_whole();
        let behind = body.behind().to_vec();
        pending.place = None;
        self.core.admit_uploads();
        let next = deliver(&self.core, &mut self.desk, conn, answer, asked, &behind);
        if !matches!(next, Some(Next::Relay(_))) {
            conn.inbox = behind;
        }
        next.unwrap_or_else(|| next_request(conn))
    }
}

/// How far reading a body ahead got.
enum ReadOn {
    More,
    /// The body is whole; `used` of the `have` bytes read last belong to it.
    End {
        used: usize,
        have: usize,
    },
    Gone,
    TooLarge,
    Malformed,
}

/// Reads on at a body until nothing more is there or the body is whole.
fn read_on(
    link: &Link,
    pending: &mut Pending,
    inbox: &mut [u8],
    max_body_bytes: u64,
    clock: &Clock,
) -> ReadOn {
    const AT_ONCE: usize = 3;
    for _ in 0..AT_ONCE {
        let room = match pending.head.length {
            // Never more than the body, so that nothing of the next request is taken.
            BodyLength::Known(bytes) => {
                let left = bytes.saturating_sub(pending.body.len() as u64);
                usize::try_from(left).unwrap_or(usize::MAX).min(inbox.len())
            }
            _ => inbox.len(),
        };
        let have = match link.wire.recv(&mut inbox[..room]) {
            Received::Bytes(bytes) => bytes,
            Received::Nothing => return ReadOn::More,
            Received::End | Received::Broken => return ReadOn::Gone,
        };
        pending.pace.moved(have, clock.now());
        let input = &inbox[..have];
        if let BodyLength::Known(length) = pending.head.length {
            pending.body.extend_from_slice(input);
            if pending.body.len() as u64 == length {
                return ReadOn::End { used: have, have };
            }
        } else {
            match decode(&mut pending.decoder, input, &mut pending.body, max_body_bytes) {
                Decoded::More => {}
                Decoded::End(used) => return ReadOn::End { used, have },
                Decoded::TooLarge => return ReadOn::TooLarge,
                Decoded::Malformed => return ReadOn::Malformed,
            }
        }
        if have < room {
            return ReadOn::More;
        }
    }
    ReadOn::More
}
