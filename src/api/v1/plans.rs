//! `/v1/plans`: terms that many limits share. A changed plan is in force on the next request of all its clients.

use serde_json::json;

use super::limits::{IF_ABSENT, IF_MATCH, IF_NONE_MATCH, not_modified, place, versioned};
use super::schemas::examples;
use super::{conditions, refused, terms};
use crate::api::AdminApi;
use crate::api::call::no_content;
use crate::api::input;
use crate::api::page::{CURSOR, LIMIT, Page, Rows, listing, page_schema};
use crate::api::route::{
    self, AnswerDoc, ApiCall, Argument, Operation, Parameter, Resource, Route, Schema, bare, reference,
    refusal, shows,
};
use crate::declare::Spec;
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::StoreError;
use crate::store::v1::PlanRow;
use balancer_limiter::document::PlanDocument;
use balancer_limiter::terms::PlanName;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Plans",
    routes: &[
        Route::ours("/v1/plans", &[LIST, CREATE]),
        Route::ours(
            "/v1/plans/{name}",
            &[
                read("getPlan", &[IF_NONE_MATCH]),
                put("putPlan", &[IF_MATCH, IF_ABSENT]),
                delete("deletePlan", &[IF_MATCH]),
            ],
        )
        .of(&[Argument {
            form: terms::PLAN_NAME,
            about: "The plan's name, percent-encoded: one segment, decoded once.",
            example: examples::PLAN_NAME,
        }]),
        Route::ours(
            "/v1/plan",
            &[
                read("getPlanByName", &[NAME, IF_NONE_MATCH]),
                put("putPlanByName", &[NAME, IF_MATCH, IF_ABSENT]),
                delete("deletePlanByName", &[NAME, IF_MATCH]),
            ],
        ),
    ],
    schemas,
};

const NAME: Parameter =
    Parameter::query(|| Spec::of("name", terms::PLAN_NAME, "", "The plan's name."), examples::PLAN_NAME);

const GONE: AnswerDoc = refusal(404, "There is no such plan.");
const CHANGED: AnswerDoc = refusal(412, "If-Match or If-None-Match does not hold.");

const LIST: Operation = route::get("listPlans", "Plans in byte order of the name", list_plans)
    .parameters(&[LIMIT, CURSOR])
    .answers(&[shows(200, "A page.", "Plans").with(&["Link"])]);

const CREATE: Operation =
    route::post("createPlan", "Adds a plan; there may be 1,000", create_plan).body("NewPlan").answers(&[
        shows(201, "The plan.", "Plan").with(&["ETag", "Location"]),
        refusal(409, "There is one of that name, or there are too many."),
    ]);

const fn read(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[
        shows(200, "The plan.", "Plan").with(&["ETag"]),
        bare(304, "The caller has it.").with(&["ETag"]),
        GONE,
        CHANGED,
    ];
    route::get(id, "A plan", get_plan).parameters(parameters).answers(ANSWERS)
}

const fn put(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[
        shows(200, "The plan, in the place of another.", "Plan").with(&["ETag"]),
        shows(201, "The plan, which is new.", "Plan").with(&["ETag", "Location"]),
        refusal(409, "There are too many plans."),
        CHANGED,
    ];
    route::put(id, "Makes or replaces a plan", put_plan)
        .parameters(parameters)
        .body("PlanTerms")
        .answers(ANSWERS)
}

const fn delete(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] =
        &[bare(204, "It is gone."), GONE, refusal(409, "Limits name it; `detail` says how many."), CHANGED];
    route::delete(id, "Takes away a plan that no limit names", delete_plan)
        .parameters(parameters)
        .answers(ANSWERS)
}

fn wrong(error: StoreError) -> Reject {
    refused(error, "plan", "")
}

/// The plan that the path or the query names.
fn plan_name(call: &ApiCall<'_, '_>) -> Result<PlanName, Reject> {
    call.named(&NAME.spec(), PlanName::parse)
}

fn list_plans(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let page = call.query(|query| Page::read("/v1/plans", query, &[]))?;
    let mut rows = api.parts.limits.plans(page.after.as_deref(), page.count + 1).map_err(wrong)?;
    let next_cursor = page.cut(&mut rows, |row| row.plan.name.as_str().to_owned());
    let plans = rows.iter().map(|row| PlanDocument::new(&row.plan)).collect();
    listing(call.exchange.head, &Rows::new("plans", plans, next_cursor.as_deref()))
}

fn create_plan(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.no_query()?;
    let plan = input::read(body, |body| terms::plan(body, None))?;
    let row = api.parts.limits.create_plan(&plan, &call.caller.actor).map_err(wrong)?;
    shown(&row, 201, Some(call.base))
}

fn get_plan(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let name = plan_name(call)?;
    let row = api.parts.limits.plan(&name).map_err(wrong)?;
    if conditions::is_known(call.exchange.head, row.version)? {
        return Ok(not_modified(row.version));
    }
    shown(&row, 200, None)
}

fn put_plan(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    let name = plan_name(call)?;
    let plan = input::read(body, |body| terms::plan(body, Some(name)))?;
    let condition = conditions::condition(call.exchange.head)?;
    let put = api.parts.limits.put_plan(&plan, &condition, &call.caller.actor).map_err(wrong)?;
    shown(&put.row, if put.created { 201 } else { 200 }, put.created.then_some(call.base))
}

fn delete_plan(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let name = plan_name(call)?;
    let condition = conditions::condition(call.exchange.head)?;
    api.parts.limits.delete_plan(&name, &condition, &call.caller.actor).map_err(wrong)?;
    Ok(no_content())
}

/// A plan; with `base` it is new, and the answer says where it is.
fn shown(row: &PlanRow, status: u16, base: Option<&str>) -> Result<Answer, Reject> {
    let place = base.map(|base| place(base, "plans/", "plan?name=", row.plan.name.as_str()));
    versioned(&PlanDocument::new(&row.plan), row.version, status, place)
}

fn schemas() -> Vec<Schema> {
    let page = page_schema("plans", &reference("Plan"));
    vec![Schema::new("Plans", page, json!({ "plans": [examples::plan()], "next_cursor": null }))]
}
