//! Which connections are lent, and what happens when a file is moved, replaced or emptied under them. The clock
//! stands still, and nobody polls.

use std::fs::{self, File};
use std::path::PathBuf;

use crossbeam_channel::bounded;
use rusqlite::{OpenFlags, ffi};

use super::poll::Poll;
use super::*;
use crate::store::session::{Word, inside};

const WITHIN: Duration = Duration::from_secs(10);
const NO_TIME: Duration = Duration::ZERO;

/// Makes a database as another process would, which holds a number and the table by which ours are known.
fn make(path: &Path, number: i64) {
    let sql = format!(
        "PRAGMA journal_mode = WAL; {}; CREATE TABLE numbers (n); INSERT INTO numbers VALUES ({number})",
        DIALECT.create_migrations
    );
    Connection::open(path).unwrap().execute_batch(&sql).unwrap();
}

/// A database file in a folder of its own, and its store.
struct Home {
    folder: tempfile::TempDir,
    path: PathBuf,
    clock: Clock,
    store: Sqlite,
}

impl Home {
    /// A file that holds 1, and at most so many connections to it.
    fn new(most: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("limits.db"), Clock::manual());
        make(&path, 1);
        let pool = SqlitePool::new(Some(Place::new(&path)), most, WITHIN, clock.clone());
        Self { folder, path, clock, store: Sqlite { pool: Arc::new(pool) } }
    }

    /// The same after a write, which is in the log and not yet in the file. It holds 2.
    fn written() -> Self {
        let home = Self::new(2);
        let set = &mut |session: &mut dyn Session| session.batch("UPDATE numbers SET n = 2");
        home.store.with(WITHIN, Access::Write, set).unwrap();
        assert!(fs::metadata(home.log()).unwrap().len() > 0);
        home
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("limits.db-wal")
    }

    fn aside(&self) -> PathBuf {
        self.folder.path().join("aside.db")
    }

    /// What the store reads.
    fn number(&self) -> Result<Cells, StoreError> {
        inside(&self.store, WITHIN, Access::Read, |session| session.query("SELECT n FROM numbers", &[]))
    }

    /// What a check of the file finds.
    #[track_caller]
    fn finds(&self, what: &str) {
        let fault = self.store.pool.check().unwrap_err().to_string();
        assert!(fault.contains(what), "{fault}");
    }

    /// Why the file can't be opened again.
    #[track_caller]
    fn refuses(&self, why: &str) {
        let fault = self.store.renew(NO_TIME).unwrap_err().to_string();
        assert!(fault.contains(why), "{fault}");
    }

    /// The file is opened again, and holds that number.
    #[track_caller]
    fn comes_back(&self, number: i64) {
        assert_eq!(self.store.renew(NO_TIME), Ok(true));
        assert_eq!(self.number(), Ok(vec![vec![Cell::Int(number)]]));
        assert_eq!(self.store.renew(NO_TIME), Ok(false), "nothing is wrong any more");
    }
}

#[track_caller]
fn none_is_free(pool: &SqlitePool) {
    let fault = pool.get(NO_TIME).map(drop).unwrap_err().to_string();
    assert!(fault.contains("none was free"), "{fault}");
}

#[test]
fn a_pool_lends_as_many_connections_as_it_may_and_takes_them_back() {
    let home = Home::new(2);
    // In memory there is one, whatever may be had.
    let memory = SqlitePool::new(None, 5, WITHIN, Clock::manual());
    for (pool, most) in [(&*home.store.pool, 2), (&memory, 1)] {
        for _ in 0..2 {
            let lent: Vec<_> = (0..most).map(|_| pool.get(NO_TIME).unwrap()).collect();
            none_is_free(pool);
            drop(lent);
        }
    }
    memory.close();
    let _lent = memory.get(NO_TIME).unwrap();
    none_is_free(&memory);
}

#[test]
fn a_connection_that_can_not_be_opened_takes_no_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits.db");
    let pool = SqlitePool::new(Some(Place::new(&path)), 1, WITHIN, Clock::manual());
    for _ in 0..2 {
        assert!(pool.get(NO_TIME).is_err(), "there is no file");
    }
    make(&path, 1);
    let _lent = pool.get(NO_TIME).unwrap();
    none_is_free(&pool);
}

