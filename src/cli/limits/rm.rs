//! `balancer limits rm`: removes limits.

use clap::Args;
use http::Method;
use serde_json::json;

use super::item;
use crate::cli::failure::CommandFailure;
use crate::cli::session::ApiSession;

const EXAMPLES: &str = "\
Examples:
  balancer limits rm 127.0.0.1
  balancer limits rm --if-exists 10.0.0.7 10.0.0.8";

/// Remove limits of clients, which get the default again.
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

/// Runs the command: one client after the other, until one fails.
pub fn run(rm: &Rm, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let (mut removed, mut absent) = (Vec::new(), Vec::new());
    let ended = rm.clients.iter().try_for_each(|client| {
        match session.api.send(Method::DELETE, &item("", client), &[], None) {
            Ok(_) => removed.push(client),
            Err(CommandFailure::Refused { status: 404, .. }) if rm.if_exists => absent.push(client),
            Err(CommandFailure::Refused { status: 404, .. }) => {
                return Err(CommandFailure::Incomplete(format!("{client} has no limit")));
            }
            Err(other) => return Err(other),
        }
        Ok(())
    });
    // What was removed is printed also when another removal failed.
    let out = &mut session.out;
    if out.is_json() {
        out.line(&json!({ "removed": removed, "absent": absent }).to_string())?;
    } else {
        for client in removed {
            out.line(&format!("removed {client}"))?;
        }
    }
    out.flush()?;
    ended
}
