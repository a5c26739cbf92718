//! Which clients sent most requests, and which were refused most, within the last minutes; in bounded memory.
//!
//! Time is divided into steps. For each step there is a Space-Saving summary (Metwally, Agrawal, El Abbadi: Efficient
//! Computation of Frequent and Top-k Elements in Data Streams, 2005), in shards by client. A client with more than one
//! [`ROWS`]th of what its shard counted in a step is always in its summary. The numbers shown are lower bounds: never
//! too high, and too low by at most one [`ROWS`]th of what the shard counted. With at most [`ROWS`] clients in a shard
//! they are exact.
//!
//! Counting takes one shard's lock and looks through a few hundred bytes. The two rankings, by requests and by
//! refusals, take at most 20 MiB together, and a third of that if few clients are refused for more than one reason.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use siphasher::sip::SipHasher13;

use crate::answer::EntryKind;
use crate::identity::ClientKey;
use crate::terms::BucketName;
use balancer_time::Nanos;

/// Most reasons of one client that are kept for a step, and that are shown.
const MAX_REASONS: usize = 8;

/// Most clients in a summary.
pub const ROWS: usize = 32;

/// Shards of a ranking. The hash of a client chooses its shard.
const SHARDS: usize = 32;

const SECOND_NS: Nanos = 1_000_000_000;

/// The steps of the last 5 minutes, and the current one.
const FINE: Steps = Steps { step_ns: 15 * SECOND_NS, count: 21 };

/// The steps of the last hour, and the current one.
const COARSE: Steps = Steps { step_ns: 300 * SECOND_NS, count: 13 };

/// How time is divided into steps.
#[derive(Clone, Copy)]
struct Steps {
    step_ns: Nanos,
    count: usize,
}

impl Steps {
    /// The longest window that the steps cover, in nanoseconds.
    const fn longest_ns(self) -> Nanos {
        self.step_ns * (self.count as u64 - 1)
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of entry whose bucket refused; `None`: the bucket of a rule did.
    pub entry: Option<EntryKind>,
    /// The bucket's name, or `concurrency` for the bound on requests at once.
    pub bucket: BucketName,
    /// The rule that has the bucket; `None`: it is a limit's.
    pub rule: Option<Arc<str>>,
}

impl Refusal {
    /// `client`, `range`, `default` or `rule`, as metrics say.
    pub fn policy(&self) -> &'static str {
        self.entry.map_or("rule", EntryKind::policy)
    }
}

/// How often a client was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReason {
    /// The reason.
    pub refusal: Refusal,
    /// How often, at least.
    pub denied: u64,
}

/// One client in a ranking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// The key by which the limiter counts it.
    pub client: ClientKey,
    /// The id of its entry, if it has one.
    pub name: Option<Arc<str>>,
    /// How many requests it sent, at least. In the ranking by refusals: how many were refused.
    pub requests: u64,
    /// How many of these were refused, at least.
    pub denied: u64,
    /// Why they were refused, the most frequent reason first; at most 8. Only in the ranking by refusals.
    pub reasons: Vec<RefusalReason>,
}

/// Both rankings: by requests and by refusals.
#[derive(Debug)]
pub struct HeavyHitters {
    requests: Ranking,
    denied: Ranking,
}

impl Default for HeavyHitters {
    fn default() -> Self {
        Self { requests: Ranking::new(), denied: Ranking::new() }
    }
}

impl HeavyHitters {
    /// Counts one request of a client. Allocates nothing for a client and a reason that are in the current step's
    /// summary. Takes one shard's lock; for a refused request two, one after the other.
    pub fn count(&self, client: ClientKey, name: Option<&Arc<str>>, refusal: Option<&Refusal>, now: Nanos) {
        self.requests.count(client, name, refusal.is_some(), None, now);
        if refusal.is_some() {
            self.denied.count(client, name, true, refusal, now);
        }
    }

    /// At most `count` clients, most requests first. Takes each shard's lock once.
    pub fn by_requests(&self, window_ns: Nanos, count: usize, now: Nanos) -> Vec<Heavy> {
        self.requests.top(window_ns, count, now)
    }

    /// At most `count` clients, most refusals first. Takes each shard's lock once.
    pub fn by_refusals(&self, window_ns: Nanos, count: usize, now: Nanos) -> Vec<Heavy> {
        self.denied.top(window_ns, count, now)
    }
}

/// One ranking: clients by how often they were counted.
struct Ranking {
    shards: Box<[Mutex<Shard>]>,
    hasher: SipHasher13,
}

#[derive(Default)]
struct Shard {
    fine: Vec<Step>,
    coarse: Vec<Step>,
}

/// What was counted in one step: a Space-Saving summary.
#[derive(Default)]
struct Step {
    /// The number of the step since the clock's 0.
    number: u64,
    /// Parts of the hashes of the clients in `rows`, which are quick to look through.
    tags: Vec<u32>,
    rows: Vec<Row>,
}

struct Row {
    client: ClientKey,
    name: Option<Arc<str>>,
    /// How often the client was counted since it came into the summary, plus `error`.
    count: u64,
    /// The count of the client that it replaced: so much of `count` may be other clients'.
    error: u64,
    denied: u64,
    reasons: Vec<RefusalReason>,
}