#[test]
fn no_connection_is_lent_to_another_file_than_the_one_in_use() {
    let home = Home::new(2);
    let first = home.store.pool.get(NO_TIME).unwrap();
    make(&home.aside(), 5);
    fs::rename(home.aside(), &home.path).unwrap();
    let fault = home.store.pool.get(NO_TIME).map(drop).unwrap_err().to_string();
    assert!(fault.contains("was replaced by another one"), "{fault}");
    drop(first);
    assert!(home.number().is_err());
}

#[test]
fn a_file_that_is_there_again_is_used_on_once_nobody_is_in_the_middle_of_something() {
    let home = Home::written();
    let lent = home.store.pool.get(NO_TIME).unwrap();
    fs::rename(&home.path, home.aside()).unwrap();
    home.finds("is gone");
    fs::rename(home.aside(), &home.path).unwrap();
    home.refuses("still in use");
    drop(lent);
    assert_eq!(home.store.renew(NO_TIME), Ok(false), "what was read is what it holds");
    assert_eq!(home.number(), Ok(vec![vec![Cell::Int(2)]]));
}

#[test]
fn what_is_only_in_a_log_that_was_deleted_is_not_lost() {
    let home = Home::written();
    // Another process has the file open, so that ours is not the last one to close it.
    let other = Connection::open(&home.path).unwrap();
    other.query_row("SELECT n FROM numbers", [], |_| Ok(())).unwrap();
    fs::remove_file(home.log()).unwrap();
    home.finds("limits.db-wal is gone or was replaced");
    home.comes_back(2);
}

#[test]
fn a_file_that_was_replaced_is_taken_if_it_is_one_of_ours() {
    let home = Home::written();
    make(&home.aside(), 5);
    fs::rename(home.aside(), &home.path).unwrap();
    home.finds("was replaced by another one");
    home.comes_back(5);

    let home = Home::written();
    Connection::open(home.aside()).unwrap().execute_batch("CREATE TABLE numbers (n)").unwrap();
    fs::rename(home.aside(), &home.path).unwrap();
    home.finds("was replaced by another one");
    home.refuses("holds no limits");
}

#[test]
fn a_file_that_is_gone_for_a_second_is_made_anew() {
    let home = Home::written();
    fs::remove_file(&home.path).unwrap();
    home.finds("is gone: it was deleted or moved away");
    for wait_ms in [0, 999] {
        home.clock.advance(Duration::from_millis(wait_ms));
        home.refuses("is gone: it was deleted or moved away");
    }
    home.clock.advance(Duration::from_millis(1));
    home.comes_back(2);
}

#[test]
fn an_empty_file_is_filled_unless_it_is_the_one_that_was_emptied() {
    let home = Home::written();
    File::create(home.aside()).unwrap();
    fs::rename(home.aside(), &home.path).unwrap();
    home.finds("was emptied");
    home.refuses("was emptied");
    home.clock.advance(Duration::from_secs(1));
    home.comes_back(2);

    let home = Home::written();
    File::options().write(true).open(&home.path).unwrap().set_len(0).unwrap();
    home.finds("was emptied");
    home.clock.advance(Duration::from_secs(1));
    home.refuses("was emptied in place");
}

#[test]
fn why_a_file_is_not_used_is_told_as_it_is_now() {
    let home = Home::new(1);
    home.number().unwrap();
    fs::remove_file(&home.path).unwrap();
    home.finds("is gone");
    fs::create_dir(&home.path).unwrap();
    home.finds("is gone");
    home.refuses("there is no file at");
    home.finds("there is no file at");
}

#[test]
fn at_the_end_the_log_is_written_into_the_file() {
    let home = Home::written();
    assert!(Poll(Arc::clone(&home.store.pool)).has_news(&mut None));
    home.store.close();
    assert!(!home.log().exists());
    let read = Connection::open(&home.path).unwrap().query_row("SELECT n FROM numbers", [], |row| row.get(0));
    assert_eq!(read, Ok(2));
}

