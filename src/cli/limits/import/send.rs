//! Sends limits to a balancer, in chunks. Their size follows from how long the balancer takes for one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use http::Method;

use serde::Deserialize;

use super::Faults;
use crate::cli::api::Api;
use crate::cli::failure::CommandFailure;
use crate::clock::Clock;
use balancer_limiter::document::NewLimit;

/// How many limits the first chunk has.
const FIRST: usize = 1_000;

/// Most limits of a chunk: the bound of the API.
const MOST: usize = 10_000;

/// Fewest limits of a chunk, however slow the balancer is.
const LEAST: usize = 50;

/// Most bytes of a chunk: half of the bound of the API.
const MOST_BYTES: usize = 4 << 20;

/// After a chunk that took less time, the next one is larger.
const QUICK: Duration = Duration::from_millis(500);

/// After a chunk that took more time, the next one is smaller. The store gives up at `database.timeout`, by default
/// 2 s.
const SLOW: Duration = Duration::from_millis(1_200);

/// How often a chunk is sent again when the balancer answers 413 or 503.
const RETRIES: u32 = 5;

/// How many of the limits that were sent were new, changed or the same.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ImportTally {
    /// Clients that had no limit.
    pub created: u64,
    /// Clients that had another limit.
    pub replaced: u64,
    /// Clients that had this limit already.
    pub unchanged: u64,
}

/// Collects limits and sends them in chunks.
pub struct Sender<'a> {
    /// `None`: limits are only counted.
    api: Option<&'a Api>,
    clock: &'a Clock,
    /// Limits that are not sent yet: the number of the line, and the limit as JSON.
    waiting: VecDeque<(u64, String)>,
    /// The length of all that wait.
    bytes: usize,
    /// How many limits the next chunk has.
    size: usize,
    imported: u64,
    stored: ImportTally,
}

impl<'a> Sender<'a> {
    /// A sender that has nothing to send yet. Without an API it only counts.
    pub fn new(api: Option<&'a Api>, clock: &'a Clock) -> Self {
        Self {
            api,
            clock,
            waiting: VecDeque::new(),
            bytes: 0,
            size: FIRST,
            imported: 0,
            stored: ImportTally::default(),
        }
    }

    /// How many limits are in force; without an API, how many could be sent.
    pub fn imported(&self) -> u64 {
        self.imported
    }

    /// How many of them were new, changed or the same.
    pub fn stored(&self) -> ImportTally {
        self.stored
    }

