//! `balancer plans …`: lists and changes plans, which are limits for several clients.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::Env;
use super::api::Api;
use super::failure::CommandFailure;
use super::limits::GrantArgs;
use super::pages::print_all;
use super::session::{ApiSession, Common};
use balancer_http::path::encoded;
use balancer_limiter::document::NewLimit;

const EXAMPLES: &str = "\
Examples:
  balancer plans set free 10/m
  balancer plans set pro --bucket \"second=10/s burst 20\" --bucket \"day=10000/d utc\" --max-in-flight 20
  balancer plans set batch 100/s --priority background
  balancer limits set tenant=acme --plan pro
  balancer plans ls
  balancer plans rm free";

/// The arguments of `balancer plans`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct PlansCommand {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum What {
    /// List the plans, in byte order of their names.
    Ls,
    /// Show a plan.
    Get {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a plan, or change it: in force on the next request of all its clients.
    #[command(after_help = EXAMPLES)]
    Set {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        grant: GrantArgs,
    },
    /// Take a plan away; one that clients are on stays.
    Rm {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Runs the command.
pub(super) fn run(plans: &PlansCommand, env: Env<'_>) -> Result<(), CommandFailure> {
    let open = || ApiSession::open(&plans.common, env);
    match &plans.what {
        What::Ls => ls(&mut open()?),
        What::Get { name } => get(name, &mut open()?),
        What::Set { name, grant } => {
            // The arguments are checked before the balancer is looked for.
            let body = terms(grant)?.to_json();
            set(name, &body, &mut open()?)
        }
        What::Rm { name } => rm(name, &mut open()?),
    }
}

fn item(name: &str) -> String {
    format!("/-/v1/plan?name={}", encoded(name))
}

fn terms(grant: &GrantArgs) -> Result<NewLimit, CommandFailure> {
    let buckets = grant.buckets()?;
    if buckets.is_empty() {
        let text =
            "how much may its clients do? Give a rate (10/m) or --bucket; see balancer plans set --help";
        return Err(CommandFailure::Usage(text.into()));
    }
    Ok(grant.terms(buckets))
}

fn ls(session: &mut ApiSession) -> Result<(), CommandFailure> {
    let row = |api: &Api, item: &str| {
        let plan: NewLimit = api.read(item)?;
        Ok(vec![plan.name.clone().unwrap_or_default(), plan.describe()])
    };
    print_all(session, "/-/v1/plans", "plans", "PLAN", "balancer plans set free 10/m", row)
}

fn get(name: &str, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    let answer = api.send(Method::GET, &item(name), &[], None)?;
    if out.is_json() {
        out.raw(&format!("{}\n", answer.body.trim_end()))?;
        return out.flush();
    }
    let plan: NewLimit = api.read(&answer.body)?;
    let mut rows = vec![vec!["plan".to_owned(), plan.name.clone().unwrap_or_default()]];
    rows.extend(plan.buckets.iter().map(|bucket| vec![bucket.name.clone(), bucket.rate()]));
    if let Some(most) = plan.max_in_flight {
        rows.push(vec!["at once".to_owned(), format!("at most {most}")]);
    }
    rows.extend(plan.weight.map(|weight| vec!["weight".to_owned(), weight.to_string()]));
    rows.extend(plan.priority.map(|priority| vec!["priority".to_owned(), priority]));
    rows.extend(answer.etag.map(|tag| vec!["etag".to_owned(), tag]));
    out.table(&[], &rows)?;
    out.flush()
}

fn set(name: &str, body: &str, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    let answer = api.send(Method::PUT, &item(name), &[], Some(body))?;
    if out.is_json() {
        out.raw(&format!("{}\n", answer.body.trim_end()))?;
    } else {
        let plan: NewLimit = api.read(&answer.body)?;
        let done = if answer.status == 201 { "made" } else { "changed" };
        out.line(&format!("{done} plan {name}: {}", plan.describe()))?;
    }
    out.flush()
}

fn rm(name: &str, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    api.send(Method::DELETE, &item(name), &[], None)?;
    out.ended(&json!({ "name": name, "removed": true }), &format!("removed plan {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_needs_buckets() {
        let grant = GrantArgs {
            rate: vec!["10/m".into()],
            max_in_flight: Some(2),
            weight: Some(3),
            priority: Some("background".into()),
            ..GrantArgs::default()
        };
        let expected = r#"{"buckets":[{"name":"default","amount":10,"per":"1m","capacity":10}],"max_in_flight":2,"weight":3,"priority":"background"}"#;
        assert_eq!(terms(&grant).unwrap().to_json(), expected);
        assert_eq!(terms(&GrantArgs::default()).unwrap_err().exit_code(), 2);
        assert_eq!(item("früh/1"), "/-/v1/plan?name=fr%C3%BCh%2F1");
    }
}
