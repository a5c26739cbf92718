//! Whether files are as they were when they were read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the file system says of some files, in order. A link counts as what it leads to, as it is for whoever renews
/// certificates by moving links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

/// Device, inode, size, and when content and inode were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: [(i64, i64); 2],
}

impl Stamps {
    /// As they are now. To be taken before they are read: what changes in between is seen at the next look.
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
