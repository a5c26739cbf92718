//! The route table: which paths are ours, what each has, and what the OpenAPI document says of it. A resource is one
//! file with a [`Resource`] in it, which says all of that beside the handlers, and one line in `api::RESOURCES` or
//! `v1::RESOURCES`.
//!
//! Paths match exactly and segment by segment, as they were sent; only the part at `{…}` is decoded, once, so that
//! `%2F` inside an id is a slash of the id and never one of the path.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{AdminApi, Surface, resources};
use crate::declare::{Form, Spec};
use crate::error::Reject;
use crate::proxy::exchange::Answer;

pub(super) use super::call::ApiCall;

/// The dashboard; an admin listener has it at `/`, too.
pub(super) const PAGE: &str = "/dashboard";

/// A few paths that belong together.
pub(super) struct Resource {
    /// Its heading in the documentation.
    pub title: &'static str,
    pub routes: &'static [Route],
    /// The schemas that its operations name, and those that these name.
    pub schemas: fn() -> Vec<Schema>,
}

/// A JSON Schema (2020-12): `#/components/schemas/NAME`.
pub(super) struct Schema {
    pub name: &'static str,
    pub schema: Value,
    /// `Null` for one that only others refer to.
    pub example: Value,
}

impl Schema {
    /// Of a body or an answer.
    pub fn new(name: &'static str, schema: Value, example: Value) -> Self {
        Self { name, schema, example }
    }

    /// Of a part that other schemas refer to.
    pub fn part(name: &'static str, schema: Value) -> Self {
        Self::new(name, schema, Value::Null)
    }
}

/// A reference to the schema of that name.
pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// No schemas.
pub(super) fn no_schemas() -> Vec<Schema> {
    Vec::new()
}

/// Under which names a listener has a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathForm {
    /// As it is written, wherever the API is.
    Fixed,
    /// Under `/-` on both listeners, on the public one even beside an admin listener; and without it on the latter.
    Probe,
    /// Under `/-` wherever the API is, and without it on an admin listener.
    Ours,
}

/// One path.
pub(super) struct Route {
    pub form: PathForm,
    /// Without `/-`; two segments at most are `{name}`.
    pub path: &'static str,
    /// The path's `{…}`, in their order.
    pub arguments: &'static [Argument],
    pub operations: &'static [Operation],
}

/// A path's `{…}`.
#[derive(Clone, Copy)]
pub(super) struct Argument {
    pub form: Form,
    pub about: &'static str,
    /// JSON as text.
    pub example: &'static str,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// Anybody, unless the query says `verbose`.
    Open,
    /// Callers that `admin.allow` lets in, without a token: what is shown is in every copy of the program.
    Allowed,
    /// Callers that may read.
    Read,
    /// Callers that may change things.
    Write,
}

/// Answers a call that may be made. Reads the body before it judges anything else, so that 413 comes before 400.
pub(super) type Handler = fn(&AdminApi, &mut ApiCall<'_, '_>) -> Result<Answer, Reject>;

/// One method of a path. What every call may be answered (401, 403, 405, 503, …) is added by `openapi`.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    /// `GET` answers HEAD, too.
    pub method: &'static str,
    pub access: Permission,
    pub handle: Handler,
    /// Whether the handler may wait: for the database, or for another thread.
    pub waits: bool,
    /// `operationId`.
    pub id: &'static str,
    pub summary: &'static str,
    /// Of the query, and fields of the head; the path's own parameter is told by the path.
    pub parameters: &'static [Parameter],
    /// The schema of the body; `None`: it has none.
    pub body: Option<&'static str>,
    /// What it may be answered beside the refusals of every call. A status that has two media types is listed twice.
    pub answers: &'static [AnswerDoc],
}

/// Callers that may read may call it.
pub(super) const fn get(id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    Operation {
        method: "GET",
        access: Permission::Read,
        handle,
        waits: true,
        id,
        summary,
        parameters: &[],
        body: None,
        answers: &[],
    }
}

