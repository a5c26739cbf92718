//! From received bytes to a served request.

use super::answer::{Asked, deliver, serve};
use super::body::{Buffered, Decoded, decode};
use super::conn::{Conn, Next, Pending, State};
use super::timers::Pace;
use super::wire::Received;
use super::worker::{Desk, Worker};
use crate::engine::portable::target;
use crate::error::Reject;
use crate::proxy::exchange::{BodyFault, Parked, Served};
use balancer_http::framing::Refusal;
use balancer_http::framing::chunk::ChunkDecoder;
use balancer_http::framing::proxy;
use balancer_http::framing::request::{Verdict, parse};
use balancer_http::message::Reason;
use balancer_http::message::{BodyLength, RequestHead};
use balancer_time::Nanos;

/// Pipelined requests answered in one go, before others have their turn.
const MAX_PIPELINED: usize = 32;

/// How one request ended.
pub(super) enum Step {
    /// Answered; the next one starts behind that many bytes of the inbox.
    Answered(usize),
    /// Its head is not whole.
    Partial,
    /// The connection waits or ends; what starts behind that many bytes of the inbox is kept.
    Leave(Next, usize),
}

impl Worker {
    /// Reads what the client sent and answers every request that is whole.
    pub(super) fn receive(&mut self, conn: &mut Conn) -> Next {
        let mut have = conn.inbox.len();
        self.inbox[..have].copy_from_slice(&conn.inbox);
        // The memory goes, too: an idle connection has none.
        conn.inbox = Vec::new();
        let first = have == 0;
        let received = if std::mem::take(&mut conn.look_first) {
            Received::Bytes(0)
        } else {
            conn.link.wire.recv(&mut self.inbox[have..])
        };
        self.desk.now = self.core.clock.now();
        match received {
            Received::Bytes(bytes) => have += bytes,
            Received::Nothing => return self.keep(conn, 0, have, Next::Readable),
            Received::End => return self.judge_beginning(conn, have).unwrap_or(Next::Close),
            Received::Broken => return Next::Close,
        }
        if first {
            conn.head_since = self.desk.now;
        }
        let mut start = 0;
        if conn.expects_proxy {
            match proxy::parse(&self.inbox[..have]) {
                proxy::Verdict::Incomplete => return self.keep(conn, 0, have, Next::Readable),
                proxy::Verdict::Complete { consumed, client } => {
                    conn.expects_proxy = false;
                    conn.peer = client.unwrap_or(conn.peer);
                    conn.is_proxied = true;
                    start = consumed;
                }
                proxy::Verdict::Refused(detail) => {
                    self.core.reject("proxy_protocol");
                    // What is there is another request's.
                    self.desk.head = RequestHead::blank(conn.peer);
                    return self.refuse(conn, &Reject::new(Reason::BadRequest, detail));
                }
            }
        }
        for _ in 0..MAX_PIPELINED {
            if start == have {
                conn.judged = 0;
                return Next::Readable;
            }
            match self.request(conn, start, have) {
                Step::Answered(end) => {
                    start = end;
                    conn.judged = 0;
                    conn.head_since = 0;
                    conn.fresh = false;
                }
                Step::Partial => return self.keep(conn, start, have, Next::Readable),
                Step::Leave(next, end) => return self.keep(conn, end, have, next),
            }
        }
        conn.look_first = true;
        self.keep(conn, start, have, Next::Again)
    }

    /// Keeps what is left of the inbox with the connection.
    pub(super) fn keep(&self, conn: &mut Conn, start: usize, have: usize, next: Next) -> Next {
        if start < have {
            conn.inbox.extend_from_slice(&self.inbox[start..have]);
        }
        next
    }

