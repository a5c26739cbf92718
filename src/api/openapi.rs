//! `/openapi.json`: the route table as an OpenAPI 3.1 document. Its paths are those of the listener that is asked, in
//! the form in which it was asked: with `/-` or without.

mod problems;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::call::as_json;
use super::route::{
    AnswerDoc, ApiCall, Argument, Content, In, Operation, PathForm, Permission, Resource, Route, Schema, get,
    reference, refusal, shows,
};
use super::{AdminApi, resources};
use crate::declare::schema_of_value;
use crate::error::Reject;
use crate::proxy::exchange::Answer;

pub(super) const RESOURCE: Resource = Resource {
    title: "Description",
    routes: &[Route::ours(
        "/openapi.json",
        &[get("openapi", "This description, OpenAPI 3.1", read).never_waits().answers(&[shows(
            200,
            "The document.",
            "OpenApi",
        )])],
    )],
    schemas,
};

fn schemas() -> Vec<Schema> {
    vec![Schema::new(
        "OpenApi",
        json!({ "type": "object", "required": ["openapi", "info", "paths"], "description": "An OpenAPI 3.1 document." }),
        json!({
            "openapi": "3.1.0", "info": { "title": "Balancer", "version": env!("CARGO_PKG_VERSION") }, "paths": {},
        }),
    )]
}

fn read(_: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    as_json(&document(call.base))
}

/// What every call may be answered, faults of HTTP framing included. Each is described once, and operations refer to
/// it.
const REFUSALS: [AnswerDoc; 11] = [
    refusal(400, "The request is malformed, or a part of it is not what stands here."),
    refusal(405, "This path does not have that method.").with(&["Allow"]),
    refusal(408, "The request came too slowly."),
    refusal(413, "The body is too large: 64 KiB, for a batch or an import 8 MiB."),
    refusal(414, "The target is too long."),
    refusal(417, "An Expect that is not 100-continue."),
    refusal(431, "The head is too large."),
    refusal(500, "A fault of ours."),
    refusal(501, "An unknown transfer coding."),
    refusal(503, "The store is down, or nobody is free to answer.").with(&["Retry-After"]),
    refusal(505, "Another HTTP version."),
];

/// What a peer is answered that may not see the dashboard.
const FORBIDDEN: [AnswerDoc; 1] = [DENIALS[1]];

/// What a call may be answered besides when it needs a permission.
const DENIALS: [AnswerDoc; 3] = [
    refusal(401, "A token is needed, or a right one.").with(&["WWW-Authenticate"]),
    refusal(
        403,
        "This caller may not call, or may only read. Without a token the public port answers only direct calls by processes of its own user on this machine.",
    ),
    refusal(429, "One more wrong token from an address that sent too many. A right one is never refused so.")
        .with(&["Retry-After"]),
];

/// The whole document, its paths behind `base`.
pub(super) fn document(base: &str) -> Value {
    let mut paths = Map::new();
    let schemas: Vec<Schema> = resources().flat_map(|resource| (resource.schemas)()).collect();
    let examples = Examples(&schemas);
    for resource in resources() {
        for route in resource.routes {
            let base = if route.form == PathForm::Fixed { "" } else { base };
            paths.insert(format!("{base}{}", route.path), examples.path_item(resource, route));
        }
    }
    let common = REFUSALS.iter().chain(&DENIALS);
    let responses: Map<String, Value> =
        common.map(|one| (one.status.to_string(), examples.response(&[one]))).collect();
    let named = schemas.into_iter().map(|one| (one.name.to_owned(), one.schema));
    let schemas: Map<String, Value> = named.chain([("Problem".to_owned(), problem())]).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Balancer",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Limits, plans and what an instance is doing. On the public port everything but the five fixed \
                            calls stands under `/-`; on an admin listener it stands there without it, too.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "tags": resources().map(|resource| json!({ "name": resource.title })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "`admin.token` or one of `admin.tokens`, where there are any.",
                },
            },
        },
    })
}

/// Writes operations, with the examples of these schemas.
struct Examples<'a>(&'a [Schema]);

