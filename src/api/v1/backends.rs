//! `/v1/backends` and, for other pools than the default one, `/v1/pools/{pool}/backends`: where requests go, changed
//! while serving. Of a backend in the configuration file only the change is stored; others are stored whole.

mod schemas;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use schemas::STATE;
pub(super) use schemas::example;
pub(in crate::api) use schemas::{CAUSE, health_schema, state_schema};

use super::{patterns, refused};
use crate::api::AdminApi;
use crate::api::call::{as_json, no_content};
use crate::api::faults;
use crate::api::input;
use crate::api::route::{
    self, AnswerDoc, ApiCall, Argument, Operation, Parameter, Resource, Route, bare, refusal, shows,
};
use crate::config;
use crate::declare::{
    Fault, FaultOrigin, Form, OPTIONAL, Section, Shape, Spec, owned, parse_duration, pointer, whole,
};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::StoreError;
use crate::store::backends::BackendSettings;
use balancer_http::message::Reason;
use balancer_http::path::encoded;
use balancer_pool::backend::InFlightBound;
use balancer_pool::backends::{MeasuredReport, Operator};
use balancer_pool::fair::AutoMove;

const MAX_WEIGHT: u64 = 1_000;
/// The longest that a deleted backend may stay listed, for `drain`.
const MAX_DRAIN: Duration = Duration::from_secs(3_600);
/// Seconds that a caller is told to wait while others' changes are under way.
const RETRY_AFTER_S: u64 = 1;

const URL_SHAPE: &str = "`http://HOST[:PORT]`, `https://HOST[:PORT]` or `srv://_SERVICE._PROTO.DOMAIN`";

/// Where a backend comes from.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BackendOrigin {
    /// The configuration file.
    File,
    /// The store.
    Store,
}

/// A backend as it is in the pool of this instance.
#[derive(Serialize)]
pub(super) struct BackendShown {
    pub pool: String,
    pub name: String,
    pub url: String,
    pub weight: u32,
    pub state: Operator,
    pub max_in_flight: Option<InFlightBound>,
    /// The bound in force; `None`: there is none.
    pub limit: Option<u32>,
    /// `None`: the bound is a number, or there is none.
    pub measured: Option<MeasuredShown>,
    pub backup: bool,
    pub source: BackendOrigin,
    /// Whether it is given requests.
    pub up: bool,
    /// What checks and answers say: `up`, `down`, `ejected` or `unknown`.
    pub health: &'static str,
    /// Why it is not up, or not whole, as the log said it.
    pub cause: Option<String>,
    pub in_flight: u32,
    pub endpoints: Vec<EndpointShown>,
}

/// What is known of a measured bound.
#[derive(Serialize)]
pub(super) struct MeasuredShown {
    /// How many of its places are held.
    pub held: u32,
    pub median_seconds: Option<f64>,
    /// [`AutoMove::name`].
    pub moved: Option<&'static str>,
}

impl From<MeasuredReport> for MeasuredShown {
    fn from(MeasuredReport { held, median_s, moved }: MeasuredReport) -> Self {
        Self { held, median_seconds: median_s, moved: moved.map(AutoMove::name) }
    }
}

/// One address of it.
#[derive(Serialize)]
pub(super) struct EndpointShown {
    pub address: SocketAddr,
    /// 0, or higher: used only when no address of a lower tier can be.
    pub tier: u16,
    /// Its share relative to those of all others of its pool.
    pub weight: f64,
    /// `up`, `down`, `ejected` or `unknown`.
    pub health: &'static str,
    /// Why it is down or ejected, as the log said it.
    pub cause: Option<String>,
    pub in_flight: u32,
}

/// A pool's name, and that of a backend in it.
pub(super) type PoolAndName<'a> = (&'a str, &'a str);