    /// The refusal of a beginning to which nothing comes any more, if it is wrong already: it may have waited for more
    /// before it was judged (see [`worth_judging`]). `None`: no request, and nothing to answer.
    fn judge_beginning(&mut self, conn: &mut Conn, have: usize) -> Option<Next> {
        if conn.expects_proxy || have <= conn.judged {
            return None;
        }
        match parse(&self.inbox[..have], &self.core.bounds, &mut self.desk.head) {
            Verdict::Refused(refusal) => Some(self.refuse(conn, &reject(refusal))),
            Verdict::Incomplete | Verdict::Complete { .. } => None,
        }
    }

    /// The same for one whose deadline has passed, in the connection's own inbox.
    pub(super) fn judge_overdue(&mut self, conn: &mut Conn) -> Option<Next> {
        let have = conn.inbox.len();
        self.inbox[..have].copy_from_slice(&conn.inbox);
        self.judge_beginning(conn, have)
    }

    /// Handles one request that starts at `start`.
    fn request(&mut self, conn: &mut Conn, start: usize, have: usize) -> Step {
        let bytes = &self.inbox[start..have];
        if conn.judged > 0 && !worth_judging(bytes, conn.judged) {
            return Step::Partial;
        }
        match parse(bytes, &self.core.bounds, &mut self.desk.head) {
            Verdict::Incomplete => {
                conn.judged = bytes.len();
                Step::Partial
            }
            Verdict::Refused(refusal) => Step::Leave(self.refuse(conn, &reject(refusal)), have),
            Verdict::Complete { consumed, keep_alive } => {
                if let Some(reject) = target::refusal(&self.desk.head.target) {
                    return Step::Leave(self.refuse(conn, &reject), have);
                }
                conn.sign(&mut self.desk.head);
                self.whole_head(conn, start + consumed, have, keep_alive)
            }
        }
    }

    fn whole_head(&mut self, conn: &mut Conn, start: usize, have: usize, keep_alive: bool) -> Step {
        if !self.attended {
            return Step::Leave(self.answer_unattended(conn), have);
        }
        let received_at = self.desk.now;
        self.core.gate.begin_work(self.number, conn.token.0, received_at);
        let here = &self.inbox[start..have];
        self.desk.body.clear();
        let mut decoder = ChunkDecoder::new();
        match self.desk.head.length {
            BodyLength::Known(bytes) if bytes > self.core.max_body_bytes => {
                return Step::Leave(self.refuse(conn, &too_large()), have);
            }
            BodyLength::Known(bytes) if bytes > here.len() as u64 => self.desk.body.extend_from_slice(here),
            BodyLength::Known(bytes) => {
                // Fits in memory, since it is there.
                let end = start + bytes as usize;
                let source = Source::Inbox(start, end);
                return self.serve_buffered(conn, received_at, keep_alive, source, (end, have), None);
            }
            BodyLength::Chunked => {
                match decode(&mut decoder, here, &mut self.desk.body, self.core.max_body_bytes) {
                    Decoded::More => {}
                    Decoded::End(used) => {
                        let end = start + used;
                        let behind = (end, have);
                        return self.serve_buffered(
                            conn,
                            received_at,
                            keep_alive,
                            Source::Body,
                            behind,
                            None,
                        );
                    }
                    Decoded::TooLarge => return Step::Leave(self.refuse(conn, &too_large()), have),
                    Decoded::Malformed => return Step::Leave(self.refuse(conn, &malformed()), have),
                }
            }
            BodyLength::Empty | BodyLength::UntilClose => {
                let source = Source::Inbox(start, start);
                return self.serve_buffered(conn, received_at, keep_alive, source, (start, have), None);
            }
        }
        let peer = conn.peer;
        let head = std::mem::replace(&mut self.desk.head, RequestHead::blank(peer));
        let body = std::mem::take(&mut self.desk.body);
        let pace = Pace::new(received_at);
        let pending = Pending { head, keep_alive, received_at, body, decoder, pace, place: None };
        conn.state = State::Body(Box::new(pending));
        Step::Leave(self.await_or_stream(conn), have)
    }