impl Examples<'_> {
    fn path_item(&self, resource: &Resource, route: &Route) -> Value {
        let mut item = Map::new();
        let argument = |(name, argument): (&str, &Argument)| {
            json!({
                "name": name, "in": "path", "required": true, "schema": (argument.form.schema)(),
                "description": argument.about, "example": parsed(argument.example),
            })
        };
        let arguments: Vec<Value> = route.argument_names().zip(route.arguments).map(argument).collect();
        if !arguments.is_empty() {
            item.insert("parameters".into(), arguments.into());
        }
        for operation in route.operations {
            item.insert(operation.method.to_lowercase(), self.described(resource, operation, false));
            if operation.method == "GET" {
                item.insert("head".into(), self.described(resource, operation, true));
            }
        }
        Value::Object(item)
    }

    fn described(&self, resource: &Resource, operation: &Operation, is_head: bool) -> Value {
        let mut described = Map::new();
        let (id, summary) = if is_head {
            (format!("{}Head", operation.id), format!("{}: the head alone", operation.summary))
        } else {
            (operation.id.to_owned(), operation.summary.to_owned())
        };
        described.insert("operationId".into(), json!(id));
        described.insert("summary".into(), json!(summary));
        described.insert("tags".into(), json!([resource.title]));
        let open = matches!(operation.access, Permission::Open | Permission::Allowed);
        described.insert("security".into(), if open { json!([]) } else { json!([{}, { "token": [] }]) });
        let parameters = operation.parameters.iter().map(|parameter| {
            json!({
                "name": parameter.spec().name,
                "in": if parameter.place == In::Query { "query" } else { "header" },
                "required": parameter.spec().default.is_empty(),
                "schema": schema_of_value(&parameter.spec()),
                "description": parameter.spec().about,
                "example": parsed(parameter.example),
            })
        });
        described.insert("parameters".into(), parameters.collect());
        if let Some(schema) = operation.body {
            let content = json!({ "application/json": self.media(schema) });
            described.insert("requestBody".into(), json!({ "required": true, "content": content }));
        }
        described.insert("responses".into(), self.responses(operation, is_head));
        Value::Object(described)
    }

    fn responses(&self, operation: &Operation, is_head: bool) -> Value {
        let own = operation.answers;
        let denials: &[AnswerDoc] = match operation.access {
            Permission::Open => &[],
            Permission::Allowed => &FORBIDDEN,
            Permission::Read | Permission::Write => &DENIALS,
        };
        let mut responses = Map::new();
        for status in own.iter().map(|one| one.status).collect::<BTreeSet<_>>() {
            let same: Vec<_> = own.iter().filter(|one| one.status == status).collect();
            responses.insert(status.to_string(), self.response(&same));
        }
        for common in REFUSALS.iter().chain(denials) {
            let name = common.status.to_string();
            responses
                .entry(name.clone())
                .or_insert_with(|| json!({ "$ref": format!("#/components/responses/{name}") }));
        }
        if is_head {
            for response in responses.values_mut() {
                // The same head; what would be its body is not sent (RFC 9110 §9.3.2).
                if let Value::Object(response) = response {
                    response.remove("content");
                }
            }
        }
        Value::Object(responses)
    }

    /// Answers of one status.
    fn response(&self, same: &[&AnswerDoc]) -> Value {
        let mut response = Map::new();
        response.insert("description".into(), json!(same.first().map_or("", |one| one.about)));
        let mut content = Map::new();
        for one in same {
            match one.content {
                Content::Nothing => {}
                Content::Json(schema) => {
                    content.insert("application/json".into(), self.media(schema));
                }
                Content::Text(kind, example) => {
                    content
                        .insert(kind.into(), json!({ "schema": { "type": "string" }, "example": example }));
                }
                Content::Problem => {
                    let example = problems::example(one.status, one.about);
                    let media = json!({ "schema": reference("Problem"), "example": example });
                    content.insert("application/problem+json".into(), media);
                }
            }
        }
        if !content.is_empty() {
            response.insert("content".into(), Value::Object(content));
        }
        let fields = same.iter().flat_map(|one| one.fields);
        let headers: Map<String, Value> = fields
            .map(|name| {
                let kind = if *name == "Retry-After" { "integer" } else { "string" };
                ((*name).to_owned(), json!({ "schema": { "type": kind } }))
            })
            .collect();
        if !headers.is_empty() {
            response.insert("headers".into(), Value::Object(headers));
        }
        Value::Object(response)
    }

    /// A body by its schema's name.
    fn media(&self, schema: &str) -> Value {
        let example = self.0.iter().find(|one| one.name == schema).map(|one| &one.example);
        json!({ "schema": reference(schema), "example": example })
    }
}

/// An example of the table; a test reads all of them.
fn parsed(schema: &str) -> Value {
    serde_json::from_str(schema).unwrap_or(Value::Null)
}

/// RFC 9457.
fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "instance": { "type": "string", "description": "The request's id, as in `X-Request-Id` and in the log." },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {
                        "pointer": { "type": "string", "description": "A JSON pointer (RFC 6901): `/buckets/0/per`." },
                        "detail": { "type": "string" },
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
