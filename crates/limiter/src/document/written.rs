//! Limits and plans as they are sent, which may leave out members with a default; and as people write them:
//! `600/m burst 50`.

use serde::{Deserialize, Serialize};

use super::{BucketMembers, LimitMembers, Say, check_count, said};
use crate::limit::{Limit, Rate};
use crate::limit::{parse_per, per_text};
use crate::terms::{BucketSpec, ClientLimit, DEFAULT_BUCKET};

/// One bucket. Spans and amounts that this version does not know are kept as they are, so that they can be shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewBucket {
    /// Its name; no other bucket of the limit has it.
    pub name: String,
    /// Tokens that flow in every `per`.
    pub amount: serde_json::Number,
    /// A span, as [`parse_per`] reads it: `1s`, `90s`, `1m`, `1h`, `1d`, `1mo`.
    pub per: String,
    /// Most tokens that it holds; `None`: the amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// `enforced` or `shadow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `utc`: it is filled when a UTC hour, day or month begins, and at no other time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<String>,
}

/// A limit (with a `client_id`) or a plan (with a `name`). Members without a value are left out of its JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NewLimit {
    /// The client's id, for a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The plan's name, for a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The plan that the client is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// One to four buckets; none for a limit with a plan or an exemption.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<NewBucket>,
    /// Most requests at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The client's part of the places of its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// `critical`, `normal` or `background`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// `exempt`: the client is never refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// All addresses of a range share one bucket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Each instance counts alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_instance: bool,
}

impl NewBucket {
    /// Reads a bucket's rate: `2/s`, `600/m burst 50`, `7/90s`; the words `shadow` and `utc` may be added.
    ///
    /// # Errors
    /// What the text must look like. The fault does not repeat it.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut rate = Vec::new();
        let mut shadow = false;
        let mut utc = false;
        for word in text.split_whitespace() {
            let seen = match word {
                "shadow" => std::mem::replace(&mut shadow, true),
                "utc" => std::mem::replace(&mut utc, true),
                _ => {
                    rate.push(word);
                    false
                }
            };
            if seen {
                return Err(format!("has {word} twice"));
            }
        }
        let limit = Limit::parse(&rate.join(" ")).map_err(|fault| fault.to_string())?;
        let word = |is: bool, word: &str| is.then(|| word.to_owned());
        Ok(Self { mode: word(shadow, "shadow"), reset: word(utc, "utc"), ..Self::new(name, limit) })
    }

    /// Reads `NAME=RATE`.
    ///
    /// # Errors
    /// What the text must look like.
    pub fn parse_named(text: &str) -> Result<Self, String> {
        // Split at the first sign, so that "a=1/s, b=2/s" is a fault and not a bucket with the name "a=1/s, b".
        let (name, rate) = text.split_once('=').ok_or("must look like \"day=10000/d\"")?;
        Self::parse(name.trim(), rate)
    }

    /// A bucket with that limit, enforced and without a reset.
    pub fn new(name: &str, limit: Limit) -> Self {
        let amount = Rate::per_second(limit.rate.micro).to_string();
        Self {
            name: name.to_owned(),
            // Can't fail: a decimal is a JSON number.
            amount: amount.parse().unwrap_or_else(|_| 0.into()),
            per: per_text(limit.rate),
            capacity: Some(limit.capacity.into()),
            mode: None,
            reset: None,
        }
    }

    /// The rate as [`NewBucket::parse`] reads it: `600/m burst 50 shadow`.
    pub fn rate(&self) -> String {
        let decimal = Rate::parse_decimal(&self.amount.to_string()).map(|rate| rate.to_string());
        let amount = decimal.unwrap_or_else(|_| self.amount.to_string());
        let per = match parse_per(&self.per).map(|per_secs| Rate { micro: 1, per_secs }).map(per_text) {
            Some(per) => per,
            None => self.per.clone(),
        };
        let unit = match per.strip_prefix('1') {
            Some(unit) if unit.len() == 1 => unit,
            _ => &per,
        };
        let mut text = format!("{amount}/{unit}");
        if let Some(capacity) = self.capacity.filter(|capacity| amount != capacity.to_string()) {
            text.push_str(&format!(" burst {capacity}"));
        }
        let is_shadow = self.mode.as_deref() == Some("shadow");
        for (word, stands) in [("shadow", is_shadow), ("utc", self.reset.is_some())] {
            if stands {
                text.push(' ');
                text.push_str(word);
            }
        }
        text
    }

    /// Checks the members, as [`BucketMembers::check`].
    pub fn check(&self, beside: &[BucketSpec], say: &mut Say<'_>) -> Option<BucketSpec> {
        let read = BucketMembers {
            name: Some(&self.name),
            amount_micro: said(Rate::parse_decimal(&self.amount.to_string()), "amount", say)
                .map(|rate| rate.micro),
            per: Some(&self.per),
            capacity: self.capacity.map(Some),
            mode: self.mode.as_deref(),
            reset: self.reset.as_deref(),
        };
        read.check(beside, say)
    }
}