/// Why nothing was changed.
pub(super) enum BackendError {
    /// There is no such pool.
    NoPool,
    /// What is wrong, by field.
    Fields(Vec<(&'static str, String)>),
    /// The configuration file has it, so only a change of the file takes it away.
    InFile,
    /// The store refused the change.
    Store(StoreError),
    /// It is stored, and could not be put in force now.
    Busy(String),
}

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Backends",
    routes: &[
        Route::ours("/v1/backends", &[LIST, CREATE]),
        Route::ours("/v1/backends/{name}", &[READ, PATCH, DELETE]).of(&[NAME]),
        Route::ours(
            "/v1/pools/{pool}/backends",
            &[
                LIST.called("listPoolBackends").answers(&[ALL, NO_POOL]),
                CREATE.called("createPoolBackend").answers(&[ADDED, NO_POOL, TAKEN]),
            ],
        )
        .of(&[POOL]),
        Route::ours(
            "/v1/pools/{pool}/backends/{name}",
            &[
                READ.called("getPoolBackend"),
                PATCH.called("patchPoolBackend"),
                DELETE.called("deletePoolBackend"),
            ],
        )
        .of(&[POOL, NAME]),
    ],
    schemas: schemas::schemas,
};

const NAME: Argument =
    Argument { form: Form::text("a name"), about: "The backend's name.", example: r#""b""# };

/// A pool in a path.
pub(super) const POOL: Argument = Argument {
    form: Form::text("a name"),
    about: "The pool's name; `default` is the one at the top of the configuration.",
    example: r#""default""#,
};

const NO_POOL: AnswerDoc = refusal(404, "There is no such pool.");

const GONE: AnswerDoc = refusal(404, "There is no such backend, or no such pool.");

const ALL: AnswerDoc = shows(200, "All of them, on one page.", "Backends");

const ADDED: AnswerDoc = shows(201, "The backend.", "Backend").with(&["Location"]);

const TAKEN: AnswerDoc = refusal(409, "There is one of that name, or there are too many.");

const LIST: Operation = route::get("listBackends", "All backends of a pool, as this instance has them", list)
    .never_waits()
    .answers(&[ALL]);

const CREATE: Operation =
    route::post("createBackend", "Adds a backend, in force when this is answered", create)
        .body("NewBackend")
        .answers(&[ADDED, TAKEN]);

const READ: Operation = route::get("getBackend", "A backend", read)
    .never_waits()
    .answers(&[shows(200, "The backend.", "Backend"), GONE]);

const PATCH: Operation =
    route::patch("patchBackend", "Changes what is said of a backend, in force when this is answered", patch)
        .body("BackendPatch")
        .answers(&[shows(200, "The backend.", "Backend"), GONE]);

const DELETE: Operation = route::delete(
    "deleteBackend",
    "Takes a backend away; requests under way on it end by themselves",
    delete,
)
.parameters(&[DRAIN])
.answers(&[bare(204, "It is given nothing new."), GONE, refusal(409, "It is in the configuration file.")]);

const DRAIN: Parameter = Parameter::query(
    || {
        Spec::of(
            "drain",
            Form::new("a duration up to \"1h\", such as \"30s\"", || {
                json!({
                    "type": "string", "minLength": 2,
                    "pattern": "^([01]h|(60|[1-5]?[0-9])m|([1-5]?[0-9]m)?[1-5]?[0-9]s|([1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600)s|([1-9][0-9]{0,5}|[12][0-9]{6}|3[0-5][0-9]{5}|3600000)ms)$",
                })
            }),
            "\"0s\"",
            "How long it stays listed, in state drain, while requests are under way on it: 30s, at most 1h.",
        )
    },
    r#""10s""#,
);

#[derive(Serialize)]
struct Backends {
    backends: Vec<BackendShown>,
    next_cursor: Option<String>,
}

fn list(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    as_json(&Backends {
        backends: api.parts.control.backends(&call.pool()?).map_err(rejected)?,
        next_cursor: None,
    })
}

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    let (pool, name) = (call.pool()?, call.argument("name")?);
    as_json(&api.parts.control.backend((&pool, &name)).map_err(rejected)?)
}

fn create(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.no_query()?;
    let (name, settings) = input::read(body, new_backend)?;
    let pool = call.pool()?;
    let shown =
        api.parts.control.create_backend((&pool, &name), settings, &call.caller.actor).map_err(rejected)?;
    let mut answer = as_json(&shown)?;
    answer.status = 201;
    Ok(answer.with("Location", location(call, &shown.name)))
}

fn patch(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.no_query()?;
    let (pool, name) = (call.pool()?, call.argument("name")?);
    let settings = input::read(body, |body| Some(said(body)))?;
    if settings == BackendSettings::default() {
        let detail = "says nothing to change: weight, state or max_in_flight";
        return Err(Reject::new(Reason::BadRequest, format!("the body {detail}")).field("", detail));
    }
    let shown =
        api.parts.control.patch_backend((&pool, &name), settings, &call.caller.actor).map_err(rejected)?;
    as_json(&shown)
}

fn delete(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let drain = |text: &str| parse_duration(text).filter(|drain| *drain <= MAX_DRAIN).ok_or(None);
    let drain = call.query(|query| query.text(&DRAIN.spec(), drain))?.unwrap_or_default();
    let (pool, name) = (call.pool()?, call.argument("name")?);
    api.parts.control.delete_backend((&pool, &name), drain, &call.caller.actor).map_err(rejected)?;
    Ok(no_content())
}

/// Where a backend of the path's pool is.
fn location(call: &ApiCall<'_, '_>, name: &str) -> String {
    let pool = call.arguments.first().map(|(_, pool)| format!("pools/{pool}/")).unwrap_or_default();
    format!("{}/v1/{pool}backends/{}", call.base, encoded(name))
}

/// A backend with its name.
fn new_backend(body: &mut Section<'_>) -> Option<(String, BackendSettings)> {
    let name = Form::new(
        config::BACKEND_NAME.words,
        || json!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9._:\\[\\]-]+$" }),
    );
    let url = Form::new(
        config::BACKEND_URL.words,
        || json!({ "type": "string", "minLength": 8, "maxLength": 270, "pattern": patterns::backend_url() }),
    );
    let name = body.text(&Spec::of("name", name, "", ""), owned);
    let url = body.text(&Spec::of("url", url, "", URL_SHAPE), owned);
    let settings = said(body);
    let backup = body.flag(&Spec::new("backup", Shape::Bool, OPTIONAL, ""));
    Some((name?, BackendSettings { url, backup, ..settings }))
}

