//! The stored backends in memory, and a signal for when other instances change them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::backends::BackendRow;

/// All rows, in byte order of their names.
pub struct Stored {
    rows: ArcSwap<Vec<BackendRow>>,
    signal: (Sender<()>, Receiver<()>),
}

impl Default for Stored {
    fn default() -> Self {
        Self { rows: ArcSwap::default(), signal: bounded(1) }
    }
}

impl Stored {
    /// The rows.
    pub fn rows(&self) -> Arc<Vec<BackendRow>> {
        self.rows.load_full()
    }

    /// See [`super::Limits::backend_changes`].
    pub fn changes(&self) -> Receiver<()> {
        self.signal.1.clone()
    }

    /// Puts a row that this process wrote; `None`: it was removed. There is no signal, since the caller acts on the change
    /// itself.
    pub fn put(&self, name: &str, row: Option<BackendRow>) {
        let mut rows: Vec<_> = self.rows.load().iter().filter(|row| row.name != name).cloned().collect();
        rows.extend(row);
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        self.rows.store(Arc::new(rows));
    }

    /// Replaces all rows with those that were read, with a signal if they differ.
    pub fn replace(&self, rows: Vec<BackendRow>) {
        if *self.rows() != rows {
            self.rows.store(Arc::new(rows));
            // When the channel is full, a signal is waiting already.
            let _ = self.signal.0.try_send(());
        }
    }
}