/// Callers that may change things may call it.
const fn change(method: &'static str, id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    Operation { method, access: Permission::Write, ..get(id, summary, handle) }
}

pub(super) const fn post(id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    change("POST", id, summary, handle)
}

pub(super) const fn put(id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    change("PUT", id, summary, handle)
}

pub(super) const fn patch(id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    change("PATCH", id, summary, handle)
}

pub(super) const fn delete(id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    change("DELETE", id, summary, handle)
}

impl Operation {
    /// The same under another `operationId`.
    pub const fn called(self, id: &'static str) -> Self {
        Self { id, ..self }
    }

    pub const fn access(self, access: Permission) -> Self {
        Self { access, ..self }
    }

    /// Answered from memory alone: no call that waits for the database keeps it waiting.
    pub const fn never_waits(self) -> Self {
        Self { waits: false, ..self }
    }

    pub const fn parameters(self, parameters: &'static [Parameter]) -> Self {
        Self { parameters, ..self }
    }

    /// With a body by the schema of that name.
    pub const fn body(self, schema: &'static str) -> Self {
        Self { body: Some(schema), ..self }
    }

    pub const fn answers(self, answers: &'static [AnswerDoc]) -> Self {
        Self { answers, ..self }
    }
}

/// One answer of an operation.
#[derive(Clone, Copy)]
pub(super) struct AnswerDoc {
    pub status: u16,
    pub about: &'static str,
    pub content: Content,
    /// Names of fields in its head that a caller may want.
    pub fields: &'static [&'static str],
}

/// An answer without a body.
pub(super) const fn bare(status: u16, about: &'static str) -> AnswerDoc {
    AnswerDoc { status, about, content: Content::Nothing, fields: &[] }
}

/// JSON by the schema of that name.
pub(super) const fn shows(status: u16, about: &'static str, schema: &'static str) -> AnswerDoc {
    AnswerDoc { content: Content::Json(schema), ..bare(status, about) }
}

/// Another media type, with an example.
pub(super) const fn text(
    status: u16,
    about: &'static str,
    kind: &'static str,
    example: &'static str,
) -> AnswerDoc {
    AnswerDoc { content: Content::Text(kind, example), ..bare(status, about) }
}

/// `application/problem+json`.
pub(super) const fn refusal(status: u16, about: &'static str) -> AnswerDoc {
    AnswerDoc { content: Content::Problem, ..bare(status, about) }
}

impl AnswerDoc {
    /// The same with these fields.
    pub const fn with(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }
}

/// What an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    /// JSON by a schema of that name.
    Json(&'static str),
    /// Another media type, and an example.
    Text(&'static str, &'static str),
    /// `application/problem+json`.
    Problem,
}

/// Which part of a request has a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum In {
    Query,
    Head,
}

/// A parameter of the query, as [`ApiCall::query`] reads it, or a field of the head.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub place: In,
    spec: fn() -> Spec,
    /// JSON as text.
    pub example: &'static str,
}

impl Parameter {
    pub const fn query(spec: fn() -> Spec, example: &'static str) -> Self {
        Self { place: In::Query, spec, example }
    }

    pub const fn head(spec: fn() -> Spec, example: &'static str) -> Self {
        Self { place: In::Head, spec, example }
    }

    /// How it is declared.
    pub fn spec(&self) -> Spec {
        (self.spec)()
    }
}

/// The values of a path's `{…}`, in their order.
pub(super) type Arguments<'p> = [Option<&'p str>; 2];

/// A path that is ours.
#[derive(Clone, Copy)]
pub(super) enum FoundRoute<'p> {
    /// A route, the values of its `{…}`, undecoded, and `/-` or nothing.
    Route(&'static Route, Arguments<'p>, &'static str),
    /// A path below `/-/v1`, or any path on the admin listener, that no route has.
    Nothing,
}

impl FoundRoute<'_> {
    pub fn route(&self) -> Option<&'static Route> {
        match self {
            Self::Route(route, ..) => Some(route),
            Self::Nothing => None,
        }
    }
}

