//! What becomes of a client after it was handled, and what it gives back when it ends.

use std::sync::Arc;

use rustix::event::epoll;

use super::conn::{Client, Stage, Transport};
use super::counts::Kind;
use super::turn::{Go, Loop};
use crate::proxy::exchange::Rejection;

impl Loop {
    /// Arms the client's timer, or closes it, as `go` says. `None`: it is closed.
    pub(super) fn conclude(&mut self, mut client: Box<Client>, go: Go) -> Option<Box<Client>> {
        match go {
            Go::Wait | Go::On => {
                let due = self.due(&client);
                client.conn.counted.set_kind(client.kind());
                self.arm(&mut client.conn, due);
                return Some(client);
            }
            Go::Linger if !client.conn.is_stream() => {
                if let Stage::Http2(http2) = &mut client.stage {
                    self.end_streams(http2);
                }
                client.begin_linger(self.now);
                let due = self.due(&client);
                client.conn.counted.set_kind(Kind::Closing);
                self.arm(&mut client.conn, due);
                self.again.push(client.conn.key);
                return Some(client);
            }
            Go::Reset if !client.conn.is_stream() => client.conn.socket.reset_on_close(),
            Go::Close => client.conn.say_end(),
            Go::Reset | Go::Linger => {}
        }
        self.end(&mut client);
        None
    }

    /// Gives back what a client still holds.
    pub(super) fn end(&mut self, client: &mut Client) {
        if let Some(back) = client.conn.pinned.take() {
            self.backs.close(back);
        }
        match &mut client.stage {
            Stage::Http2(http2) => self.end_streams(http2),
            _ => self.abandon(client),
        }
        if matches!(&client.conn.transport, Transport::Tls(secure) if secure.is_spoilt) {
            self.shared.reject(Rejection::TlsRecord);
        }
        if client.conn.is_stream()
            && let Transport::Stream(stream) = std::mem::replace(&mut client.conn.transport, Transport::Plain)
        {
            let parent = stream.parent;
            return self.leave_connection(parent, client.conn.key, stream.end());
        }
        // Closing the socket takes it out of epoll, unless another thread holds the socket for a moment.
        if Arc::strong_count(&client.conn.socket) > 1 {
            let _ = epoll::delete(&self.epoll, &client.conn.socket);
        }
    }
}
