//! Buffers that belong to a thread and are lent to one exchange after the other, so that a request allocates none.

use std::cell::Cell;

/// What a request's head and body are gathered in before they are sent, in bytes. Larger than the largest head that a
/// usual configuration takes; bodies go out in pieces of it.
pub(super) const OUTPUT_BYTES: usize = 64 * 1024;
/// What a body of unknown length is read into before it is cut into chunks, in bytes.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// Room in the output for body bytes that is worth reading into; with less, what was gathered is sent first.
pub(super) const MIN_ROOM: usize = 4 * 1024;

/// The buffers of one exchange.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Always initialised to its length.
    pub output: Vec<u8>,
    /// Always initialised to its length; empty until a chunked body needs it.
    pub chunk: Vec<u8>,
    /// What came from the backend.
    pub input: Vec<u8>,
    /// The fields of the request, as lines.
    pub lines: Vec<u8>,
}

thread_local! {
    static SPARE: Cell<Buffers> = const { Cell::new(Buffers { output: Vec::new(), chunk: Vec::new(), input: Vec::new(), lines: Vec::new() }) };
}

impl Buffers {
    /// This thread's buffers, or new ones; empty, but the output. `max_head_bytes`: of an answer.
    pub fn lend(max_head_bytes: usize) -> Self {
        let mut buffers = SPARE.take();
        buffers.input.clear();
        buffers.input.reserve_exact(max_head_bytes);
        buffers.lines.clear();
        buffers
    }

    /// Makes room for a head of so many bytes and a piece of body behind it.
    pub fn make_room(&mut self, head_bytes: usize, chunked: bool) {
        let output_bytes = OUTPUT_BYTES.max(head_bytes + MIN_ROOM);
        if self.output.len() < output_bytes {
            self.output = vec![0; output_bytes];
        }
        if chunked && self.chunk.is_empty() {
            self.chunk = vec![0; CHUNK_BYTES];
        }
    }

    /// Gives them back to this thread. A buffer that grew for an unusual head is not kept.
    pub fn give_back(mut self) {
        if self.output.len() > OUTPUT_BYTES {
            self.output = Vec::new();
        }
        if self.lines.capacity() > OUTPUT_BYTES {
            self.lines = Vec::new();
        }
        // A thread that is ending has no place for them.
        let _ = SPARE.try_with(|spare| spare.set(self));
    }
}

/// Gives an input buffer back to this thread, which may have lent it to another.
pub(super) fn give_back_input(input: Vec<u8>) {
    let _ = SPARE.try_with(|spare| {
        let mut buffers = spare.take();
        if buffers.input.capacity() == 0 {
            buffers.input = input;
        }
        spare.set(buffers);
    });
}
