//! What instances tell each other of the shared budget, as the store carries it: texts, and nothing of what they mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::session::{Notifier, Word};
use super::Limits;

/// Texts that may lie unread: of fifteen instances at their bound, what comes in a second and a half, at most 8 MiB.
const MAX_UNREAD: usize = 1024;

/// Both ends of the channel of a database on which instances can tell each other something.
pub struct BudgetChannel {
    /// Tells.
    pub notifier: Box<dyn Notifier>,
    /// What was told, by this instance too.
    pub heard: Receiver<String>,
    /// How many texts were heard that found no room.
    pub missed: Arc<AtomicU64>,
}

/// Where the words of the listener go.
pub(super) struct Ears {
    news: Sender<()>,
    budget: Option<(Sender<String>, Arc<AtomicU64>)>,
}

impl Ears {
    /// For a database with or without such a channel.
    pub fn of(notifier: Option<Box<dyn Notifier>>, news: Sender<()>) -> (Self, Option<BudgetChannel>) {
        let Some(notifier) = notifier else { return (Self { news, budget: None }, None) };
        let (tell, heard) = bounded(MAX_UNREAD);
        let missed = Arc::new(AtomicU64::new(0));
        let ears = Self { news, budget: Some((tell, Arc::clone(&missed))) };
        (ears, Some(BudgetChannel { notifier, heard, missed }))
    }

    /// Takes a word. Waits for nothing.
    pub fn hear(&self, word: Word<'_>) {
        match (word, &self.budget) {
            // Full: somebody is on the way to look.
            (Word::Changes, _) => {
                let _ = self.news.try_send(());
            }
            (Word::Budget(text), Some((budget, missed))) => {
                if budget.try_send(text.to_owned()).is_err() {
                    missed.fetch_add(1, Ordering::Relaxed);
                }
            }
            (Word::Budget(_), None) => {}
        }
    }
}

impl Limits {
    /// The channel to other instances, for the one who takes part in the shared budget: the first who asks. `None` on a
    /// database that has none.
    pub fn take_budget_channel(&self) -> Option<BudgetChannel> {
        self.channel.lock().take()
    }
}
