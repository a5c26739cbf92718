//! Which of many routes a request goes by: its host first, then its path. No route comes before another because of where it
//! stands, and nothing is a regular expression.
//!
//! A route is for one host, for all names below one (`*.example.com`), or for any. The more specific host wins, and among its
//! routes the longest path, by whole segments. A host none of whose routes takes the path is no end: the next less specific
//! routes are asked, those for any host last. So a route without a host (`/.well-known/`, say) holds for every host that does
//! not say otherwise for that very path. Each look costs the same however many routes there are: a hash for the host, one
//! more for each depth at which there is a `*.`, and one for each segment that some route goes on with.

mod host;
mod paths;

use foldhash::HashMap;
use smallvec::SmallVec;

use crate::path::{each_reading, normal};
use host::labels;
pub use host::{HostFault, HostPattern, with_plain};
use paths::PathTree;

/// Routes by their numbers: no allocation for the one or two that honest requests meet.
pub type RouteNumbers = SmallVec<[usize; 2]>;

/// Two routes are for the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SameRoute {
    /// The number of the one that came first.
    pub first: usize,
    /// That of the other.
    pub second: usize,
}

/// What of the routes concerns one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetRoutes {
    /// The one that it goes by, as [`RouteTable::find`] says.
    pub by: Option<usize>,
    /// Every one that it would go by if its backend read the path otherwise, each once; the one that it goes by is the first.
    pub all: RouteNumbers,
}

/// A path means more things to different backends than are worth looking at. No honest one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyReadings;

/// All routes. Never changes.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, PathTree>,
    /// By what stands behind `*.`.
    below: HashMap<Box<str>, PathTree>,
    /// The numbers of labels that names in `below` have, one bit each.
    depths: u128,
    any: PathTree,
    is_empty: bool,
}

impl RouteTable {
    /// A table of routes, which go by their numbers, from 0. Paths are those and all below them, in any writing.
    ///
    /// # Errors
    /// Two are for the same host and path: each that is, with the first.
    pub fn new<'a>(
        routes: impl IntoIterator<Item = (&'a HostPattern, &'a str)>,
    ) -> Result<Self, Vec<SameRoute>> {
        let mut table = Self { is_empty: true, ..Self::default() };
        let mut same = Vec::new();
        for (number, (host, path)) in routes.into_iter().enumerate() {
            table.is_empty = false;
            let tree = match host {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(name) => table.exact.entry(name.clone()).or_default(),
                HostPattern::Below(name) => {
                    table.depths |= 1 << labels(name).min(MOST_LABELS);
                    table.below.entry(name.clone()).or_default()
                }
            };
            if let Err(first) = tree.add(&normal(path), number) {
                same.push(SameRoute { first, second: number });
            }
        }
        if same.is_empty() { Ok(table) } else { Err(same) }
    }

    /// The route that a request goes by, if any takes it: by its `Host` (`None` or empty: it has none, and routes for any
    /// host alone take it) and its path without the query, in its normal form. Allocates nothing for a path that is in its
    /// normal form and has up to 256 bytes.
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<usize> {
        if self.is_empty {
            return None;
        }
        let path = normal(path);
        with_plain(host, |host| {
            self.trees(host).find_map(|tree| tree.search(&path).exact.map(|end| end.route))
        })
    }

    /// Every route that some reading of the path would go by, whichever reading a backend takes: each of
    /// [`each_reading`], and each where the case of letters does not count, if that leads to a more specific route.
    ///
    /// # Errors
    /// There are routes, and the path has more readings than are looked at. Which ones it meets can't be told then, and
    /// the request is to be refused: to look at all of them would let a short path hold a thread.
    pub fn met(&self, host: Option<&str>, path: &str) -> Result<MetRoutes, TooManyReadings> {
        let mut all = RouteNumbers::new();
        if self.is_empty {
            return Ok(MetRoutes::default());
        }
        let mut by = None;
        let is_whole = with_plain(host, |host| {
            each_reading(path, |path| {
                let exact = self.meet(host, path, &mut all);
                // The first reading is the normal form.
                by = by.or(Some(exact));
            })
        });
        if !is_whole {
            return Err(TooManyReadings);
        }
        let by = by.flatten();
        all.sort_unstable_by_key(|route| (Some(*route) != by, *route));
        all.dedup();
        Ok(MetRoutes { by, all })
    }

    /// Adds what one reading meets, and what it meets when the case of letters does not count. Returns what it goes by.
    fn meet(&self, host: Option<&str>, path: &str, met: &mut RouteNumbers) -> Option<usize> {
        let mut is_met_in_any_case = false;
        for tree in self.trees(host) {
            let found = tree.search(path);
            if !is_met_in_any_case && found.is_loose_longer() {
                met.extend(found.loose.iter().map(|end| end.route));
            }
            is_met_in_any_case |= !found.loose.is_empty();
            if let Some(exact) = found.exact {
                met.push(exact.route);
                return Some(exact.route);
            }
        }
        None
    }

    /// What there is for that host, the most specific first.
    fn trees<'a>(&'a self, host: Option<&'a str>) -> impl Iterator<Item = &'a PathTree> {
        let exact = host.filter(|_| !self.exact.is_empty()).and_then(|host| self.exact.get(host));
        let below = host.filter(|_| self.depths != 0).into_iter().flat_map(|host| self.below(host));
        exact.into_iter().chain(below).chain(std::iter::once(&self.any))
    }

    /// The longest first.
    fn below<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a PathTree> {
        let all = labels(host);
        let behind = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        behind.enumerate().filter_map(move |(cut, name)| {
            let depth = (all - cut - 1).min(MOST_LABELS);
            if self.depths >> depth & 1 == 0 { None } else { self.below.get(name) }
        })
    }
}

/// A name of more labels counts as one of so many: a name of 253 bytes has at most 127.
const MOST_LABELS: usize = 127;

#[cfg(test)]
mod tests;