/// What a body says of weight, state and bound.
fn said(body: &mut Section<'_>) -> BackendSettings {
    let weight = body.number(&whole("weight", &(0..=MAX_WEIGHT), OPTIONAL, ""));
    let states = [("up", Operator::Up), ("drain", Operator::Drain), ("down", Operator::Down)];
    let state = body.choice("state", &states, OPTIONAL, STATE);
    let about = "Most requests at once; `auto`: as many as are measured to be of use; null: no bound.";
    let most =
        config::in_flight(body, &Spec::of("max_in_flight", config::IN_FLIGHT, OPTIONAL, about).or_null());
    let max_in_flight = body.has("max_in_flight").then_some(most);
    BackendSettings { weight, state, max_in_flight, ..BackendSettings::default() }
}

fn rejected(error: BackendError) -> Reject {
    match error {
        BackendError::NoPool => refused(StoreError::NotFound, "pool", ""),
        BackendError::Store(error) => refused(error, "backend", ""),
        BackendError::InFile => Reject::new(
            Reason::Conflict,
            "this backend is in the configuration file: take it out there and reload, or set its state to down",
        ),
        BackendError::Busy(cause) => Reject::new(
            Reason::Unavailable,
            "other changes are under way: this one is stored and will be in force soon",
        )
        .because(cause)
        .retry_after(RETRY_AFTER_S),
        BackendError::Fields(faults) => {
            let fault = |(name, text)| Fault { origin: FaultOrigin::Whole, path: pointer(name), text };
            let all = faults::check(faults.into_iter().map(fault).collect());
            all.err().unwrap_or_else(|| Reject::new(Reason::BadRequest, "the body is wrong"))
        }
    }
}