    /// Adds a limit, and sends a chunk when there are enough.
    ///
    /// # Errors
    /// Those that end the import.
    pub fn add(&mut self, line: u64, terms: &NewLimit, faults: &mut Faults) -> Result<(), CommandFailure> {
        if self.api.is_none() {
            self.imported += 1;
            return Ok(());
        }
        let limit = terms.to_json();
        self.bytes += limit.len();
        self.waiting.push_back((line, limit));
        while self.waiting.len() >= self.size || self.bytes >= MOST_BYTES {
            self.send(faults)?;
        }
        Ok(())
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// Those that end the import.
    pub fn finish(&mut self, faults: &mut Faults) -> Result<(), CommandFailure> {
        while !self.waiting.is_empty() {
            self.send(faults)?;
        }
        Ok(())
    }

    /// Sends a chunk. The balancer takes a chunk as a whole or not at all. So limits that it refuses become faults, and
    /// the others are sent again without them.
    fn send(&mut self, faults: &mut Faults) -> Result<(), CommandFailure> {
        let Some(api) = self.api else { return Ok(()) };
        let mut chunk = self.take();
        let mut retries = 0;
        while !chunk.is_empty() {
            let started_ns = self.clock.now();
            let body = body(&chunk);
            match api.send(Method::POST, "/-/v1/import", &[], Some(&body)) {
                Ok(answer) => {
                    let stored: ImportTally = api.read(&answer.body)?;
                    self.stored.created += stored.created;
                    self.stored.replaced += stored.replaced;
                    self.stored.unchanged += stored.unchanged;
                    self.imported += chunk.len() as u64;
                    self.tune(Duration::from_nanos(self.clock.now().saturating_sub(started_ns)));
                    return Ok(());
                }
                // Too much at once, or the store is slow or does not answer. Setting the same limit twice does no harm.
                Err(failure @ CommandFailure::Refused { status: 413 | 503, .. }) => {
                    retries += 1;
                    if retries > RETRIES {
                        return Err(failure);
                    }
                    self.size = (self.size / 2).max(LEAST);
                    for kept in chunk.drain(self.size.min(chunk.len())..).rev() {
                        self.bytes += kept.1.len();
                        self.waiting.push_front(kept);
                    }
                    std::thread::sleep(Duration::from_millis(200 * u64::from(retries)));
                }
                Err(CommandFailure::Refused { errors, .. })
                    if named(&errors, chunk.len()).next().is_some() =>
                {
                    let mut wrong: BTreeMap<usize, &str> = BTreeMap::new();
                    let details: Vec<_> = named(&errors, chunk.len()).collect();
                    for (index, detail) in &details {
                        wrong.entry(*index).or_insert(detail);
                    }
                    for (index, detail) in &wrong {
                        faults.add(chunk[*index].0, (*detail).to_owned())?;
                    }
                    let mut at = 0;
                    chunk.retain(|_| {
                        at += 1;
                        !wrong.contains_key(&(at - 1))
                    });
                }
                Err(other) => return Err(lines_of(&chunk, other)),
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<(u64, String)> {
        let mut chunk = Vec::with_capacity(self.size.min(self.waiting.len()));
        let mut bytes = 0;
        while chunk.len() < self.size && bytes < MOST_BYTES {
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next.1.len();
            chunk.push(next);
        }
        self.bytes -= bytes;
        chunk
    }

    fn tune(&mut self, took: Duration) {
        if took < QUICK {
            self.size = (self.size * 2).min(MOST);
        } else if took > SLOW {
            self.size = (self.size / 2).max(LEAST);
        }
    }
}

fn body(chunk: &[(u64, String)]) -> String {
    let length = chunk.iter().map(|(_, limit)| limit.len() + 1).sum::<usize>();
    let mut body = String::with_capacity(length + 20);
    body.push_str("{\"limits\":[");
    for (at, (_, limit)) in chunk.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(limit);
    }
    body.push_str("]}");
    body
}

/// The limits that a refusal names (`/limits/12/buckets/0/per`), by their index, and what is wrong with them.
fn named(errors: &[(String, String)], count: usize) -> impl Iterator<Item = (usize, String)> {
    errors.iter().filter_map(move |(pointer, detail)| {
        let rest = pointer.strip_prefix("/limits/")?;
        let (index, member) = rest.split_once('/').unwrap_or((rest, ""));
        let index = index.parse().ok().filter(|index| *index < count)?;
        let text = if member.is_empty() { detail.clone() } else { format!("{member}: {detail}") };
        Some((index, text))
    })
}

/// Adds the numbers of the lines to a refusal that names no single limit.
fn lines_of(chunk: &[(u64, String)], failure: CommandFailure) -> CommandFailure {
    match (chunk.first(), chunk.last(), &failure) {
        (
            Some((first, _)),
            Some((last, _)),
            CommandFailure::Refused { status: 400 | 404 | 409, text, .. },
        ) => CommandFailure::Incomplete(format!("lines {first} to {last}: {text}")),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_pointers_name_limits() {
        let errors: Vec<(String, String)> = [
            ("/limits/1/buckets/0/per", "is odd"),
            ("/limits/0", "there is no plan"),
            ("/limits/9", "not in this chunk"),
            ("/limits/x", "no number"),
            ("/client_id", "elsewhere"),
        ]
        .map(|(pointer, detail)| (pointer.to_owned(), detail.to_owned()))
        .into();
        let found: Vec<_> = named(&errors, 2).collect();
        assert_eq!(found, [(1, "buckets/0/per: is odd".to_owned()), (0, "there is no plan".to_owned())]);
    }

    #[test]
    fn a_chunk_grows_while_it_is_quick_and_shrinks_when_it_is_slow() {
        let clock = Clock::manual();
        let mut sender = Sender::new(None, &clock);
        for _ in 0..9 {
            sender.tune(Duration::from_millis(1));
        }
        assert_eq!(sender.size, MOST);
        sender.tune(Duration::from_secs(1));
        assert_eq!(sender.size, MOST, "neither quick nor slow");
        for _ in 0..20 {
            sender.tune(Duration::from_secs(2));
        }
        assert_eq!(sender.size, LEAST);
    }

    #[test]
    fn a_chunk_is_cut_at_its_size_and_its_bytes() {
        let clock = Clock::manual();
        let mut sender = Sender::new(None, &clock);
        let fill = |sender: &mut Sender<'_>, count: usize, length: usize| {
            for line in 0..count {
                sender.bytes += length;
                sender.waiting.push_back((line as u64, "x".repeat(length)));
            }
        };
        fill(&mut sender, FIRST + 1, 1);
        assert_eq!(sender.take().len(), FIRST);
        assert_eq!((sender.take().len(), sender.bytes), (1, 0));
        fill(&mut sender, 3, MOST_BYTES);
        assert_eq!(sender.take().len(), 1);
        assert_eq!(body(&[(1, "{}".into()), (2, "{}".into())]), "{\"limits\":[{},{}]}");
    }
}
