//! Bodies of unknown length for HTTP/1.0 clients that want their connection kept: they know no chunks, so the body is
//! gathered until its length is known. Beyond a bound it is sent until close instead. Meanwhile the connection is parked
//! like any other that waits for its backend.

use super::answer::Asked;
use super::deliver::{After, Delivery, Filled, Pushed, fill};
use crate::engine::render::{self, Framing, Persistence};
use crate::proxy::exchange::Answer;

/// An answer whose head waits for its body.
pub(super) struct Gather {
    /// Without its body.
    pub answer: Answer,
    pub asked: Asked,
    pub collected: Vec<u8>,
    /// Most bytes that are gathered.
    pub bound: usize,
}

impl Delivery {
    /// Reads on. `None`: the head is decided, and with what was gathered it is pending.
    pub(super) fn gather(&mut self, scratch: &mut [u8]) -> Option<Pushed> {
        let (Some(gather), Some(stream)) = (&mut self.gathering, &mut self.stream) else { return None };
        loop {
            let (filled, bytes) = fill(stream.as_mut(), scratch);
            gather.collected.extend_from_slice(&scratch[..bytes]);
            match filled {
                Filled::Broke(cause) => return Some(Pushed::Broke(cause)),
                Filled::End => {
                    self.stream = None;
                    break;
                }
                Filled::More | Filled::Empty if gather.collected.len() > gather.bound => break,
                Filled::Empty => return Some(Pushed::UpstreamEmpty),
                Filled::More => {}
            }
        }
        let Gather { answer, asked, collected, .. } = *self.gathering.take()?;
        let persistence = if self.stream.is_none() {
            self.framing = Framing::Length(collected.len() as u64);
            render::persistence(&answer, self.framing, asked.version, asked.keep_alive)
        } else {
            Persistence::Closed
        };
        self.after = After::of(persistence, asked.unread);
        render::head(&mut self.pending, &answer, self.framing, persistence);
        self.body_bytes = collected.len() as u64;
        self.pending.extend_from_slice(&collected);
        None
    }
}
