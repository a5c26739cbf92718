//! Pools. The keys of `default` are at the top, those of the others below `pools`.

use super::backends::Around;
use super::{backends, balancing, health_check, outlier, upstream};
use crate::config::PoolConfig;
use crate::declare::{Section, Shape, Spec};
use balancer_pool::backends::DEFAULT_POOL;

/// Most pools beside the default one.
const MAX_POOLS: usize = 256;

/// What a pool takes over from the top, key by key.
const INHERITED: [&str; 4] = ["balancing", "upstream", "outlier", "health_check"];

const NAME: &str = "1 to 63 of a to z, 0 to 9, _ and -, the first a letter or a digit";

/// Every pool: `default` first, the others in the order in which they stand there.
pub(super) fn pools(root: &mut Section<'_>, around: &Around<'_>) -> Vec<PoolConfig> {
    let about = "More pools, by their names. Each takes backends, and balancing, upstream, outlier and health_check as they \
                 stand at the top; what it leaves out of these is as it is there. A \
                 cookie that it does not name is called by the pool, too: balancer_NAME.";
    let is_alone = !root.has_parts("pools") && !root.has_parts("routes");
    let mut pools = vec![pool(root, DEFAULT_POOL, is_alone, around)];
    for member in
        root.entries(&Spec::new("pools", Shape::Named("pools by their names"), "{}", about), MAX_POOLS)
    {
        let name = member.name.as_str();
        if name == DEFAULT_POOL {
            root.fault_of("pools", &member, "is what the pool of the backends at the top is called");
            continue;
        } else if !is_name(name) {
            root.fault_of("pools", &member, format!("is no name for a pool: it must be {NAME}"));
            continue;
        }
        let sticky = member.node.clone().member("balancing").and_then(|node| node.member("sticky"));
        let has_cookie = sticky.and_then(|node| node.member("cookie")).is_some();
        let mut section = root.open_over(&format!("pools.{name}"), member.node, &INHERITED);
        let mut read = pool(&mut section, name, true, around);
        section.end();
        if let Some(sticky) = read.balancing.sticky.as_mut().filter(|_| !has_cookie) {
            // One host may have paths in several pools, and a browser keeps one cookie of a name.
            sticky.cookie = format!("{}_{name}", sticky.cookie);
        }
        pools.push(read);
    }
    pools
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().all(|byte| is_plain(byte) || byte == b'_' || byte == b'-')
}

/// The keys of one pool, read from the object that has them. `needs_backends`: it must have one at least.
fn pool(s: &mut Section<'_>, name: &str, needs_backends: bool, around: &Around<'_>) -> PoolConfig {
    let backends = backends::backends(s, needs_backends, around);
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
