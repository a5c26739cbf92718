//! The channel by which instances tell each other of the shared budget. The store carries texts and does not know what they
//! mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::session::{Notifier, Word};
use super::Limits;

/// Most texts that may wait to be read: about what 15 instances at their bound send in 1.7 s, and at most 8 MiB.
const MAX_UNREAD: usize = 1024;

/// Both ends of the channel.
pub struct BudgetChannel {
    /// Tells texts to all instances.
    pub notifier: Box<dyn Notifier>,
    /// The texts that were told by all instances, this one among them.
    pub heard: Receiver<String>,
    /// Counts texts that were heard but found no room.
    pub missed: Arc<AtomicU64>,
}

/// Where the listener puts the words that it hears.
pub(super) struct Ears {
    news: Sender<()>,
    budget: Option<(Sender<String>, Arc<AtomicU64>)>,
}

impl Ears {
    /// The ears for a database. `notifier`: `None` where it has no channel for the shared budget.
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
            // Full: the watch has a signal waiting already.
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
    /// Takes the channel to other instances. `None` when it was taken before, and on a database that has no such channel.
    pub fn take_budget_channel(&self) -> Option<BudgetChannel> {
        self.channel.lock().take()
    }
}
