//! `/v1/plans`: terms that many limits share. A changed plan is in force on the next request of all its clients.

use serde::Serialize;
use serde_json::{Value, json};

use super::limits::{IF_ABSENT, IF_MATCH, IF_NONE_MATCH, not_modified};
use super::page::{CURSOR, Page, listing};
use super::{conditions, refused, terms};
use crate::api::AdminApi;
use crate::api::input::{Faults, Members};
use crate::api::route::{
    Access, Argument, Call, Content, Doc, In, Operation, Outcome, Parameter, Resource, Route, Stand, outcome,
};
use crate::api::seed::{LIMIT, as_json, no_content};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::v1::PlanRow;
use balancer_http::message::Reason;
use balancer_http::path::encoded;
use balancer_limiter::document::PlanDocument;
use balancer_limiter::terms::{Plan, PlanName};

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Plans",
    routes: &[
        Route {
            stand: Stand::Ours,
            path: "/v1/plans",
            allow: "GET, HEAD, POST",
            argument: None,
            operations: &[LIST, CREATE],
        },
        Route {
            stand: Stand::Ours,
            path: "/v1/plans/{name}",
            allow: "GET, HEAD, PUT, DELETE",
            argument: Some(Argument {
                schema: r##"{"$ref": "#/components/schemas/PlanName"}"##,
                about: "The plan's name, percent-encoded: one segment, decoded once.",
            }),
            operations: &[
                read("getPlan", &[IF_NONE_MATCH]),
                put("putPlan", &[IF_MATCH, IF_ABSENT]),
                delete("deletePlan", &[IF_MATCH]),
            ],
        },
        Route {
            stand: Stand::Ours,
            path: "/v1/plan",
            allow: "GET, HEAD, PUT, DELETE",
            argument: None,
            operations: &[
                read("getPlanByName", &[NAME, IF_NONE_MATCH]),
                put("putPlanByName", &[NAME, IF_MATCH, IF_ABSENT]),
                delete("deletePlanByName", &[NAME, IF_MATCH]),
            ],
        },
    ],
    schemas,
};

const NAME: Parameter = Parameter {
    name: "name",
    place: In::Query,
    required: true,
    schema: r##"{"$ref": "#/components/schemas/PlanName"}"##,
    about: "The plan's name.",
};

const GONE: Outcome = outcome(404, "There is no such plan.", Content::Problem);
const CHANGED: Outcome = outcome(412, "If-Match or If-None-Match does not hold.", Content::Problem);

const LIST: Operation = Operation {
    method: "GET",
    access: Access::Read,
    handle: list_plans,
    doc: Doc {
        id: "listPlans",
        summary: "Plans in byte order of the name",
        parameters: &[LIMIT, CURSOR],
        body: None,
        answers: &[outcome(200, "A page.", Content::Json("Plans")).with(&["Link"])],
    },
};

const CREATE: Operation = Operation {
    method: "POST",
    access: Access::Write,
    handle: create_plan,
    doc: Doc {
        id: "createPlan",
        summary: "Adds a plan; there may be 1,000",
        parameters: &[],
        body: Some("NewPlan"),
        answers: &[
            outcome(201, "The plan.", Content::Json("Plan")).with(&["ETag", "Location"]),
            outcome(409, "There is one of that name, or there are too many.", Content::Problem),
        ],
    },
};

const fn read(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[Outcome] = &[
        outcome(200, "The plan.", Content::Json("Plan")).with(&["ETag"]),
        outcome(304, "The caller has it.", Content::Nothing).with(&["ETag"]),
        GONE,
        CHANGED,
    ];
    let doc = Doc { id, summary: "A plan", parameters, body: None, answers: ANSWERS };
    Operation { method: "GET", access: Access::Read, handle: get_plan, doc }
}

const fn put(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[Outcome] = &[
        outcome(200, "The plan, in the place of another.", Content::Json("Plan")).with(&["ETag"]),
        outcome(201, "The plan, which is new.", Content::Json("Plan")).with(&["ETag", "Location"]),
        outcome(409, "There are too many plans.", Content::Problem),
        CHANGED,
    ];
    let doc = Doc {
        id,
        summary: "Makes or replaces a plan",
        parameters,
        body: Some("PlanTerms"),
        answers: ANSWERS,
    };
    Operation { method: "PUT", access: Access::Write, handle: put_plan, doc }
}

const fn delete(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[Outcome] = &[
        outcome(204, "It is gone.", Content::Nothing),
        GONE,
        outcome(409, "Limits name it; `detail` says how many.", Content::Problem),
        CHANGED,
    ];
    let doc = Doc {
        id,
        summary: "Takes away a plan that no limit names",
        parameters,
        body: None,
        answers: ANSWERS,
    };
    Operation { method: "DELETE", access: Access::Write, handle: delete_plan, doc }
}

