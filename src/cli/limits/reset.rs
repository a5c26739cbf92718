//! `balancer limits reset`: fills a client's buckets.

use clap::Args;
use http::Method;
use serde_json::json;

use super::item;
use crate::cli::failure::CommandFailure;
use crate::cli::session::ApiSession;

/// Fill a client's buckets in the balancer that is asked: its next requests are allowed again.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = "Examples:\n  balancer limits reset 127.0.0.1")]
pub struct ResetCommand {
    /// The client, as its limit names it.
    #[arg(value_name = "CLIENT")]
    client: String,
}

/// Runs the command.
pub fn run(reset: &ResetCommand, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    api.send(Method::POST, &item("/reset", &reset.client), &[], None)?;
    let done = json!({ "client_id": reset.client, "reset": true });
    out.ended(&done, &format!("filled {}", reset.client))
}