#[test]
fn a_poll_notices_each_change_once_and_a_file_that_is_gone_too() {
    let home = Home::written();
    let other = Connection::open(&home.path).unwrap();
    let poll = Poll(Arc::clone(&home.store.pool));
    let mut known = None;
    let mut noticed = |what: &str| {
        assert!(poll.has_news(&mut known), "{what}");
        assert!(!poll.has_news(&mut known), "once: {what}");
    };
    noticed("what was changed before the first look is not known");
    other.execute_batch("UPDATE numbers SET n = 3").unwrap();
    noticed("another process changed something");
    fs::rename(&home.path, home.aside()).unwrap();
    noticed("the file is gone");
    fs::rename(home.aside(), &home.path).unwrap();
    assert_eq!(home.store.renew(NO_TIME), Ok(false));
    noticed("the file is there again");
}

#[test]
fn a_listener_polls_until_its_end() {
    let home = Home::written();
    let other = Connection::open(&home.path).unwrap();
    let listener = home.store.listener();
    let ((tell, told), (life, end)) = (bounded(1), bounded(0));
    std::thread::scope(|scope| {
        scope.spawn(move || listener.run(&|word| tell.send(word == Word::Changes).unwrap(), &end));
        for number in 3..6 {
            assert_eq!(told.recv_timeout(WITHIN), Ok(true), "{number}");
            other.execute_batch(&format!("UPDATE numbers SET n = {number}")).unwrap();
        }
        assert_eq!(told.recv_timeout(WITHIN), Ok(true));
        drop(life);
    });
}

#[test]
fn a_connection_uses_a_log_unless_the_file_can_only_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limits.db");
    let first = Connection::open(&path).unwrap();
    first.execute_batch("CREATE TABLE numbers (n); BEGIN; SELECT * FROM numbers").unwrap();
    let mut reads = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    assert_eq!(prepare(&mut reads, NO_TIME), Ok(()));
    // It would change the file from under the one that reads.
    let mut second = Connection::open(&path).unwrap();
    let busy = prepare(&mut second, NO_TIME).unwrap_err();
    assert_eq!(busy.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    drop(first);
    assert_eq!(prepare(&mut second, NO_TIME), Ok(()));
    let mode: String = second.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

/// What an error is taken for.
fn taken_for(error: &StoreError) -> &'static str {
    match error {
        StoreError::Refused { state, .. } => state.word(),
        StoreError::Schema(_) => "a wrong schema",
        StoreError::Unavailable { outcome: CallOutcome::NotDone, .. } => "not done",
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_error_of_sqlite_is_taken_for_what_it_is() {
    for (code, what) in [
        // It refuses for now.
        (ffi::SQLITE_BUSY, "up"),
        (ffi::SQLITE_LOCKED, "up"),
        (ffi::SQLITE_FULL, "full"),
        (ffi::SQLITE_READONLY, "read-only"),
        (ffi::SQLITE_NOTADB, "a wrong schema"),
        (ffi::SQLITE_ERROR, "a wrong schema"),
        (ffi::SQLITE_IOERR, "not done"),
        (ffi::SQLITE_CORRUPT, "not done"),
    ] {
        let error = fault(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert_eq!(taken_for(&error), what, "{code}");
    }
    let memory = Connection::open_in_memory().unwrap();
    let missing = fault(memory.prepare("SELECT n FROM numbers").map(drop).unwrap_err());
    assert_eq!(missing, StoreError::Schema("no such table: numbers".into()));
}

#[test]
fn a_file_system_that_is_read_only_or_full_takes_no_changes() {
    let (writable, read_only) = (StatVfsMountFlags::NOSUID, StatVfsMountFlags::RDONLY);
    for (flags, blocks_left, what) in [
        (writable, 1, "not done"),
        (writable, 0, "full"),
        (read_only, 1, "read-only"),
        (read_only | writable, 0, "read-only"),
    ] {
        let mut system = rustix::fs::statvfs("/").unwrap();
        (system.f_flag, system.f_bavail) = (flags, blocks_left);
        assert_eq!(taken_for(&on_system("an error".into(), Some(system))), what, "{flags:?} {blocks_left}");
    }
    assert_eq!(taken_for(&on_system("an error".into(), None)), "not done");
}
