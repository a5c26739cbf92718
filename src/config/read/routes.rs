//! Keys of `routes`. Files are read here, too, so that their faults are reported with all others, and a reload reads
//! them again.

mod action;
mod fields;
mod files;
mod limits;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{MAX_LIST, TIMEOUT};
use crate::config::read::terms;
use crate::config::routes::{RouteAction, RouteConfig, RouteList, SetField};
use crate::config::{forms, words};
use crate::declare::{FaultOrigin, Section, Shape, Spec, Value};
use balancer_http::path::normal;
use balancer_http::routes::{HostPattern, RouteTable};
use balancer_limiter::terms::{BucketName, MAX_IN_FLIGHT, MAX_ROUTES};

use files::Files;
use limits::SharedBuckets;

const _: () = assert!(MAX_ROUTES == 10_000 && MAX_IN_FLIGHT == 1_000_000, "messages say so");

const ROUTES: Spec = Spec::new(
    "routes",
    Shape::objects(
        "a list of at most 10000 routes: [{\"host\": \"api.example.com\", \"pool\": \"api\"}]",
        0,
        MAX_ROUTES,
    ),
    "[]",
    "Which requests go to which pool, or elsewhere: by the host, then by the longest path.",
);

/// What routes are checked against.
pub(super) struct RouteContext<'a> {
    /// Relative paths count from there.
    pub base: &'a Path,
    /// The pools that there are.
    pub pools: &'a [&'a str],
    /// `frontend.max_body_bytes`.
    pub max_body_bytes: u64,
}

/// What a route shares with those before it.
struct Before<'a> {
    around: &'a RouteContext<'a>,
    files: Files,
    buckets: SharedBuckets,
}

pub(super) fn routes(root: &mut Section<'_>, around: &RouteContext<'_>) -> RouteList {
    let mut before = Before { around, files: Files::default(), buckets: SharedBuckets::default() };
    let mut signs = Vec::new();
    let routes = root.objects(&ROUTES, |section| route(section, &mut signs, &mut before));
    let named = |number: usize| format!("routes[{number}]");
    let told: Vec<(usize, &HostPattern, &str)> = signs
        .iter()
        .enumerate()
        .filter_map(|(number, sign)| Some((number, sign.host.as_ref()?, sign.path.as_deref()?)))
        .collect();
    let (table, same) = match RouteTable::new(told.iter().map(|(_, host, path)| (*host, *path))) {
        Ok(table) => (Arc::new(table), Vec::new()),
        Err(same) => (Arc::default(), same),
    };
    for (first, second) in same.iter().map(|same| (told[same.first].0, told[same.second].0)) {
        let other = place(&root.origin_at(&named(first)), &named(first));
        let text = format!("is for the same requests as {other}: two routes differ in host or path");
        root.fault(&format!("{}.path", named(second)), text);
    }
    let mut names = HashMap::new();
    for (number, sign) in signs.iter().enumerate().filter(|_| same.is_empty()) {
        let Some(other) = sign.name.as_deref().and_then(|name| names.insert(name, number)) else { continue };
        let text = format!(
            "{:?} names {} already; names must differ",
            sign.name.as_deref().unwrap_or(""),
            named(other)
        );
        root.fault(&format!("{}.name", named(number)), text);
    }
    // After a fault these may not fit each other; then the whole configuration is refused.
    RouteList { table, all: routes.into_iter().flatten().collect() }
}

/// What routes are told apart by.
struct Sign {
    host: Option<HostPattern>,
    path: Option<String>,
    name: Option<String>,
}

/// Where another route is, for a message.
fn place(origin: &FaultOrigin, path: &str) -> String {
    match origin {
        FaultOrigin::Line(line) => format!("{path} (line {line})"),
        _ => path.to_owned(),
    }
}

/// `None` after a fault.
fn route(mut s: Section<'_>, signs: &mut Vec<Sign>, before: &mut Before<'_>) -> Option<RouteConfig> {
    let around = before.around;
    let host = host(&mut s);
    let path = path(&mut s);
    let name = name(&mut s);
    let action = action::action(&mut s, around.pools);
    let shown = name.clone().or_else(|| Some(own_name(host.as_ref()?, path.as_deref()?)));
    let rules = limits::rules(&mut s, shown.as_deref(), &mut before.buckets);
    let about = "Most requests at once of one client by this route; null: no bound of its own.";
    let max_in_flight = s.whole_or_null("max_in_flight", 1..=u64::from(MAX_IN_FLIGHT), "null", about);
    let about = "Of its requests where they wait for a place; null: their client's.";
    let priority = terms::priority(&mut s, about);
    let forward = forward(&mut s, around, path.as_deref());
    let about = "Fields of its answers: a value, or null to take one out. $client_ip, $request_id and $host stand for their values.";
    let set_response_headers = fields::fields(&mut s, "set_response_headers", about, fields::Side::Response);
    let networks = |s: &mut Section<'_>, name, about| {
        let spec =
            Spec::new(name, Shape::List { of: words::NETWORK, max: MAX_LIST, single: true }, "[]", about);
        s.list(&spec, forms::network)
    };
    let allow = networks(&mut s, "allow", "Clients that alone may come in; none: all.");
    let deny = networks(&mut s, "deny", "Clients that may not come in.");
    let users = before.files.users(&mut s, around.base);
    let errors = before.files.errors(&mut s, around.base);
    if let Some(action) = action.as_ref().filter(|action| !matches!(action, RouteAction::Pool(_))) {
        needs_pool(&mut s, action);
    }
    let is_sound = s.is_sound();
    s.end();
    signs.push(Sign { host: host.clone(), path: path.clone(), name: shown.clone() });
    let Forward { max_body_bytes, request_timeout, strip_prefix, add_prefix, set_request_headers } = forward;
    let route = RouteConfig {
        name: shown?.into(),
        host: host?,
        path: path?,
        action: action?,
        rules,
        max_in_flight,
        priority,
        max_body_bytes,
        request_timeout,
        strip_prefix,
        add_prefix,
        set_request_headers,
        set_response_headers,
        allow,
        deny,
        users,
        errors,
    };
    is_sound.then_some(route)
}

