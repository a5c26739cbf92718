//! What an operator grants: named buckets, plans of them, and what is stored for one client.
//!
//! A client's limit names a plan or has buckets of its own, one to four; it may bound how many of the client's requests
//! are under way at once, and it may exempt the client from everything. The limits of the five fixed calls are limits
//! with one bucket, named [`DEFAULT_BUCKET`].

use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};

use super::importance::GivenImportance;
use super::limit::{Limit, Rate};
pub use super::reset::Reset;

/// Most buckets of one limit, of one plan and of one rule.
pub const MAX_BUCKETS: usize = 4;

/// Most rules of the configuration.
pub const MAX_RULES: usize = 64;

/// Most routes of the configuration: each may have buckets, as a rule has.
pub const MAX_ROUTES: usize = 10_000;

/// Most plans that there are.
pub const MAX_PLANS: usize = 1_000;

/// Most requests at once that a limit may allow.
pub const MAX_IN_FLIGHT: u32 = 1_000_000;

/// A bucket's name: 1 to [`Name::MAX_BYTES`] bytes of printable ASCII, as a String of structured fields holds it
/// (RFC 9651 §3.3.3). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Arc<str>);

/// A plan's name: 1 to [`Name::MAX_BYTES`] bytes of UTF-8 without control characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanName(Arc<str>);

/// What the names have in common.
#[derive(Clone, Copy, Debug)]
pub struct Name;

impl Name {
    /// Longest name in bytes.
    pub const MAX_BYTES: usize = 64;
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// Empty, or over [`Name::MAX_BYTES`].
    Length,
    /// A character that is not allowed there.
    Character,
    /// A name that answers use for something else.
    Reserved,
}

impl std::fmt::Display for NameFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Length => "must have 1 to 64 bytes",
            Self::Character => "must hold no control characters; a bucket's name is printable ASCII",
            Self::Reserved => "must not be \"concurrency\", which stands for requests at once",
        })
    }
}

impl std::error::Error for NameFault {}

/// The name of the bucket that a limit has when its numbers were given without one.
pub const DEFAULT_BUCKET: &str = "default";

/// The policy that answers show for requests at once.
pub const CONCURRENCY: &str = "concurrency";

impl BucketName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() || text.len() > Name::MAX_BYTES {
            return Err(NameFault::Length);
        }
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(NameFault::Character);
        }
        if text == CONCURRENCY {
            return Err(NameFault::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The name of the one bucket of a limit that was given by numbers alone.
    pub fn default_bucket() -> Self {
        static NAME: LazyLock<BucketName> = LazyLock::new(|| BucketName(DEFAULT_BUCKET.into()));
        // One text for the many limits that have it.
        NAME.clone()
    }

    /// The name of the bound on requests at once, where a bucket has its name.
    pub fn concurrency() -> Self {
        static NAME: LazyLock<BucketName> = LazyLock::new(|| BucketName(CONCURRENCY.into()));
        NAME.clone()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PlanName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() || text.len() > Name::MAX_BYTES {
            return Err(NameFault::Length);
        }
        if text.chars().any(char::is_control) {
            return Err(NameFault::Character);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a bucket's level is found by, beside its client: the first 8 bytes of its name's SHA-256, the same in every
/// process and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId(pub u64);

impl BucketId {
    /// Of a bucket of a limit or a plan.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }

    /// Of a bucket of a rule, which never meets one of a limit: names hold no control characters.
    pub fn of_rule(rule: &str, bucket: &str) -> Self {
        Self::of(&format!("rule\0{rule}\0{bucket}"))
    }

    /// Of the one bucket of a route's limit.
    pub fn of_route(route: &str) -> Self {
        Self::of(&format!("route\0{route}"))
    }

    /// Of a bucket that routes name.
    pub fn of_shared(bucket: &str) -> Self {
        Self::of(&format!("routes\0{bucket}"))
    }
}

/// Whether a bucket refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It does.
    #[default]
    Enforced,
    /// It takes tokens and counts what it would refuse, refuses nothing and is told in no answer.
    Shadow,
}

/// One bucket of a limit, a plan or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// Different from those of the other buckets beside it.
    pub name: BucketName,
    /// [`BucketId::of`] the name.
    pub id: BucketId,
    /// Capacity, and the rate as `amount` every `per`. Without [`BucketSpec::reset`], any span T admits at most
    /// capacity + rate × T.
    pub limit: Limit,
    /// Whether it refuses.
    pub mode: Mode,
    /// Filled at the turn of this period and not by its rate.
    pub reset: Option<Reset>,
}

impl BucketSpec {
    /// An enforced bucket that refills by its rate.
    pub fn new(name: BucketName, limit: Limit) -> Self {
        Self { id: BucketId::of(name.as_str()), name, limit, mode: Mode::Enforced, reset: None }
    }

    /// The numbers that its bucket works by: with a reset nothing flows in between two of them.
    pub fn in_force(&self) -> Limit {
        match self.reset {
            None => self.limit,
            Some(_) => Limit { rate: Rate { micro: 0, ..self.limit.rate }, ..self.limit },
        }
    }

    /// Whether it refuses.
    pub fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforced
    }
}

/// What a plan grants, and what a limit without a plan does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// 1 to [`MAX_BUCKETS`] with different names; none only for a limit that is exempt. Cheap to clone.
    pub buckets: Arc<[BucketSpec]>,
    /// Most requests at once of one client, in one instance.
    pub max_in_flight: Option<u32>,
    /// Where requests wait for a place.
    pub importance: GivenImportance,
}