    /// Serves a request whose body is in memory; between the two positions of the inbox lies what came behind it.
    pub(super) fn serve_buffered(
        &mut self,
        conn: &mut Conn,
        received_at: Nanos,
        keep_alive: bool,
        source: Source,
        (end, have): (usize, usize),
        parked: Option<Box<dyn Parked>>,
    ) -> Step {
        let asked = Asked::of(&self.desk.head, keep_alive);
        let Desk { head, body, .. } = &mut self.desk;
        let bytes = match source {
            Source::Inbox(start, stop) => &self.inbox[start..stop],
            Source::Body => &body[..],
        };
        let mut body = Buffered::new(bytes);
        let answer = match serve(&self.core, conn, head, &mut body, received_at, parked) {
            Served::Answer(answer) => answer,
            Served::Parked(parked) => {
                return Step::Leave(self.park(conn, parked, received_at, keep_alive, &source), end);
            }
        };
        let behind = &self.inbox[end..have];
        match deliver(&self.core, &mut self.desk, conn, answer, asked, behind) {
            None => Step::Answered(end),
            Some(Next::Relay(relayed)) => Step::Leave(Next::Relay(relayed), have),
            Some(next) => Step::Leave(next, end),
        }
    }

    /// Answers without a worker: what can be had without waiting, else 503.
    fn answer_unattended(&mut self, conn: &mut Conn) -> Next {
        let Some(answer) = self.core.service.unattended(&self.desk.head) else {
            return self.refuse(conn, &nobody_free());
        };
        let asked = Asked { unread: true, ..Asked::of(&self.desk.head, false) };
        deliver(&self.core, &mut self.desk, conn, answer, asked, &[]).unwrap_or(Next::Linger)
    }

    pub(super) fn refuse_pending(&mut self, conn: &mut Conn, reject: &Reject) -> Next {
        if let State::Body(pending) = std::mem::replace(&mut conn.state, State::Head) {
            self.desk.head = pending.head;
        }
        self.refuse(conn, reject)
    }

    /// Answers what the engine itself refuses, and closes.
    pub(super) fn refuse(&mut self, conn: &mut Conn, reject: &Reject) -> Next {
        conn.sign(&mut self.desk.head);
        let answer = self.core.service.refuse(&self.desk.head, reject, self.core.clock.now());
        let asked = Asked { unread: true, ..Asked::of(&self.desk.head, false) };
        deliver(&self.core, &mut self.desk, conn, answer, asked, &[]).unwrap_or(Next::Linger)
    }
}

/// Where a body lies in memory.
pub(super) enum Source {
    /// Between two positions of the inbox.
    Inbox(usize, usize),
    /// In the desk's body.
    Body,
}

/// Whether bytes added to a proper beginning can change the verdict soon: a line ended, or there are a quarter more.
/// Without that, a head sent byte by byte would be read from its start for every byte.
fn worth_judging(bytes: &[u8], judged: usize) -> bool {
    let new = bytes.get(judged..).unwrap_or(&[]);
    new.contains(&b'\n') || new.len() >= 64 + judged / 4
}

fn reject(refusal: Refusal) -> Reject {
    let mut reject = Reject::new(refusal.reason, refusal.detail);
    if refusal.reason == Reason::MethodNotAllowed {
        reject.allow = Some(balancer_http::framing::request::ALLOW);
    }
    reject
}

/// No worker was free for `frontend.worker_wait`.
pub(super) fn nobody_free() -> Reject {
    Reject::new(Reason::Unavailable, "every worker is busy").retry_after(1)
}

pub(super) fn too_large() -> Reject {
    Reject::new(Reason::ContentTooLarge, BodyFault::TooLarge.to_string())
}

/// The client ended its side, or left: whoever still reads is told, and the access log has it.
pub(super) fn cut_short() -> Reject {
    Reject::new(Reason::BadRequest, BodyFault::ClientGone.to_string())
}

pub(super) fn malformed() -> Reject {
    Reject::new(Reason::BadRequest, BodyFault::Malformed.to_string())
}
