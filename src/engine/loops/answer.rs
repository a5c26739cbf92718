//! The head of a backend's answer: read behind interim answers, checked, and handed to the request's story.

use super::back::Coding;
use super::conn::{Conn, Gone};
use super::dial::lost;
use super::exchange::{Calling, Doing, Exchange};
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use crate::proxy::story::Event;
use crate::proxy::{Phase, UpstreamError};
use balancer_http::framing::response::{self, AnswerFault, HeadRules, MAX_INTERIM};
use balancer_http::message::{BodyLength, RequestHead, Version};
use balancer_time::Nanos;

/// What reading an answer's head came to.
pub(super) enum Looked {
    /// The final head. Its body begins at the first position of the scratch memory; the received bytes end at the
    /// second.
    Head(Box<response::Head>, (usize, usize)),
    /// More has to come.
    Later,
    Failed(UpstreamError),
    /// The client is gone.
    Gone,
}

impl Loop {
    /// Reads what has come of the answer's head.
    pub(super) fn look_for_head(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        buffers: &mut Buffers,
    ) -> Looked {
        let Doing::Calling(calling) = &mut exchange.doing else { return Looked::Later };
        let policy = calling.call.policy;
        if buffers.scratch.len() < policy.max_head_bytes * 2 {
            buffers.scratch = vec![0; policy.max_head_bytes * 2].into();
        }
        let rules = HeadRules {
            max_head_bytes: policy.max_head_bytes,
            max_headers: policy.max_headers,
            accept_invalid: policy.accept_invalid,
        };
        loop {
            let Some(back) = self.backs.get(calling.back) else { return Looked::Failed(lost()) };
            if !back.readable || back.is_connecting {
                return Looked::Later;
            }
            let mut have = back.head.len();
            buffers.scratch[..have].copy_from_slice(&back.head);
            // What comes behind the head is the first piece of the body.
            let end = buffers.scratch.len().min(have + buffers.piece);
            match back.receive(&mut buffers.scratch[have..end], &mut buffers.cipher) {
                Got::Bytes(bytes) => have += bytes,
                Got::Nothing => return Looked::Later,
                Got::End => {
                    return Looked::Failed(back.broke("closed before the answer's head was whole"));
                }
                Got::Broken(error) => return Looked::Failed(back.broke(std::io::Error::from(error))),
            }
            back.head.clear();
            let mut at = 0;
            loop {
                match response::parse(&buffers.scratch[at..have], &rules) {
                    Err(fault) => return Looked::Failed(malformed(fault)),
                    Ok(None) => break,
                    Ok(Some((mut head, used))) => {
                        at += used;
                        if !head.is_interim() {
                            head.keep_alive &= calling.keep_alive;
                            return Looked::Head(Box::new(head), (at, have));
                        }
                        calling.keep_alive &= head.keep_alive;
                        calling.interim += 1;
                        if calling.interim > MAX_INTERIM {
                            return Looked::Failed(malformed(AnswerFault("too many interim answers")));
                        }
                        if head.status != 100
                            && exchange.head.version >= Version::Http11
                            && interim(conn, &head, buffers, self.now).is_err()
                        {
                            return Looked::Gone;
                        }
                    }
                }
            }
            back.head.extend_from_slice(&buffers.scratch[at..have]);
        }
    }

    /// The final head came.
    pub(super) fn answered(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        head: response::Head,
        (at, have): (usize, usize),
        buffers: &mut Buffers,
    ) -> Go {
        let Doing::Calling(Calling { story, call, back: key, .. }) =
            std::mem::replace(&mut exchange.doing, Doing::Nothing)
        else {
            return Go::Close;
        };
        let is_whole = !exchange.upload.is_under_way();
        // A backend that refuses or ends the connection wants no more of the body. Others may answer while it still
        // comes.
        if !is_whole && (head.status >= 400 || !head.keep_alive) {
            exchange.upload.is_stopped = true;
        }
        let length = head.body_length(exchange.is_head());
        let is_pinning = is_pinning(&head, &exchange.head);
        if let Some(back) = self.backs.get(key) {
            back.coding = Coding::of(length);
            back.may_keep = head.keep_alive
                && is_whole
                && !exchange.upload.is_stopped
                && length != BodyLength::UntilClose
                && head.status != 101;
            if is_pinning && !back.is_pinned && back.may_keep {
                back.is_pinned = true;
                if let Some(before) = conn.pinned.replace(key).filter(|before| *before != key) {
                    self.backs.close(before);
                }
            }
        }
        let step = self.tell(exchange, story, Event::Head(head));
        self.take_step(conn, exchange, step, Some((key, call, (at, have))), buffers)
    }
}

fn malformed(fault: AnswerFault) -> UpstreamError {
    UpstreamError { phase: Phase::Malformed, cause: fault.to_string() }
}

/// Whether the request's credentials belong to the backend connection (RFC 4559 §5), which then serves this client
/// alone: the backend asks for such credentials, or the client sent some.
fn is_pinning(head: &response::Head, request: &RequestHead) -> bool {
    let is_of_connection = |value: &[u8]| {
        let is =
            |scheme: &[u8]| value.get(..scheme.len()).is_some_and(|name| name.eq_ignore_ascii_case(scheme));
        is(b"NTLM") || is(b"Negotiate")
    };
    (head.status == 401 && head.fields.all("WWW-Authenticate").any(is_of_connection))
        || request.fields.all("Authorization").any(is_of_connection)
}

/// Forwards an interim answer (RFC 9110 §15.2).
fn interim(conn: &mut Conn, head: &response::Head, buffers: &mut Buffers, now: Nanos) -> Result<(), Gone> {
    let fields = balancer_http::headers::to_client(head.status, head.fields.clone());
    conn.inform((head.status, &head.reason, &fields), &mut buffers.together, now)
}
