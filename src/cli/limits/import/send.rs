//! Limits on their way to a balancer, in batches whose size follows how long the balancer takes for one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use http::Method;

use super::{Faults, operation};
use crate::cli::api::Api;
use crate::cli::failure::Failure;
use crate::cli::terms::Terms;
use crate::clock::Clock;

/// Operations of the first batch.
const FIRST: usize = 1_000;

/// Most operations of a batch; the API's bound.
const MOST: usize = 10_000;

/// Fewest, below which a balancer that gives no answer is given up.
const LEAST: usize = 50;

/// Most bytes of a batch; half of the API's bound.
const MOST_BYTES: usize = 4 << 20;

/// A batch that took less may be followed by a larger one.
const QUICK: Duration = Duration::from_millis(500);

/// A batch that took more is followed by a smaller one: a store gives up at `database.timeout`, 2 s.
const SLOW: Duration = Duration::from_millis(1_200);

/// How often one batch is sent again while the store gives no answer.
const RETRIES: u32 = 5;

/// The limits that wait, and where they go.
pub struct Sender<'a> {
    /// `None`: nowhere, they are only counted.
    api: Option<&'a Api>,
    clock: &'a Clock,
    /// Line number and operation.
    waiting: VecDeque<(u64, String)>,
    bytes: usize,
    size: usize,
    imported: u64,
}

impl<'a> Sender<'a> {
    /// With nothing to send yet.
    pub fn new(api: Option<&'a Api>, clock: &'a Clock) -> Self {
        Self { api, clock, waiting: VecDeque::new(), bytes: 0, size: FIRST, imported: 0 }
    }

    /// Limits that are in force; without an API, those that could be sent.
    pub fn imported(&self) -> u64 {
        self.imported
    }

    /// One more. Sends when there are enough.
    ///
    /// # Errors
    /// Whatever ends the import.
    pub fn add(&mut self, line: u64, terms: &Terms, faults: &mut Faults) -> Result<(), Failure> {
        if self.api.is_none() {
            self.imported += 1;
            return Ok(());
        }
        let operation = operation(terms);
        self.bytes += operation.len();
        self.waiting.push_back((line, operation));
        while self.waiting.len() >= self.size || self.bytes >= MOST_BYTES {
            self.send(faults)?;
        }
        Ok(())
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// Whatever ends the import.
    pub fn finish(&mut self, faults: &mut Faults) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            self.send(faults)?;
        }
        Ok(())
    }

    /// The first of those that wait. Operations that are refused become faults, and the others are sent again without
    /// them: a batch is all or nothing.
    fn send(&mut self, faults: &mut Faults) -> Result<(), Failure> {
        let Some(api) = self.api else { return Ok(()) };
        let mut batch = self.take();
        let mut retries = 0;
        while !batch.is_empty() {
            let started_ns = self.clock.now();
            let body = body(&batch);
            match api.send(Method::POST, "/-/v1/batch", &[], Some(&body)) {
                Ok(_) => {
                    self.imported += batch.len() as u64;
                    self.tune(Duration::from_nanos(self.clock.now().saturating_sub(started_ns)));
                    return Ok(());
                }
                // Too much at once, or the store is slow or away for a moment. A put may be repeated.
                Err(failure @ Failure::Refused { status: 413 | 503, .. }) => {
                    retries += 1;
                    if retries > RETRIES {
                        return Err(failure);
                    }
                    self.size = (self.size / 2).max(LEAST);
                    for kept in batch.drain(self.size.min(batch.len())..).rev() {
                        self.bytes += kept.1.len();
                        self.waiting.push_front(kept);
                    }
                    std::thread::sleep(Duration::from_millis(200 * u64::from(retries)));
                }
                Err(Failure::Refused { errors, .. }) if named(&errors, batch.len()).next().is_some() => {
                    let mut wrong: BTreeMap<usize, &str> = BTreeMap::new();
                    let details: Vec<_> = named(&errors, batch.len()).collect();
                    for (index, detail) in &details {
                        wrong.entry(*index).or_insert(detail);
                    }
                    for (index, detail) in &wrong {
                        faults.add(batch[*index].0, (*detail).to_owned())?;
                    }
                    let mut at = 0;
                    batch.retain(|_| {
                        at += 1;
                        !wrong.contains_key(&(at - 1))
                    });
                }
                Err(other) => return Err(lines_of(&batch, other)),
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<(u64, String)> {
        let mut batch = Vec::with_capacity(self.size.min(self.waiting.len()));
        let mut bytes = 0;
        while batch.len() < self.size && bytes < MOST_BYTES {
            let Some(next) = self.waiting.pop_front() else { break };
            bytes += next.1.len();
            batch.push(next);
        }
        self.bytes -= bytes;
        batch
    }

    fn tune(&mut self, took: Duration) {
        if took < QUICK {
            self.size = (self.size * 2).min(MOST);
        } else if took > SLOW {
            self.size = (self.size / 2).max(LEAST);
        }
    }
}

fn body(batch: &[(u64, String)]) -> String {
    let length = batch.iter().map(|(_, operation)| operation.len() + 1).sum::<usize>();
    let mut body = String::with_capacity(length + 20);
    body.push_str("{\"operations\":[");
    for (at, (_, operation)) in batch.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(operation);
    }
    body.push_str("]}");
    body
}

/// Which operations a refusal names (`/operations/12/buckets/0/per`), and what is wrong with them.
fn named(errors: &[(String, String)], count: usize) -> impl Iterator<Item = (usize, String)> {
    errors.iter().filter_map(move |(pointer, detail)| {
        let rest = pointer.strip_prefix("/operations/")?;
        let (index, member) = rest.split_once('/').unwrap_or((rest, ""));
        let index = index.parse().ok().filter(|index| *index < count)?;
        let text = if member.is_empty() { detail.clone() } else { format!("{member}: {detail}") };
        Some((index, text))
    })
}

/// A refusal that names no operation, with the lines that it was about.
fn lines_of(batch: &[(u64, String)], failure: Failure) -> Failure {
    match (batch.first(), batch.last(), &failure) {
        (Some((first, _)), Some((last, _)), Failure::Refused { status: 400 | 404 | 409, text, .. }) => {
            Failure::Incomplete(format!("lines {first} to {last}: {text}"))
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusals_pointers_name_operations() {
        let errors: Vec<(String, String)> = [
            ("/operations/1/buckets/0/per", "is odd"),
            ("/operations/0", "there is no plan"),
            ("/operations/9", "not in this batch"),
            ("/operations/x", "no number"),
            ("/client_id", "elsewhere"),
        ]
        .map(|(pointer, detail)| (pointer.to_owned(), detail.to_owned()))
        .into();
        let found: Vec<_> = named(&errors, 2).collect();
        assert_eq!(found, [(1, "buckets/0/per: is odd".to_owned()), (0, "there is no plan".to_owned())]);
    }

    #[test]
    fn a_batch_grows_while_it_is_quick_and_shrinks_when_it_is_slow() {
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
    fn a_batch_is_cut_at_its_size_and_its_bytes() {
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
        assert_eq!(body(&[(1, "{}".into()), (2, "{}".into())]), "{\"operations\":[{},{}]}");
    }
}
