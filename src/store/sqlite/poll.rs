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
            let pause = if known == Some(-1) { RETRY } else { INTERVAL };
            if known.is_some() && end.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let version = self.version().inspect_err(|fault| log::debug!("store: polling: {fault}"));
            let version = version.unwrap_or(-1);
            if known.replace(version) != Some(version) {
                hear(Word::Changes);
            }
        }
    }
}

impl Poll {
    /// A number that changes whenever another connection commits.
    fn version(&self) -> Result<i64, StoreError> {
        self.0.check()?;
        let mut lent = self.0.polling()?;
        let asked = lent.as_ref().map(|one| one.query_row("PRAGMA data_version", [], |row| row.get(0)));
        let version = asked.unwrap_or(Ok(-1)).map_err(super::fault);
        if version.is_err() {
            // The connection is opened again next time.
            *lent = None;
        }
        version
    }
}