/// Finds what a path is on a listener; `None`: not ours.
pub(super) fn find(path: &str, surface: Surface, api_is_public: bool) -> Option<FoundRoute<'_>> {
    let nothing = (surface == Surface::Admin).then_some(FoundRoute::Nothing);
    // The listener's front page.
    let path = if surface == Surface::Admin && path == "/" { PAGE } else { path };
    let under_dash = path.strip_prefix("/-").filter(|rest| rest.starts_with('/'));
    // Most requests are a backend's, and need no more than this.
    if surface == Surface::Public && under_dash.is_none() && !path.starts_with("/limits") {
        return None;
    }
    let api_is_here = surface == Surface::Admin || api_is_public;
    let here = |form: PathForm| match form {
        PathForm::Fixed => (api_is_here && under_dash.is_none()).then_some((path, "")),
        PathForm::Ours if !api_is_here => None,
        PathForm::Probe | PathForm::Ours => match under_dash {
            Some(rest) => Some((rest, "/-")),
            None => (surface == Surface::Admin).then_some((path, "")),
        },
    };
    for route in resources().flat_map(|resource| resource.routes) {
        let Some((path, base)) = here(route.form) else { continue };
        if let Some(arguments) = matches(route.path, path) {
            return Some(FoundRoute::Route(route, arguments, base));
        }
    }
    let is_v1 = under_dash.is_some_and(|rest| rest == "/v1" || rest.starts_with("/v1/"));
    if is_v1 && api_is_here { Some(FoundRoute::Nothing) } else { nothing }
}

/// Whether a path is that of a route; with the values of its parameters, which are never empty.
fn matches<'p>(route: &str, path: &'p str) -> Option<Arguments<'p>> {
    let mut arguments: Arguments<'p> = [None; 2];
    let mut places = arguments.iter_mut();
    let mut segments = path.split('/');
    for wanted in route.split('/') {
        let segment = segments.next()?;
        if wanted.starts_with('{') {
            *places.next()? = Some(Some(segment).filter(|segment| !segment.is_empty())?);
        } else if wanted != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(arguments)
}

impl Route {
    const fn at(form: PathForm, path: &'static str, operations: &'static [Operation]) -> Self {
        Self { form, path, arguments: &[], operations }
    }

    pub const fn fixed(path: &'static str, operations: &'static [Operation]) -> Self {
        Self::at(PathForm::Fixed, path, operations)
    }

    pub const fn probe(path: &'static str, operations: &'static [Operation]) -> Self {
        Self::at(PathForm::Probe, path, operations)
    }

    pub const fn ours(path: &'static str, operations: &'static [Operation]) -> Self {
        Self::at(PathForm::Ours, path, operations)
    }

    /// With its `{…}`.
    pub const fn of(self, arguments: &'static [Argument]) -> Self {
        Self { arguments, ..self }
    }

    /// The methods of its operations, and HEAD beside GET, as an `Allow` value.
    pub fn allow(&self) -> &'static str {
        static ALL: LazyLock<HashMap<&str, String>> = LazyLock::new(|| {
            let methods = |route: &Route| {
                let one = |it: &Operation| if it.method == "GET" { "GET, HEAD" } else { it.method };
                route.operations.iter().map(one).collect::<Vec<_>>().join(", ")
            };
            resources().flat_map(|it| it.routes).map(|route| (route.path, methods(route))).collect()
        });
        ALL.get(self.path).map_or("", String::as_str)
    }

    /// The operation of a method; HEAD is GET's.
    pub fn operation(&self, method: &str) -> Option<&'static Operation> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.operations.iter().find(|operation| operation.method == method)
    }

    /// Whether none of its operations needs a token.
    pub fn is_page(&self) -> bool {
        self.operations.iter().all(|operation| operation.access == Permission::Allowed)
    }

    /// The names in its `{…}`, in their order.
    pub fn argument_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }
}

#[cfg(test)]
mod tests;