impl Terms {
    /// One bucket with these numbers, without a name of its own.
    pub fn of_numbers(limit: Limit) -> Self {
        let bucket = BucketSpec::new(BucketName::default_bucket(), limit);
        Self { buckets: Arc::new([bucket]), ..Self::default() }
    }

    /// The numbers of the first bucket.
    pub fn first(&self) -> Option<Limit> {
        self.buckets.first().map(|bucket| bucket.limit)
    }
}

/// For people: `10 tokens, refilled at 1/s and at most 20 requests at once`.
impl std::fmt::Display for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, bucket) in self.buckets.iter().enumerate() {
            let Limit { capacity, rate } = bucket.limit;
            let and = if place > 0 { " and " } else { "" };
            write!(f, "{and}{capacity} tokens")?;
            match bucket.reset {
                Some(Reset::Hour) => f.write_str(" an hour")?,
                Some(Reset::Day) => f.write_str(" a day")?,
                Some(Reset::Month) => f.write_str(" a month")?,
                None if rate.per_secs == 1 => write!(f, ", refilled at {rate}/s")?,
                None => write!(f, ", refilled at {rate}")?,
            }
        }
        match self.max_in_flight {
            Some(most) => write!(f, " and at most {most} requests at once"),
            None => Ok(()),
        }
    }
}

/// What is stored for one client id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimit {
    /// The plan; then [`ClientLimit::own`] has no buckets.
    pub plan: Option<PlanName>,
    /// The client's own buckets; its own bound on requests at once, weight and priority, which win over the plan's.
    pub own: Terms,
    /// Never refused, still counted, no fields in answers.
    pub exempt: bool,
    /// For a range: one bucket for all of it.
    pub shared: bool,
    /// Each instance counts alone, also where instances share one budget.
    pub per_instance: bool,
}

impl ClientLimit {
    /// What the five fixed calls store: one bucket with these numbers.
    pub fn of_numbers(limit: Limit) -> Self {
        Self { plan: None, own: Terms::of_numbers(limit), exempt: false, shared: false, per_instance: false }
    }

    /// What memory has instead of a stored row that can't be read: the default decides.
    pub fn unreadable() -> Self {
        Self { plan: None, own: Terms::default(), exempt: false, shared: false, per_instance: false }
    }

    /// Whether it grants nothing that could be put in force, as no limit does that was read.
    pub fn is_unreadable(&self) -> bool {
        !self.exempt && self.plan.is_none() && self.own.buckets.is_empty()
    }
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: PlanName,
    /// What it grants.
    pub terms: Terms,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_where_they_are_shown() {
        assert_eq!(BucketName::parse("per day").map(|name| name.as_str().to_owned()), Ok("per day".into()));
        assert_eq!(BucketName::parse(""), Err(NameFault::Length));
        assert_eq!(BucketName::parse(&"x".repeat(65)), Err(NameFault::Length));
        assert_eq!(BucketName::parse("täglich"), Err(NameFault::Character));
        assert_eq!(BucketName::parse("a\n"), Err(NameFault::Character));
        assert_eq!(BucketName::parse("concurrency"), Err(NameFault::Reserved));
        assert!(PlanName::parse("früh/🎉").is_ok());
        assert_eq!(PlanName::parse("a\u{85}"), Err(NameFault::Character));
    }
}