/// `None` after a fault.
fn host(s: &mut Section<'_>) -> Option<HostPattern> {
    let about = "For which host, at any port; *. in front: for all names below that one; null: for any.";
    let spec = Spec::of("host", words::HOST, "null", about).or_null();
    s.value(&spec, |node| match &node.value {
        Value::Null => Ok(Some(HostPattern::Any)),
        Value::Text(text) => match HostPattern::parse(text) {
            Ok(host) => Ok(Some(host)),
            Err(fault) => Err(Some(format!("{fault}; found {}", node.describe(true)))),
        },
        _ => Err(None),
    })
}

/// `None` after a fault.
fn path(s: &mut Section<'_>) -> Option<String> {
    let about = "For this path and all below it, by whole segments: /img is for /img/a and not for /images.";
    s.text(&Spec::of("path", words::ROUTE_PATH, "\"/\"", about), forms::route_path)
}

fn name(s: &mut Section<'_>) -> Option<String> {
    let about = "What logs and answers call it and the bucket of its limit; null: its host and its path.";
    let spec = Spec::of("name", words::BUCKET_NAME, "null", about).or_null();
    s.text(&spec, |text| BucketName::parse(text).map(|name| name.as_str().to_owned()).map_err(|_| None))
}

/// `api.example.com/`, `/img`.
fn own_name(host: &HostPattern, path: &str) -> String {
    match host {
        HostPattern::Any => path.to_owned(),
        host => format!("{host}{path}"),
    }
}

/// What concerns requests that go to a pool.
struct Forward {
    max_body_bytes: Option<u64>,
    request_timeout: Option<Duration>,
    strip_prefix: bool,
    add_prefix: Option<String>,
    set_request_headers: Vec<SetField>,
}

const OF_POOLS: [&str; 5] =
    ["max_body_bytes", "request_timeout", "strip_prefix", "add_prefix", "set_request_headers"];

fn forward(s: &mut Section<'_>, around: &RouteContext<'_>, path: Option<&str>) -> Forward {
    let about = "Fields of requests, as the backend sees them: a value, or null to take one out. $client_ip, $request_id and $host stand for their values.";
    Forward {
        max_body_bytes: max_body_bytes(s, around),
        request_timeout: request_timeout(s),
        strip_prefix: strip_prefix(s, path),
        add_prefix: add_prefix(s),
        set_request_headers: fields::fields(s, "set_request_headers", about, fields::Side::Request),
    }
}

/// Reports keys that can have no effect.
fn needs_pool(s: &mut Section<'_>, action: &RouteAction) {
    let what = if matches!(action, RouteAction::Redirect(_)) { "redirects" } else { "answers them itself" };
    for name in OF_POOLS {
        if s.has(name) && !s.faulty(name) {
            let text = format!("is for requests that go to a pool, and this route {what}; take it out");
            s.fault(name, text);
        }
    }
}

fn max_body_bytes(s: &mut Section<'_>, around: &RouteContext<'_>) -> Option<u64> {
    let about = "Longest body of its requests, at most frontend.max_body_bytes; null: that.";
    let bytes: Option<u64> = s.whole_or_null("max_body_bytes", 0..=1 << 40, "null", about);
    if let Some(bytes) = bytes.filter(|bytes| *bytes > around.max_body_bytes) {
        let most = around.max_body_bytes;
        let text = format!("must be at most frontend.max_body_bytes, which is {most}; found {bytes}");
        s.fault("max_body_bytes", text);
    }
    bytes
}

fn request_timeout(s: &mut Section<'_>) -> Option<Duration> {
    let about = "How long a request may take in all, its answer's body included; null: as its pool's upstream.request_timeout says.";
    s.duration_or_null("request_timeout", TIMEOUT, "null", about)
}

fn strip_prefix(s: &mut Section<'_>, path: Option<&str>) -> bool {
    let about = "The backend sees the path without the route's, which it is told in X-Forwarded-Prefix.";
    let strips = s.bool("strip_prefix", "false", about);
    if strips && path.is_some_and(|path| normal(path) == "/") {
        s.fault(
            "strip_prefix",
            "has nothing to take off: the route's path is \"/\"; name one, or take it out",
        );
    }
    strips
}

fn add_prefix(s: &mut Section<'_>) -> Option<String> {
    let about = "The backend sees the path below this one; null: as it is.";
    let spec = Spec::of("add_prefix", words::PREFIX, "null", about).or_null();
    s.text(&spec, |text| {
        let path = forms::target(text).filter(|path| !path.contains('?') && normal(path) == path.as_str());
        let path = path.map(|path| path.trim_end_matches('/').to_owned());
        path.filter(|path| !path.is_empty()).ok_or(None)
    })
}
