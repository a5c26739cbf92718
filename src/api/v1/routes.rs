//! `GET /v1/routes`: which requests go where. Routes come from the configuration alone.

use serde::Serialize;
use serde_json::json;

use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Operation, Resource, Route, Schema, get, shows};
use crate::config;
use crate::config::routes::{RouteAction, RouteConfig};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::routes::HostPattern;
use balancer_importance::Priority;

/// A route as it is in force.
#[derive(Serialize)]
pub(super) struct RouteShown {
    name: String,
    host: Option<String>,
    path: String,
    pool: Option<String>,
    redirect: Option<RedirectShown>,
    respond: Option<RespondShown>,
    buckets: Vec<String>,
    max_in_flight: Option<u32>,
    priority: Option<&'static str>,
    max_body_bytes: Option<u64>,
    request_timeout: Option<String>,
    strip_prefix: bool,
    add_prefix: Option<String>,
    allow: Vec<String>,
    deny: Vec<String>,
    basic_auth: bool,
}

#[derive(Serialize)]
struct RedirectShown {
    to: String,
    status: u16,
}

#[derive(Serialize)]
struct RespondShown {
    status: u16,
}

impl RouteShown {
    /// Leaves out what its files hold.
    pub(super) fn of(route: &RouteConfig) -> Self {
        let (mut pool, mut redirect, mut respond) = (None, None, None);
        match &route.action {
            RouteAction::Pool(name) => pool = Some(name.clone()),
            RouteAction::Redirect(one) => {
                redirect = Some(RedirectShown { to: one.to.to_string(), status: one.status });
            }
            RouteAction::Respond(one) => respond = Some(RespondShown { status: one.status }),
        }
        let buckets = route.rules.iter().flat_map(|rule| rule.buckets());
        Self {
            name: route.name.to_string(),
            host: (route.host != HostPattern::Any).then(|| route.host.to_string()),
            path: route.path.clone(),
            pool,
            redirect,
            respond,
            buckets: buckets.map(|bucket| bucket.name.as_str().to_owned()).collect(),
            max_in_flight: route.max_in_flight,
            priority: route.priority.map(Priority::name),
            max_body_bytes: route.max_body_bytes,
            request_timeout: route.request_timeout.map(config::written),
            strip_prefix: route.strip_prefix,
            add_prefix: route.add_prefix.clone(),
            allow: route.allow.iter().map(ToString::to_string).collect(),
            deny: route.deny.iter().map(ToString::to_string).collect(),
            basic_auth: route.users.is_some(),
        }
    }
}

pub(in crate::api) const RESOURCE: Resource =
    Resource { title: "Routes", routes: &[Route::ours("/v1/routes", &[LIST])], schemas };

const LIST: Operation = get("listRoutes", "Which requests go where, in the order of the configuration", list)
    .never_waits()
    .answers(&[shows(200, "All of them, on one page.", "Routes")]);

#[derive(Serialize)]
struct RoutePage {
    routes: Vec<RouteShown>,
    next_cursor: Option<String>,
}

fn list(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    as_json(&RoutePage { routes: api.parts.control.routes(), next_cursor: None })
}

fn schemas() -> Vec<Schema> {
    let text = json!({ "type": "string" });
    let text_or_null = json!({ "type": ["string", "null"] });
    let whole_or_null = json!({ "type": ["integer", "null"], "minimum": 0 });
    let texts = json!({ "type": "array", "items": text });
    let status = json!({ "type": "integer" });
    let described = |about: &str| json!({ "type": ["string", "null"], "description": about });
    let route = json!({
        "type": "object",
        "required": ["name", "host", "path", "pool", "redirect", "respond", "buckets", "max_in_flight", "priority",
                     "max_body_bytes", "request_timeout", "strip_prefix", "add_prefix", "allow", "deny", "basic_auth"],
        "properties": {
            "name": text,
            "host": described("A name, or `*.` and what all names end in that it is for; null: any."),
            "path": text,
            "pool": described("Where its requests go; null: they are redirected, or answered."),
            "redirect": {
                "type": ["object", "null"], "required": ["to", "status"],
                "properties": { "to": text, "status": status },
            },
            "respond": { "type": ["object", "null"], "required": ["status"], "properties": { "status": status } },
            "buckets": {
                "type": "array", "items": text,
                "description": "Names of the buckets that each request needs a token of, beside its client's limit.",
            },
            "max_in_flight": whole_or_null,
            "priority": {
                "enum": ["critical", "normal", "background", null],
                "description": "Of its requests where they wait for a place; null: their client's.",
            },
            "max_body_bytes": whole_or_null,
            "request_timeout": text_or_null,
            "strip_prefix": { "type": "boolean" },
            "add_prefix": text_or_null,
            "allow": texts,
            "deny": texts,
            "basic_auth": { "type": "boolean", "description": "Whether clients have to show a password." },
        },
    });
    let list = json!({
        "type": "object",
        "required": ["routes", "next_cursor"],
        "properties": {
            "routes": { "type": "array", "items": { "$ref": "#/components/schemas/Route" } },
            "next_cursor": { "type": "null" },
        },
    });
    let example = json!({
        "name": "example.com/img/", "host": "example.com", "path": "/img/", "pool": "img", "redirect": null,
        "respond": null, "buckets": [], "max_in_flight": null, "priority": null, "max_body_bytes": null, "request_timeout": "5s",
        "strip_prefix": true, "add_prefix": null, "allow": [], "deny": [], "basic_auth": false,
    });
    vec![
        Schema::new("Route", route, example.clone()),
        Schema::new("Routes", list, json!({ "routes": [example], "next_cursor": null })),
    ]
}
