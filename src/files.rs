//! Makes and reads our own files and folders: for our own user alone, and never through a link in their place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Permissions for our own user alone.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Makes a folder, and those above it that are missing. Folders that are there keep their permissions.
///
/// # Errors
/// One of them can't be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Options to open a file. One that is made by them is for our own user alone.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// The same for files that only we make: a link in their place is refused.
pub fn own() -> OpenOptions {
    let mut options = options();
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Makes a file, which must not be there yet.
///
/// # Errors
/// There is something of that name, which may be a link.
pub fn create_new(path: &Path) -> io::Result<File> {
    own().read(true).write(true).create_new(true).open(path)
}

/// Replaces a file in one step: a reader sees the old one or the new one. The new one is first written beside it, with
/// the ending `new`. A link at either name is replaced and never followed. Makes the folder if it is missing.
///
/// # Errors
/// It can't be written. The old one is still there.
pub fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let beside = path.with_extension("new");
    // A process that was killed while it wrote may have left a file of that name.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = match create_new(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), make_folder)?;
            create_new(&beside)?
        }
        other => other?,
    };
    for part in parts {
        file.write_all(part)?;
    }
    drop(file);
    fs::rename(&beside, path)
}

/// Reads one of our files, at most `most` bytes of it. Links are refused, and so are pipes, on which a reader would
/// wait for ever.
///
/// # Errors
/// It is not there, is no file, or can't be read.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_for_our_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let path = deep.join("levels.snapshot");
        // The folder is missing: it may have been moved away under us.
        replace(&path, &[b"one", b" and two"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one and two");
        assert_eq!((mode(&path), mode(&deep), mode(deep.parent().unwrap())), (0o600, 0o700, 0o700));
        // An older program left it readable for all users, and a file that it did not finish.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path.with_extension("new"), "half").unwrap();
        replace(&path, &[b"three"]).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"three".to_vec(), 0o600));
        assert!(create_new(&path).is_err());
    }

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        fs::write(&theirs, "theirs").unwrap();
        let path = folder.path().join("x.snapshot");
        for name in [&path, &path.with_extension("new")] {
            symlink(&theirs, name).unwrap();
            if *name == path {
                assert!(read(&path, 9).is_err());
            }
            assert!(create_new(name).is_err());
            replace(&path, &[b"ours"]).unwrap();
            assert_eq!(
                (fs::read(&theirs).unwrap(), read(&path, 9).unwrap()),
                (b"theirs".into(), b"ours".into())
            );
            fs::remove_file(&path).unwrap();
        }
        // A link to nothing would make a file elsewhere.
        symlink(folder.path().join("nothing"), &path).unwrap();
        assert!(own().write(true).create(true).open(&path).is_err());
        assert!(!folder.path().join("nothing").exists());
    }

    #[test]
    fn a_pipe_or_a_folder_in_the_place_of_a_file_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(FILE_MODE);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(read(&pipe, 9).is_err() && read(folder.path(), 9).is_err());
        replace(&pipe, &[b"ours"]).unwrap();
        assert_eq!(read(&pipe, 2).unwrap(), b"ou");
    }
}
