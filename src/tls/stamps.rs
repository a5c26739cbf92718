//! Finds out whether files have changed since they were read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The state of some files, in order. A link has the state of the file that it leads to, since certificates are often
/// renewed by moving links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// Device and inode, size, and when content and inode were last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: [(i64, i64); 2],
}

impl Stamps {
    /// Their state now. It has to be taken before the files are read: then a change in between is seen at the next
    /// look.
    pub fn of<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        let stamp = |file: &Path| {
            let about = std::fs::metadata(file).ok()?;
            Some(Stamp {
                place: (about.dev(), about.ino()),
                size: about.size(),
                changed: [(about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec())],
            })
        };
        Self(files.map(stamp).collect())
    }
}
