//! Limits and plans as JSON: as databases hold buckets, as the audit holds what stood before and after, and as the API
//! shows both.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::{
    BucketName, BucketSpec, ClientLimit, MAX_BUCKETS, Mode, Plan, PlanName, Reset, Terms, parse_per, per_text,
};

/// One bucket: `{"name","amount","per","capacity","mode","reset"}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketJson {
    name: String,
    /// A JSON number with at most 6 decimals, exact.
    amount: Box<RawValue>,
    per: String,
    capacity: u32,
    mode: ModeJson,
    reset: Option<ResetJson>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeJson {
    Enforced,
    Shadow,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ResetJson {
    Utc,
}

/// A limit: `{"client_id","plan","buckets","max_in_flight","mode"?,"shared"}`; `mode` only where it is `exempt`.
#[derive(Debug, Serialize)]
pub struct LimitJson<'a> {
    client_id: &'a str,
    plan: Option<&'a str>,
    buckets: Vec<BucketJson>,
    max_in_flight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    shared: bool,
}

/// A plan: `{"name","buckets","max_in_flight"}`.
#[derive(Debug, Serialize)]
pub struct PlanJson<'a> {
    name: &'a str,
    buckets: Vec<BucketJson>,
    max_in_flight: Option<u32>,
}

impl BucketJson {
    fn new(bucket: &BucketSpec) -> Self {
        let Limit { capacity, rate } = bucket.limit;
        // `Rate` prints tokens a second as JSON prints numbers.
        let amount = RawValue::from_string(Rate::per_second(rate.micro).to_string()).unwrap_or_default();
        Self {
            name: bucket.name.as_str().to_owned(),
            amount,
            per: per_text(rate),
            capacity,
            mode: match bucket.mode {
                Mode::Enforced => ModeJson::Enforced,
                Mode::Shadow => ModeJson::Shadow,
            },
            reset: bucket.reset.map(|_| ResetJson::Utc),
        }
    }

    fn spec(&self) -> Result<BucketSpec, String> {
        let name = BucketName::parse(&self.name).map_err(|fault| format!("a bucket's name {fault}"))?;
        let micro =
            Rate::parse_decimal(self.amount.get()).map_err(|fault| format!("an amount {fault}"))?.micro;
        let per_secs = parse_per(&self.per).ok_or_else(|| format!("{:?} is no span", self.per))?;
        if self.capacity > Limit::MAX_CAPACITY {
            return Err(format!("a capacity of {}", self.capacity));
        }
        let limit = Limit { capacity: self.capacity, rate: Rate { micro, per_secs } };
        let mode = match self.mode {
            ModeJson::Enforced => Mode::Enforced,
            ModeJson::Shadow => Mode::Shadow,
        };
        let no_period = || format!("nothing is reset every {}", self.per);
        let reset = self.reset.map(|_| Reset::of_per(per_secs).ok_or_else(no_period)).transpose()?;
        Ok(BucketSpec { mode, reset, ..BucketSpec::new(name, limit) })
    }
}

impl<'a> LimitJson<'a> {
    /// A limit under the id that is stored.
    pub fn new(client_id: &'a str, limit: &'a ClientLimit) -> Self {
        Self {
            client_id,
            plan: limit.plan.as_ref().map(|plan| plan.as_str()),
            buckets: limit.own.buckets.iter().map(BucketJson::new).collect(),
            max_in_flight: limit.own.max_in_flight,
            mode: limit.exempt.then_some("exempt"),
            shared: limit.shared,
        }
    }
}

impl<'a> PlanJson<'a> {
    /// A plan.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            name: plan.name.as_str(),
            buckets: plan.terms.buckets.iter().map(BucketJson::new).collect(),
            max_in_flight: plan.terms.max_in_flight,
        }
    }
}

/// Buckets as a database holds them.
pub fn buckets_text(buckets: &[BucketSpec]) -> String {
    text(&buckets.iter().map(BucketJson::new).collect::<Vec<_>>())
}

/// What a database holds, back. The text of a fault is for the log.
pub fn buckets(text: &str) -> Result<Arc<[BucketSpec]>, String> {
    let list: Vec<BucketJson> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let buckets = list.iter().map(BucketJson::spec).collect::<Result<Vec<_>, _>>()?;
    let doubled = (1..buckets.len()).any(|at| buckets[..at].iter().any(|other| other.id == buckets[at].id));
    if buckets.len() > MAX_BUCKETS || doubled {
        return Err(format!("{} buckets, or two of one name", buckets.len()));
    }
    Ok(buckets.into())
}

/// Terms from the columns that hold them.
pub fn terms(text: &str, max_in_flight: Option<u32>) -> Result<Terms, String> {
    Ok(Terms { buckets: buckets(text)?, max_in_flight })
}

/// A line that says what is stored.
pub enum Line {
    /// A plan.
    Plan(Plan),
    /// A limit, and the id that it has.
    Limit(String, ClientLimit),
}

