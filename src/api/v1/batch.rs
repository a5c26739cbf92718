//! `POST /v1/batch`: many changes of limits in one transaction, all or nothing.

use serde_json::json;
use serde_json::value::RawValue;

use super::schemas::examples;
use super::terms::{self, LIMIT_MEMBERS};
use super::{client_of, refused};
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::input::{BodyFaults, Members};
use crate::api::route::{ApiCall, Resource, Route, Schema, post, refusal, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::v1::{BatchError, BatchOp};
use balancer_http::message::Reason;

/// The longest body of a batch.
pub(in crate::api) const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Most operations of a batch.
const MAX_OPERATIONS: usize = 10_000;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Batches",
    routes: &[Route::ours(
        "/v1/batch",
        &[post("batch", "Up to 10,000 changes of limits, all or nothing", batch).body("Batch").answers(&[
            shows(200, "All of them were made.", "Applied"),
            refusal(404, "None was made: one takes away a limit that is not there."),
            refusal(409, "None was made: one creates a limit that is there."),
        ])],
    )],
    schemas,
};

fn batch(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body_up_to(MAX_BATCH_BYTES)?;
    call.query(&[])?;
    let operations = operations(&body)?;
    let applied = operations.len();
    // What is left out of memory is not held twice while the database works.
    drop(body);
    if applied > 0 {
        api.parts
            .limits
            .batch(operations, &call.caller.actor)
            .map_err(|error| failed(error, "operations"))?;
    }
    as_json(&json!({ "applied": applied }))
}

fn operations(body: &[u8]) -> Result<Vec<BatchOp>, Reject> {
    let mut faults = BodyFaults::default();
    let members = Members::read(body, &["operations"], &mut faults)?;
    let elements = elements(&members, "operations", MAX_OPERATIONS, &mut faults);
    let mut operations = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        let known = [&["op", "client_id", "key"][..], &LIMIT_MEMBERS].concat();
        let operation = Members::below(element, format!("/operations/{index}"), &known, &mut faults);
        operations.extend(operation.and_then(|members| operation_of(&members, &mut faults)));
    }
    faults.check()?;
    Ok(operations)
}

/// The elements of a list that has to be there; none of one that is too long, which is a fault.
pub(super) fn elements<'a>(
    members: &Members<'a>,
    name: &str,
    most: usize,
    faults: &mut BodyFaults,
) -> Vec<&'a RawValue> {
    let elements = members.elements(name, faults).unwrap_or_default();
    if !members.has_value(name) {
        members.fault(name, format!("missing; must be a list of {name}"), faults);
    }
    if elements.len() > most {
        members.fault(name, format!("must be at most {most}, found {}", elements.len()), faults);
        return Vec::new();
    }
    elements
}

/// `None`: there are faults.
fn operation_of(members: &Members<'_>, faults: &mut BodyFaults) -> Option<BatchOp> {
    let op = members.text("op", faults);
    let id = client_of(members, faults);
    if !members.has("client_id") && !members.has("key") {
        members.fault("client_id", "missing; must be the client's id, or give its key", faults);
    }
    match op.as_deref() {
        Some(op @ ("create" | "put")) => {
            let limit = terms::limit(members, id.as_ref(), faults)?;
            Some(if op == "create" { BatchOp::Create(id?, limit) } else { BatchOp::Put(id?, limit) })
        }
        Some("delete") => {
            for name in LIMIT_MEMBERS.iter().filter(|name| members.has(name)) {
                members.fault(name, "a delete has no limit", faults);
            }
            Some(BatchOp::Delete(id?))
        }
        _ => {
            if op.is_some() || !members.has("op") {
                members.fault("op", "must be \"create\", \"put\" or \"delete\"", faults);
            }
            None
        }
    }
}

/// The status of the element that failed, and its place in that list.
pub(super) fn failed(failed: BatchError, list: &str) -> Reject {
    let Some(index) = failed.index else { return refused(failed.error, "limit", &format!("/{list}")) };
    let at = format!("/{list}/{index}");
    let mut reject = refused(failed.error, "limit", &at);
    if reject.reason == Reason::Unavailable {
        return reject;
    }
    if reject.errors.is_empty() {
        reject = reject.clone().field(at, reject.detail);
    }
    reject.detail = format!("{list}/{index}: {}; nothing was changed", reject.detail).into();
    reject
}

fn schemas() -> Vec<Schema> {
    let batch = json!({
        "type": "object",
        "required": ["operations"],
        "additionalProperties": false,
        "properties": {
            "operations": {
                "type": "array", "maxItems": MAX_OPERATIONS,
                "items": { "$ref": "#/components/schemas/Operation" },
            },
        },
    });
    let applied = json!({
        "type": "object",
        "required": ["applied"],
        "properties": { "applied": { "type": "integer", "minimum": 0, "maximum": MAX_OPERATIONS } },
    });
    let example = json!({ "operations": [
        { "op": "put", "client_id": "10.0.0.7", "buckets": [examples::new_bucket()] },
        { "op": "delete", "client_id": "10.0.0.8" },
    ] });
    vec![Schema::new("Batch", batch, example), Schema::new("Applied", applied, json!({ "applied": 2 }))]
}
