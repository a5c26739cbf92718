//! `/v1/limits`: what a client may do. Each limit is at `/v1/limits/{id}` and, for proxies that rewrite `%2F`,
//! under `/v1/limit?client_id=`.

use serde::Serialize;
use serde_json::json;

use super::schemas::examples;
use super::terms::client_and_limit;
use super::{conditions, refused};
use crate::api::AdminApi;
use crate::api::call::{as_json, no_content};
use crate::api::input::{BodyFaults, Query};
use crate::api::members::{self, reference};
use crate::api::page::{CURSOR, LIMIT, Page, Rows, listing, page_schema};
use crate::api::route::{
    self, AnswerDoc, ApiCall, Argument, In, Operation, Parameter, Resource, Route, Schema, bare, refusal,
    shows,
};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, AnswerBody};
use crate::store::v1::{LimitFilter, LimitRow};
use balancer_http::path::encoded;
use balancer_limiter::document::LimitDocument;
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::PlanName;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Limits",
    routes: &[
        Route::ours("/v1/limits", &[LIST, CREATE]),
        Route::ours(
            "/v1/limits/{id}",
            &[
                read("getLimit", &[IF_NONE_MATCH]),
                put("putLimit", &[IF_MATCH, IF_ABSENT]),
                delete("deleteLimit", &[IF_MATCH]),
            ],
        )
        .of(&[ID]),
        Route::ours(
            "/v1/limit",
            &[
                read("getLimitById", &[CLIENT_ID, IF_NONE_MATCH]),
                put("putLimitById", &[CLIENT_ID, IF_MATCH, IF_ABSENT]),
                delete("deleteLimitById", &[CLIENT_ID, IF_MATCH]),
            ],
        ),
    ],
    schemas,
};

/// The client in a path.
pub(super) const ID: Argument = Argument {
    schema: r##"{"$ref": "#/components/schemas/ClientId"}"##,
    about: "The client's id, percent-encoded: one segment, decoded once.",
    example: r#""10.0.0.7""#,
};

/// The client in a query.
pub(super) const CLIENT_ID: Parameter = Parameter {
    name: "client_id",
    place: In::Query,
    required: true,
    schema: r##"{"$ref": "#/components/schemas/ClientId"}"##,
    about: "The client's id.",
    example: r#""10.0.0.7""#,
};

/// One form alone: generators of clients leave out whole operations for a choice of forms in a field of the head.
const TAGS: &str = r#"{"type": "string", "format": "entity-tags", "minLength": 1, "pattern": "^(\\*|(W/)?\"[!#-~]*\"(, ?(W/)?\"[!#-~]*\")*)$"}"#;

pub(super) const IF_MATCH: Parameter = Parameter {
    name: "If-Match",
    place: In::Head,
    required: false,
    schema: TAGS,
    about: "The `ETag`s of which it must have one, or `*`: it must be there.",
    example: r#""\"3\"""#,
};

pub(super) const IF_NONE_MATCH: Parameter = Parameter {
    name: "If-None-Match",
    place: In::Head,
    required: false,
    schema: TAGS,
    about: "The `ETag`s that the caller has.",
    example: r#""\"3\"""#,
};

pub(super) const IF_ABSENT: Parameter = Parameter {
    name: "If-None-Match",
    place: In::Head,
    required: false,
    schema: r#"{"type": "string", "enum": ["*"]}"#,
    about: "`*`: it must not be there.",
    example: r#""*""#,
};

const GONE: AnswerDoc = refusal(404, "The client has no limit.");
const CHANGED: AnswerDoc = refusal(412, "If-Match or If-None-Match does not hold.");

const LIST: Operation = route::get("listLimits", "Limits in byte order of the id", list_limits)
    .parameters(&[
        LIMIT,
        CURSOR,
        Parameter {
            name: "prefix",
            place: In::Query,
            required: false,
            schema: r#"{"type": "string", "maxLength": 256, "pattern": "^[^\\u0000]*$"}"#,
            about: "Ids that begin with this, byte for byte.",
            example: r#""10.0.""#,
        },
        Parameter {
            name: "contains",
            place: In::Query,
            required: false,
            schema: r#"{"type": "string", "maxLength": 256, "pattern": "^[^\\u0000]*$"}"#,
            about: "Ids in which this stands, whatever the case of its letters. Looks at each limit.",
            example: r#""0.7""#,
        },
        Parameter {
            name: "total",
            place: In::Query,
            required: false,
            schema: r#"{"type": "boolean", "default": false}"#,
            about: "Whether `total` is to say how many limits there are on all pages. Looks at each limit.",
            example: "true",
        },
        Parameter {
            name: "plan",
            place: In::Query,
            required: false,
            schema: r##"{"$ref": "#/components/schemas/PlanName"}"##,
            about: "Limits that name this plan.",
            example: examples::PLAN_NAME,
        },
    ])
    .answers(&[shows(200, "A page.", "Limits").with(&["Link"])]);

const CREATE: Operation =
    route::post("createLimit", "Gives a client a limit", create_limit).body("NewLimit").answers(&[
        shows(201, "The limit.", "Limit").with(&["ETag", "Location"]),
        refusal(409, "The client has one already."),
    ]);

const fn read(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[
        shows(200, "The limit.", "Limit").with(&["ETag"]),
        bare(304, "The caller has it.").with(&["ETag"]),
        GONE,
        CHANGED,
    ];
    route::get(id, "A client's limit", get_limit).parameters(parameters).answers(ANSWERS)
}

