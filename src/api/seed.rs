//! The five calls with fixed paths and bodies: create, get, update, delete and the listing.

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::AdminApi;
use super::call::{as_json, no_content};
use super::input;
use super::page::{CURSOR, LIMIT, Page, Rows, page_schema};
use super::problem;
use super::route::{
    self, ApiCall, Parameter, Resource, Route, Schema, bare, post, put, reference, refusal, shows,
};
use crate::config;
use crate::declare::{Form, Parsed, Section, Spec, micro_of, owned, schema_of};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::{Row, StoreError};
use balancer_http::message::Reason;
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::{Limit, Rate};

pub(super) const RESOURCE: Resource = Resource {
    title: "The five fixed calls",
    routes: &[
        Route::fixed(
            "/limits/create",
            &[post("createFixed", "Gives a client a limit", create)
                .body("NumbersOfClient")
                .answers(&[bare(201, "It has it."), refusal(409, "It has one already.")])],
        ),
        Route::fixed(
            "/limits/get",
            &[route::get("getFixed", "A client's limit", get)
                .parameters(&[CLIENT_ID])
                .answers(&[shows(200, "The limit.", "ShownNumbers"), refusal(404, "It has none.")])],
        ),
        Route::fixed(
            "/limits/update",
            &[put("updateFixed", "Gives a client other numbers", update)
                .body("NumbersOfClient")
                .answers(&[bare(204, "It has them."), refusal(404, "It has no limit.")])],
        ),
        Route::fixed(
            "/limits/delete",
            &[route::delete("deleteFixed", "Takes a client's limit away", delete)
                .parameters(&[CLIENT_ID])
                .answers(&[bare(204, "It has none."), refusal(404, "It had none.")])],
        ),
        Route::fixed(
            "/limits",
            &[route::get("listFixed", "All limits, in byte order of the id", list)
                .parameters(&[LIMIT, CURSOR])
                .answers(&[shows(200, "A page.", "PageOfNumbers")])],
        ),
    ],
    schemas,
};

/// A client's id.
pub(super) const ID: Form = Form::new("the client's id", || reference("ClientId"));

const CLIENT_ID: Parameter = Parameter::query(
    || Spec::of("client_id", ID, "", "The client's id. It may also stand in a body, `{\"client_id\": …}`."),
    r#""10.0.0.7""#,
);

fn schemas() -> Vec<Schema> {
    let id = json!({
        "type": "string",
        "minLength": 1,
        "maxLength": ClientId::MAX_BYTES,
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        "description": "1 to 256 bytes of UTF-8 without control characters. Addresses and ranges are compared by value.",
    });
    let numbers = schema_of(numbers);
    let mut shown = numbers.clone();
    shown["properties"]["rate_per_sec"] = json!({ "type": "number", "minimum": 0, "maximum": 1_000_000_000 });
    let page = page_schema("limits", &reference("ShownNumbers"));
    let example = json!({ "client_id": "10.0.0.7", "capacity": 10, "rate_per_sec": 1.5 });
    vec![
        Schema::part("ClientId", id),
        Schema::new("NumbersOfClient", numbers, example.clone()),
        Schema::new("ShownNumbers", shown, example.clone()),
        Schema::new("PageOfNumbers", page, json!({ "limits": [example], "next_cursor": null })),
    ]
}

/// `POST /limits/create`: 201 without a body, 409 when an equal id has a limit.
fn create(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let (id, limit) = id_and_limit(call)?;
    api.parts.limits.create(&id, limit, &call.caller.actor).map_err(refused)?;
    Ok(Answer::new(201, Vec::new()))
}

/// `PUT /limits/update`: 204, 404 when the id has no limit.
fn update(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let (id, limit) = id_and_limit(call)?;
    api.parts.limits.update(&id, limit, &call.caller.actor).map_err(refused)?;
    Ok(no_content())
}

/// `DELETE /limits/delete`: 204, 404 when the id has no limit.
fn delete(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let id = id_alone(call)?;
    api.parts.limits.delete(&id, &call.caller.actor).map_err(refused)?;
    Ok(no_content())
}

