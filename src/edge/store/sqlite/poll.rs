//! Word of changes by other processes on one file. SQLite tells nobody; but a connection can be asked whether anybody
//! else has committed since it was last asked, which reads one page of shared memory.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rusqlite::{Connection, OpenFlags};

use crate::edge::store::session::Listener;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(50);
/// How often a file that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Polls a file.
pub(super) struct Poll(pub PathBuf);

impl Listener for Poll {
    fn run(self: Box<Self>, news: &Sender<()>, end: &Receiver<()>) {
        let mut known = None;
        let mut connection: Option<Connection> = None;
        loop {
            let pause = if connection.is_some() { INTERVAL } else { RETRY };
            if known.is_some() && end.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            // Its own thread, and no transaction is ever open on it: it holds up nobody.
            let open = || Connection::open_with_flags(&self.0, OpenFlags::SQLITE_OPEN_READ_ONLY);
            let version = match &connection {
                Some(connection) => version(connection),
                None => open().and_then(|new| version(connection.insert(new))),
            };
            let version = version.inspect_err(|error| log::debug!("store: polling: {error}")).unwrap_or(-1);
            if version < 0 {
                connection = None;
            }
            if known.replace(version) != Some(version) {
                let _ = news.try_send(());
            }
        }
    }
}

/// Changes whenever another connection commits.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}
