//! Connections to one file, or to one database in memory. They are lent only while the file at the place is the one on
//! which they were opened, since SQLite itself would go on for ever with a file that is gone.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::fault;
use super::place::{Held, Place, Seen};
use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::session::Store;
use balancer_time::Nanos;

/// How long a file must be gone before it is made again. The operator who moved it away may be about to put another one there.
const GONE: Duration = Duration::from_secs(1);

/// See the module.
pub struct SqlitePool {
    /// `None`: in memory.
    place: Option<Place>,
    most: usize,
    timeout: Duration,
    clock: Clock,
    state: Mutex<State>,
    /// Signalled when a connection was given back.
    freed: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    /// How many connections are idle or lent, without the one that polls.
    open: usize,
    /// The connection that polls, while it is not lent.
    polling: Option<Connection>,
    /// How many connections are lent, with the one that polls.
    lent: usize,
    /// The files on which they were opened; `None` before the first was.
    held: Option<Held>,
    /// Why no connection is lent, and since when.
    lost: Option<(String, Nanos)>,
}

/// A lent connection, which is given back when this is dropped.
pub struct Lent<'a> {
    pool: &'a SqlitePool,
    connection: Option<Connection>,
    polls: bool,
}

impl SqlitePool {
    /// A pool without connections yet. In memory there is only one connection, since each would have a database of its own.
    pub fn new(place: Option<Place>, most: u32, timeout: Duration, clock: Clock) -> Self {
        let most = if place.is_some() { most as usize } else { 1 };
        let (state, freed) = Default::default();
        Self { place, most, timeout, clock, state, freed }
    }

