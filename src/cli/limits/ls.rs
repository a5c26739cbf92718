//! `balancer limits ls`: lists limits.

use clap::Args;

use crate::cli::api::Api;
use crate::cli::failure::CommandFailure;
use crate::cli::pages::{print_all, query};
use crate::cli::session::ApiSession;
use balancer_limiter::document::NewLimit;

const EXAMPLES: &str = "\
Examples:
  balancer limits ls
  balancer limits ls --prefix sha256:
  balancer limits ls --plan pro --json | jq -r '.limits[].client_id'";

/// List the limits, in byte order of the clients' ids.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Ls {
    /// Only clients whose id begins with this.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only clients on this plan.
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
}

/// Runs the command.
pub fn run(ls: &Ls, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let path =
        format!("/-/v1/limits{}", query(&[("prefix", ls.prefix.as_deref()), ("plan", ls.plan.as_deref())]));
    let row = |api: &Api, item: &str| {
        let terms: NewLimit = api.read(item)?;
        Ok(vec![terms.client_id.clone().unwrap_or_default(), terms.describe()])
    };
    print_all(session, &path, "limits", "CLIENT", "balancer limits set 127.0.0.1 2/s", row)
}
