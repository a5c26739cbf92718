//! `balancer limits get`: shows one limit.

use clap::Args;
use serde::Deserialize;

use super::item;
use crate::cli::failure::CommandFailure;
use crate::cli::session::ApiSession;
use balancer_limiter::document::NewLimit;

const EXAMPLES: &str = "\
Examples:
  balancer limits get 127.0.0.1
  balancer limits get 10.0.0.0/8 --json";

/// Show a client's limit, and what is left of it right now.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Get {
    /// The client: 127.0.0.1, 10.0.0.0/8, sha256:..., tenant=acme.
    #[arg(value_name = "CLIENT")]
    client: String,
}

#[derive(Deserialize)]
struct Usage {
    buckets: Vec<Level>,
    #[serde(default)]
    in_flight: u64,
}

#[derive(Deserialize)]
struct Level {
    name: String,
    capacity: u64,
    level: u64,
    /// Older balancers do not send it.
    #[serde(default)]
    spent_elsewhere: u64,
}

/// Runs the command. `--json` prints the limit without what is left of it.
pub fn run(get: &Get, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    let answer = api.send(http::Method::GET, &item("", &get.client), &[], None)?;
    if out.is_json() {
        out.raw(&format!("{}\n", answer.body.trim_end()))?;
        return out.flush();
    }
    let terms: NewLimit = api.read(&answer.body)?;
    let usage: Usage = api.read(&api.get(&item("/usage", &get.client))?)?;
    let mut rows = vec![
        vec!["client".to_owned(), terms.client_id.clone().unwrap_or_default()],
        vec!["limit".to_owned(), terms.describe()],
    ];
    for bucket in usage.buckets {
        let mut left = format!("{} {} of {}", bucket.name, bucket.level, bucket.capacity);
        if bucket.spent_elsewhere > 0 {
            left.push_str(&format!(" ({} spent in other instances)", bucket.spent_elsewhere));
        }
        rows.push(vec!["left".to_owned(), left]);
    }
    rows.push(vec!["in flight".to_owned(), usage.in_flight.to_string()]);
    if let Some(tag) = answer.etag {
        rows.push(vec!["etag".to_owned(), tag]);
    }
    out.table(&[], &rows)?;
    out.flush()
}
