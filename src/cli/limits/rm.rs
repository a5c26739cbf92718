//! `balancer limits rm`.

use clap::Args;
use http::Method;
use serde_json::json;

use super::item;
use crate::cli::failure::Failure;
use crate::cli::session::Session;

const EXAMPLES: &str = "\
Examples:
  balancer limits rm 127.0.0.1
  balancer limits rm --if-exists 10.0.0.7 10.0.0.8";

/// Take clients' limits away: they get the default again.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Rm {
    /// The clients.
    #[arg(value_name = "CLIENT", required = true)]
    clients: Vec<String>,
    /// A client without a limit is no fault.
    #[arg(long)]
    if_exists: bool,
}

/// Does it, one after the other; the first failure ends it.
pub fn run(rm: &Rm, session: &mut Session) -> Result<(), Failure> {
    let Session { api, out } = session;
    for client in &rm.clients {
        let removed = match api.send(Method::DELETE, &item("", client), &[], None) {
            Ok(_) => true,
            Err(Failure::Refused { status: 404, .. }) if rm.if_exists => false,
            Err(Failure::Refused { status: 404, .. }) => {
                out.flush()?;
                return Err(Failure::Incomplete(format!("{client} has no limit")));
            }
            Err(other) => return Err(other),
        };
        if out.is_json() {
            out.line(&json!({ "client_id": client, "removed": removed }).to_string())?;
        } else if removed {
            out.line(&format!("removed {client}"))?;
        }
    }
    out.flush()
}
