//! A request as its route's backend sees it.

use std::borrow::Cow;

use super::answers::set;
use super::{ActiveRoute, ActiveRoutes, RouteRequest};
use crate::config::routes::RouteConfig;
use balancer_http::fields::{Fields, is_one_variable};
use balancer_http::headers::FORWARDED_PREFIX;
use balancer_http::message::RequestHead;
use balancer_http::path::{normal, without_dots};
use balancer_http::rewrite::moved;

/// What of a request's target a route changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Rewritten {
    /// `None`: it stays.
    pub target: Option<String>,
    /// What was taken off its path.
    pub stripped: Option<String>,
}

impl ActiveRoutes {
    /// A path as it is judged and sent on: where there are routes, without dot segments. Not every backend takes them out, and
    /// one that does not would read `/admin/../x` as a path below `/admin`, though it goes by the route for `/x`.
    pub fn as_sent<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.is_empty() { Cow::Borrowed(path) } else { without_dots(path) }
    }

    /// Makes that of a request's path.
    pub(in crate::proxy) fn resolve_dots(&self, head: &mut RequestHead) {
        let path = head.path();
        if let Cow::Owned(resolved) = self.as_sent(path) {
            let length = path.len();
            head.target.replace_range(..length, &resolved);
        }
    }
}

impl ActiveRoute {
    /// The target as the backend gets it. The query stays. `None`: some backend would read it as a path that is not where the
    /// route puts it, and so as one that other routes were to judge.
    pub(in crate::proxy) fn rewrite(&self, head: &RequestHead) -> Option<Rewritten> {
        let RouteConfig { path, strip_prefix, add_prefix, .. } = &self.config;
        if !strip_prefix && add_prefix.is_none() {
            return Some(Rewritten::default());
        }
        let from = if *strip_prefix { path } else { "/" };
        let mut target = moved(head.path(), from, add_prefix.as_deref().unwrap_or(""))?;
        if let Some(query) = head.query() {
            target.push('?');
            target.push_str(query);
        }
        let stripped = strip_prefix.then(|| normal(path).trim_end_matches('/').to_owned());
        Some(Rewritten { target: Some(target), stripped })
    }

    /// The fields as the backend gets them. What some backend takes for a field that the route sets goes, too.
    pub(in crate::proxy) fn set_request_fields(
        &self,
        fields: &mut Fields,
        rewritten: &Rewritten,
        asked: RouteRequest<'_>,
    ) {
        let own = &self.config.set_request_headers;
        if !own.is_empty() {
            fields.retain(|name, _| !own.iter().any(|field| is_one_variable(field.name.as_bytes(), name)));
        }
        set(own.iter(), fields, asked);
        if let Some(prefix) = &rewritten.stripped {
            // Behind what a proxy in front took off.
            fields.push(FORWARDED_PREFIX, prefix.as_bytes());
        }
    }
}
