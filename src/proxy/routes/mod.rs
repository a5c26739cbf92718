//! What routes do with requests: which route takes a request, which clients are let in, what is answered without a
//! backend, and what changes on the way to a backend and back. Nothing here blocks: passwords are checked on threads of
//! their own.

mod answers;
mod basic_auth;
mod passwords;
mod rewrite;
mod seats;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use super::pools::{Pool, Pools};
use crate::config::routes::{RouteAction, RouteConfig, RouteList};
use balancer_http::message::RequestHead;
use balancer_http::routes::{MetRoutes, RouteTable, TooManyReadings, with_plain};
use balancer_http::template::Variables;
use balancer_limiter::identity;
use balancer_limiter::request_rules::RequestRule;
use smallvec::SmallVec;

pub(super) use basic_auth::{CheckedUsers, NotIn};
pub(super) use passwords::MAX_CHECK;
pub use passwords::{PasswordLane, PasswordTicket};
pub(super) use rewrite::Rewritten;
pub use seats::{RouteSeat, RouteSeats};

/// A route in force.
pub struct ActiveRoute {
    /// What is configured.
    pub config: RouteConfig,
    /// Where its requests go; `None`: it answers them, or sends clients elsewhere.
    pub pool: Option<Arc<Pool>>,
}

/// All routes in force. Never changes.
#[derive(Clone, Default)]
pub struct ActiveRoutes {
    table: Arc<RouteTable>,
    all: Vec<Arc<ActiveRoute>>,
}

impl ActiveRoutes {
    /// The configured routes, which lead to `pools`.
    pub fn new(list: &RouteList, pools: &Pools) -> Self {
        let route = |config: &RouteConfig| {
            let pool = match &config.action {
                // It is there: the loader of the configuration has checked that.
                RouteAction::Pool(name) => pools.get(name).cloned(),
                RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
            };
            Arc::new(ActiveRoute { config: config.clone(), pool })
        };
        Self { table: Arc::clone(&list.table), all: list.all.iter().map(route).collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any request goes to a backend: routes may answer or redirect all of them.
    pub fn need_backends(&self) -> bool {
        self.all.is_empty() || self.all.iter().any(|route| route.pool.is_some())
    }

    /// The routes that a request meets, by its host and its path without the query.
    ///
    /// # Errors
    /// The path has too many readings to tell: the request has to be refused.
    pub fn met(&self, host: Option<&str>, path: &str) -> Result<MetRoutes, TooManyReadings> {
        self.table.met(host, path)
    }

    /// The route that takes the request.
    pub fn by(&self, met: &MetRoutes) -> Option<&Arc<ActiveRoute>> {
        self.all.get(met.by?)
    }

    /// All routes that some reading of the path meets.
    pub(super) fn all_met<'a>(&'a self, met: &'a MetRoutes) -> impl Iterator<Item = &'a ActiveRoute> {
        met.all.iter().filter_map(|number| self.all.get(*number)).map(|route| &**route)
    }

    /// Adds the rules of all met routes, each once.
    pub fn add_rules<'a>(&'a self, met: &MetRoutes, rules: &mut SmallVec<[&'a RequestRule; 2]>) {
        let routes = met.all.iter().filter_map(|number| self.all.get(*number));
        for rule in routes.flat_map(|route| &route.config.rules) {
            if !rules.iter().any(|other| std::ptr::eq(*other, &raw const **rule)) {
                rules.push(rule);
            }
        }
    }

    /// The first of the met routes that does not let that client in.
    pub fn closed_to<'a>(&'a self, met: &'a MetRoutes, client: IpAddr) -> Option<&'a ActiveRoute> {
        self.all_met(met).find(|ActiveRoute { config, .. }| {
            identity::is_in(&config.deny, client)
                || (!config.allow.is_empty() && !identity::is_in(&config.allow, client))
        })
    }
}

/// A request, for the variables in a route's texts.
#[derive(Clone, Copy)]
pub(super) struct RouteRequest<'a> {
    pub head: &'a RequestHead,
    /// After the walk over trusted proxies.
    pub client: IpAddr,
    pub request_id: &'a str,
}

impl RouteRequest<'_> {
    fn with_variables<T>(&self, then: impl FnOnce(&Variables<'_>) -> T) -> T {
        let client_ip = self.client.to_canonical().to_string();
        with_plain(self.head.host.as_deref(), |host| {
            let host = host.unwrap_or("");
            then(&Variables { client_ip: &client_ip, request_id: self.request_id, host })
        })
    }
}
