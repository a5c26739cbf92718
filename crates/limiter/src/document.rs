//! Limits and plans as JSON documents, which databases hold, the API shows and accepts, and the command line reads and
//! sends; and the check of their members. Configuration and API read the members themselves, to say where a fault is,
//! and have them checked here.
//!
//! A document that is shown or stored has all members; one that is sent ([`NewLimit`]) may leave out the optional ones.

mod written;

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::written::{NewBucket, NewLimit};
use crate::identity::{ClientId, IdForm};
use crate::importance::{GivenImportance, check_weight, parse_priority};
use crate::limit::{Limit, Rate, parse_per, per_text};
use crate::terms::{
    BucketName, BucketSpec, ClientLimit, MAX_BUCKETS, MAX_IN_FLIGHT, Mode, Plan, PlanName, Reset, Terms,
};
use balancer_importance::Priority;

/// A function that is called with each fault: the member's name, and what is wrong with it.
pub type Say<'a> = dyn FnMut(&'static str, String) + 'a;

/// The value, if there is one; a fault is handed to `say`.
fn said<T, F: Display>(value: Result<T, F>, member: &'static str, say: &mut Say<'_>) -> Option<T> {
    value.map_err(|fault| say(member, fault.to_string())).ok()
}

/// Checks the number of buckets of one document. None is no fault here: a limit with a plan has none.
///
/// # Errors
/// There are more than [`MAX_BUCKETS`].
pub fn check_count(count: usize) -> Result<(), String> {
    let fault = || format!("must be 1 to {MAX_BUCKETS}, found {count}");
    (count <= MAX_BUCKETS).then_some(()).ok_or_else(fault)
}

/// The members of a bucket as they were read. `None`: it was left out, or could not be read and its fault is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct BucketMembers<'a> {
    /// The bucket's name.
    pub name: Option<&'a str>,
    /// Millionths of a token that flow in every `per`.
    pub amount_micro: Option<u64>,
    /// The span.
    pub per: Option<&'a str>,
    /// `None`: it was left out; `Some(None)`: it could not be read.
    pub capacity: Option<Option<u64>>,
    /// `enforced`, or `shadow`.
    pub mode: Option<&'a str>,
    /// `utc`.
    pub reset: Option<&'a str>,
}

impl BucketMembers<'_> {
    /// Checks the members. `beside` are the buckets before this one in the same document. `None`: a member is missing
    /// or wrong. A bucket may be returned although `say` was called.
    pub fn check(self, beside: &[BucketSpec], say: &mut Say<'_>) -> Option<BucketSpec> {
        let name = self.name.and_then(|text| said(BucketName::parse(text), "name", say));
        let span = "must be a span such as \"1s\", \"1m\", \"1h\" or \"1d\", at most \"366d\", or \"1mo\"";
        let per_secs = self.per.and_then(|text| said(parse_per(text).ok_or(span), "per", say));
        let capacity = self.capacity(say);
        let mode = match self.mode {
            None | Some("enforced") => Ok(Mode::Enforced),
            Some("shadow") => Ok(Mode::Shadow),
            Some(_) => Err("must be \"enforced\" or \"shadow\""),
        };
        let mode = said(mode, "mode", say);
        let period =
            || per_secs.map(|secs| Reset::of_per(secs).ok_or("needs a per of \"1h\", \"1d\" or \"1mo\""));
        let reset = match self.reset {
            None => Ok(None),
            Some("utc") => period().transpose(),
            Some(_) => Err("must be \"utc\" or null"),
        };
        let reset = said(reset, "reset", say);
        let limit =
            Limit { capacity: capacity?, rate: Rate { micro: self.amount_micro?, per_secs: per_secs? } };
        let spec = BucketSpec { mode: mode?, reset: reset?, ..BucketSpec::new(name?, limit) };
        if beside.iter().any(|other| other.id == spec.id) {
            say("name", format!("{:?} names another bucket of this limit already", spec.name.as_str()));
        }
        Some(spec)
    }

    /// The capacity; if it was left out, the amount.
    fn capacity(&self, say: &mut Say<'_>) -> Option<u32> {
        let capacity = match self.capacity {
            Some(given) => u32::try_from(given?)
                .ok()
                .filter(|capacity| *capacity <= Limit::MAX_CAPACITY)
                .ok_or_else(|| format!("must be at most {}", Limit::MAX_CAPACITY)),
            None => Rate::per_second(self.amount_micro?)
                .whole()
                .ok_or_else(|| "is missing: an amount that is no whole number needs one".to_owned()),
        };
        said(capacity, "capacity", say)
    }
}

