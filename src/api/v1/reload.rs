//! `POST /v1/reload`: reads the configuration again and puts in force what can be.

use serde::Serialize;
use serde_json::json;

use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Resource, Route, Schema, post, refusal, shows};
use crate::error::{FieldFault, Reject};
use crate::proxy::exchange::Answer;
use balancer_http::message::Reason;

/// Seconds that a caller is told to wait while others' reloads are under way.
const RETRY_AFTER_S: u64 = 1;

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Keys that are in force with another value now.
    pub changed: Vec<String>,
    /// Keys that have another value and are in force only after a restart.
    pub needs_restart: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadError {
    /// Everything that is wrong with the configuration, at least one fault, as JSON pointers into it.
    Faults(Vec<FieldFault>),
    /// It could not be done now; whether it is done later is unknown.
    Busy(String),
}

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Configuration",
    routes: &[Route::ours(
        "/v1/reload",
        &[post("reload", "Read the configuration again, and put in force what needs no restart", reload)
            .answers(&[
                shows(200, "It was read, and what can be is in force.", "Reloaded"),
                refusal(
                    400,
                    "The configuration has faults, which `errors` names one by one: nothing was changed.",
                ),
            ])],
    )],
    schemas,
};

fn reload(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    match api.parts.control.reload(&call.caller.actor.0) {
        Ok(Reloaded { changed, needs_restart }) => {
            as_json(&json!({ "reloaded": true, "changed": changed, "needs_restart": needs_restart }))
        }
        Err(ReloadError::Busy(cause)) => Err(Reject::new(Reason::Unavailable, "a reload is under way")
            .because(cause)
            .retry_after(RETRY_AFTER_S)),
        Err(ReloadError::Faults(faults)) => {
            let count =
                if faults.len() == 1 { "a fault".to_owned() } else { format!("{} faults", faults.len()) };
            let detail = format!("the configuration has {count}, see errors; nothing was changed");
            let mut reject = Reject::new(Reason::BadRequest, detail);
            reject.errors = faults;
            Err(reject)
        }
    }
}

fn schemas() -> Vec<Schema> {
    let keys = |about: &str| json!({ "type": "array", "items": { "type": "string" }, "description": about });
    let reloaded = json!({
        "type": "object",
        "required": ["reloaded", "changed", "needs_restart"],
        "properties": {
            "reloaded": { "const": true },
            "changed": keys("Keys that are in force with another value now."),
            "needs_restart": keys("Keys that have another value and are in force only after a restart."),
        },
    });
    let example = json!({ "reloaded": true, "changed": ["upstream.retries"], "needs_restart": ["listen"] });
    vec![Schema::new("Reloaded", reloaded, example)]
}
