//! What a route changes in a request before its backend gets it.

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
    /// A path as it is judged and sent on: without dot segments, if there are routes. Not every backend removes them,
    /// and one that does not would read `/admin/../x` as a path below `/admin`, though the route for `/x` takes it.
    pub fn as_sent<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.is_empty() { Cow::Borrowed(path) } else { without_dots(path) }
    }

    /// Replaces a request's path by [`Self::as_sent`] of it.
    pub(in crate::proxy) fn resolve_dots(&self, head: &mut RequestHead) {
        let path = head.path();
        if let Cow::Owned(resolved) = self.as_sent(path) {
            let length = path.len();
            head.target.replace_range(..length, &resolved);
        }
    }
}

impl ActiveRoute {
    /// The target as the backend gets it. The query stays. `None`: some backend could read the result as a path outside
    /// of where the route leads, which other routes would have to judge.
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

    /// Sets the fields for the backend. A field that some backend can't tell from one that the route sets is removed,
    /// too: `X_Who` beside `X-Who`.
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
            // Comes after the prefix that a proxy in front removed.
            fields.push(FORWARDED_PREFIX, prefix.as_bytes());
        }
    }
}
