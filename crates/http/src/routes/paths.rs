//! The routes of one host in a tree, by the segments of their paths.

use foldhash::HashMap;
use smallvec::SmallVec;

use super::host::has_capitals;
use crate::path::is_below;

/// Longer paths that have capital letters cost an allocation, for their copy in small letters.
const USUAL_BYTES: usize = 256;

/// A route, kept at the node where its path ends.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// In its normal form.
    path: Box<str>,
    /// Its number.
    pub route: usize,
}

/// A node: the paths that begin with the same segments, ignoring the case of letters.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTree {
    /// By the next segment, in small letters.
    next: HashMap<Box<[u8]>, PathTree>,
    /// Routes whose path ends here without a slash.
    here: Vec<End>,
    /// Routes whose path ends here with a slash, so that they are for paths below alone.
    below: Vec<End>,
}

impl PathTree {
    /// Adds a route for a path in its normal form and all paths below it.
    ///
    /// # Errors
    /// The number of the route that has this path already.
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

    /// The routes with the longest path that a path in its normal form is or lies below.
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

/// What [`PathTree::search`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Longest<'a> {
    /// The route with the longest path that fits with the case of letters as it is.
    pub exact: Option<&'a End>,
    /// The routes with the longest path that fits when the case of letters is ignored. Their paths differ in case
    /// alone.
    pub loose: &'a [End],
}

impl<'a> Longest<'a> {
    fn take(&mut self, path: &str, ends: &'a [End]) {
        if !ends.is_empty() {
            self.loose = ends;
            self.exact = ends.iter().find(|end| is_below(path, &end.path)).or(self.exact);
        }
    }

    /// Whether ignoring the case of letters finds a longer path.
    pub fn is_loose_longer(&self) -> bool {
        let length = |end: &End| end.path.len();
        self.loose.first().map(length) > self.exact.map(length)
    }
}