/// `GET /limits/get`: 200 with the id as it was stored, 404 when it has no limit.
fn get(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let id = id_alone(call)?;
    as_json(&ShownNumbers::new(&api.parts.limits.get(&id).map_err(refused)?))
}

/// `GET /limits`: a page in byte order of the id, from the cursor on.
fn list(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let page = call.query(|query| Page::read("/limits", query, &[]))?;
    let mut rows = api.parts.limits.list(page.after.as_deref(), page.count + 1).map_err(refused)?;
    let next_cursor = page.cut(&mut rows, |row| row.client_id.clone());
    as_json(&Rows::new("limits", rows.iter().map(ShownNumbers::new).collect(), next_cursor.as_deref()))
}

fn id_and_limit(call: &mut ApiCall<'_, '_>) -> Result<(ClientId, Limit), Reject> {
    let body = call.body()?;
    call.no_query()?;
    input::read(body, numbers)
}

fn numbers(body: &mut Section<'_>) -> Option<(ClientId, Limit)> {
    let id = body.text(&Spec::of("client_id", ID, "", ""), parse_id);
    let capacity = body.whole("capacity", 0..=u64::from(Limit::MAX_CAPACITY), "", "");
    let about = "Tokens a second: 0, or 0.000001 to 1000000000 with at most 6 decimals.";
    let micro = body.some(&Spec::of("rate_per_sec", AMOUNT, "", about), micro_of);
    Some((id?, Limit { capacity, rate: Rate::per_second(micro?) }))
}

/// A number of tokens, exact. What is shown has no `multipleOf`: readers that divide by floats get it wrong.
pub(super) const AMOUNT: Form = Form::new(
    config::AMOUNT.words,
    || json!({ "type": "number", "minimum": 0, "maximum": 1_000_000_000, "multipleOf": 0.000_001 }),
);

/// The id from the body, from the query, or from both when they agree byte for byte.
fn id_alone(call: &mut ApiCall<'_, '_>) -> Result<ClientId, Reject> {
    let body = call.body()?;
    let id = CLIENT_ID.spec().optional();
    let in_query = call.query(|query| query.text(&id, owned))?;
    input::read(body, |body| {
        let in_body = body.text(&id, owned);
        match (in_body, in_query) {
            (Some(one), Some(other)) if one != other => {
                body.fault("client_id", "the body names another client than the query");
                None
            }
            (Some(text), _) | (None, Some(text)) => {
                parse_id(&text).map_err(|fault| body.fault("client_id", fault.unwrap_or_default())).ok()
            }
            (None, None) => {
                if !body.has("client_id") {
                    body.fault("client_id", "is missing; must be the client's id");
                }
                None
            }
        }
    })
}

/// An id, of a body or a query.
pub(super) fn parse_id(text: &str) -> Parsed<ClientId> {
    ClientId::parse(text).map_err(|fault| Some(fault.to_string()))
}

/// A limit as the five calls show it: whole numbers without a point, others with as few decimals as they have.
#[derive(Serialize)]
struct ShownNumbers<'a> {
    client_id: &'a str,
    capacity: u32,
    rate_per_sec: Box<RawValue>,
}

impl<'a> ShownNumbers<'a> {
    fn new(row: &'a Row) -> Self {
        // A rate of another span has no exact decimal; the nearest millionth that is not a false 0 is shown.
        let Rate { micro, per_secs } = row.limit.rate;
        let per = u64::from(per_secs.max(1));
        let nearest = if per == 1 { micro } else { (micro.saturating_add(per / 2) / per).max(micro.min(1)) };
        let rate = Rate::per_second(nearest).to_string();
        // `Rate` prints as JSON prints numbers.
        let rate_per_sec = RawValue::from_string(rate).unwrap_or_default();
        Self { client_id: &row.client_id, capacity: row.limit.capacity, rate_per_sec }
    }
}

fn refused(error: StoreError) -> Reject {
    match error {
        StoreError::Exists => Reject::new(Reason::Conflict, "this client has a limit already: update it"),
        StoreError::NotFound => Reject::new(Reason::NotFound, "this client has no limit"),
        // The rest is said in the same words as in v1.
        other => problem::refused(other, "limit", ""),
    }
}

#[cfg(test)]
mod tests;
