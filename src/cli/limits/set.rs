//! `balancer limits set`: makes or replaces a limit.

use clap::Args;
use http::Method;

use super::item;
use crate::cli::failure::CommandFailure;
use crate::cli::session::ApiSession;
use balancer_limiter::document::{NewBucket, NewLimit};
use balancer_limiter::terms::DEFAULT_BUCKET;

const EXAMPLES: &str = "\
Examples:
  balancer limits set 127.0.0.1 2/s
  balancer limits set 10.0.0.0/8 \"600/m burst 50\"
  balancer limits set tenant=acme --plan pro
  balancer limits set tenant=acme --bucket \"second=10/s burst 20\" --bucket \"day=10000/d utc\" --max-in-flight 20
  balancer limits set 10.0.0.7 5/s --shadow
  balancer limits set 10.0.0.9 --exempt
  balancer limits set tenant=acme --plan pro --weight 4 --priority critical
  balancer limits set \"$(balancer limits id < key.txt)\" 100/s

A rate is AMOUNT/s, /m, /h or /d, or AMOUNT/90s; \"burst N\" is how much the bucket holds (else the amount). \"shadow\" behind
it counts what would be refused and refuses nothing; \"utc\" fills the bucket at the turn of the UTC hour, day or month.";

/// Give a client a limit, in place of the one that it has. In force on its next request.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Set {
    /// The client: 127.0.0.1, 127.0.0.1:5000, 10.0.0.0/8, sha256:..., tenant=acme.
    #[arg(value_name = "CLIENT")]
    client: String,
    #[command(flatten)]
    grant: GrantArgs,
    /// The plan that it is on, in place of a rate of its own.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["rate", "bucket"])]
    plan: Option<String>,
    /// Never refuse it; its requests are still counted.
    #[arg(long, conflicts_with_all = ["rate", "bucket", "plan", "shadow"])]
    exempt: bool,
    /// For a range: one bucket for all of it; without this each address gets its own.
    #[arg(long)]
    shared: bool,
    /// Let each instance count alone, also where instances share one budget.
    #[arg(long)]
    per_instance: bool,
    /// Only if it has no limit yet.
    #[arg(long, conflicts_with = "if_match")]
    only_new: bool,
    /// Only if its limit still has this etag, which `limits get` shows.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// Rates and the bound on requests at once, as limits and plans have them.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantArgs {
    /// How much: 2/s, "600/m burst 50", 10000/d.
    #[arg(value_name = "RATE")]
    pub rate: Vec<String>,
    /// A named bucket, up to four: "day=10000/d", "second=10/s burst 20".
    #[arg(long, value_name = "NAME=RATE", conflicts_with = "rate")]
    pub bucket: Vec<String>,
    /// Count what would be refused, and refuse nothing.
    #[arg(long)]
    pub shadow: bool,
    /// Most requests at once.
    #[arg(long, value_name = "N")]
    pub max_in_flight: Option<u32>,
    /// Where requests wait for a place: so many parts of the places, 1 to 1000; else 1, or as the plan says.
    #[arg(long, value_name = "N")]
    pub weight: Option<u32>,
    /// Where requests wait for a place: critical, normal or background; else normal, or as the plan says.
    #[arg(long, value_name = "WORD", value_parser = ["critical", "normal", "background"])]
    pub priority: Option<String>,
}

impl GrantArgs {
    /// The limit that the arguments describe, with these buckets.
    pub fn terms(&self, buckets: Vec<NewBucket>) -> NewLimit {
        NewLimit {
            buckets,
            max_in_flight: self.max_in_flight,
            weight: self.weight,
            priority: self.priority.clone(),
            ..NewLimit::default()
        }
    }

    /// The buckets that the arguments describe; there may be none.
    ///
    /// # Errors
    /// [`CommandFailure::Usage`], which names the text that is not a rate.
    pub fn buckets(&self) -> Result<Vec<NewBucket>, CommandFailure> {
        let mut buckets = Vec::new();
        if !self.rate.is_empty() {
            let text = self.rate.join(" ");
            let bucket = NewBucket::parse(DEFAULT_BUCKET, &text);
            buckets.push(bucket.map_err(|fault| CommandFailure::Usage(format!("{text:?}: {fault}")))?);
        }
        for text in &self.bucket {
            let bucket = NewBucket::parse_named(text);
            buckets
                .push(bucket.map_err(|fault| CommandFailure::Usage(format!("--bucket {text:?}: {fault}")))?);
        }
        if self.shadow {
            buckets.iter_mut().for_each(|bucket| bucket.mode = Some("shadow".to_owned()));
        }
        Ok(buckets)
    }
}

