//! `/v1/limits`: what a client may do. Each limit is at `/v1/limits/{id}` and, for proxies that rewrite `%2F`,
//! under `/v1/limit?client_id=`.

use serde::Serialize;
use serde_json::json;

use super::schemas::examples;
use super::terms::client_and_limit;
use super::{conditions, refused, terms};
use crate::api::AdminApi;
use crate::api::call::{as_json, no_content};
use crate::api::input;
use crate::api::page::{CURSOR, LIMIT, Page, Rows, listing, page_schema};
use crate::api::route::{
    self, AnswerDoc, ApiCall, Argument, Operation, Parameter, Resource, Route, Schema, bare, reference,
    refusal, shows,
};
use crate::api::seed;
use crate::declare::{Form, OPTIONAL, Section, Shape, Spec};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, AnswerBody};
use crate::store::StoreError;
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
    form: seed::ID,
    about: "The client's id, percent-encoded: one segment, decoded once.",
    example: r#""10.0.0.7""#,
};

/// The client in a query.
pub(super) const CLIENT_ID: Parameter =
    Parameter::query(|| Spec::of("client_id", seed::ID, "", "The client's id."), r#""10.0.0.7""#);

/// One form, not a choice of several: client generators leave out operations that have such a choice in a header field.
const TAGS: Form = Form::new("entity-tags", || {
    json!({
        "type": "string", "format": "entity-tags", "minLength": 1,
        "pattern": r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#,
    })
});

pub(super) const IF_MATCH: Parameter = Parameter::head(
    || {
        let about = "The `ETag`s of which it must have one, or `*`: it must be there.";
        Spec::of("If-Match", TAGS, OPTIONAL, about)
    },
    r#""\"3\"""#,
);

pub(super) const IF_NONE_MATCH: Parameter = Parameter::head(
    || Spec::of("If-None-Match", TAGS, OPTIONAL, "The `ETag`s that the caller has."),
    r#""\"3\"""#,
);

pub(super) const IF_ABSENT: Parameter = Parameter::head(
    || {
        let star = Form::new("*", || json!({ "type": "string", "enum": ["*"] }));
        Spec::of("If-None-Match", star, OPTIONAL, "`*`: it must not be there.")
    },
    r#""*""#,
);

const GONE: AnswerDoc = refusal(404, "The client has no limit.");
const CHANGED: AnswerDoc = refusal(412, "If-Match or If-None-Match does not hold.");

const LIST: Operation = route::get("listLimits", "Limits in byte order of the id", list_limits)
    .parameters(&[LIMIT, CURSOR, PREFIX, CONTAINS, TOTAL, PLAN])
    .answers(&[shows(200, "A page.", "Limits").with(&["Link"])]);

const PART: Form = Form::new(
    "at most 256 bytes, none of them 0",
    || json!({ "type": "string", "maxLength": ClientId::MAX_BYTES, "pattern": "^[^\\u0000]*$" }),
);

const PREFIX: Parameter = Parameter::query(
    || Spec::of("prefix", PART, OPTIONAL, "Ids that begin with this, byte for byte."),
    r#""10.0.""#,
);

const CONTAINS: Parameter = Parameter::query(
    || {
        Spec::of(
            "contains",
            PART,
            OPTIONAL,
            "Ids in which this stands, whatever the case of its letters. Looks at each limit.",
        )
    },
    r#""0.7""#,
);

const TOTAL: Parameter = Parameter::query(
    || {
        Spec::new(
            "total",
            Shape::Bool,
            "false",
            "Whether `total` is to say how many limits there are on all pages. Looks at each limit.",
        )
    },
    "true",
);

const PLAN: Parameter = Parameter::query(
    || Spec::of("plan", terms::PLAN_NAME, OPTIONAL, "Limits that name this plan."),
    examples::PLAN_NAME,
);

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

/// Why the store does not do something with a limit.
pub(super) fn wrong(error: StoreError) -> Reject {
    refused(error, "limit", "")
}

/// The client that the path or the query names.
pub(super) fn client_id(call: &ApiCall<'_, '_>) -> Result<ClientId, Reject> {
    call.named(&CLIENT_ID.spec(), ClientId::parse)
}

fn list_limits(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let (page, filter, with_total) = call.query(|query| {
        let page = Page::read("/v1/limits", query, &["prefix", "contains", "plan"]);
        (page, filter(query), query.flag(&TOTAL.spec()).unwrap_or_default())
    })?;
    let limits = &api.parts.limits;
    let mut rows = limits.limits(&filter, page.after.as_deref(), page.count + 1).map_err(wrong)?;
    let total = with_total.then(|| limits.total(&filter)).transpose().map_err(wrong)?;
    let next_cursor = page.cut(&mut rows, |row| row.client_id.clone());
    let documents = rows.iter().map(|row| LimitDocument::new(&row.client_id, &row.limit)).collect();
    let rows = Rows::new("limits", documents, next_cursor.as_deref()).with_total(total);
    listing(call.exchange.head, &rows)
}

fn filter(query: &mut Section<'_>) -> LimitFilter {
    let part = |text: &str| {
        let is_short = text.len() <= ClientId::MAX_BYTES && !text.contains('\0');
        is_short.then(|| text.to_owned()).ok_or(None)
    };
    LimitFilter {
        prefix: query.text(&PREFIX.spec(), part).filter(|text| !text.is_empty()),
        contains: query.text(&CONTAINS.spec(), part).filter(|text| !text.is_empty()),
        plan: query.text(&PLAN.spec(), |text| PlanName::parse(text).map_err(|fault| Some(fault.to_string()))),
    }
}

fn create_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.no_query()?;
    let (id, limit) = input::read(body, |body| client_and_limit(body, None))?;
    let row = api.parts.limits.create_limit(&id, &limit, &call.caller.actor).map_err(wrong)?;
    shown(&row, 201, Some(call.base))
}

fn get_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    let row = api.parts.limits.limit(&id).map_err(wrong)?;
    if conditions::is_known(call.exchange.head, row.version)? {
        return Ok(not_modified(row.version));
    }
    shown(&row, 200, None)
}

fn put_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    let id = client_id(call)?;
    let (id, limit) = input::read(body, |body| client_and_limit(body, Some(id)))?;
    let condition = conditions::condition(call.exchange.head)?;
    let put = api.parts.limits.put_limit(&id, &limit, &condition, &call.caller.actor).map_err(wrong)?;
    shown(&put.row, if put.created { 201 } else { 200 }, put.created.then_some(call.base))
}

fn delete_limit(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    let condition = conditions::condition(call.exchange.head)?;
    api.parts.limits.delete_limit(&id, &condition, &call.caller.actor).map_err(wrong)?;
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

/// The URL of something of that name: by its path, but by a query for `.` and `..`, which clients take out of paths
/// (RFC 3986 §5.2.4).
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
