//! Finds the route of a request, by its host and then by its path. The order of the routes makes no difference, and
//! there are no regular expressions.
//!
//! A route is for one host, for all names below one (`*.example.com`), or for any host. The routes of the most specific
//! host are asked first, and among them the longest path wins, by whole segments. If none of them fits the path, the
//! routes of the next less specific host are asked, those for any host last. So a route without a host
//! (`/.well-known/`, say) is for every host that has no route of its own for that path. The cost does not depend on the
//! number of routes: one hash for the host, one for each depth at which there is a `*.` route, and one for each segment
//! that some route has there.

mod host;
mod paths;

use foldhash::HashMap;
use smallvec::SmallVec;

use crate::path::{each_reading, normal};
use host::labels;
pub use host::{HostFault, HostPattern, with_plain};
use paths::PathTree;

/// Routes by their numbers. One or two, as honest requests have, need no allocation.
pub type RouteNumbers = SmallVec<[usize; 2]>;

/// Two routes that have the same host and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SameRoute {
    /// The number of the first one.
    pub first: usize,
    /// The number of the other.
    pub second: usize,
}

/// The routes that concern one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetRoutes {
    /// The request's route, if it has one: that of its path in its normal form.
    pub by: Option<usize>,
    /// The routes of all readings of the path, each once, the request's own first.
    pub all: RouteNumbers,
}

/// A path has too many readings, see [`each_reading`]. No honest one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyReadings;

/// All routes, for looking up; never changes.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, PathTree>,
    /// By the name behind `*.`.
    below: HashMap<Box<str>, PathTree>,
    /// Bit n is set if a name in `below` has n labels.
    depths: u128,
    any: PathTree,
    is_empty: bool,
}

impl RouteTable {
    /// A table of routes, each with its host and path. Their numbers are their places in `routes`, from 0. A path
    /// stands for itself and all paths below it, and may be spelled in any way.
    ///
    /// # Errors
    /// Two or more routes have the same host and path: each of them, paired with the first.
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

    /// The routes that a request meets in any reading of its path ([`each_reading`]), which is without the query. A
    /// reading also meets the route that it has when the case of letters is ignored, if that one is more specific.
    /// Without a host (`None` or empty) a request only meets routes for any host. Allocates nothing for an ordinary
    /// path of up to 256 bytes that meets one or two routes.
    ///
    /// # Errors
    /// There are routes, and the path has too many readings to find out which ones it meets. The request has to be
    /// refused: if all readings were looked at, a short path could keep a thread busy.
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

    /// Adds the route of one reading to `met`, and those it has when the case of letters is ignored. Returns the first.
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

    /// The routes that are for that host, the most specific first.
    fn trees<'a>(&'a self, host: Option<&'a str>) -> impl Iterator<Item = &'a PathTree> {
        let exact = host.filter(|_| !self.exact.is_empty()).and_then(|host| self.exact.get(host));
        let below = host.filter(|_| self.depths != 0).into_iter().flat_map(|host| self.below(host));
        exact.into_iter().chain(below).chain(std::iter::once(&self.any))
    }

    /// The routes of `*.` names above that host, the longest name first.
    fn below<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a PathTree> {
        let all = labels(host);
        let behind = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        behind.enumerate().filter_map(move |(cut, name)| {
            let depth = (all - cut - 1).min(MOST_LABELS);
            if self.depths >> depth & 1 == 0 { None } else { self.below.get(name) }
        })
    }
}

/// Names with more labels count as names with this many. A DNS name of 253 bytes has at most 127 labels.
const MOST_LABELS: usize = 127;

#[cfg(test)]
mod tests;
