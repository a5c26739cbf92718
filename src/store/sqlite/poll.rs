//! Word of changes by other processes on one file. SQLite tells nobody; but a connection can be asked whether anybody
//! else has committed since it was last asked, which reads one page of shared memory. That the file itself was taken
//! away is noticed here, too.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::pool::SqlitePool;
use crate::store::StoreError;
use crate::store::session::{Listener, Word};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(50);
/// How often a file that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Polls a file.
pub(super) struct Poll(pub Arc<SqlitePool>);

impl Listener for Poll {
    fn run(self: Box<Self>, hear: &dyn Fn(Word<'_>), end: &Receiver<()>) {
        if self.0.place().is_none() {
            // In memory there are no others.
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
    /// Changes whenever another connection commits.
    fn version(&self) -> Result<i64, StoreError> {
        self.0.check()?;
        let mut lent = self.0.polling()?;
        let asked = lent.as_ref().map(|one| one.query_row("PRAGMA data_version", [], |row| row.get(0)));
        let version = asked.unwrap_or(Ok(-1)).map_err(super::fault);
        if version.is_err() {
            // It is opened anew next time.
            *lent = None;
        }
        version
    }
}
