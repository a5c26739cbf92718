//! The route table: which paths are ours, what each has, and what the OpenAPI document says of it. A resource is one
//! file with a [`Resource`] in it, and one line in [`RESOURCES`](super::RESOURCES).
//!
//! Paths match exactly and segment by segment, as they were sent; only what stands for `{…}` is decoded, once, so that
//! `%2F` inside an id is a slash of the id and never one of the path.

use serde_json::Value;

use super::auth::Caller;
use super::input::{self, Query};
use super::{AdminApi, RESOURCES, Surface};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, Exchange};
use balancer_http::message::Reason;

/// The dashboard; an admin listener has it at `/`, too.
pub(super) const PAGE: &str = "/dashboard";

/// A few paths that belong together.
pub(super) struct Resource {
    /// Its heading in the documentation.
    pub title: &'static str,
    pub routes: &'static [Route],
    /// JSON Schemas (2020-12) by name, for `#/components/schemas/NAME`.
    pub schemas: fn() -> Vec<(&'static str, Value)>,
}

/// No schemas.
pub(super) fn no_schemas() -> Vec<(&'static str, Value)> {
    Vec::new()
}

/// Where a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Just so, wherever the API is.
    Fixed,
    /// Under `/-` on both listeners, on the public one even beside an admin listener; and without it on the latter.
    Probe,
    /// Under `/-` wherever the API is, and without it on an admin listener.
    Ours,
}

/// One path.
pub(super) struct Route {
    pub stand: Stand,
    /// Without `/-`; one segment at most is `{name}`.
    pub path: &'static str,
    /// The methods of `operations`, and HEAD beside GET, as an `Allow` value.
    pub allow: &'static str,
    /// What stands for the path's `{…}`.
    pub argument: Option<Argument>,
    pub operations: &'static [Operation],
}

/// What stands for a path's `{…}`.
#[derive(Clone, Copy)]
pub(super) struct Argument {
    /// A JSON Schema as text.
    pub schema: &'static str,
    pub about: &'static str,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Anybody, unless the query says `verbose`.
    Open,
    /// Whoever `admin.allow` lets in, without a token where one is set: what there is to see is in every copy of the program.
    Allowed,
    /// Whoever may read.
    Read,
    /// Whoever may change things.
    Write,
}

/// Answers a call that may be made. Reads the body before it judges anything else, so that 413 comes before 400.
pub(super) type Handler = fn(&AdminApi, &mut Call<'_, '_>) -> Result<Answer, Reject>;

/// One method of a path.
pub(super) struct Operation {
    /// `GET` answers HEAD, too.
    pub method: &'static str,
    pub access: Access,
    pub handle: Handler,
    pub doc: Doc,
}

/// What the documentation says of an operation. What every call may be answered (401, 403, 405, 503, …) is added by
/// `openapi`.
pub(super) struct Doc {
    /// `operationId`.
    pub id: &'static str,
    pub summary: &'static str,
    /// Of the query, and fields of the head; the path's own parameter is told by the path.
    pub parameters: &'static [Parameter],
    /// The schema of the body; `None`: it has none.
    pub body: Option<&'static str>,
    /// What it may be answered beside the refusals of every call. A status that has two media types stands there twice.
    pub answers: &'static [Outcome],
}

/// One answer of an operation.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub status: u16,
    pub about: &'static str,
    pub content: Content,
    /// Names of fields in its head that a caller may want.
    pub fields: &'static [&'static str],
}

/// An answer with nothing of note in its head.
pub(super) const fn outcome(status: u16, about: &'static str, content: Content) -> Outcome {
    Outcome { status, about, content, fields: &[] }
}

impl Outcome {
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
    /// Another media type.
    Text(&'static str),
    /// `application/problem+json`.
    Problem,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum In {
    Query,
    Head,
}

/// A parameter of the query or a field of the head.
pub(super) struct Parameter {
    pub name: &'static str,
    pub place: In,
    pub required: bool,
    /// A JSON Schema as text.
    pub schema: &'static str,
    pub about: &'static str,
}

/// A path that is ours.
#[derive(Clone, Copy)]
pub(super) enum Found<'p> {
    /// A route, what stood for its `{…}`, undecoded, and `/-` or nothing.
    Route(&'static Route, Option<&'p str>, &'static str),
    /// Below `/-/v1`, or anywhere on the admin listener, and nothing is there.
    Nothing,
}

impl Found<'_> {
    pub fn route(&self) -> Option<&'static Route> {
        match self {
            Self::Route(route, ..) => Some(route),
            Self::Nothing => None,
        }
    }
}

