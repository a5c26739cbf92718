//! `POST /v1/batch`: many changes of limits in one transaction, all or nothing.

use serde_json::{Value, json};

use super::refused;
use super::schemas::{examples, of_client, some_terms};
use super::terms::{self, LIMIT_MEMBERS};
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::input;
use crate::api::route::{ApiCall, Resource, Route, Schema, post, reference, refusal, shows};
use crate::declare::{Section, Shape, Spec, schema_of};
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
    call.no_query()?;
    let operations = input::read(body, operations)?;
    let applied = operations.len();
    if applied > 0 {
        api.parts
            .limits
            .batch(operations, &call.caller.actor)
            .map_err(|error| failed(error, "operations"))?;
    }
    as_json(&json!({ "applied": applied }))
}

const OPERATIONS: Spec = Spec::new(
    "operations",
    Shape::Objects {
        words: "a list of at most 10000 operations",
        min: 0,
        max: MAX_OPERATIONS,
        schema: Some(
            || json!({ "type": "array", "maxItems": MAX_OPERATIONS, "items": reference("Operation") }),
        ),
    },
    "",
    "",
);

const _: () = assert!(MAX_OPERATIONS == 10_000, "messages say so");

fn operations(body: &mut Section<'_>) -> Option<Vec<BatchOp>> {
    Some(body.each(&OPERATIONS, operation).into_iter().flatten().collect())
}

/// `None`: there are faults.
fn operation(body: &mut Section<'_>) -> Option<BatchOp> {
    let ops = ["create", "put", "delete"].map(|op| (op, op));
    let op = body.choice("op", &ops, "", "");
    if let Some("create" | "put") = op {
        let (id, limit) = terms::client_and_limit(body, None)?;
        return Some(if op == Some("create") { BatchOp::Create(id, limit) } else { BatchOp::Put(id, limit) });
    }
    let id = terms::client(body);
    body.know(&LIMIT_MEMBERS);
    for name in LIMIT_MEMBERS.into_iter().filter(|_| op.is_some()) {
        if body.has(name) {
            body.fault(name, "a delete has no limit");
        }
    }
    Some(BatchOp::Delete(id?)).filter(|_| op.is_some())
}

/// The refusal of the element that failed, with its place in that list.
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
    let of_op = |op: Value, mut object: Value, about: &str, more: &[Value]| {
        object["required"] = json!(["op"]);
        object["properties"]["op"] = op;
        of_client(object, about, more)
    };
    let limit = schema_of(|body| terms::client_and_limit(body, None));
    let create = json!({ "enum": ["create", "put"] });
    let create = of_op(create, limit, "A limit to create or put.", &[some_terms()]);
    let delete = json!({ "const": "delete" });
    let delete = of_op(delete, schema_of(terms::client), "A client whose limit is to go.", &[]);
    let applied = json!({
        "type": "object",
        "required": ["applied"],
        "properties": { "applied": { "type": "integer", "minimum": 0, "maximum": MAX_OPERATIONS } },
    });
    let example = json!({ "operations": [
        { "op": "put", "client_id": "10.0.0.7", "buckets": [examples::new_bucket()] },
        { "op": "delete", "client_id": "10.0.0.8" },
    ] });
    vec![
        Schema::new("Batch", schema_of(operations), example),
        Schema::part("Operation", json!({ "oneOf": [reference("CreateOrPut"), reference("Delete")] })),
        Schema::part("CreateOrPut", create),
        Schema::part("Delete", delete),
        Schema::new("Applied", applied, json!({ "applied": 2 })),
    ]
}
