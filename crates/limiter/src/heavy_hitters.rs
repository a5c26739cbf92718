//! Who asks most and who is refused most, within the last minutes, in bounded memory.
//!
//! Time is cut into steps, and each step keeps a Space-Saving summary (Metwally, Agrawal, El Abbadi: Efficient
//! Computation of Frequent and Top-k Elements in Data Streams, 2005), in shards by client. A client that has more than
//! one in [`ROWS`] of what is counted in its shard and step is in it for sure. What is shown is what is sure: a count is
//! never too high, and too low by at most that one in [`ROWS`]; with at most [`ROWS`] clients a shard it is exact.
//!
//! Counting takes one shard's lock for a look through a few hundred bytes. Two summaries (one by requests, one by
//! refusals) take at most 20 MiB together: a third of it where few are refused for more than one reason.

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

/// Most reasons that are kept of one client and step, and shown of one client.
pub const MAX_REASONS: usize = 8;

/// Clients that a summary holds.
pub const ROWS: usize = 32;

/// Summaries beside each other, each with the clients that its hash falls to.
const SHARDS: usize = 32;

const SECOND_NS: Nanos = 1_000_000_000;

/// Steps of the last 5 minutes, and the one that is under way.
const FINE: Steps = Steps { step_ns: 15 * SECOND_NS, count: 21 };

/// Steps of the last hour.
const COARSE: Steps = Steps { step_ns: 300 * SECOND_NS, count: 13 };

/// How time is cut.
#[derive(Clone, Copy)]
struct Steps {
    step_ns: Nanos,
    count: usize,
}

impl Steps {
    /// The longest window.
    const fn longest_ns(self) -> Nanos {
        self.step_ns * (self.count as u64 - 1)
    }
}

/// Why a request was refused, as it was decided then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of entry whose bucket refused; `None`: a rule's.
    pub entry: Option<EntryKind>,
    /// The bucket, or `concurrency`.
    pub bucket: BucketName,
    /// The rule that has the bucket; `None`: a limit has it.
    pub rule: Option<Arc<str>>,
}

impl Refusal {
    /// `client`, `range`, `default` or `rule`: the word of the metrics.
    pub fn policy(&self) -> &'static str {
        self.entry.map_or("rule", EntryKind::policy)
    }
}

/// How often it was for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReason {
    /// The reason.
    pub refusal: Refusal,
    /// How often.
    pub denied: u64,
}

/// One client of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// Whom the limiter takes it for.
    pub client: ClientKey,
    /// The stored id that names it, if one does.
    pub name: Option<Arc<str>>,
    /// At least so many requests, refused ones among them. By refusals: the refused ones alone.
    pub requests: u64,
    /// At least so many of them were refused.
    pub denied: u64,
    /// Why, most frequent first; at most [`MAX_REASONS`]. Only by refusals.
    pub reasons: Vec<RefusalReason>,
}

/// Both rankings.
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
    /// Counts one request of a client. Allocates nothing while a step goes on and its clients and their reasons are known.
    /// Takes one shard's lock, of a refused request two, one after the other.
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

/// Clients by how often they were counted.
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
    /// Since the clock's origin; says whose rows these are.
    number: u64,
    /// Beginnings of the hashes of `rows`, to look through quickly.
    tags: Vec<u32>,
    rows: Vec<Row>,
}

struct Row {
    client: ClientKey,
    name: Option<Arc<str>>,
    /// Times counted since it is in the summary, and `error` on top.
    count: u64,
    /// What the one before it in this place had: so much of `count` may be others'.
    error: u64,
    denied: u64,
    reasons: Vec<RefusalReason>,
}

impl Ranking {
    fn new() -> Self {
        // Keyed per process: no client can choose whom it pushes out.
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
                // Of the oldest step only a part lies within: taken as spread evenly.
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
                    // Rounded so that they add up to what is said of all.
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

/// Counts a reason, if it is known or there is room for it.
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

/// The step of a moment, emptied if it held an older one.
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
