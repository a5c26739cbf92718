//! The delivery of an answer. What the kernel takes is sent at once; what it does not take waits in a bounded buffer,
//! and nothing more is read from the backend meanwhile.

use std::sync::atomic::Ordering;

use super::conn::{Conn, Gone, Transport};
use super::exchange::{After, BodySource, Delivery, Doing, Exchange, Gather, Tunnel};
use super::keys::BackSlot;
use super::relay::{Pumped, pass, pump};
use super::turn::{Buffers, Go, Loop};
use crate::engine::render::{self, Framing};
use crate::proxy::exchange::{Answer, AnswerBody, DeliveryOutcome};
use crate::proxy::story::Call;
use balancer_http::message::BodyLength;

/// The backend that has answered, if one has: its connection, its call, and where in the scratch memory the received
/// part of the body begins and ends.
pub(super) type FromBackend = Option<(BackSlot, Call, (usize, usize))>;

/// Part of a longer body may still be in our kernel after its last byte was written.
const LONG: u64 = 16 * 1024;

impl Loop {
    /// Sends an answer, or begins to. `answered`: the backend that the body comes from, if one has answered.
    pub(super) fn deliver(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        mut answer: Answer,
        answered: FromBackend,
        buffers: &mut Buffers,
    ) -> Go {
        let unread = !exchange.upload.is_whole || (exchange.upload.streams && !exchange.upload.is_sent);
        answer.close |= unread || self.shared.draining.load(Ordering::Relaxed);
        let (version, is_head) = (exchange.version(), exchange.is_head());
        let framing = conn.framing(render::framing(&answer, version, is_head));
        let persistence = render::persistence(&answer, framing, version, exchange.keep_alive);
        // If the connection were closed with something unread, the kernel would reset it, and the answer might be lost.
        let unread = unread || !conn.inbox.is_empty() || (conn.readable && !conn.ended);
        let after = After::of(persistence, unread);
        let ticket = answer.ticket.take();
        let mut delivery = Delivery { source: None, framing, body_bytes: 0, ticket, after, gather: None };
        buffers.out.clear();
        // `framing` has what the head needs to know about the body.
        let body = std::mem::replace(&mut answer.body, AnswerBody::None { declared: None });
        match body {
            AnswerBody::Relayed(_) | AnswerBody::Tunnel => {
                let Some((back, call, span)) = answered else {
                    return self.broke(conn, &mut delivery, "no backend");
                };
                if matches!(body, AnswerBody::Tunnel) {
                    conn.write_head(&mut buffers.out, &answer, framing, persistence);
                    return self.switch(conn, exchange, delivery, back, span, buffers);
                }
                let (read, deadline) = (call.policy.read, call.deadline);
                delivery.source = Some(BodySource { back, last: self.now, read, deadline });
                let may_keep = exchange.keep_alive && !answer.close && !conn.is_stream();
                if framing == Framing::UntilClose && may_keep {
                    delivery.gather = Some(Box::new(Gather { answer, collected: Vec::new() }));
                } else {
                    conn.write_head(&mut buffers.out, &answer, framing, persistence);
                }
                return self.relay_first(conn, exchange, delivery, span, buffers);
            }
            AnswerBody::Bytes(bytes) if !matches!(framing, Framing::None(_)) => {
                conn.write_head(&mut buffers.out, &answer, framing, persistence);
                delivery.body_bytes = bytes.len() as u64;
                // If the client is gone, the next step finds that out.
                let _ = conn.emit(&[&buffers.out, &bytes], &mut buffers.together, self.now);
            }
            _ => {
                conn.write_head(&mut buffers.out, &answer, framing, persistence);
                let _ = conn.emit(&[&buffers.out], &mut buffers.together, self.now);
            }
        }
        if let Some((back, _, (at, have))) = answered {
            self.let_go(back, at == have);
        }
        exchange.doing = Doing::Answering(delivery);
        self.answer_on(conn, exchange, buffers)
    }

    /// Releases the connection of an answer that was read. `is_clean`: nothing came behind the answer.
    pub(super) fn let_go(&mut self, back: BackSlot, is_clean: bool) {
        if let Some(one) = self.backs.get(back) {
            one.may_keep &= is_clean;
        }
        self.backs.release(back, self.now);
    }

    /// Sends the head together with the part of the body that came with the backend's head.
    fn relay_first(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        mut delivery: Delivery,
        (at, have): (usize, usize),
        buffers: &mut Buffers,
    ) -> Go {
        buffers.scratch.copy_within(at..have, 0);
        let piece = have - at;
        let pumped = match delivery.source.as_ref().and_then(|source| self.backs.get(source.back)) {
            Some(back) => pass(conn, &mut delivery, back, (piece, self.now), buffers),
            None => Pumped::Broke("the connection is gone".to_owned()),
        };
        exchange.doing = Doing::Answering(delivery);
        match pumped {
            Pumped::Broke(cause) => {
                let Doing::Answering(delivery) = &mut exchange.doing else { return Go::Close };
                let go = self.broke(conn, delivery, &cause);
                exchange.doing = Doing::Nothing;
                go
            }
            Pumped::Gone => Go::On,
            Pumped::Done => {
                self.finish_source(exchange);
                self.answer_on(conn, exchange, buffers)
            }
            Pumped::Later | Pumped::Again => self.answer_on(conn, exchange, buffers),
        }
    }