/// The plan that the path or the query names.
fn plan_name(call: &Call<'_, '_>) -> Result<PlanName, Reject> {
    let text = if call.argument.is_some() {
        call.query(&[])?;
        call.argument("name")?
    } else {
        let query = call.query(&["name"])?;
        let missing = "missing; must be the plan's name";
        let reject = || Reject::new(Reason::BadRequest, format!("name: {missing}"));
        query.get("name").ok_or_else(|| reject().field("/name", missing))?.to_owned()
    };
    PlanName::parse(&text).map_err(|fault| {
        let fault = fault.to_string();
        Reject::new(Reason::BadRequest, format!("name: {fault}")).field("/name", fault)
    })
}

fn list_plans(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let query = call.query(&["limit", "cursor"])?;
    let mut faults = Faults::default();
    let page = Page::read("/v1/plans", &query, &[], &mut faults);
    faults.check()?;
    let mut rows = api
        .parts
        .limits
        .plans(page.after.as_deref(), page.count + 1)
        .map_err(|error| refused(error, "plan", ""))?;
    let next_cursor = page.cut(&mut rows, |row| row.plan.name.as_str().to_owned());
    let plans: Vec<_> = rows.iter().map(|row| PlanDocument::new(&row.plan)).collect();
    let body = Plans { plans, next_cursor: next_cursor.as_deref() };
    listing(call.exchange.head, &body, next_cursor.as_deref())
}

#[derive(Serialize)]
struct Plans<'a> {
    plans: Vec<PlanDocument<'a>>,
    next_cursor: Option<&'a str>,
}

fn create_plan(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.query(&[])?;
    let plan = new_plan(&body, None)?;
    let row = api
        .parts
        .limits
        .create_plan(&plan, &call.caller.actor)
        .map_err(|error| refused(error, "plan", ""))?;
    shown(&row, 201, Some(call.base))
}

fn get_plan(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let name = plan_name(call)?;
    let row = api.parts.limits.plan(&name).map_err(|error| refused(error, "plan", ""))?;
    if conditions::is_known(call.exchange.head, row.version)? {
        return Ok(not_modified(row.version));
    }
    shown(&row, 200, None)
}

fn put_plan(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    let name = plan_name(call)?;
    let plan = new_plan(&body, Some(name))?;
    let condition = conditions::condition(call.exchange.head)?;
    let put = api
        .parts
        .limits
        .put_plan(&plan, &condition, &call.caller.actor)
        .map_err(|error| refused(error, "plan", ""))?;
    shown(&put.row, if put.created { 201 } else { 200 }, put.created.then_some(call.base))
}

fn delete_plan(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let name = plan_name(call)?;
    let condition = conditions::condition(call.exchange.head)?;
    api.parts
        .limits
        .delete_plan(&name, &condition, &call.caller.actor)
        .map_err(|error| refused(error, "plan", ""))?;
    Ok(no_content())
}

/// The plan of a body; `named` is the one that the target names, which the body may leave out.
fn new_plan(body: &[u8], named: Option<PlanName>) -> Result<Plan, Reject> {
    let mut faults = Faults::default();
    let members = Members::read(body, &["name", "buckets", "max_in_flight"], &mut faults)?;
    let in_body = if members.has("name") {
        let text = members.text("name", &mut faults);
        text.and_then(|text| {
            PlanName::parse(&text).map_err(|fault| members.fault("name", fault.to_string(), &mut faults)).ok()
        })
    } else {
        None
    };
    match (&named, &in_body) {
        (Some(named), Some(other)) if named != other => {
            members.fault("name", "names another plan than the target", &mut faults);
        }
        (None, None) if !members.has("name") => {
            members.fault("name", "missing; must be the plan's name", &mut faults);
        }
        _ => {}
    }
    let terms = terms::plan_terms(&members, &mut faults);
    faults.check()?;
    let plan = named.or(in_body).zip(terms).map(|(name, terms)| Plan { name, terms });
    plan.ok_or_else(|| Reject::new(Reason::BadRequest, "the body is incomplete"))
}

/// A plan; with `base` it is new, and the answer says where it stands.
fn shown(row: &PlanRow, status: u16, base: Option<&str>) -> Result<Answer, Reject> {
    let mut answer = as_json(&PlanDocument::new(&row.plan))?;
    answer.status = status;
    let answer = answer.with("ETag", conditions::etag(row.version));
    let Some(base) = base else { return Ok(answer) };
    let name = encoded(row.plan.name.as_str());
    let place = if matches!(name.as_str(), "." | "..") {
        format!("{base}/v1/plan?name={name}")
    } else {
        format!("{base}/v1/plans/{name}")
    };
    Ok(answer.with("Location", place))
}

fn schemas() -> Vec<(&'static str, Value)> {
    let page = json!({
        "type": "object",
        "required": ["plans", "next_cursor"],
        "properties": {
            "plans": { "type": "array", "items": { "$ref": "#/components/schemas/Plan" } },
            "next_cursor": { "type": ["string", "null"] },
        },
    });
    vec![("Plans", page)]
}
