//! How requests that waited go on, and how those end whose client has left.

use super::conn::{Client, Conn, Stage};
use super::exchange::{Calling, Doing, Exchange};
use super::keys::ClientSlot;
use super::turn::{Buffers, Go, Loop};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, BodyFault, DeliveryOutcome};
use balancer_http::message::Reason;

impl Loop {
    /// A request was woken: what it waits for may have come.
    pub(super) fn wake(&mut self, key: ClientSlot, buffers: &mut Buffers) {
        self.with_client(key, buffers, |own, client, buffers| own.resume(client, false, buffers));
        self.advance(key, buffers);
    }

    /// Resumes the story of a request that waits. `late`: its time is over.
    pub(super) fn resume(&mut self, client: &mut Client, late: bool, buffers: &mut Buffers) -> Go {
        self.with_exchange(client, |own, conn, exchange| {
            match std::mem::replace(&mut exchange.doing, Doing::Nothing) {
                Doing::Waiting(story, _) => {
                    let step = own.guarded(exchange, |head| story.resume(head, late));
                    own.take_step(conn, exchange, step, None, buffers)
                }
                other => {
                    exchange.doing = other;
                    Go::Wait
                }
            }
        })
    }

    /// Delivers an answer of the lane.
    pub(super) fn lane_answered(&mut self, key: ClientSlot, answer: Answer, buffers: &mut Buffers) {
        let mut answer = Some(answer);
        self.with_client(key, buffers, |own, client, buffers| {
            own.with_exchange(client, |own, conn, exchange| {
                if !matches!(exchange.doing, Doing::InLane) {
                    return Go::Wait;
                }
                answer.take().map_or(Go::Wait, |answer| own.deliver(conn, exchange, answer, None, buffers))
            })
        });
        // The answer was not taken: its client has left.
        if let Some(ticket) = answer.and_then(|answer| answer.ticket) {
            ticket.settle(0, DeliveryOutcome::ClientGone);
        }
        self.advance(key, buffers);
    }

    /// The client has left: gives back everything that the request holds, and records its end.
    pub(super) fn gone(&mut self, conn: &mut Conn, exchange: &mut Exchange) {
        match std::mem::replace(&mut exchange.doing, Doing::Nothing) {
            Doing::Reading => {
                let reject = Reject::new(Reason::BadRequest, BodyFault::ClientGone.to_string());
                let answer = self.shared.service.refuse(&exchange.head, &reject, exchange.received_at);
                if let Some(ticket) = answer.ticket {
                    ticket.settle(0, DeliveryOutcome::ClientGone);
                }
            }
            Doing::Gathering(_) => self.ungather(exchange),
            Doing::Waiting(story, _) => story.abandon(&exchange.head),
            Doing::Calling(Calling { story, back, .. }) => {
                self.backs.close(back);
                story.abandon(&exchange.head);
            }
            Doing::Answering(mut delivery) => {
                if let Some(origin) = delivery.source.take() {
                    self.backs.close(origin.back);
                }
                delivery.settle(DeliveryOutcome::ClientGone, conn.out.len() - conn.out_at);
            }
            Doing::Tunnel(mut tunnel) => {
                self.backs.close(tunnel.back);
                tunnel.delivery.settle(DeliveryOutcome::Complete, conn.out.len() - conn.out_at);
            }
            // The lane still answers, and then finds no client.
            Doing::InLane | Doing::Nothing => {}
        }
    }

    /// Ends the request that a client is in the middle of.
    pub(super) fn abandon(&mut self, client: &mut Client) {
        if let Stage::Busy(mut exchange) = std::mem::replace(&mut client.stage, Stage::Head) {
            self.gone(&mut client.conn, &mut exchange);
            self.recycle(exchange);
        }
    }
}
