//! `balancer limits ls`.

use clap::Args;

use crate::cli::failure::CommandFailure;
use crate::cli::pages::{for_each_page, print_json, query};
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

/// Does it.
pub fn run(ls: &Ls, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let path =
        format!("/-/v1/limits{}", query(&[("prefix", ls.prefix.as_deref()), ("plan", ls.plan.as_deref())]));
    if session.out.is_json() {
        return print_json(session, &path, "limits");
    }
    let ApiSession { api, out } = session;
    let mut count = 0;
    for_each_page(api, &path, |items| {
        let head: &[&str] = if count == 0 && !items.is_empty() { &["CLIENT", "LIMIT"] } else { &[] };
        count += items.len();
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let terms: NewLimit = api.read(item)?;
            rows.push(vec![terms.client_id.clone().unwrap_or_default(), terms.describe()]);
        }
        out.table(head, &rows)
    })?;
    if count == 0 && out.is_terminal() {
        out.line("there is none; one is made like this: balancer limits set 127.0.0.1 2/s")?;
    }
    out.flush()
}
