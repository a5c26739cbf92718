//! Backends' sockets, by descriptor: who waits for each. A socket is told to the kernel once and stays told, edge-triggered,
//! until it is closed, so that a wait costs no system call. Something may come while nobody waits: that is kept until
//! somebody does. Who waits reads until there is nothing more before it waits (again), so an edge is all that it needs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::table::{CHUNK, MAX_DESCRIPTORS, Token};

/// Nobody waits, and nothing has come.
const QUIET: u64 = 0;
/// Something has come that nobody waited for. No token: the highest bit of one that waits is set.
const CAME: u64 = 1;

/// See the module.
pub(super) struct Sockets {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// What became of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// It has begun; whoever hears of the socket finds the token.
    Begun,
    /// Something has come already: there is nothing to wait for.
    Over,
}

impl Sockets {
    pub fn new() -> Self {
        Self { chunks: (0..MAX_DESCRIPTORS / CHUNK).map(|_| OnceLock::new()).collect() }
    }

    /// `None`: it is beyond the table, where no connection is taken either.
    fn slot(&self, descriptor: u32) -> Option<&AtomicU64> {
        let chunk = self.chunks.get(descriptor as usize / CHUNK)?;
        let slots = chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(QUIET)).collect());
        Some(&slots[descriptor as usize % CHUNK])
    }

    /// A descriptor that is about to be told to the kernel, waited for by `token`. What was known of its number belonged to
    /// another socket.
    pub fn begin(&self, descriptor: u32, token: Token) {
        if let Some(slot) = self.slot(descriptor) {
            slot.store(token.upstream().0, Ordering::SeqCst);
        }
    }

    /// Waits for a descriptor that the kernel knows.
    pub fn wait(&self, descriptor: u32, token: Token) -> Waits {
        let Some(slot) = self.slot(descriptor) else { return Waits::Begun };
        let begin = |known| if known == CAME { QUIET } else { token.upstream().0 };
        match slot.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |known| Some(begin(known))) {
            Ok(CAME) => Waits::Over,
            _ => Waits::Begun,
        }
    }

    /// Something may have come that the next wait must not miss.
    pub fn came(&self, descriptor: u32) {
        if let Some(slot) = self.slot(descriptor) {
            slot.store(CAME, Ordering::SeqCst);
        }
    }

    /// Nobody waits, and the socket is about to be looked at: what was known of it is past.
    pub fn quiet(&self, descriptor: u32) {
        if let Some(slot) = self.slot(descriptor)
            && slot.load(Ordering::Relaxed) != QUIET
        {
            slot.store(QUIET, Ordering::SeqCst);
        }
    }

    /// The kernel says that something has come. `take` looks for the connection of a token: what it is given, `None` when
    /// somebody has it, who then finds out at its next wait. Several threads may hear of one socket at once.
    pub fn hear<T>(&self, descriptor: u32, mut take: impl FnMut(Token) -> Option<T>) -> Option<T> {
        let slot = self.slot(descriptor)?;
        let mut known = slot.load(Ordering::SeqCst);
        loop {
            if known == CAME {
                return None;
            }
            if known != QUIET
                && let Some(taken) = take(Token(known))
            {
                // If this fails, another event came, which is told of with the next wait.
                let _ = slot.compare_exchange(known, QUIET, Ordering::SeqCst, Ordering::SeqCst);
                return Some(taken);
            }
            match slot.compare_exchange(known, CAME, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(QUIET) => return None,
                // Whoever had it may have begun to wait again meanwhile, with the same token: then it is there now. If it
                // begins later, it finds out.
                Ok(token) => return take(Token(token)),
                Err(now) => known = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;

    use super::*;

    const TOKEN: Token = Token(7 << 32 | 5);

    #[test]
    fn one_who_waits_is_found_once() {
        let sockets = Sockets::new();
        sockets.begin(9, TOKEN);
        assert_eq!(sockets.hear(9, Some), Some(TOKEN.upstream()));
        assert_eq!(sockets.hear(9, Some), None, "nobody waits any more");
        assert_eq!(sockets.wait(9, TOKEN), Waits::Over, "but the second was not lost");
        assert_eq!(sockets.wait(9, TOKEN), Waits::Begun);
        assert_eq!(sockets.wait(9, TOKEN), Waits::Begun, "it may say so twice");
        assert_eq!(sockets.hear(9, |_| None::<()>), None, "somebody has it at the moment");
        assert_eq!(sockets.wait(9, TOKEN), Waits::Over);
        sockets.came(9);
        sockets.quiet(9);
        assert_eq!(sockets.wait(9, TOKEN), Waits::Begun);
        sockets.quiet(9);
        assert_eq!(sockets.hear(9, Some), None, "a token of the past");
        // Another socket with the same number.
        sockets.begin(9, TOKEN);
        assert_eq!(sockets.hear(9, Some), Some(TOKEN.upstream()));
        sockets.begin(MAX_DESCRIPTORS as u32, TOKEN);
        assert_eq!(sockets.hear(MAX_DESCRIPTORS as u32, Some), None, "beyond the table");
    }

    #[test]
    fn one_who_waits_again_while_it_is_looked_for_is_found() {
        let sockets = Sockets::new();
        sockets.begin(9, TOKEN);
        let mut looks = 0;
        let found = sockets.hear(9, |token| {
            looks += 1;
            // Busy at the first look; then it waits again, which leaves the slot as it was.
            (looks > 1).then_some(token).or_else(|| {
                assert_eq!(sockets.wait(9, TOKEN), Waits::Begun);
                None
            })
        });
        assert_eq!((found, looks), (Some(TOKEN.upstream()), 2));
    }

    #[test]
    fn whatever_comes_when_is_heard_of() {
        const ROUNDS: usize = 20_000;
        let (sockets, barrier) = (Sockets::new(), Barrier::new(2));
        // The place where a connection waits: true while it does.
        let waiting = AtomicBool::new(false);
        sockets.begin(3, TOKEN);
        sockets.quiet(3);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    let found = sockets.hear(3, |_| waiting.swap(false, Ordering::SeqCst).then_some(()));
                    barrier.wait();
                    // Either it was found waiting, or it knows at once.
                    let over = !waiting.load(Ordering::SeqCst);
                    assert!(found.is_some() || over, "an event was lost");
                    barrier.wait();
                }
            });
            for _ in 0..ROUNDS {
                sockets.quiet(3);
                barrier.wait();
                waiting.store(true, Ordering::SeqCst);
                if sockets.wait(3, TOKEN) == Waits::Over {
                    waiting.store(false, Ordering::SeqCst);
                }
                barrier.wait();
                barrier.wait();
                waiting.store(false, Ordering::SeqCst);
            }
        });
    }
}