    /// The backend's answer is read: releases its connection.
    fn finish_source(&mut self, exchange: &mut Exchange) {
        if let Doing::Answering(delivery) = &mut exchange.doing
            && let Some(origin) = delivery.source.take()
        {
            let stops = exchange.upload.is_under_way();
            if let Some(back) = self.backs.get(origin.back) {
                back.may_keep &= !stops;
            }
            exchange.upload.is_stopped |= stops;
            self.backs.release(origin.back, self.now);
        }
    }

    /// Goes on with the delivery of an answer.
    pub(super) fn answer_on(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        buffers: &mut Buffers,
    ) -> Go {
        let Doing::Answering(delivery) = &mut exchange.doing else { return Go::On };
        if let Some(origin) = &delivery.source
            && exchange.upload.length != BodyLength::Empty
        {
            let back = origin.back;
            self.push_body(exchange, back);
            if self.upload(conn, exchange, back, buffers).is_err() {
                exchange.upload.is_stopped = true;
                if let Some(back) = self.backs.get(back) {
                    back.may_keep = false;
                }
            }
        }
        let Doing::Answering(delivery) = &mut exchange.doing else { return Go::On };
        match conn.flush(self.now) {
            Err(Gone) => return Go::On,
            Ok(false) => {
                self.tell_room(conn);
                return Go::Wait;
            }
            Ok(true) => {}
        }
        if conn.broken {
            return Go::On;
        }
        let Some(origin) = &mut delivery.source else { return self.finish(conn, exchange) };
        let pumped = match self.backs.by_key.get_mut(origin.back) {
            Some(back) => pump(conn, delivery, back, self.now, buffers),
            None => Pumped::Broke("the connection is gone".to_owned()),
        };
        match pumped {
            Pumped::Done => {
                self.finish_source(exchange);
                Go::On
            }
            Pumped::Later if !conn.is_flushed() => {
                self.tell_room(conn);
                Go::Wait
            }
            Pumped::Later => Go::Wait,
            Pumped::Again => {
                self.again.push(conn.key);
                Go::Wait
            }
            Pumped::Gone => Go::On,
            Pumped::Broke(cause) => {
                let go = self.broke(conn, delivery, &cause);
                exchange.doing = Doing::Nothing;
                go
            }
        }
    }

    /// Sends the backend what it had not taken of the request's body when its answer began.
    fn push_body(&mut self, exchange: &mut Exchange, back: BackSlot) {
        let Some(to) = self.backs.get(back) else { return };
        if !to.is_flushed() && to.flush().is_err() {
            exchange.upload.is_stopped = true;
            to.may_keep = false;
        }
    }

    /// The kernel has taken every byte.
    fn finish(&mut self, conn: &mut Conn, exchange: &mut Exchange) -> Go {
        let Doing::Answering(mut delivery) = std::mem::replace(&mut exchange.doing, Doing::Nothing) else {
            return Go::Close;
        };
        delivery.settle(DeliveryOutcome::Complete, 0);
        if let Transport::Stream(stream) = &mut conn.transport {
            stream.finish();
            return Go::Close;
        }
        match delivery.after {
            After::Keep => {
                conn.begin_next(self.now);
                Go::On
            }
            // A close with something unread is a reset, by which the client loses what it has not received yet. The
            // socket is asked, since the event that tells of it may not be handled yet.
            After::Close if conn.readable || (delivery.body_bytes > LONG && !conn.socket.is_quiet()) => {
                Go::Linger
            }
            After::Close => Go::Close,
            After::Linger => Go::Linger,
        }
    }

    /// Ends an answer before its body is whole. The client must see that: with a length or chunks the rest is missing,
    /// and the client may still read what was sent. Without them only a reset shows it.
    pub(super) fn broke(&mut self, conn: &mut Conn, delivery: &mut Delivery, cause: &str) -> Go {
        // Closed first: the ticket gives the lease back, which must not free a place while the backend still works.
        if let Some(origin) = delivery.source.take() {
            self.backs.close(origin.back);
        }
        delivery.settle(DeliveryOutcome::BackendBroke(cause.to_owned()), conn.out.len() - conn.out_at);
        if delivery.framing == Framing::UntilClose { Go::Reset } else { Go::Close }
    }

    /// Sends a 101, and relays both directions from then on.
    fn switch(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        mut delivery: Delivery,
        back: BackSlot,
        (at, have): (usize, usize),
        buffers: &mut Buffers,
    ) -> Go {
        let early = &buffers.scratch[at..have];
        delivery.body_bytes = early.len() as u64;
        let sent = conn.emit(&[&buffers.out, early], &mut buffers.together, self.now);
        let behind = std::mem::take(&mut conn.inbox);
        let told = self.backs.get(back).map(|to| to.send(&behind));
        exchange.doing =
            Doing::Tunnel(Tunnel { back, delivery, last: self.now, client_done: false, backend_done: false });
        if sent.is_err() || !matches!(told, Some(Ok(()))) {
            conn.broken = true;
        }
        Go::On
    }

    /// Asks the kernel for an event when the client takes more.
    pub(super) fn tell_room(&self, conn: &mut Conn) {
        use rustix::event::epoll::{EventFlags, modify};
        if !conn.tells_room && !conn.is_stream() {
            conn.tells_room = true;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            // Fails only when memory is short. The client's time-out tries again then.
            let _ = modify(&self.epoll, &conn.socket, super::turn::data_of(conn.key), flags);
        }
    }
}