/// The members of a limit as they were read. `None`: it was left out, or could not be read and its fault is known.
#[derive(Clone, Debug, Default)]
pub struct LimitMembers<'a> {
    /// Whether there is a plan, even if its name could not be read.
    pub has_plan: bool,
    /// The plan's name.
    pub plan: Option<&'a str>,
    /// The buckets; `None`: there are some that could not be read.
    pub buckets: Option<Vec<BucketSpec>>,
    /// Most requests at once.
    pub max_in_flight: Option<u32>,
    /// The client's part of the places of its priority.
    pub weight: Option<u32>,
    /// `critical`, `normal` or `background`.
    pub priority: Option<&'a str>,
    /// `exempt`.
    pub mode: Option<&'a str>,
    /// All addresses of a range share one bucket.
    pub shared: bool,
    /// Each instance counts alone.
    pub per_instance: bool,
    /// Whether the limit is that of a range.
    pub is_range: bool,
}

impl LimitMembers<'_> {
    /// Checks the members. A limit may be returned although there are faults: it counts only if `say` was not called.
    pub fn check(self, say: &mut Say<'_>) -> Option<ClientLimit> {
        let plan = self.plan.and_then(|text| said(PlanName::parse(text), "plan", say));
        let max_in_flight = self.max_in_flight.and_then(|most| said(in_flight(most), "max_in_flight", say));
        let importance = importance(self.weight, self.priority, say);
        let exempt = self.mode == Some("exempt");
        if self.mode.is_some() && !exempt {
            let text =
                "must be \"exempt\" or not be there; \"enforced\" and \"shadow\" are for single buckets";
            say("mode", text.to_owned());
        }
        if self.shared && !self.is_range {
            say("shared", "only a range such as 10.0.0.0/8 is shared by several clients".to_owned());
        }
        let has_buckets = self.buckets.as_ref().is_none_or(|buckets| !buckets.is_empty());
        match (self.has_plan, has_buckets) {
            (true, true) => say("buckets", "has a plan and buckets; a limit has one of them".to_owned()),
            (false, false) if !exempt => {
                say("buckets", "missing: neither a plan nor buckets nor \"mode\": \"exempt\"".to_owned());
            }
            _ => {}
        }
        let own = Terms { buckets: self.buckets?.into(), max_in_flight, importance };
        Some(ClientLimit { plan, own, exempt, shared: self.shared, per_instance: self.per_instance })
    }
}

/// Checks weight and priority of a limit or a plan. One with a fault is left out.
pub fn importance(weight: Option<u32>, priority: Option<&str>, say: &mut Say<'_>) -> GivenImportance {
    GivenImportance {
        weight: weight.and_then(|weight| said(check_weight(weight), "weight", say)),
        priority: priority.and_then(|text| said(parse_priority(text), "priority", say)),
    }
}

fn in_flight(most: u32) -> Result<u32, String> {
    let fault = || format!("must be a whole number from 1 to {MAX_IN_FLIGHT}");
    (1..=MAX_IN_FLIGHT).contains(&most).then_some(most).ok_or_else(fault)
}