impl Ranking {
    fn new() -> Self {
        // Random keys for each process, so that no client can choose which other one it replaces.
        let random = RandomState::new();
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: SipHasher13::new_with_keys(random.hash_one(0u8), random.hash_one(1u8)),
        }
    }

    fn count(
        &self,
        client: ClientKey,
        name: Option<&Arc<str>>,
        denied: bool,
        reason: Option<&Refusal>,
        now: Nanos,
    ) {
        let (value, tag) = client.words();
        let mut hasher = self.hasher;
        hasher.write_u64(value as u64);
        hasher.write_u64((value >> 64) as u64);
        hasher.write_u8(tag);
        let hash = hasher.finish();
        let mut shard = self.shards[(hash >> 32) as usize % SHARDS].lock();
        let shard = &mut *shard;
        for (steps, all) in [(FINE, &mut shard.fine), (COARSE, &mut shard.coarse)] {
            let row = step_at(all, steps, now).count(hash as u32, client, name, denied);
            if let Some(reason) = reason {
                add(&mut row.reasons, reason, 1);
            }
        }
    }

    fn top(&self, window_ns: Nanos, count: usize, now: Nanos) -> Vec<Heavy> {
        let steps = if window_ns <= FINE.longest_ns() { FINE } else { COARSE };
        let from = now.saturating_sub(window_ns.min(steps.longest_ns()));
        let mut found: HashMap<ClientKey, Heavy> = HashMap::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let all = if steps.step_ns == FINE.step_ns { &shard.fine } else { &shard.coarse };
            for step in all {
                let begin = step.number * steps.step_ns;
                let end = begin + steps.step_ns;
                if end <= from || begin > now {
                    continue;
                }
                // Only a part of the oldest step lies in the window: its requests count as spread evenly.
                let within = end - begin.max(from);
                for row in &step.rows {
                    let part = |counted: u64| scaled(counted, within, steps.step_ns);
                    let heavy = found.entry(row.client).or_insert_with(|| Heavy {
                        client: row.client,
                        name: None,
                        requests: 0,
                        denied: 0,
                        reasons: Vec::new(),
                    });
                    heavy.requests += part(row.count - row.error);
                    heavy.denied += part(row.denied);
                    // Rounds the running sums, so that the parts add up to the rounded sum of all.
                    let mut before = 0;
                    for reason in &row.reasons {
                        let upto = before + reason.denied;
                        add(&mut heavy.reasons, &reason.refusal, part(upto) - part(before));
                        before = upto;
                    }
                    if row.name.is_some() {
                        heavy.name.clone_from(&row.name);
                    }
                }
            }
        }
        let mut found: Vec<_> = found.into_values().filter(|heavy| heavy.requests > 0).collect();
        let rank = |heavy: &Heavy| (std::cmp::Reverse(heavy.requests), heavy.client);
        found.sort_by_key(rank);
        found.truncate(count);
        for heavy in &mut found {
            heavy.reasons.retain(|reason| reason.denied > 0);
            heavy.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.denied));
        }
        found
    }
}

/// Counts a reason, if it is in the list or there is room for it.
fn add(reasons: &mut Vec<RefusalReason>, refusal: &Refusal, denied: u64) {
    match reasons.iter().position(|reason| reason.refusal == *refusal) {
        Some(at) => reasons[at].denied += denied,
        None if reasons.len() < MAX_REASONS => {
            reasons.push(RefusalReason { refusal: refusal.clone(), denied });
        }
        None => {}
    }
}

/// `counted × within / whole`, rounded to the nearest.
fn scaled(counted: u64, within: Nanos, whole: Nanos) -> u64 {
    let exact = u128::from(counted) * u128::from(within) + u128::from(whole) / 2;
    u64::try_from(exact / u128::from(whole)).unwrap_or(u64::MAX)
}

/// The step of an instant. If its place holds an older step, that is emptied first.
fn step_at(all: &mut Vec<Step>, steps: Steps, now: Nanos) -> &mut Step {
    if all.is_empty() {
        all.resize_with(steps.count, Step::default);
    }
    let number = now / steps.step_ns;
    let step = &mut all[(number % steps.count as u64) as usize];
    if step.number < number {
        step.number = number;
        step.tags.clear();
        step.rows.clear();
    }
    step
}

impl Step {
    fn count(&mut self, tag: u32, client: ClientKey, name: Option<&Arc<str>>, denied: bool) -> &mut Row {
        let same = |(other, row): (&u32, &Row)| *other == tag && row.client == client;
        if let Some(at) = self.tags.iter().zip(&self.rows).position(same) {
            let row = &mut self.rows[at];
            row.count += 1;
            row.denied += u64::from(denied);
            if row.name.is_none() {
                row.name = name.cloned();
            }
            return row;
        }
        let row = |error, reasons| Row {
            client,
            name: name.cloned(),
            count: error + 1,
            error,
            denied: denied.into(),
            reasons,
        };
        if self.rows.len() < ROWS {
            self.tags.push(tag);
            self.rows.push(row(0, Vec::new()));
            let last = self.rows.len() - 1;
            return &mut self.rows[last];
        }
        let least = self.rows.iter().enumerate().min_by_key(|(_, row)| row.count).map_or(0, |(at, _)| at);
        self.tags[least] = tag;
        let mut reasons = std::mem::take(&mut self.rows[least].reasons);
        reasons.clear();
        self.rows[least] = row(self.rows[least].count, reasons);
        &mut self.rows[least]
    }
}

impl std::fmt::Debug for Ranking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ranking").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
