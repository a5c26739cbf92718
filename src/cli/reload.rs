//! `balancer reload`: makes the running balancer read its configuration again.

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::failure::CommandFailure;
use super::session::{ApiSession, Common};
use crate::cli::Env;

/// `balancer reload`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    #[command(flatten)]
    common: Common,
}

#[derive(Deserialize)]
struct Reloaded {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

/// Asks for a reload and prints what changed.
pub(super) fn run(reload: &Reload, env: Env<'_>) -> Result<(), CommandFailure> {
    let mut session = ApiSession::open(&reload.common, env)?;
    let answer = session.api.send(Method::POST, "/-/v1/reload", &[], None)?;
    if session.out.is_json() {
        session.out.line(&answer.body)?;
        return session.out.flush();
    }
    let Reloaded { changed, needs_restart } = session.api.read(&answer.body)?;
    let list = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
    session.out.line(&format!("reloaded; changed: {}", list(&changed)))?;
    if !needs_restart.is_empty() {
        session.out.line(&format!("in force after a restart alone: {}", list(&needs_restart)))?;
    }
    session.out.flush()
}