/// A bucket with all its members: `{"name","amount","per","capacity","mode","reset"}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketDocument {
    name: String,
    /// A JSON number with at most 6 decimals, exact.
    amount: Box<RawValue>,
    per: String,
    capacity: u32,
    mode: Cow<'static, str>,
    reset: Option<Cow<'static, str>>,
}

/// A limit with all its members:
/// `{"client_id","plan","buckets","max_in_flight","weight"?,"priority"?,"mode"?,"shared","per_instance"?}`. `weight`
/// and `priority` are there only if the limit has its own, `mode` only as `exempt`, `per_instance` only as true.
#[derive(Debug, Serialize)]
pub struct LimitDocument<'a> {
    client_id: &'a str,
    plan: Option<&'a str>,
    buckets: Vec<BucketDocument>,
    max_in_flight: Option<u32>,
    #[serde(flatten)]
    importance: ImportanceDocument,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    shared: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    per_instance: bool,
}

/// A plan with all its members: `{"name","buckets","max_in_flight","weight"?,"priority"?}`.
#[derive(Debug, Serialize)]
pub struct PlanDocument<'a> {
    name: &'a str,
    buckets: Vec<BucketDocument>,
    max_in_flight: Option<u32>,
    #[serde(flatten)]
    importance: ImportanceDocument,
}

/// Members of limits and of plans that are written only if they were given.
#[derive(Debug, Serialize)]
struct ImportanceDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'static str>,
}

impl ImportanceDocument {
    fn new(given: GivenImportance) -> Self {
        Self { weight: given.weight, priority: given.priority.map(Priority::name) }
    }
}

impl BucketDocument {
    /// The documents of buckets, as a database holds them.
    pub fn list(buckets: &[BucketSpec]) -> Vec<Self> {
        buckets.iter().map(Self::new).collect()
    }

    fn new(bucket: &BucketSpec) -> Self {
        let Limit { capacity, rate } = bucket.limit;
        Self {
            name: bucket.name.as_str().to_owned(),
            // Tokens a second display as a JSON number.
            amount: RawValue::from_string(Rate::per_second(rate.micro).to_string()).unwrap_or_default(),
            per: per_text(rate),
            capacity,
            mode: Cow::Borrowed(if bucket.is_enforced() { "enforced" } else { "shadow" }),
            reset: bucket.reset.map(|_| Cow::Borrowed("utc")),
        }
    }

    fn spec(&self, beside: &[BucketSpec]) -> Result<BucketSpec, String> {
        let micro = Rate::parse_decimal(self.amount.get()).map_err(|fault| format!("amount {fault}"))?.micro;
        let members = BucketMembers {
            name: Some(&self.name),
            amount_micro: Some(micro),
            per: Some(&self.per),
            capacity: Some(Some(self.capacity.into())),
            mode: Some(&self.mode),
            reset: self.reset.as_deref(),
        };
        let mut fault = None;
        let spec = members.check(beside, &mut |member, text| fault = Some(format!("{member} {text}")));
        spec.filter(|_| fault.is_none()).ok_or_else(|| fault.unwrap_or_default())
    }
}

impl<'a> LimitDocument<'a> {
    /// The document of a limit. `client_id`: the id as it is stored.
    pub fn new(client_id: &'a str, limit: &'a ClientLimit) -> Self {
        Self {
            client_id,
            plan: limit.plan.as_ref().map(|plan| plan.as_str()),
            buckets: BucketDocument::list(&limit.own.buckets),
            max_in_flight: limit.own.max_in_flight,
            importance: ImportanceDocument::new(limit.own.importance),
            mode: limit.exempt.then_some("exempt"),
            shared: limit.shared,
            per_instance: limit.per_instance,
        }
    }
}

impl<'a> PlanDocument<'a> {
    /// The document of a plan.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            name: plan.name.as_str(),
            buckets: BucketDocument::list(&plan.terms.buckets),
            max_in_flight: plan.terms.max_in_flight,
            importance: ImportanceDocument::new(plan.terms.importance),
        }
    }
}

