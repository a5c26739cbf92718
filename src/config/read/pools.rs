//! Keys of a pool: at the top those of `default`.

use super::backends::Around;
use super::{backends, balancing, health_check, outlier, upstream};
use crate::config::PoolConfig;
use crate::config::section::Section;

/// The keys of one pool, read from the object that has them.
pub(super) fn pool(s: &mut Section<'_>, name: &str, around: &Around<'_>) -> PoolConfig {
    let backends = backends::backends(s, around);
    let balancing = balancing::balancing(s.section("balancing", "How a backend is picked."));
    let upstream = upstream::upstream(s.section("upstream", "How backends are called."), around.base);
    let outlier = s
        .section_or_null("outlier", "When an endpoint is taken out for how it answers; null: never.")
        .map(outlier::outlier);
    let health_check = s
        .section_or_null("health_check", "How backends are probed; null: every one counts as healthy.")
        .map(|section| health_check::health_check(section, upstream.head_rules()));
    PoolConfig { name: name.to_owned(), backends, balancing, upstream, outlier, health_check }
}