/// Finds what a path is on a listener; `None`: not ours.
pub(super) fn find(path: &str, surface: Surface, api_is_public: bool) -> Option<Found<'_>> {
    let nothing = (surface == Surface::Admin).then_some(Found::Nothing);
    // The listener's front page.
    let path = if surface == Surface::Admin && path == "/" { PAGE } else { path };
    let under_dash = path.strip_prefix("/-").filter(|rest| rest.starts_with('/'));
    // Most requests are a backend's, and need no more than this.
    if surface == Surface::Public && under_dash.is_none() && !path.starts_with("/limits") {
        return None;
    }
    let api_is_here = surface == Surface::Admin || api_is_public;
    let stands = |stand: Stand| match stand {
        Stand::Fixed => (api_is_here && under_dash.is_none()).then_some((path, "")),
        Stand::Ours if !api_is_here => None,
        Stand::Probe | Stand::Ours => match under_dash {
            Some(rest) => Some((rest, "/-")),
            None => (surface == Surface::Admin).then_some((path, "")),
        },
    };
    for route in RESOURCES.iter().flat_map(|resource| resource.routes) {
        let Some((path, base)) = stands(route.stand) else { continue };
        if let Some(argument) = matches(route.path, path) {
            return Some(Found::Route(route, argument, base));
        }
    }
    let is_v1 = under_dash.is_some_and(|rest| rest == "/v1" || rest.starts_with("/v1/"));
    if is_v1 && api_is_here { Some(Found::Nothing) } else { nothing }
}

/// Whether a path is that of a route; with what stands for its parameter, which is never empty.
fn matches<'p>(route: &str, path: &'p str) -> Option<Option<&'p str>> {
    let (Some(open), Some(close)) = (route.find('{'), route.find('}')) else {
        return (route == path).then_some(None);
    };
    let argument = path.strip_prefix(&route[..open])?.strip_suffix(&route[close + 1..])?;
    (!argument.is_empty() && !argument.contains('/')).then_some(Some(argument))
}

impl Route {
    /// The operation of a method; HEAD is GET's.
    pub fn operation(&self, method: &str) -> Option<&'static Operation> {
        let method = if method == "HEAD" { "GET" } else { method };
        self.operations.iter().find(|operation| operation.method == method)
    }

    /// Whether nothing of it needs a token.
    pub fn is_page(&self) -> bool {
        self.operations.iter().all(|operation| operation.access == Access::Allowed)
    }

    /// The name in its `{…}`.
    pub fn argument_name(&self) -> Option<&'static str> {
        let (_, rest) = self.path.split_once('{')?;
        rest.split_once('}').map(|(name, _)| name)
    }
}

/// A call that may be made.
pub(super) struct Call<'c, 'e> {
    pub exchange: &'c mut Exchange<'e>,
    /// What stood for the path's `{…}`, undecoded.
    pub argument: Option<String>,
    /// `/-`, or nothing on the admin listener: what stands before the route's path.
    pub base: &'static str,
    pub caller: Caller,
    pub request_id: &'c str,
}

impl Call<'_, '_> {
    /// The whole body, at most [`input::MAX_BODY_BYTES`]; 413.
    pub fn body(&mut self) -> Result<Vec<u8>, Reject> {
        self.body_up_to(input::MAX_BODY_BYTES)
    }

    /// The whole body, at most that many bytes; 413.
    pub fn body_up_to(&mut self, max_bytes: usize) -> Result<Vec<u8>, Reject> {
        input::read_body(self.exchange, max_bytes)
    }

    /// Reads a body that should not be there: nothing, white space or `{}` passes.
    pub fn no_body(&mut self) -> Result<(), Reject> {
        let body = self.body()?;
        let mut faults = input::Faults::default();
        input::Members::read(&body, &[], &mut faults)?;
        faults.check()
    }

    /// The query, of which these parameters are known.
    pub fn query(&self, known: &[&str]) -> Result<Query, Reject> {
        Query::read(self.exchange.head.query(), known)
    }

    /// What stood for the path's `{…}`, decoded once; `name` is what a fault points at.
    pub fn argument(&self, name: &str) -> Result<String, Reject> {
        let raw = self.argument.as_deref().unwrap_or_default();
        input::decode(raw, input::Plus::IsPlus).map_err(|fault| {
            Reject::new(Reason::BadRequest, format!("the {name} in the path {fault}"))
                .field(input::pointer(name), fault)
        })
    }
}

#[cfg(test)]
mod tests;