/// Reads the buckets that a database holds, as [`BucketDocument::list`] makes them.
///
/// # Errors
/// What is wrong with the text, for the log.
pub fn buckets(text: &str) -> Result<Arc<[BucketSpec]>, String> {
    specs(&serde_json::from_str::<Vec<BucketDocument>>(text).map_err(|error| error.to_string())?)
}

fn specs(list: &[BucketDocument]) -> Result<Arc<[BucketSpec]>, String> {
    check_count(list.len()).map_err(|fault| format!("buckets {fault}"))?;
    let mut specs = Vec::with_capacity(list.len());
    for bucket in list {
        specs.push(bucket.spec(&specs).map_err(|fault| format!("a bucket's {fault}"))?);
    }
    Ok(specs.into())
}

/// A plan or a limit that was read from its document.
#[derive(Debug, PartialEq, Eq)]
pub enum Document {
    /// A plan.
    Plan(Plan),
    /// The client id of a limit, and the limit.
    Limit(String, ClientLimit),
}

impl Document {
    /// Reads what [`PlanDocument`] or [`LimitDocument`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text, for the log.
    pub fn read(text: &str) -> Result<Self, String> {
        // As an object of no other members: a plan has a name, a limit an id.
        #[derive(Deserialize)]
        struct Kind {
            name: Option<IgnoredAny>,
        }
        let kind: Kind = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut fault = None;
        let mut say = |member: &'static str, text: String| fault = Some(format!("{member} {text}"));
        let read = if kind.name.is_some() { read_plan(text, &mut say)? } else { read_limit(text, &mut say)? };
        fault.map_or(Ok(()), Err)?;
        read.ok_or_else(|| "it is incomplete".to_owned())
    }

    /// The client id of a limit's document, even if other members are wrong.
    pub fn client_id(text: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Id {
            client_id: String,
        }
        serde_json::from_str::<Id>(text).ok().map(|limit| limit.client_id)
    }
}

fn read_plan(text: &str, say: &mut Say<'_>) -> Result<Option<Document>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        name: String,
        buckets: Vec<BucketDocument>,
        max_in_flight: Option<u32>,
        weight: Option<u32>,
        priority: Option<String>,
    }
    let read: Read = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let buckets = specs(&read.buckets)?;
    if buckets.is_empty() {
        say("buckets", "missing".to_owned());
    }
    let max_in_flight = read.max_in_flight.and_then(|most| said(in_flight(most), "max_in_flight", say));
    let importance = importance(read.weight, read.priority.as_deref(), say);
    let terms = Terms { buckets, max_in_flight, importance };
    Ok(said(PlanName::parse(&read.name), "name", say).map(|name| Document::Plan(Plan { name, terms })))
}

fn read_limit(text: &str, say: &mut Say<'_>) -> Result<Option<Document>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        client_id: String,
        plan: Option<String>,
        buckets: Vec<BucketDocument>,
        max_in_flight: Option<u32>,
        weight: Option<u32>,
        priority: Option<String>,
        mode: Option<String>,
        #[serde(default)]
        shared: bool,
        #[serde(default)]
        per_instance: bool,
    }
    let read: Read = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let members = LimitMembers {
        has_plan: read.plan.is_some(),
        plan: read.plan.as_deref(),
        buckets: Some(specs(&read.buckets)?.to_vec()),
        max_in_flight: read.max_in_flight,
        weight: read.weight,
        priority: read.priority.as_deref(),
        mode: read.mode.as_deref(),
        shared: read.shared,
        per_instance: read.per_instance,
        is_range: ClientId::parse(&read.client_id).is_ok_and(|id| matches!(id.form(), IdForm::Range(_))),
    };
    Ok(members.check(say).map(|limit| Document::Limit(read.client_id, limit)))
}

#[cfg(test)]
mod tests;