impl NewLimit {
    /// The limit, without its client id.
    ///
    /// # Errors
    /// The first fault, with the name of its member in front.
    pub fn check(&self) -> Result<ClientLimit, String> {
        let mut faults = Vec::new();
        check_count(self.buckets.len()).map_err(|fault| format!("buckets: {fault}"))?;
        let mut buckets = Vec::new();
        for bucket in &self.buckets {
            let place = format!("bucket {:?}: ", bucket.name);
            let spec =
                bucket.check(&buckets, &mut |member, text| faults.push(format!("{place}{member}: {text}")));
            buckets.extend(spec);
        }
        let read = LimitMembers {
            has_plan: self.plan.is_some(),
            plan: self.plan.as_deref(),
            buckets: (buckets.len() == self.buckets.len()).then_some(buckets),
            max_in_flight: self.max_in_flight,
            weight: self.weight,
            priority: self.priority.as_deref(),
            mode: self.mode.as_deref(),
            shared: self.shared,
            per_instance: self.per_instance,
            // The client id is not looked at here, so whether `shared` is allowed is checked by the server.
            is_range: true,
        };
        let limit = read.check(&mut |member, text| faults.push(format!("{member}: {text}")));
        match faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => limit.ok_or_else(String::new),
        }
    }

    /// The limit in a few words: `2/s`, `plan pro`, `second 10/s, day 10000/d; at most 20 at once`.
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        if self.mode.as_deref() == Some("exempt") {
            parts.push("exempt".to_owned());
        }
        if let Some(plan) = &self.plan {
            parts.push(format!("plan {plan}"));
        }
        match self.buckets.as_slice() {
            [] => {}
            [only] if only.name == DEFAULT_BUCKET => parts.push(only.rate()),
            several => {
                let named = several.iter().map(|bucket| format!("{} {}", bucket.name, bucket.rate()));
                parts.push(named.collect::<Vec<_>>().join(", "));
            }
        }
        if let Some(most) = self.max_in_flight {
            parts.push(format!("at most {most} at once"));
        }
        if let Some(weight) = self.weight {
            parts.push(format!("weight {weight}"));
        }
        if let Some(priority) = &self.priority {
            parts.push(priority.clone());
        }
        if self.shared {
            parts.push("shared".to_owned());
        }
        if self.per_instance {
            parts.push("per instance".to_owned());
        }
        parts.join("; ")
    }

    /// The limit as a JSON body.
    pub fn to_json(&self) -> String {
        // Can't fail: it holds strings, numbers and lists of these.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown_as_people_write_them() {
        for (text, amount, per, capacity, shown) in [
            ("2/s", "2", "1s", 2, "2/s"),
            ("600/m burst 50", "600", "1m", 50, "600/m burst 50"),
            (" 600/m   burst  50 ", "600", "1m", 50, "600/m burst 50"),
            ("10000/d burst 10000", "10000", "1d", 10_000, "10000/d"),
            ("0.5/s burst 1", "0.5", "1s", 1, "0.5/s burst 1"),
            ("0.000001/h burst 0", "1e-6", "1h", 0, "0.000001/h burst 0"),
            ("999999999.999999/s burst 7", "999999999.999999", "1s", 7, "999999999.999999/s burst 7"),
            ("7/90s", "7", "90s", 7, "7/90s"),
            ("7/60s", "7", "1m", 7, "7/m"),
            ("100/1mo", "100", "30d", 100, "100/30d"),
            ("5/h shadow", "5", "1h", 5, "5/h shadow"),
            ("5/d utc burst 9 shadow", "5", "1d", 9, "5/d burst 9 shadow utc"),
            ("0/s burst 20", "0", "1s", 20, "0/s burst 20"),
        ] {
            let bucket = NewBucket::parse("b", text).unwrap();
            let number: serde_json::Number = amount.parse().unwrap();
            assert_eq!(
                (&bucket.amount, bucket.per.as_str(), bucket.capacity),
                (&number, per, Some(capacity)),
                "{text}"
            );
            assert_eq!(bucket.rate(), shown);
            assert_eq!(NewBucket::parse("b", &bucket.rate()).unwrap(), bucket, "{text}");
            assert_eq!(bucket.mode.as_deref() == Some("shadow"), text.contains("shadow"));
        }
        for text in [
            "",
            "2",
            "2/w",
            "2/s burst",
            "burst 2",
            "2/s shadow shadow",
            "2/s fast",
            "0.5/s",
            "2/s 3/s",
            "-1/s",
        ] {
            assert!(NewBucket::parse("b", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_stands_before_the_first_equals_sign() {
        let bucket = NewBucket::parse_named(" per day = 2/s").unwrap();
        assert_eq!((bucket.name.as_str(), bucket.rate().as_str()), ("per day", "2/s"));
        for text in ["2/s", "a=1/s, b=2/s", "a=b=2/s"] {
            assert!(NewBucket::parse_named(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_is_described_in_a_few_words() {
        let rows = [
            (
                r#"{"client_id":"x","plan":null,"buckets":[{"name":"default","amount":2,"per":"1s","capacity":2,"mode":"enforced","reset":null}],"max_in_flight":null,"shared":false}"#,
                "2/s",
            ),
            (
                r#"{"plan":"pro","buckets":[],"max_in_flight":5,"weight":7,"priority":"critical"}"#,
                "plan pro; at most 5 at once; weight 7; critical",
            ),
            (r#"{"mode":"exempt","buckets":[]}"#, "exempt"),
            (
                r#"{"buckets":[{"name":"s","amount":0.5,"per":"1s","capacity":1},{"name":"day","amount":10,"per":"1d","capacity":10,"mode":"shadow"}],"shared":true}"#,
                "s 0.5/s burst 1, day 10/d shadow; shared",
            ),
            // What only a later version knows is shown as it is.
            (
                r#"{"buckets":[{"name":"default","amount":1e20,"per":"1 eon","capacity":1}]}"#,
                "1e+20/1 eon burst 1",
            ),
        ];
        for (json, expected) in rows {
            let terms: NewLimit = serde_json::from_str(json).unwrap();
            assert_eq!(terms.describe(), expected);
        }
        let terms = NewLimit { plan: Some("p\"".into()), ..NewLimit::default() };
        assert_eq!(terms.to_json(), r#"{"plan":"p\""}"#);
    }

    #[test]
    fn the_first_fault_of_a_limit_is_told_with_its_place() {
        let bucket = r#"{"name":"b","amount":1,"per":"1s"}"#;
        let rows = [
            (format!(r#"{{"buckets":[{bucket}]}}"#), ""),
            (r#"{"buckets":[{"name":"b","amount":0.5,"per":"1s","capacity":1}],"shared":true}"#.into(), ""),
            (
                r#"{"buckets":[{"name":"b","amount":1e10,"per":"1s"}]}"#.into(),
                "bucket \"b\": amount: must be at most",
            ),
            (
                r#"{"buckets":[{"name":"b","amount":1,"per":"1w"}],"plan":"p"}"#.into(),
                "bucket \"b\": per: must be a span",
            ),
            (format!(r#"{{"buckets":[{bucket},{bucket}]}}"#), "bucket \"b\": name: \"b\" names another"),
            (format!(r#"{{"buckets":[{}]}}"#, [bucket; 5].join(",")), "buckets: must be 1 to 4, found 5"),
            (format!(r#"{{"buckets":[{bucket}],"plan":"p"}}"#), "buckets: has a plan and buckets"),
            (
                format!(r#"{{"buckets":[{bucket}],"max_in_flight":0}}"#),
                "max_in_flight: must be a whole number",
            ),
            (r#"{"plan":"p","weight":0}"#.into(), "weight: must be a whole number from 1 to 1000"),
            (r#"{"plan":"p","priority":"high"}"#.into(), "priority: must be \"critical\", \"normal\" or"),
            (r#"{"plan":""}"#.into(), "plan: must have 1 to 64 bytes"),
            ("{}".into(), "buckets: missing"),
        ];
        for (json, beginning) in rows {
            let fault = serde_json::from_str::<NewLimit>(&json).unwrap().check().map(|_| ()).err();
            let fault = fault.unwrap_or_default();
            assert!(
                fault.starts_with(beginning) && fault.is_empty() == beginning.is_empty(),
                "{json}: {fault}"
            );
        }
    }
}
