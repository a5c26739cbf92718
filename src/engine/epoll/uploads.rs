//! The places for streamed uploads: they hold a worker at the client's speed, so only a quarter of the workers may be
//! at one. The others wait here, unread in the kernel, first come first served.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::table::Token;

/// See the module. Takes its lock in every call, never across I/O. Clones share the places.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Mutex<Places>>);

struct Places {
    free: usize,
    /// One entry a waiting connection, and those of closed ones until [`Uploads::forget`].
    waiting: VecDeque<Token>,
    /// When the queue is longer than this, closed connections are looked for.
    forget_at: usize,
}

/// The right to stream one upload; given back when dropped.
pub(super) struct Place(Uploads);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.lock().free += 1;
    }
}

/// Below this many waiting connections the queue is left as it is.
const FORGET_FROM: usize = 1024;

impl Uploads {
    /// A quarter of the workers, at least one.
    pub fn new(workers: usize) -> Self {
        let free = (workers / 4).max(1);
        Self(Arc::new(Mutex::new(Places { free, waiting: VecDeque::new(), forget_at: FORGET_FROM })))
    }

    /// A place, when one is free and nobody waits for it.
    pub fn take(&self) -> Option<Place> {
        let mut places = self.0.lock();
        if places.free == 0 || !places.waiting.is_empty() {
            return None;
        }
        places.free -= 1;
        Some(Place(self.clone()))
    }

    /// Queues a connection.
    pub fn wait(&self, token: Token) {
        self.0.lock().waiting.push_back(token);
    }

    /// The longest waiting connection and a place for it.
    pub fn take_for_waiting(&self) -> Option<(Token, Place)> {
        let mut places = self.0.lock();
        if places.free == 0 {
            return None;
        }
        let token = places.waiting.pop_front()?;
        places.free -= 1;
        Some((token, Place(self.clone())))
    }

    /// Connections in the queue.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Takes closed connections out of a queue that has grown long. `lives` may take slots' locks.
    pub fn forget(&self, lives: impl Fn(Token) -> bool) {
        let mut places = self.0.lock();
        if places.waiting.len() >= places.forget_at {
            places.waiting.retain(|token| lives(*token));
            places.forget_at = (places.waiting.len() * 2).max(FORGET_FROM);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_at_once_and_the_rest_in_order() {
        let uploads = Uploads::new(8);
        let first = uploads.take();
        let second = uploads.take();
        assert!(first.is_some() && second.is_some() && uploads.take().is_none());
        uploads.wait(Token(1));
        uploads.wait(Token(2));
        assert!(uploads.take_for_waiting().is_none());
        drop(first);
        assert!(uploads.take().is_none(), "nobody overtakes who waits");
        let (token, place) = uploads.take_for_waiting().expect("a place is free");
        assert_eq!((token, uploads.waiting()), (Token(1), 1));
        drop((place, second));
        assert_eq!(uploads.take_for_waiting().map(|(token, _)| token), Some(Token(2)));
        assert!(uploads.take().is_some());
    }

    #[test]
    fn the_queue_forgets_the_closed_once_it_is_long() {
        let uploads = Uploads::new(1);
        for token in 0..FORGET_FROM as u64 {
            uploads.wait(Token(token));
        }
        uploads.forget(|token| token.0 % 2 == 0);
        assert_eq!(uploads.waiting(), FORGET_FROM / 2);
    }
}
