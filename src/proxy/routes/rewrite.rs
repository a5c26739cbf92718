//! A request as its route's backend sees it.

use super::answers::set;
use super::{ActiveRoute, RouteRequest};
use balancer_http::fields::Fields;
use balancer_http::headers::FORWARDED_PREFIX;
use balancer_http::message::RequestHead;
use balancer_http::path::normal;
use balancer_http::rewrite::{below_prefix, without_prefix};

/// What of a request's target a route changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Rewritten {
    /// `None`: it stays.
    pub target: Option<String>,
    /// What was taken off its path.
    pub stripped: Option<String>,
}

impl ActiveRoute {
    /// The target as the backend gets it. The query stays.
    pub(in crate::proxy) fn rewrite(&self, head: &RequestHead) -> Rewritten {
        let config = &self.config;
        if !config.strip_prefix && config.add_prefix.is_none() {
            return Rewritten::default();
        }
        let mut stripped = None;
        let mut path = head.path().into();
        if config.strip_prefix
            && let Some(left) = without_prefix(head.path(), &config.path)
        {
            path = left;
            stripped = Some(normal(&config.path).trim_end_matches('/').to_owned());
        }
        let mut target = match &config.add_prefix {
            Some(prefix) => below_prefix(&path, prefix),
            None => path.into_owned(),
        };
        if let Some(query) = head.query() {
            target.push('?');
            target.push_str(query);
        }
        Rewritten { target: Some(target), stripped }
    }

    /// The fields as the backend gets them.
    pub(in crate::proxy) fn set_request_fields(
        &self,
        fields: &mut Fields,
        rewritten: &Rewritten,
        asked: RouteRequest<'_>,
    ) {
        set(self.config.set_request_headers.iter(), fields, asked);
        if let Some(prefix) = &rewritten.stripped {
            // Behind what a proxy in front took off.
            fields.push(FORWARDED_PREFIX, prefix.as_bytes());
        }
    }
}
