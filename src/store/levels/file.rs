//! The files that an instance keeps on its own disk, in `data/` beside the configuration or in `STATE_DIRECTORY`: its name,
//! its clients' levels, and the limits that it knows. Only one process at a time uses them. Another process on the same
//! folder makes a name that lasts until it ends, and keeps no files.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};

use crate::files;

/// A file up to this size is written with each tick.
const SMALL_BYTES: usize = 256 * 1024;

/// Most bytes of a file that are read: about two million levels.
const MAX_BYTES: u64 = 128 * 1024 * 1024;

/// The first bytes of a file. The time in seconds since the Unix epoch follows (8 bytes, big-endian), then the content.
const MAGIC: &[u8; 8] = b"BALLVL1\n";

/// The name of the instance, and its files.
pub struct Folder {
    instance: u64,
    name: String,
    /// The levels of its clients.
    pub levels: Kept,
    /// The limits and plans that it knows.
    pub limits: Kept,
    /// The file with the name, locked until the process ends.
    _lock: Option<File>,
}

/// One file.
pub struct Kept {
    /// `None`: no file is kept.
    path: Option<PathBuf>,
    /// Bytes of the content that was written last.
    size: usize,
    /// That it can't be written was logged.
    said: bool,
}

impl Folder {
    /// Takes the name and the files of the folder for this process. If that fails, it is logged, and no files are kept.
    pub fn open(folder: &Path) -> Self {
        match named(folder) {
            Ok((instance, lock)) => Self::with(instance, Some((folder, lock))),
            Err(error) => {
                log::warn!("levels: nothing is kept in {}: {error}", folder.display());
                Self::nowhere()
            }
        }
    }

    /// A new name, and no files.
    pub fn nowhere() -> Self {
        Self::with(fastrand::u64(..), None)
    }

    fn with(instance: u64, place: Option<(&Path, File)>) -> Self {
        let (folder, lock) = place.unzip();
        let kept = |name| Kept { path: folder.map(|folder: &Path| folder.join(name)), size: 0, said: false };
        let (levels, limits) = (kept("levels.snapshot"), kept("limits.snapshot"));
        Self { instance, name: format!("{instance:016x}"), levels, limits, _lock: lock }
    }

    /// The name that this instance saves under.
    pub fn instance(&self) -> &str {
        &self.name
    }

    /// The name as a number.
    pub fn instance_number(&self) -> u64 {
        self.instance
    }
}

impl Kept {
    /// Whether there is a file at all.
    pub fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    /// Whether it is small enough to be written with each tick.
    pub fn is_small(&self) -> bool {
        self.size <= SMALL_BYTES
    }

    /// The file's path, for people.
    pub fn shown(&self) -> String {
        self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// The content that was written last, and how long ago; `None` when there is no file that can be read.
    pub fn read(&self, wall: SystemTime) -> Option<(Vec<u8>, Duration)> {
        let path = self.path.as_ref()?;
        let bytes = files::read(path, MAX_BYTES).ok()?;
        let Some((secs, content)) = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk())
        else {
            log::error!("levels: {} can't be read: it is none of ours, or was cut off", path.display());
            return None;
        };
        let then = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_be_bytes(*secs)))?;
        let age = wall.duration_since(then).unwrap_or_default();
        Some((content.to_vec(), age))
    }

    /// Replaces the file in one step: a reader sees either the old one or the new one.
    pub fn write(&mut self, content: &[u8], wall: SystemTime) {
        let Some(path) = &self.path else { return };
        let secs = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match files::replace(path, &[MAGIC, &secs.to_be_bytes(), content]) {
            Ok(()) => {
                self.said = false;
                self.size = content.len();
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    log::warn!("levels: {} can't be written: {error}", path.display());
                }
            }
        }
    }
}

/// The name in the folder, which is made if there is none, and its file, locked.
fn named(folder: &Path) -> io::Result<(u64, File)> {
    files::make_folder(folder)?;
    let path = folder.join("instance");
    let mut file = files::own().read(true).write(true).create(true).truncate(false).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(io::Error::other("another process has it"));
    }
    let mut text = String::new();
    (&mut file).take(64).read_to_string(&mut text)?;
    if let Ok(instance) = u64::from_str_radix(text.trim(), 16) {
        return Ok((instance, file));
    }
    let instance = fastrand::u64(..);
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{instance:016x}\n").as_bytes())?;
    Ok((instance, file))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_and_levels_outlive_the_process_and_two_never_share_them() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        let mut first = Folder::open(&data);
        assert_eq!(first.levels.read(at(1_000)), None);
        first.levels.write(b"levels", at(1_000));
        let second = Folder::open(&data);
        assert!(!second.levels.is_kept());
        assert_ne!(first.instance(), second.instance());
        let name = first.instance().to_owned();
        drop(first);
        let again = Folder::open(&data);
        assert_eq!(again.instance(), name);
        assert_eq!(format!("{:016x}", again.instance_number()), name);
        assert_eq!(again.levels.shown(), data.join("levels.snapshot").to_str().unwrap());
        assert_eq!(again.levels.read(at(1_060)), Some((b"levels".to_vec(), Duration::from_secs(60))));
        // When the clock was set back, the age is 0.
        assert_eq!(again.levels.read(at(10)), Some((b"levels".to_vec(), Duration::ZERO)));
        fs::write(data.join("levels.snapshot"), b"something else").unwrap();
        assert_eq!(again.levels.read(at(10)), None);
    }

    #[test]
    fn a_file_is_small_up_to_256_kib_and_is_read_whole_when_it_is_large() {
        let data = tempfile::tempdir().unwrap();
        let mut kept = Folder::open(data.path()).levels;
        assert!(kept.is_small(), "nothing was written yet");
        for (bytes, is_small) in [(262_145, false), (262_144, true), (2 << 20, false), (0, true)] {
            kept.write(&vec![b'x'; bytes], UNIX_EPOCH);
            assert_eq!(kept.is_small(), is_small, "{bytes}");
            assert_eq!(kept.read(UNIX_EPOCH).map(|(content, _)| content.len()), Some(bytes));
        }
    }

    #[test]
    fn a_name_that_can_not_be_read_is_replaced() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("instance");
        fs::write(&file, "somebody's note, longer than a name\n").unwrap();
        let name = Folder::open(data.path()).instance().to_owned();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{name}\n"));
        assert_eq!(Folder::open(data.path()).instance(), name);
    }

    #[test]
    fn a_folder_that_can_not_be_had_costs_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("data");
        fs::write(&file, b"").unwrap();
        let mut snapshot = Folder::open(&file);
        assert!(!snapshot.levels.is_kept() && snapshot.instance().len() == 16);
        snapshot.levels.write(b"levels", UNIX_EPOCH);
        assert_eq!(snapshot.levels.read(UNIX_EPOCH), None);
    }
}
