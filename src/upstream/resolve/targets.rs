//! SRV records (RFC 2782): looks up the targets that they name, and makes addresses with tiers and weights of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::thread::{self, Builder};

use parking_lot::Mutex;

use super::{Answer, Lookup, MAX_ADDRESSES, STACK_BYTES, bounded_list};
use balancer_pool::backend::{Located, WHOLE};

/// How many targets of one name are looked up at the same time.
const AT_ONCE: usize = 8;

/// How much a weight of 1 counts beside a weight of 0, which shall have "a very small chance of being selected"
/// (RFC 2782, "Weight").
const ONE: u64 = 100;

/// An SRV record (RFC 2782, "The format of the SRV RR").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvRecord {
    /// Lower ones are used first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// The port of the service on each address of the target.
    pub port: u16,
    /// The name to look up; `.`: the service is not offered.
    pub target: String,
}

/// The addresses that one name's targets had at the last look-up.
#[derive(Default)]
pub(super) struct Targets {
    last: HashMap<String, Vec<SocketAddr>>,
}

impl Targets {
    /// Where that service is now. A target that can't be looked up keeps its last addresses. An answer without
    /// addresses: the records say that the service is not offered.
    pub fn find(&mut self, name: &str, lookup: &Lookup) -> io::Result<Answer> {
        let mut records = lookup.services(name)?;
        if !records.is_empty() && records.iter().all(|one| one.target == ".") {
            return Ok(Answer::default());
        }
        records.retain(|one| one.target != "." && one.port > 0);
        records.iter_mut().for_each(|one| one.target.make_ascii_lowercase());
        records.sort_unstable();
        records.dedup();
        let cut = records.len().saturating_sub(MAX_ADDRESSES);
        records.truncate(MAX_ADDRESSES);
        let mut troubled = Vec::new();
        let mut known = HashMap::new();
        for (target, answer) in look_up(&records, lookup) {
            let cause = match answer {
                Ok(addresses) if !addresses.is_empty() => {
                    known.insert(target.to_owned(), addresses);
                    continue;
                }
                Ok(_) => "no addresses".to_owned(),
                Err(error) => error.to_string(),
            };
            let last = self.last.remove(target);
            let keeps = if last.is_some() { "keeps its last addresses" } else { "has no address" };
            troubled.push((target.to_owned(), format!("its target {target} {keeps}: {cause}")));
            known.extend(last.map(|addresses| (target.to_owned(), addresses)));
        }
        self.last = known;
        let (addresses, too_many) = bounded_list(share_out(&records, &self.last));
        if addresses.is_empty() {
            let cause = troubled.into_iter().next().map(|(_, cause)| cause);
            return Err(io::Error::other(cause.unwrap_or_else(|| "no SRV records with a port".to_owned())));
        }
        Ok(Answer { addresses, cut: cut + too_many, troubled })
    }
}

/// Looks up each target, [`AT_ONCE`] at a time.
fn look_up<'r>(records: &'r [SrvRecord], lookup: &Lookup) -> BTreeMap<&'r str, io::Result<Vec<SocketAddr>>> {
    let targets: BTreeSet<&str> = records.iter().map(|one| one.target.as_str()).collect();
    let threads = AT_ONCE.min(targets.len());
    let (waiting, found) = (Mutex::new(targets.into_iter()), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let next = waiting.lock().next();
            let Some(target) = next else { return };
            let answer = lookup.addresses(target, 0).map(|mut addresses| {
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MAX_ADDRESSES);
                addresses
            });
            found.lock().insert(target, answer);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // If a thread can't be started, the others do its part.
            let _ =
                Builder::new().name("resolve".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        }
        work();
    });
    found.into_inner()
}

/// The addresses of all records, with weights in parts of [`WHOLE`], which is the backend's own weight. Priorities are
/// tiers, counted from 0. Within a priority, a target's weight is its share, scaled so that the mean of all targets is
/// [`WHOLE`]. The target's addresses divide its weight. An address that several records lead to gets the lowest of
/// their priorities, and the sum of the weights that they give it there.
fn share_out(records: &[SrvRecord], known: &HashMap<String, Vec<SocketAddr>>) -> Vec<Located> {
    let mut priorities: BTreeMap<u16, Vec<(&SrvRecord, &Vec<SocketAddr>)>> = BTreeMap::new();
    for one in records {
        if let Some(addresses) = known.get(&one.target) {
            priorities.entry(one.priority).or_default().push((one, addresses));
        }
    }
    let mut all: BTreeMap<SocketAddr, Located> = BTreeMap::new();
    for (tier, group) in (0..).zip(priorities.into_values()) {
        let counts_as = |one: &SrvRecord| (u64::from(one.weight) * ONE).max(1);
        // There are at most MAX_ADDRESSES records and addresses, so nothing below can overflow.
        let total: u64 = group.iter().map(|(one, _)| counts_as(one)).sum();
        for (one, addresses) in &group {
            let parts = total * addresses.len() as u64;
            let weight = (counts_as(one) * group.len() as u64 * u64::from(WHOLE) + parts / 2) / parts;
            let weight = u32::try_from(weight).unwrap_or(u32::MAX).max(1);
            for address in *addresses {
                let mut address = *address;
                address.set_port(one.port);
                all.entry(address)
                    .and_modify(|before| {
                        if before.tier == tier {
                            before.weight = before.weight.saturating_add(weight);
                        }
                    })
                    .or_insert(Located { tier, address, weight });
            }
        }
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests;