const fn put(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[
        shows(200, "The limit, in the place of another.", "Limit").with(&["ETag"]),
        shows(201, "The limit, which is new.", "Limit").with(&["ETag", "Location"]),
        refusal(409, "A bound on the number of limits is reached."),
        CHANGED,
    ];
    route::put(id, "Makes or replaces a limit", put_limit)
        .parameters(parameters)
        .body("LimitTerms")
        .answers(ANSWERS)
}

const fn delete(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[bare(204, "It is gone."), GONE, CHANGED];
    route::delete(id, "Takes a limit away", delete_limit).parameters(parameters).answers(ANSWERS)
}

/// The client that the path or the query names.
pub(super) fn client_id(call: &ApiCall<'_, '_>) -> Result<ClientId, Reject> {
    call.named("client_id", "the client's id", ClientId::parse)
}

fn list_limits(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let query = call.query(&["limit", "cursor", "prefix", "contains", "plan", "total"])?;
    let mut faults = BodyFaults::default();
    let page = Page::read("/v1/limits", &query, &["prefix", "contains", "plan"], &mut faults);
    let filter = filter(&query, &mut faults);
    let with_total = match query.get("total") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            faults.add("total", "must be true or false");
            false
        }
    };
    faults.check()?;
    let limits = &api.parts.limits;
    let wrong = |error| refused(error, "limit", "");
    let mut rows = limits.limits(&filter, page.after.as_deref(), page.count + 1).map_err(wrong)?;
    let total = with_total.then(|| limits.total(&filter)).transpose().map_err(wrong)?;
    let next_cursor = page.cut(&mut rows, |row| row.client_id.clone());
    let documents = rows.iter().map(|row| LimitDocument::new(&row.client_id, &row.limit)).collect();
    let rows = Rows::new("limits", documents, next_cursor.as_deref()).with_total(total);
    listing(call.exchange.head, &rows)
}

fn filter(query: &Query, faults: &mut BodyFaults) -> LimitFilter {
    let mut text = |name: &str| {
        let text = query.get(name).filter(|text| !text.is_empty());
        if text.is_some_and(|text| text.len() > ClientId::MAX_BYTES || text.contains('\0')) {
            faults.add(name, format!("must have at most {} bytes, none of them 0", ClientId::MAX_BYTES));
        }
        text.map(str::to_owned)
    };
    let (prefix, contains) = (text("prefix"), text("contains"));
    let plan = query.get("plan").map(PlanName::parse);
    if let Some(Err(fault)) = &plan {
        faults.add("plan", fault.to_string());
    }
    LimitFilter { prefix, contains, plan: plan.and_then(Result::ok) }
}

fn create_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.query(&[])?;
    let (id, limit) = members::read(&body, |body| client_and_limit(body, None))?;
    let row = api
        .parts
        .limits
        .create_limit(&id, &limit, &call.caller.actor)
        .map_err(|error| refused(error, "limit", ""))?;
    shown(&row, 201, Some(call.base))
}

fn get_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    let row = api.parts.limits.limit(&id).map_err(|error| refused(error, "limit", ""))?;
    if conditions::is_known(call.exchange.head, row.version)? {
        return Ok(not_modified(row.version));
    }
    shown(&row, 200, None)
}

fn put_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    let id = client_id(call)?;
    let (id, limit) = members::read(&body, |body| client_and_limit(body, Some(id)))?;
    let condition = conditions::condition(call.exchange.head)?;
    let put = api
        .parts
        .limits
        .put_limit(&id, &limit, &condition, &call.caller.actor)
        .map_err(|error| refused(error, "limit", ""))?;
    shown(&put.row, if put.created { 201 } else { 200 }, put.created.then_some(call.base))
}

fn delete_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    let condition = conditions::condition(call.exchange.head)?;
    api.parts
        .limits
        .delete_limit(&id, &condition, &call.caller.actor)
        .map_err(|error| refused(error, "limit", ""))?;
    Ok(no_content())
}

/// A limit; with `base` it is new, and the answer says where it is.
fn shown(row: &LimitRow, status: u16, base: Option<&str>) -> Result<Answer, Reject> {
    let document = LimitDocument::new(&row.client_id, &row.limit);
    let place = base.map(|base| place(base, "limits/", "limit?client_id=", &row.client_id));
    versioned(&document, row.version, status, place)
}

/// A row with its version, and where it is if it is new.
pub(super) fn versioned(
    document: &impl Serialize,
    version: i64,
    status: u16,
    place: Option<String>,
) -> Result<Answer, Reject> {
    let mut answer = as_json(document)?;
    answer.status = status;
    let answer = answer.with("ETag", conditions::etag(version));
    Ok(match place {
        Some(place) => answer.with("Location", place),
        None => answer,
    })
}

/// Where something of that name is: by its path, unless a reader would take the name for a direction (RFC 3986 §5.2.4).
pub(super) fn place(base: &str, by_path: &str, by_query: &str, name: &str) -> String {
    let name = encoded(name);
    let by = if matches!(name.as_str(), "." | "..") { by_query } else { by_path };
    format!("{base}/v1/{by}{name}")
}

/// 304 (RFC 9110 §15.4.5).
pub(super) fn not_modified(version: i64) -> Answer {
    let mut answer = Answer::new(304, Vec::new()).with("ETag", conditions::etag(version));
    answer.body = AnswerBody::None { declared: None };
    answer
}

fn schemas() -> Vec<Schema> {
    let mut page = page_schema("limits", &reference("Limit"));
    page["properties"]["total"] = json!({
        "type": "integer", "minimum": 0, "description": "How many there are on all pages; only where it was asked for.",
    });
    let mut schemas = super::schemas::schemas();
    let example = json!({ "limits": [examples::limit()], "next_cursor": null });
    schemas.push(Schema::new("Limits", page, example));
    schemas
}
