//! What an operator grants: named buckets, plans, and the limits of clients.
//!
//! A client's limit names a plan or has one to four buckets of its own. It may bound how many of the client's requests
//! are under way at once, and may exempt the client from everything. The five fixed calls of the API make limits with
//! one bucket, named [`DEFAULT_BUCKET`].

use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};

use super::importance::GivenImportance;
use super::limit::{Limit, Rate};
pub use super::reset::Reset;

/// Most buckets of one limit, of one plan and of one rule.
pub const MAX_BUCKETS: usize = 4;

/// Most rules in the configuration.
pub const MAX_RULES: usize = 64;

/// Most routes in the configuration. It is here because routes may have buckets, like rules.
pub const MAX_ROUTES: usize = 10_000;

/// Most plans.
pub const MAX_PLANS: usize = 1_000;

/// Most requests at once that a limit may allow.
pub const MAX_IN_FLIGHT: u32 = 1_000_000;

/// A bucket's name: 1 to 64 bytes of printable ASCII, as a String of structured fields holds it
/// (RFC 9651 §3.3.3). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Arc<str>);

/// A plan's name: 1 to 64 bytes of UTF-8 without control characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanName(Arc<str>);

/// Longest name of a bucket or plan in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// It is empty, or longer than 64 bytes.
    Length,
    /// It has a character that is not allowed.
    Character,
    /// It is [`CONCURRENCY`].
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

/// The name of a limit's bucket when only numbers were given.
pub const DEFAULT_BUCKET: &str = "default";

/// The policy name under which answers show the bound on requests at once.
pub const CONCURRENCY: &str = "concurrency";

impl BucketName {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
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

    /// [`DEFAULT_BUCKET`] as a name.
    pub fn default_bucket() -> Self {
        static NAME: LazyLock<BucketName> = LazyLock::new(|| BucketName(DEFAULT_BUCKET.into()));
        // Many limits share this one text.
        NAME.clone()
    }

    /// [`CONCURRENCY`] as a name, for places that otherwise hold the name of a bucket.
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
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
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

/// Identifies one bucket of a client: the first 8 bytes of its name's SHA-256, the same in every process and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId(pub u64);

impl BucketId {
    /// The id of a bucket of a limit or a plan.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }

    /// The id of a bucket of a rule. It differs from that of any limit's bucket, since names hold no control
    /// characters.
    pub fn of_rule(rule: &str, bucket: &str) -> Self {
        Self::of(&format!("rule\0{rule}\0{bucket}"))
    }

    /// The id of the one bucket of a route's limit.
    pub fn of_route(route: &str) -> Self {
        Self::of(&format!("route\0{route}"))
    }

    /// The id of a bucket that routes name and share.
    pub fn of_shared(bucket: &str) -> Self {
        Self::of(&format!("routes\0{bucket}"))
    }
}

/// Whether a bucket refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It refuses requests for which it lacks tokens.
    #[default]
    Enforced,
    /// It only watches: it gives tokens and counts what it would refuse, refuses nothing, and is not shown in answers.
    Shadow,
}

/// One bucket of a limit, a plan or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSpec {
    /// Its name; no other bucket of the same limit, plan or rule has it.
    pub name: BucketName,
    /// Its id: for limits and plans [`BucketId::of`] the name, for rules and routes one of the other functions there.
    pub id: BucketId,
    /// Capacity and rate, as they were granted. Without [`BucketSpec::reset`], any span T admits at most
    /// capacity + rate × T.
    pub limit: Limit,
    /// Whether it refuses.
    pub mode: Mode,
    /// It is filled when a period of this kind begins, and not by its rate.
    pub reset: Option<Reset>,
}

impl BucketSpec {
    /// An enforced bucket of a limit or a plan that refills by its rate.
    pub fn new(name: BucketName, limit: Limit) -> Self {
        Self { id: BucketId::of(name.as_str()), name, limit, mode: Mode::Enforced, reset: None }
    }

    /// The numbers by which its bucket works: with a reset the rate is 0.
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

/// What a plan grants, or a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// 1 to [`MAX_BUCKETS`] with different names; none for a limit that has a plan or is exempt. Cheap to clone.
    pub buckets: Arc<[BucketSpec]>,
    /// Most requests at once of one client, in one instance.
    pub max_in_flight: Option<u32>,
    /// Weight and priority of requests that wait for a backend.
    pub importance: GivenImportance,
}

