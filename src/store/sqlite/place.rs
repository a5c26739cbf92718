//! The place of a database file: what is there now, and how a database is put back whose file was deleted or moved.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::fault;
use crate::files;
use crate::store::StoreError;
use crate::store::session::Dialect;

/// The path of a database file, and the paths of the files that SQLite keeps beside it.
pub struct Place {
    path: PathBuf,
    beside: Beside,
}

/// The paths of the files that SQLite keeps beside a database: the write-ahead log and the shared memory.
struct Beside {
    log: PathBuf,
    shared: PathBuf,
}

impl Beside {
    fn of(path: &Path) -> Self {
        let named = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        Self { log: named("-wal"), shared: named("-shm") }
    }
}

/// The identity of a file, whatever its name: device and inode.
type FileId = (u64, u64);

/// The files on which connections were opened. SQLite keeps the log and the shared memory under their names for as long as
/// any process has the database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub file: FileId,
    log: Option<FileId>,
    shared: Option<FileId>,
}

/// What is at the place now.
pub enum Seen {
    /// A file that can be opened.
    File(Held),
    /// An empty file. A database in use is never empty.
    Empty(FileId),
    /// No file.
    Nothing,
    /// Something that is not a file; the text says what.
    Other(String),
}

impl Place {
    /// The place of that file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), beside: Beside::of(path) }
    }

    /// If the path is a link: the paths beside the file to which it leads.
    fn linked(&self) -> Option<Beside> {
        let real = self.path.is_symlink().then(|| fs::canonicalize(&self.path));
        real.and_then(Result::ok).map(|real| Beside::of(&real))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file with its folders, unless it exists. SQLite would make it readable for everybody. The files that
    /// SQLite makes beside it get the same permissions.
    pub fn make(&self) -> io::Result<()> {
        if let Some(folder) = self.folder() {
            files::make_folder(folder)?;
        }
        match files::create_new(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(io::Error::other("it is a link to nothing"))
                }
                _ => Ok(()),
            },
            other => other.map(drop),
        }
    }

    fn folder(&self) -> Option<&Path> {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty())
    }

    /// What is there now. Links are followed, as SQLite does.
    pub fn look(&self) -> Seen {
        let shown = self.path.display();
        match fs::metadata(&self.path) {
            Ok(file) if !file.is_file() => {
                Seen::Other(format!("there is no file at {shown}, but something else"))
            }
            Ok(file) if file.len() == 0 => Seen::Empty(id(&file)),
            Ok(file) => {
                let linked = self.linked();
                let beside = linked.as_ref().unwrap_or(&self.beside);
                let id_of = |path| fs::metadata(path).ok().as_ref().map(id);
                Seen::File(Held { file: id(&file), log: id_of(&beside.log), shared: id_of(&beside.shared) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(&self.path) {
                Ok(_) => Seen::Other(format!("the database file {shown} is a link to nothing")),
                Err(_) => Seen::Nothing,
            },
            Err(error) => Seen::Other(format!("the database file {shown} can't be looked at: {error}")),
        }
    }

    /// Which of these files is no longer there, as a sentence; `None` when all are.
    pub fn lacks(&self, held: &Held) -> Option<String> {
        let same = |was: Option<FileId>, now: Option<FileId>| was.is_none() || was == now;
        let said = |path: &Path, what: &str| Some(format!("the database file {} {what}", path.display()));
        match self.look() {
            Seen::Nothing => said(&self.path, "is gone: it was deleted or moved away"),
            Seen::Empty(_) => said(&self.path, "was emptied"),
            Seen::Other(cause) => Some(cause),
            Seen::File(now) if now.file != held.file => said(&self.path, "was replaced by another one"),
            Seen::File(now) if !same(held.log, now.log) => said(&self.beside.log, "is gone or was replaced"),
            Seen::File(now) if !same(held.shared, now.shared) => {
                said(&self.beside.shared, "is gone or was replaced")
            }
            Seen::File(_) => None,
        }
    }

    /// Checks that the file there is one of our databases, without changing it.
    pub fn judge(&self, dialect: &Dialect) -> Result<(), StoreError> {
        let found = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .and_then(|connection| connection.prepare(dialect.find_migrations)?.exists([]));
        if found.map_err(fault)? {
            return Ok(());
        }
        Err(StoreError::Schema(format!(
            "the database file {} was replaced by one that holds no limits: move a backup to its place",
            self.path.display()
        )))
    }

    /// The log was deleted, and would be lost with the last connection. So its content is written into the database, unless
    /// another process has made a new log meanwhile, whose changes must not be overwritten.
    pub fn save_log(&self, old: &Connection, now: &Held) -> Result<(), StoreError> {
        if now.log.is_some() {
            return Ok(());
        }
        match old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(fault)? {
            0 => Ok(()),
            // The number is 1 when a reader was in the way.
            _busy => Err(StoreError::down("the database's log is gone, and somebody reads what it held")),
        }
    }

    /// Removes the log and the shared memory of a file that is gone, because SQLite would apply that log to the new file.
    /// The content of the log is first written into the old file, which may only have been moved.
    pub fn clear(&self, old: &Connection, held: &Held) {
        let saved = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = saved {
            log::debug!("store: a log of a file that is gone was not written into it: {error}");
        }
        for (path, was) in [(&self.beside.log, held.log), (&self.beside.shared, held.shared)] {
            if was.is_some() && fs::metadata(path).ok().as_ref().map(id) == was {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Writes everything that a connection to the old file can read into a new file at the place. If another file is put
    /// there meanwhile, it stays.
    pub fn make_anew(&self, old: &Connection, held: &Held, is_empty: bool) -> Result<(), StoreError> {
        let failed = |error: io::Error| {
            StoreError::down(format!(
                "the database file {} is gone and can't be made anew: {error}",
                self.path.display()
            ))
        };
        if let Some(folder) = self.folder() {
            files::make_folder(folder).map_err(failed)?;
        }
        let beside = self.path.with_extension(format!("{:016x}", fastrand::u64(..)));
        files::create_new(&beside).map_err(failed)?;
        let copied = self.copy(old, &beside).and_then(|()| {
            self.clear(old, held);
            if is_empty {
                fs::remove_file(&self.path).map_err(failed)?;
            }
            // Unlike a rename, making a link never replaces a file.
            fs::hard_link(&beside, &self.path).map_err(failed)
        });
        let removed = fs::remove_file(&beside).map_err(failed);
        copied.and(removed)
    }

    fn copy(&self, old: &Connection, to: &Path) -> Result<(), StoreError> {
        let name = to.to_str().ok_or_else(|| StoreError::down("its name is not UTF-8"))?;
        old.execute("VACUUM INTO ?1", [name]).map_err(fault)?;
        // `VACUUM INTO` does not sync the file.
        File::open(to).and_then(|file| file.sync_all()).map_err(|error| StoreError::down(error.to_string()))
    }
}

fn id(file: &fs::Metadata) -> FileId {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn held(place: &Place) -> Held {
        let Seen::File(held) = place.look() else { panic!("there is no file at {}", place.path.display()) };
        held
    }

    /// Puts another file there. The old one stays elsewhere, so that the new one can't get its number.
    fn replace(path: &Path) {
        fs::rename(path, path.with_extension("old")).unwrap();
        fs::write(path, "another").unwrap();
    }

    #[test]
    fn what_is_at_a_place_is_told_and_a_file_is_made_where_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "something").unwrap();
        fs::write(at("empty"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        for (to, link) in [("file", "link"), ("nowhere", "dangling"), ("loop", "loop")] {
            symlink(at(to), at(link)).unwrap();
        }
        let long = "x".repeat(300);
        for (name, seen, why_not_made) in [
            ("file", "a file", ""),
            ("link", "a file", ""),
            ("empty", "empty", ""),
            ("missing", "nothing", ""),
            ("missing", "empty", ""),
            ("folder", "but something else", ""),
            ("dangling", "is a link to nothing", "it is a link to nothing"),
            // Something is there; what is wrong with it shows when it is opened.
            ("loop", "can't be looked at", ""),
            (&long, "can't be looked at", "too long"),
        ] {
            let place = Place::new(&at(name));
            let told = match place.look() {
                Seen::File(_) => "a file".to_owned(),
                Seen::Empty(_) => "empty".to_owned(),
                Seen::Nothing => "nothing".to_owned(),
                Seen::Other(cause) => cause,
            };
            assert!(told.contains(seen), "{name}: {told}");
            let made = place.make().map_or_else(|error| error.to_string(), |()| String::new());
            assert!(
                made.contains(why_not_made) && made.is_empty() == why_not_made.is_empty(),
                "{name}: {made}"
            );
        }
    }

    #[test]
    fn each_of_the_three_files_is_missed_when_it_is_gone_or_another_one_also_behind_a_link() {
        for name in ["limits.db", "link.db"] {
            for (end, gone, replaced) in [
                ("", "is gone: it was deleted", "was replaced by another one"),
                ("-wal", "-wal is gone or was replaced", "-wal is gone or was replaced"),
                ("-shm", "-shm is gone or was replaced", "-shm is gone or was replaced"),
            ] {
                let folder = tempfile::tempdir().unwrap();
                let at = |name: &str| folder.path().join(name);
                for end in ["", "-wal", "-shm"] {
                    fs::write(at("limits.db").with_extension(format!("db{end}")), "something").unwrap();
                }
                symlink(at("limits.db"), at("link.db")).unwrap();
                let (place, lost) = (Place::new(&at(name)), at(&format!("limits.db{end}")));
                let held = held(&place);
                assert_eq!(place.lacks(&held), None);
                replace(&lost);
                let told = place.lacks(&held).unwrap_or_default();
                assert!(told.contains(replaced), "{name}{end}: {told}");
                fs::remove_file(&lost).unwrap();
                let told = place.lacks(&held).unwrap_or_default();
                let gone = if name == "link.db" && end.is_empty() { "is a link to nothing" } else { gone };
                assert!(told.contains(gone), "{name}{end}: {told}");
            }
        }
    }

    #[test]
    fn what_was_not_there_before_is_not_missed_and_what_is_not_ours_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.db");
        let (place, old) = (Place::new(&path), Connection::open_in_memory().unwrap());
        let Beside { log, shared } = Beside::of(&path);
        fs::write(&path, "something").unwrap();
        fs::write(&log, "a log").unwrap();
        let bare = held(&place);
        fs::write(&shared, "of another process").unwrap();
        assert_eq!(place.lacks(&bare), None);
        place.clear(&old, &bare);
        assert_eq!((log.exists(), shared.exists()), (false, true));

        fs::write(&log, "a log").unwrap();
        let both = held(&place);
        replace(&log);
        place.clear(&old, &both);
        assert_eq!((log.exists(), shared.exists()), (true, false));
    }
}
