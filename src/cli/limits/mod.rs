//! `balancer limits …`: lists and changes the limits of single clients.

use clap::{Args, Subcommand};

use super::failure::CommandFailure;
use super::session::{ApiSession, CommandOutput, Common};
use crate::cli::Env;

mod csv;
mod entry;
mod explain;
mod export;
mod get;
mod id;
mod import;
mod ls;
mod reset;
mod rm;
mod set;

pub use set::GrantArgs;

/// The arguments of `balancer limits`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LimitsCommand {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum What {
    Ls(ls::Ls),
    Get(get::Get),
    Set(Box<set::Set>),
    Rm(rm::Rm),
    Reset(reset::ResetCommand),
    Explain(explain::Explain),
    Id(id::Id),
    Import(import::Import),
    Export(export::Export),
}

/// Runs the command.
pub(super) fn run(limits: &LimitsCommand, env: Env<'_>) -> Result<(), CommandFailure> {
    let open = || ApiSession::open(&limits.common, env);
    match &limits.what {
        What::Ls(ls) => ls::run(ls, &mut open()?),
        What::Get(get) => get::run(get, &mut open()?),
        What::Set(set) => set::run(set, open),
        What::Rm(rm) => rm::run(rm, &mut open()?),
        What::Reset(reset) => reset::run(reset, &mut open()?),
        What::Explain(explain) => explain::run(explain, open),
        What::Id(id) => id::run(id, &mut CommandOutput::stdout(limits.common.json)),
        What::Import(import) => import::run(import, limits.common.json, open),
        What::Export(export) => export::run(export, &mut open()?),
    }
}

/// The path of one client's limit, or of what is below it. The id is in the query, which no proxy on the way
/// normalizes; a path with an encoded slash might be changed.
fn item(below: &str, client_id: &str) -> String {
    format!("/-/v1/limit{below}?client_id={}", balancer_http::path::encoded(client_id))
}
