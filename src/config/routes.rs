//! `routes`, checked.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::htpasswd::Users;
use balancer_http::routes::{HostPattern, RouteTable};
use balancer_http::template::Template;
use balancer_importance::Priority;
use balancer_limiter::request_rules::RequestRule;

/// All of `routes`.
#[derive(Clone, Debug, Default)]
pub struct RouteList {
    /// Finds a request's route, by its number.
    pub table: Arc<RouteTable>,
    /// By their numbers.
    pub all: Vec<RouteConfig>,
}

/// One of `routes`: which requests go by it, and what happens to them.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// Different from those of other routes.
    pub name: Arc<str>,
    /// The hosts that it is for.
    pub host: HostPattern,
    /// For this path and all below it.
    pub path: String,
    /// What becomes of its requests.
    pub action: RouteAction,
    /// One rule for each bucket; every client has a bucket of its own. Routes that name the same bucket share it.
    pub rules: Vec<Arc<RequestRule>>,
    /// Most requests at once of one client by this route.
    pub max_in_flight: Option<u32>,
    /// Of its requests where they wait for a place; `None`: their client's.
    pub priority: Option<Priority>,
    /// At most `frontend.max_body_bytes`.
    pub max_body_bytes: Option<u64>,
    /// Instead of `upstream.request_timeout`.
    pub request_timeout: Option<Duration>,
    /// The backend sees the path without [`RouteConfig::path`].
    pub strip_prefix: bool,
    /// The backend sees the path below this one; in its normal form, without a slash at its end.
    pub add_prefix: Option<String>,
    /// Fields of requests, as backends see them.
    pub set_request_headers: Vec<SetField>,
    /// Fields of answers.
    pub set_response_headers: Vec<SetField>,
    /// Only clients of these networks are let in; empty: all are.
    pub allow: Vec<IpNet>,
    /// Clients of these networks are refused.
    pub deny: Vec<IpNet>,
    /// Clients have to show the name and the password of one of these; `None`: they need not.
    pub users: Option<Arc<Users>>,
    /// Pages by status, sent with our own refusals instead of a problem document to clients that prefer HTML.
    pub errors: Vec<(u16, Arc<[u8]>)>,
}

/// What becomes of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// They go to the pool of that name.
    Pool(String),
    /// They are sent elsewhere.
    Redirect(Redirect),
    /// They get this answer.
    Respond(FixedAnswer),
}

/// `redirect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to.
    pub to: Template,
    /// The request's path and query come behind it.
    pub keeps_path: bool,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// `respond`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedAnswer {
    /// 200 to 599.
    pub status: u16,
    /// Plain text, in UTF-8.
    pub body: Arc<str>,
}

/// A field that is set, or taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetField {
    /// As it is written.
    pub name: String,
    /// `None`: it is taken out.
    pub value: Option<Template>,
}