impl Terms {
    /// One bucket with these numbers, named [`DEFAULT_BUCKET`].
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
    /// The client's plan; then [`ClientLimit::own`] has no buckets.
    pub plan: Option<PlanName>,
    /// The client's own buckets, or none. Its own bound on requests at once, weight and priority win over the plan's.
    pub own: Terms,
    /// The client is never refused. Its requests are counted, and answers have no fields about limits.
    pub exempt: bool,
    /// For a range: all its addresses share one bucket.
    pub shared: bool,
    /// Each instance counts alone, even if instances share one budget.
    pub per_instance: bool,
}

impl ClientLimit {
    /// A limit with one bucket with these numbers, as the five fixed calls make it.
    pub fn of_numbers(limit: Limit) -> Self {
        Self { plan: None, own: Terms::of_numbers(limit), exempt: false, shared: false, per_instance: false }
    }

    /// Stands in memory for a stored row that can't be read: the default decides about its client.
    pub fn unreadable() -> Self {
        Self { plan: None, own: Terms::default(), exempt: false, shared: false, per_instance: false }
    }

    /// Whether it is [`ClientLimit::unreadable`]: it has neither plan nor buckets nor an exemption, as no valid limit
    /// does.
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
        for (bytes, fault) in [(0, Some(NameFault::Length)), (64, None), (65, Some(NameFault::Length))] {
            let text = "x".repeat(bytes);
            assert_eq!((BucketName::parse(&text).err(), PlanName::parse(&text).err()), (fault, fault));
        }
        assert_eq!(PlanName::parse("pro").unwrap().as_str(), "pro");
        assert_eq!(BucketName::default_bucket().as_str(), DEFAULT_BUCKET);
        assert_eq!(BucketName::concurrency().as_str(), CONCURRENCY);
    }

    fn limit(capacity: u32, amount: u64, per_secs: u32) -> Limit {
        Limit { capacity, rate: Rate { micro: amount * 1_000_000, per_secs } }
    }

    #[test]
    fn a_bucket_is_known_by_its_name_and_by_whose_it_is() {
        // printf day | sha256sum | head -c 16
        assert_eq!(BucketId::of("day"), BucketId(0x944c_27e5_b97a_b779));
        let mut ids = vec![BucketId::of("a"), BucketId::of("b")];
        ids.extend([BucketId::of_rule("a", "b"), BucketId::of_rule("b", "a"), BucketId::of_rule("a", "a")]);
        ids.extend([BucketId::of_route("a"), BucketId::of_route("b")]);
        ids.extend([BucketId::of_shared("a"), BucketId::of_shared("b")]);
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn with_a_reset_nothing_flows_in() {
        let spec = BucketSpec::new(BucketName::default_bucket(), limit(9, 5, 86_400));
        assert_eq!((spec.in_force(), spec.is_enforced()), (limit(9, 5, 86_400), true));
        let spec = BucketSpec { reset: Some(Reset::Day), mode: Mode::Shadow, ..spec };
        assert_eq!((spec.in_force(), spec.is_enforced()), (limit(9, 0, 86_400), false));
    }

    #[test]
    fn terms_are_told_in_words() {
        let terms = |given: &[(Limit, Option<Reset>)], max_in_flight| {
            let bucket = |(limit, reset): &(Limit, _)| BucketSpec {
                reset: *reset,
                ..BucketSpec::new(BucketName::default_bucket(), *limit)
            };
            Terms { buckets: given.iter().map(bucket).collect(), max_in_flight, ..Terms::default() }
        };
        let (second, minute) = ((limit(10, 1, 1), None), (limit(50, 600, 60), None));
        let turn = |per_secs, reset| (limit(5, 5, per_secs), Some(reset));
        for (terms, text) in [
            (terms(&[second], Some(20)), "10 tokens, refilled at 1/s and at most 20 requests at once"),
            (terms(&[minute, second], None), "50 tokens, refilled at 600/m and 10 tokens, refilled at 1/s"),
            (terms(&[turn(3_600, Reset::Hour)], None), "5 tokens an hour"),
            (terms(&[turn(86_400, Reset::Day)], None), "5 tokens a day"),
            (terms(&[turn(2_592_000, Reset::Month)], None), "5 tokens a month"),
        ] {
            assert_eq!(terms.to_string(), text);
        }
        assert_eq!(terms(&[minute, second], None).first(), Some(minute.0));
        assert_eq!(terms(&[], None).first(), None);
    }

    #[test]
    fn a_limit_without_plan_buckets_and_exemption_is_one_that_could_not_be_read() {
        let none = ClientLimit::unreadable();
        assert!(none.is_unreadable());
        assert!(!ClientLimit::of_numbers(limit(1, 1, 1)).is_unreadable());
        assert!(!ClientLimit { exempt: true, ..none.clone() }.is_unreadable());
        assert!(!ClientLimit { plan: PlanName::parse("pro").ok(), ..none }.is_unreadable());
    }
}