impl Set {
    fn terms(&self) -> Result<NewLimit, CommandFailure> {
        let buckets = self.grant.buckets()?;
        if buckets.is_empty() && self.plan.is_none() && !self.exempt {
            let text = "how much may it do? Give a rate (2/s), --bucket, --plan or --exempt; see balancer limits set --help";
            return Err(CommandFailure::Usage(text.into()));
        }
        if self.grant.shadow && buckets.is_empty() {
            return Err(CommandFailure::Usage(
                "--shadow needs a rate or --bucket: a plan has its own modes".into(),
            ));
        }
        Ok(NewLimit {
            plan: self.plan.clone(),
            mode: self.exempt.then(|| "exempt".to_owned()),
            shared: self.shared,
            per_instance: self.per_instance,
            ..self.grant.terms(buckets)
        })
    }
}

/// Runs the command. The arguments are checked before `open` is called.
pub fn run(
    set: &Set,
    open: impl FnOnce() -> Result<ApiSession, CommandFailure>,
) -> Result<(), CommandFailure> {
    let body = set.terms()?.to_json();
    let mut fields = Vec::new();
    if set.only_new {
        fields.push(("if-none-match", "*"));
    }
    if let Some(tag) = &set.if_match {
        fields.push(("if-match", tag.as_str()));
    }
    let ApiSession { api, mut out } = open()?;
    let answer =
        api.send(Method::PUT, &item("", &set.client), &fields, Some(&body)).map_err(|failure| {
            match (failure, set.only_new) {
                (CommandFailure::Refused { status: 412, .. }, true) => {
                    CommandFailure::Incomplete(format!("{} has a limit already", set.client))
                }
                (CommandFailure::Refused { status: 412, .. }, false) => {
                    CommandFailure::Incomplete(format!("{}: its limit is another by now", set.client))
                }
                (other, _) => other,
            }
        })?;
    if out.is_json() {
        out.raw(&format!("{}\n", answer.body.trim_end()))?;
    } else {
        let terms: NewLimit = api.read(&answer.body)?;
        let done = if answer.status == 201 { "set" } else { "replaced" };
        out.line(&format!("{done} {}: {}", set.client, terms.describe()))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::command;

    fn body(line: &str) -> Result<String, String> {
        let set = command::<Set>(line).map_err(|error| error.kind().to_string())?;
        set.terms().map(|terms| terms.to_json()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn words_become_a_limit() {
        for (line, expected) in [
            ("x 2/s", r#"{"buckets":[{"name":"default","amount":2,"per":"1s","capacity":2}]}"#),
            ("x 600/m burst 50", r#"{"buckets":[{"name":"default","amount":600,"per":"1m","capacity":50}]}"#),
            (
                "x 2/s --shadow --max-in-flight 3 --shared --per-instance",
                r#"{"buckets":[{"name":"default","amount":2,"per":"1s","capacity":2,"mode":"shadow"}],"max_in_flight":3,"shared":true,"per_instance":true}"#,
            ),
            (
                "x --bucket s=1/s --bucket day=5/d",
                r#"{"buckets":[{"name":"s","amount":1,"per":"1s","capacity":1},{"name":"day","amount":5,"per":"1d","capacity":5}]}"#,
            ),
            ("x --plan pro", r#"{"plan":"pro"}"#),
            (
                "x --plan pro --weight 4 --priority critical",
                r#"{"plan":"pro","weight":4,"priority":"critical"}"#,
            ),
            ("x --plan pro --max-in-flight 0", r#"{"plan":"pro","max_in_flight":0}"#),
            ("x --exempt", r#"{"mode":"exempt"}"#),
        ] {
            assert_eq!(body(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn words_that_make_no_limit_are_usage() {
        for line in [
            "x",
            "x 2",
            "x --bucket 5/d",
            "x 2/s --bucket day=5/d",
            "x 2/s --plan pro",
            "x 2/s --exempt",
            "x --plan pro --shadow",
            "x --max-in-flight 2",
            "x 2/s --max-in-flight -1",
            "x 2/s --priority high",
            "x 2/s --only-new --if-match 1",
        ] {
            assert!(body(line).is_err(), "{line}");
        }
    }
}
