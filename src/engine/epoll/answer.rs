//! Asking the service, and what its answer means for the connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::conn::{Conn, Next, State};
use super::core::Core;
use super::deliver::{After, Delivery, Pushed};
use super::gather::Gather;
use super::relay;
use super::worker::Desk;
use crate::engine::render::{self, Framing};
use crate::error::Reject;
use crate::proxy::exchange::FrontendEvent;
use crate::proxy::exchange::{
    Answer, AnswerBody, Delivery as Outcome, Exchange, Parked, RequestBody, Served, Wait,
};
use balancer_http::message::Reason;
use balancer_http::message::{RequestHead, Version};
use balancer_time::Nanos;

/// What an answer must know of its request.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub version: Version,
    pub is_head: bool,
    pub keep_alive: bool,
    /// Some of the request's body was not read.
    pub unread: bool,
}

impl Asked {
    pub fn of(head: &RequestHead, keep_alive: bool) -> Self {
        Self { version: head.version, is_head: head.method == "HEAD", keep_alive, unread: false }
    }
}

/// Calls the service, or goes on with what it parked; a panic in it becomes a 500.
pub(super) fn serve(
    core: &Core,
    conn: &Conn,
    head: &mut RequestHead,
    body: &mut dyn RequestBody,
    received_at: Nanos,
    parked: Option<Box<dyn Parked>>,
) -> Served {
    let abort = &conn.link.abort;
    let served = catch_unwind(AssertUnwindSafe(|| {
        let can_upgrade = core.can_upgrade;
        let exchange = Exchange { head, body, abort, received_at, can_upgrade, may_park: true };
        match parked {
            None => core.service.serve(exchange),
            Some(parked) => parked.resume(exchange),
        }
    }));
    abort.release();
    served.unwrap_or_else(|_| {
        core.service.observe(FrontendEvent::Panicked);
        let reject = Reject::new(Reason::Internal, "the request could not be handled");
        let mut answer = core.service.refuse(head, &reject, received_at);
        answer.close = true;
        answer.into()
    })
}

/// Sends an answer. `None`: all of it is with the kernel, and the connection is kept.
pub(super) fn deliver(
    core: &Core,
    desk: &mut Desk,
    conn: &mut Conn,
    mut answer: Answer,
    asked: Asked,
    behind: &[u8],
) -> Option<Next> {
    answer.close |= asked.unread || core.draining.load(Ordering::Relaxed);
    let framing = render::framing(&answer, asked.version, asked.is_head);
    let persistence = render::persistence(&answer, framing, asked.version, asked.keep_alive);
    desk.out.clear();
    render::head(&mut desk.out, &answer, framing, persistence);
    let after = After::of(persistence, asked.unread || !behind.is_empty());
    let mut delivery = Delivery::new(framing, answer.ticket.take(), after);
    let now = core.clock.now();
    desk.now = now;
    let wire = &conn.link.wire;
    let has_body = !matches!(framing, Framing::None(_));
    let pushed = match answer.body {
        AnswerBody::Upgrade(upgrade) => {
            return Some(relay::begin(conn, &desk.out, upgrade, delivery, behind, now));
        }
        AnswerBody::Bytes(bytes) if has_body => delivery.push_whole(wire, &desk.out, &bytes, now),
        AnswerBody::Stream(_, stream)
            if framing == Framing::UntilClose && asked.keep_alive && !answer.close =>
        {
            answer.body = AnswerBody::None { declared: None };
            let (collected, bound) = (Vec::new(), core.response_buffer_bytes);
            delivery.gathering = Some(Box::new(Gather { answer, asked, collected, bound }));
            delivery.stream = Some(stream);
            delivery.push(wire, &[], &mut desk.scratch, now)
        }
        AnswerBody::Stream(_, stream) if has_body => {
            delivery.stream = Some(stream);
            delivery.push(wire, &desk.out, &mut desk.scratch, now)
        }
        AnswerBody::Stream(_, mut stream) => {
            // Read to its end, which it is at, its connection can be kept.
            let _ = stream.pull(&mut desk.scratch, Wait::Poll);
            delivery.push_whole(wire, &desk.out, &[], now)
        }
        // The last two are made for the other engine alone.
        AnswerBody::Bytes(_) | AnswerBody::None { .. } | AnswerBody::Relayed(_) | AnswerBody::Tunnel => {
            delivery.push_whole(wire, &desk.out, &[], now)
        }
    };
    if pushed == Pushed::Done {
        delivery.settle(Outcome::Complete);
        return delivery.after.next();
    }
    conn.state = State::Answer(Box::new(delivery));
    Some(after_push(conn, pushed))
}

/// What a push of a parked answer means for its connection.
pub(super) fn after_push(conn: &mut Conn, pushed: Pushed) -> Next {
    let State::Answer(delivery) = &mut conn.state else { return Next::Close };
    let outcome = match pushed {
        Pushed::ClientFull => return Next::ClientWritable,
        Pushed::UpstreamEmpty => return Next::UpstreamReadable,
        Pushed::Yield => return Next::Again,
        Pushed::Done => {
            let after = delivery.after;
            delivery.settle(Outcome::Complete);
            conn.state = State::Head;
            return after.next().unwrap_or_else(|| next_request(conn));
        }
        Pushed::ClientGone => Outcome::ClientGone,
        Pushed::Broke(cause) => Outcome::BackendBroke(cause),
    };
    end(delivery, outcome)
}

/// Ends an answer before its end. The client must see that it is broken: with a length or chunks it does by the missing
/// rest, and may still read what was sent; without, only a reset tells it.
pub(super) fn end(delivery: &mut Delivery, outcome: Outcome) -> Next {
    // Dropping the stream ends the backend's connection, before the ticket gives the lease back.
    delivery.stream = None;
    let reset = outcome == Outcome::ClientGone || delivery.framing == Framing::UntilClose;
    delivery.settle(outcome);
    if reset { Next::Reset } else { Next::Close }
}

/// Turns a kept connection to its next request, which may be in its inbox already.
pub(super) fn next_request(conn: &mut Conn) -> Next {
    conn.fresh = false;
    conn.judged = 0;
    conn.head_since = 0;
    conn.look_first = !conn.inbox.is_empty();
    if conn.look_first { Next::Again } else { Next::Readable }
}
