//! The routes of one host by their paths: a tree of segments.

use foldhash::HashMap;
use smallvec::SmallVec;

use super::host::has_capitals;
use crate::path::is_below;

/// Longer paths with capital letters are folded in memory that is asked for.
pub(super) const USUAL_BYTES: usize = 256;

/// A route at the end of its path.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// In its normal form.
    path: Box<str>,
    /// Its number.
    pub route: usize,
}

/// The paths that begin with the same segments, where the case of letters does not count.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTree {
    /// By the next segment, in small letters.
    next: HashMap<Box<[u8]>, PathTree>,
    /// Those that end here, without a slash.
    here: Vec<End>,
    /// Those that end here, with a slash.
    below: Vec<End>,
}

impl PathTree {
    /// Adds a route for a path in its normal form and all below it.
    ///
    /// # Errors
    /// The route that has that path already.
    pub fn add(&mut self, path: &str, route: usize) -> Result<(), usize> {
        let folded = path.to_ascii_lowercase();
        let (segments, is_below) = match folded.strip_suffix('/') {
            Some(segments) => (segments, true),
            None => (folded.as_str(), false),
        };
        let mut node = self;
        for segment in segments.split('/').skip(1) {
            node = node.next.entry(segment.as_bytes().into()).or_default();
        }
        let ends = if is_below { &mut node.below } else { &mut node.here };
        if let Some(same) = ends.iter().find(|end| &*end.path == path) {
            return Err(same.route);
        }
        ends.push(End { path: path.into(), route });
        Ok(())
    }

    /// The longest that a path in its normal form is or lies below.
    pub fn search<'a>(&'a self, path: &str) -> Longest<'a> {
        let mut longest = Longest::default();
        let Some(segments) = path.strip_prefix('/') else { return longest };
        let folded: SmallVec<[u8; USUAL_BYTES]>;
        let mut rest = Some(segments.as_bytes());
        if has_capitals(path) {
            folded = segments.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
            rest = Some(&folded);
        }
        let mut node = self;
        loop {
            longest.take(path, &node.here);
            let Some(bytes) = rest else { return longest };
            longest.take(path, &node.below);
            if node.next.is_empty() {
                return longest;
            }
            let end = bytes.iter().position(|byte| *byte == b'/');
            let Some(next) = node.next.get(&bytes[..end.unwrap_or(bytes.len())]) else { return longest };
            (node, rest) = (next, end.map(|end| &bytes[end + 1..]));
        }
    }
}

/// What was found for a path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Longest<'a> {
    /// The longest that fits as it is written.
    pub exact: Option<&'a End>,
    /// The longest that fit when the case of letters does not count: those of one length, or none.
    pub loose: &'a [End],
}

impl<'a> Longest<'a> {
    fn take(&mut self, path: &str, ends: &'a [End]) {
        if !ends.is_empty() {
            self.loose = ends;
            self.exact = ends.iter().find(|end| is_below(path, &end.path)).or(self.exact);
        }
    }

    /// Whether the case of letters makes a difference.
    pub fn is_loose_longer(&self) -> bool {
        let length = |end: &End| end.path.len();
        self.loose.first().map(length) > self.exact.map(length)
    }
}
