//! `balancer status`: says in one line, and by its exit code, whether a running balancer is well.

use clap::Args;
use serde::Deserialize;

use super::Env;
use super::failure::CommandFailure;
use super::session::{ApiSession, Common};

const EXAMPLES: &str = "\
Examples:
  balancer status
  balancer status --json | jq .line
  balancer status || echo \"somebody should look\"

It ends with 0 while nothing is bad, with 1 when something is or nothing answers, with 2 for wrong usage. What is bad is named on
stderr. Rates are of the last 10 to 20 seconds, limited clients of the last minute, both of the instance that is asked.";

/// Say in one line whether a running balancer is well.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct StatusCommand {
    #[command(flatten)]
    common: Common,
}

#[derive(Deserialize)]
struct Glance {
    well: bool,
    text: String,
    line: Vec<Part>,
    backends: Vec<Row>,
}

#[derive(Deserialize)]
struct Part {
    level: String,
    text: String,
}

#[derive(Deserialize)]
struct Row {
    level: String,
    title: String,
    is: String,
    cause: Option<String>,
}

/// Runs the command.
pub(super) fn run(status: &StatusCommand, env: Env<'_>) -> Result<(), CommandFailure> {
    let mut session = ApiSession::open(&status.common, env)?;
    let body = session.api.get("/-/v1/overview")?;
    let glance: Glance = session.api.read(&body)?;
    session.out.line(if session.out.is_json() { body.trim_end() } else { &glance.text })?;
    session.out.flush()?;
    if glance.well { Ok(()) } else { Err(CommandFailure::Incomplete(glance.bad())) }
}

impl Glance {
    /// What is bad, each on a line of its own.
    fn bad(&self) -> String {
        let mut lines: Vec<String> = self
            .line
            .iter()
            .filter(|part| part.level == "bad")
            .map(|part| format!("bad: {}", part.text))
            .collect();
        lines.extend(self.backends.iter().filter(|row| row.level == "bad").map(|row| {
            let cause = row.cause.as_deref().unwrap_or("most of its answers are errors");
            format!("  backend {} is {}: {cause}", row.title, row.is)
        }));
        // Control characters are replaced, so that no name can control the terminal.
        lines.iter().map(|line| super::session::shown(line)).collect::<Vec<_>>().join("\n")
    }
}
