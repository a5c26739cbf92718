//! Upgraded connections (RFC 9110 §7.8): bytes of both directions are copied as they come, until both sides have ended.

use super::conn::Conn;
use super::exchange::{Doing, Exchange};
use super::turn::{Buffers, Go, Loop};
use super::wire::Got;
use crate::proxy::exchange::DeliveryOutcome;

/// Pieces of each direction before others have their turn.
const PIECES: usize = 4;

impl Loop {
    /// Copies what is there.
    pub(super) fn relay_tunnel(
        &mut self,
        conn: &mut Conn,
        exchange: &mut Exchange,
        buffers: &mut Buffers,
    ) -> Go {
        let Doing::Tunnel(tunnel) = &mut exchange.doing else { return Go::On };
        let now = self.now;
        let Some(back) = self.backs.by_key.get_mut(tunnel.back) else { return Go::Close };
        let mut again = false;
        let mut broken = false;
        for round in 0..=PIECES {
            again = round == PIECES;
            if again {
                break;
            }
            let mut moved = false;
            // To the backend.
            broken |= back.flush().is_err();
            if back.is_flushed() && conn.readable && !tunnel.client_done && !broken {
                match conn.receive(&mut buffers.scratch[..buffers.piece], &mut buffers.cipher) {
                    Got::Bytes(bytes) => {
                        broken |= back.send(&buffers.scratch[..bytes]).is_err();
                        moved = true;
                    }
                    Got::Nothing => {}
                    Got::End => {
                        back.end_writing();
                        tunnel.client_done = true;
                    }
                    Got::Broken(_) => broken = true,
                }
            }
            // To the client.
            broken |= conn.flush(now).is_err();
            if conn.is_flushed() && back.readable && !tunnel.backend_done && !broken {
                match back.receive(&mut buffers.scratch[..buffers.piece], &mut buffers.cipher) {
                    Got::Bytes(bytes) => {
                        tunnel.delivery.body_bytes += bytes as u64;
                        broken |=
                            conn.emit(&[&buffers.scratch[..bytes]], &mut buffers.together, now).is_err();
                        moved = true;
                    }
                    Got::Nothing => {}
                    Got::End => {
                        conn.end_writing();
                        tunnel.backend_done = true;
                    }
                    Got::Broken(_) => broken = true,
                }
            }
            if moved {
                tunnel.last = now;
            } else {
                break;
            }
        }
        if broken || (tunnel.client_done && tunnel.backend_done) {
            self.backs.close(tunnel.back);
            tunnel.delivery.settle(DeliveryOutcome::Complete, conn.out.len() - conn.out_at);
            exchange.doing = Doing::Nothing;
            // The client must be able to tell a break from a proper end.
            return if broken { Go::Reset } else { Go::Close };
        }
        if !conn.is_flushed() {
            self.tell_room(conn);
        }
        if again {
            self.again.push(conn.key);
        }
        Go::Wait
    }
}