#[derive(Deserialize)]
struct AnyLine {
    name: Option<String>,
    client_id: Option<String>,
    plan: Option<String>,
    buckets: Box<RawValue>,
    max_in_flight: Option<u32>,
    mode: Option<String>,
    #[serde(default)]
    shared: bool,
}

/// [`PlanJson`] or [`LimitJson`] as text, back. The text of a fault is for the log.
pub fn line(text: &str) -> Result<Line, String> {
    let line: AnyLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let own = terms(line.buckets.get(), line.max_in_flight)?;
    let plan = |name: &str| PlanName::parse(name).map_err(|fault| format!("a plan's name {fault}"));
    match (line.name, line.client_id) {
        (Some(_), None) if own.buckets.is_empty() => Err("a plan without buckets".into()),
        (Some(name), None) => Ok(Line::Plan(Plan { name: plan(&name)?, terms: own })),
        (None, Some(client_id)) => {
            let plan = line.plan.as_deref().map(plan).transpose()?;
            let exempt = line.mode.as_deref() == Some("exempt");
            Ok(Line::Limit(client_id, ClientLimit { plan, own, exempt, shared: line.shared }))
        }
        _ => Err("neither a plan nor a limit".into()),
    }
}

/// The id that a line has, whatever else is wrong with it.
pub fn id_of_line(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Id {
        client_id: String,
    }
    serde_json::from_str::<Id>(text).ok().map(|line| line.client_id)
}

/// Any of these as text. They hold nothing that JSON has no form for.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        log::error!("store: not written as JSON: {error}");
        "null".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_numbers_of_the_fixed_calls_read_as_one_bucket() {
        let limit = Limit { capacity: 10, rate: Rate::per_second(1_500_000) };
        let shown = text(&LimitJson::new("a/\"b\"", &ClientLimit::of_numbers(limit)));
        assert_eq!(
            shown,
            r#"{"client_id":"a/\"b\"","plan":null,"buckets":[{"name":"default","amount":1.5,"per":"1s","capacity":10,"mode":"enforced","reset":null}],"max_in_flight":null,"shared":false}"#
        );
    }

    #[test]
    fn what_a_hand_wrote_into_the_database_is_told_from_buckets() {
        let one = |change: &str| {
            let bucket = r#"{"name":"day","amount":5,"per":"1d","capacity":9,"mode":"shadow","reset":"utc"}"#;
            let (from, to) = change.split_once(" -> ").unwrap();
            format!("[{}]", bucket.replace(from, to))
        };
        assert!(buckets(&one("x -> x")).is_ok());
        for change in [
            "day -> concurrency",
            "5 -> -5",
            "5 -> 0.0000001",
            "5 -> \"5\"",
            "1d -> 2d",
            "1d -> d",
            "capacity -> burst",
            "9 -> 1000000001",
            "shadow -> exempt",
            "utc -> cet",
            "} -> },{\"name\":\"day\",\"amount\":5,\"per\":\"1s\",\"capacity\":9,\"mode\":\"shadow\",\"reset\":null}",
        ] {
            assert!(buckets(&one(change)).is_err(), "{change}");
        }
        assert!(buckets("[]").is_ok_and(|none| none.is_empty()));
    }

    fn any_bucket() -> impl Strategy<Value = BucketSpec> {
        let reset = prop_oneof![
            Just((None, 1)),
            (1..=balancer_limiter::terms::MAX_PER_SECS).prop_map(|secs| (None, secs)),
            Just((Some(Reset::Hour), 3_600)),
            Just((Some(Reset::Day), 86_400)),
            Just((Some(Reset::Month), balancer_limiter::terms::MONTH_SECS)),
        ];
        ("[ -~]{1,64}", 0..=Rate::MAX_MICRO, 0..=Limit::MAX_CAPACITY, any::<bool>(), reset).prop_filter_map(
            "a name",
            |(name, micro, capacity, shadow, (reset, per_secs))| {
                let name = BucketName::parse(&name).ok()?;
                let mode = if shadow { Mode::Shadow } else { Mode::Enforced };
                let limit = Limit { capacity, rate: Rate { micro, per_secs } };
                Some(BucketSpec { mode, reset, ..BucketSpec::new(name, limit) })
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back_the_same(
            mut list in proptest::collection::vec(any_bucket(), 0..=MAX_BUCKETS), bound in any::<Option<u32>>()
        ) {
            list.dedup_by_key(|bucket| bucket.id);
            list.sort_by_key(|bucket| bucket.id);
            list.dedup_by_key(|bucket| bucket.id);
            let terms = terms(&buckets_text(&list), bound).unwrap();
            prop_assert_eq!(&*terms.buckets, &*list);
            prop_assert_eq!(terms.max_in_flight, bound);
            let plan = Plan { name: PlanName::parse("p").unwrap(), terms };
            let shown = text(&PlanJson::new(&plan));
            let plan_name = r#"{"name":"p","buckets":["#;
            prop_assert!(shown.starts_with(plan_name), "{shown}");
        }
    }
}