    /// The place of the file; `None` in memory.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Lends a connection, within that time.
    pub fn get(&self, within: Duration) -> Result<Lent<'_>, StoreError> {
        let started = self.clock.now();
        let mut state = self.state.lock();
        loop {
            if let Some((cause, _)) = &state.lost {
                return Err(StoreError::down(cause.clone()));
            }
            let connection = state.idle.pop();
            if connection.is_some() || state.open < self.most {
                state.open += usize::from(connection.is_none());
                state.lent += 1;
                drop(state);
                let mut lent = Lent { pool: self, connection, polls: false };
                lent.filled(|| self.open())?;
                return Ok(lent);
            }
            let left = within.saturating_sub(self.since(started));
            if left.is_zero() {
                return Err(StoreError::down("no connection: none was free in time"));
            }
            self.freed.wait_for(&mut state, left);
        }
    }

    /// Lends the connection that polls.
    pub fn polling(&self) -> Result<Lent<'_>, StoreError> {
        let mut state = self.state.lock();
        if let Some((cause, _)) = &state.lost {
            return Err(StoreError::down(cause.clone()));
        }
        let connection = state.polling.take();
        state.lent += 1;
        drop(state);
        let mut lent = Lent { pool: self, connection, polls: true };
        // It never has a transaction open, so it never keeps a writer waiting.
        lent.filled(|| {
            Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fault)
        })?;
        Ok(lent)
    }

    fn path(&self) -> &std::path::Path {
        self.place.as_ref().map_or(std::path::Path::new(":memory:"), Place::path)
    }

    fn since(&self, then: Nanos) -> Duration {
        Duration::from_nanos(self.clock.now().saturating_sub(then))
    }

    /// Opens a new connection and prepares it. It does not make a missing file, since that would be another database.
    fn open(&self) -> Result<Connection, StoreError> {
        let opened = match &self.place {
            None => Connection::open_in_memory(),
            Some(place) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(place.path(), flags)
            }
        };
        let mut connection = opened.map_err(fault)?;
        super::prepare(&mut connection, self.timeout).map_err(fault)?;
        Ok(connection)
    }

    /// Checks that the file at the place is still the one on which the connections are. If it is not, no connection is lent
    /// until [`SqlitePool::renew`] has put that right.
    pub fn check(&self) -> Result<(), StoreError> {
        let Some(place) = &self.place else { return Ok(()) };
        let held = {
            let state = self.state.lock();
            if let Some((cause, _)) = &state.lost {
                return Err(StoreError::down(cause.clone()));
            }
            state.held
        };
        match held.and_then(|held| place.lacks(&held)) {
            None => Ok(()),
            Some(cause) => Err(self.lose(cause)),
        }
    }

    /// Lends no connection from here on, and logs that once.
    fn lose(&self, cause: String) -> StoreError {
        let mut state = self.state.lock();
        if state.lost.is_none() {
            log::error!("store: {cause}; what memory knows stays in force, and it will be opened again");
            state.lost = Some((cause.clone(), self.clock.now()));
        }
        StoreError::down(cause)
    }

    /// Puts right what [`SqlitePool::check`] found. True when what was read before may be out of date. Called only on the
    /// thread of the watch.
    pub fn renew(&self, store: &dyn Store, within: Duration) -> Result<bool, StoreError> {
        self.reopen(store, within).inspect_err(|fault| {
            let cause = fault.to_string();
            let mut state = self.state.lock();
            if let Some((known, _)) = state.lost.as_mut().filter(|(known, _)| *known != cause) {
                log::error!("store: {cause}");
                *known = cause;
            }
        })
    }

    fn reopen(&self, store: &dyn Store, within: Duration) -> Result<bool, StoreError> {
        let Some(place) = &self.place else { return Ok(false) };
        if self.check().is_ok() {
            return Ok(false);
        }
        let (held, gone) = self.alone(within)?;
        let Some(held) = held else { return Ok(false) };
        match place.look() {
            Seen::File(now) if now == held => {
                log::info!("store: the database file {} is there again", place.path().display());
                self.state.lock().lost = None;
                return Ok(false);
            }
            // The same database, but its log or its shared memory was deleted or replaced.
            Seen::File(now) if now.file == held.file => self.with_old(|old| place.save_log(old, &now))?,
            Seen::File(_) => self.with_old(|old| {
                place.clear(old, &held);
                place.judge(store.dialect())
            })?,
            Seen::Nothing | Seen::Empty(_) if gone < GONE => return Err(StoreError::down(self.cause())),
            Seen::Empty(now) if now == held.file => {
                return Err(StoreError::down(format!(
                    "the database file {} was emptied in place, and what it held can't be read any more: move a backup \
                     to its place",
                    place.path().display()
                )));
            }
            seen @ (Seen::Nothing | Seen::Empty(_)) => {
                self.with_old(|old| place.make_anew(old, &held, matches!(seen, Seen::Empty(_))))?;
            }
            Seen::Other(cause) => return Err(StoreError::down(cause)),
        }
        self.close();
        let connection = self.open()?;
        let Seen::File(now) = place.look() else { return Err(StoreError::down(self.cause())) };
        let mut state = self.state.lock();
        (state.idle, state.open) = (vec![connection], 1);
        (state.held, state.lost) = (Some(now), None);
        log::warn!("store: the database file {} was opened again", place.path().display());
        Ok(true)
    }

    fn cause(&self) -> String {
        self.state.lock().lost.as_ref().map(|(cause, _)| cause.clone()).unwrap_or_default()
    }

    /// Waits until every connection was given back. Returns the files on which they were, and for how long these have been
    /// lost.
    fn alone(&self, within: Duration) -> Result<(Option<Held>, Duration), StoreError> {
        let started = self.clock.now();
        let mut state = self.state.lock();
        while state.lent > 0 {
            let left = within.saturating_sub(self.since(started));
            if left.is_zero() {
                return Err(StoreError::down("connections to a database file that is gone are still in use"));
            }
            self.freed.wait_for(&mut state, left);
        }
        let since = state.lost.as_ref().map_or(started, |(_, since)| *since);
        Ok((state.held, self.since(since)))
    }

    /// Does work on a connection to the old file. No connection is lent meanwhile.
    fn with_old(&self, work: impl FnOnce(&Connection) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let old = self.state.lock().idle.pop();
        let result =
            old.as_ref().map_or_else(|| Err(StoreError::down("no connection is left to what it held")), work);
        self.state.lock().idle.extend(old);
        result
    }

    /// Closes every connection that is not lent. The last one to close writes the log into the database.
    pub fn close(&self) {
        let mut state = self.state.lock();
        // Dropped in this order: the connection that polls is read-only, and the last one to close has to write.
        let old = (state.polling.take(), std::mem::take(&mut state.idle));
        state.open -= old.1.len();
        drop(state);
        drop(old);
    }
}

impl Lent<'_> {
    /// Opens the connection if there is none, and checks that it is on the same file as the others.
    fn filled(&mut self, open: impl FnOnce() -> Result<Connection, StoreError>) -> Result<(), StoreError> {
        if self.connection.is_some() {
            return Ok(());
        }
        let connection = open()?;
        let place = self.pool.place.as_ref().map(Place::look);
        let mut state = self.pool.state.lock();
        match (place, state.held) {
            // `Empty`: another process is making the database.
            (None, _) | (Some(Seen::Empty(_)), None) => {}
            (Some(Seen::File(now)), None) => state.held = Some(now),
            (Some(Seen::File(now)), Some(held)) if now == held => {}
            _ => {
                drop(state);
                // It may be on the old file or on the new one.
                drop(connection);
                self.pool.check()?;
                return Err(StoreError::down("the database file is being replaced"));
            }
        }
        drop(state);
        self.connection = Some(connection);
        Ok(())
    }
}

impl std::ops::Deref for Lent<'_> {
    type Target = Option<Connection>;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl std::ops::DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl Drop for Lent<'_> {
    /// Takes the lock for a look.
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.lent -= 1;
        match (self.connection.take(), self.polls) {
            (connection, true) => state.polling = connection,
            (Some(connection), false) => state.idle.push(connection),
            (None, false) => state.open -= 1,
        }
        drop(state);
        self.pool.freed.notify_all();
    }
}
