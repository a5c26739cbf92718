//! Notices changes by other processes on the same file. SQLite does not announce them, but a connection can be asked
//! whether another one has committed since it was last asked, which reads one page of shared memory. It is noticed here,
//! too, when the file itself is gone.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::pool::SqlitePool;
use crate::store::StoreError;
use crate::store::session::{Listener, Word};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_millis(50);
/// Time between two attempts to open a file that could not be opened.
const RETRY: Duration = Duration::from_secs(1);

/// Polls a file.
pub(super) struct Poll(pub Arc<SqlitePool>);

impl Listener for Poll {
    fn run(self: Box<Self>, hear: &dyn Fn(Word<'_>), end: &Receiver<()>) {
        if self.0.place().is_none() {
            // No other process shares a database in memory.
            let _ = end.recv();
            return;
        }
        let mut known = None;
        loop {
            if self.has_news(&mut known) {
                hear(Word::Changes);
            }
            let pause = if known.flatten().is_some() { INTERVAL } else { RETRY };
            if end.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

impl Poll {
    /// Asks the file once. True when something may have changed since it was last asked. `known`: what it said then, in
    /// which `None` is a file that could not be asked; `None` the first time.
    pub fn has_news(&self, known: &mut Option<Option<i64>>) -> bool {
        let version = self.version().inspect_err(|fault| log::debug!("store: polling: {fault}")).ok();
        known.replace(version) != Some(version)
    }

    /// A number that changes whenever another connection commits.
    fn version(&self) -> Result<i64, StoreError> {
        self.0.check()?;
        let mut lent = self.0.polling()?;
        let connection = lent.as_ref().ok_or_else(|| StoreError::down("no connection"))?;
        let version = connection.query_row("PRAGMA data_version", [], |row| row.get(0)).map_err(super::fault);
        if version.is_err() {
            // The connection is opened again next time.
            *lent = None;
        }
        version
    }
}
