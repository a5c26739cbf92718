//! Answers of ours: redirects, fixed ones, pages for refusals; and the fields that a route sets in all of them.

use super::{ActiveRoute, RouteRequest};
use crate::config::routes::{FixedAnswer, Redirect, RouteAction, SetField};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, AnswerBody};
use balancer_http::accept::prefers_html;
use balancer_http::fields::Fields;
use balancer_http::message::Reason;

/// Which fields of an answer stay as they are, where the route sets them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    None,
    /// For a refusal: a route must not change what it says.
    All,
}

impl ActiveRoute {
    /// The route's own answer, if it redirects or answers by itself.
    pub(in crate::proxy) fn answer(&self, asked: RouteRequest<'_>) -> Option<Answer> {
        match &self.config.action {
            RouteAction::Pool(_) => None,
            RouteAction::Redirect(redirect) => Some(self.redirect(redirect, asked)),
            RouteAction::Respond(fixed) => Some(self.respond(fixed, asked)),
        }
    }

    fn redirect(&self, redirect: &Redirect, asked: RouteRequest<'_>) -> Answer {
        if redirect.to.has_host() && asked.head.host.is_none() {
            let detail = "this leads elsewhere by the request's host, and the request does not say it: Host is missing";
            return self.refuse(&Reject::new(Reason::BadRequest, detail), asked);
        }
        let mut to = Vec::new();
        asked.with_variables(|variables| redirect.to.write(variables, &mut to));
        if redirect.keeps_path {
            to.extend_from_slice(asked.head.target.as_bytes());
        }
        let mut answer = Answer::new(redirect.status, Vec::new()).with("Location", to);
        self.set_fields(&mut answer.fields, asked, Kept::None);
        answer
    }

    fn respond(&self, fixed: &FixedAnswer, asked: RouteRequest<'_>) -> Answer {
        let mut answer = Answer::new(fixed.status, fixed.body.as_bytes().to_vec());
        if matches!(fixed.status, 204 | 304) {
            answer.body = AnswerBody::None { declared: None };
        } else if !fixed.body.is_empty() {
            answer.fields.push("Content-Type", b"text/plain; charset=utf-8");
        }
        if fixed.status >= 400 {
            answer.cause = Some(format!("route {} answers so", self.config.name).into());
        }
        self.set_fields(&mut answer.fields, asked, Kept::None);
        self.show_page(&mut answer, asked);
        answer
    }

    /// The answer for a refusal, with the route's page and fields.
    pub(in crate::proxy) fn refuse(&self, reject: &Reject, asked: RouteRequest<'_>) -> Answer {
        self.dress(reject.answer(asked.request_id), asked)
    }

    /// The same for a refusal that is an answer already. Caches may not keep it, whatever the route sets for what it
    /// serves: the next client may be let in, and the backend may be up a moment later.
    pub(in crate::proxy) fn dress(&self, mut answer: Answer, asked: RouteRequest<'_>) -> Answer {
        self.show_page(&mut answer, asked);
        answer.fields.set("Cache-Control", b"no-store");
        self.set_fields(&mut answer.fields, asked, Kept::All);
        answer
    }

    /// Replaces the body by the route's page for the answer's status, if the client prefers HTML.
    fn show_page(&self, answer: &mut Answer, asked: RouteRequest<'_>) {
        let Some((_, page)) = self.config.errors.iter().find(|(status, _)| *status == answer.status) else {
            return;
        };
        // A cache must not show one client what another one prefers (RFC 9110 §12.5.5).
        answer.fields.push("Vary", b"Accept");
        if prefers_html(&asked.head.fields) {
            answer.fields.set("Content-Type", b"text/html; charset=utf-8");
            answer.body = AnswerBody::Bytes(page.to_vec());
        }
    }

    /// Sets the route's fields in a backend's answer.
    pub(in crate::proxy) fn set_answer_fields(&self, fields: &mut Fields, asked: RouteRequest<'_>) {
        self.set_fields(fields, asked, Kept::None);
    }

    fn set_fields(&self, fields: &mut Fields, asked: RouteRequest<'_>, kept: Kept) {
        let all = &self.config.set_response_headers;
        if kept == Kept::None {
            set(all.iter(), fields, asked);
        } else {
            let missing: Vec<&SetField> =
                all.iter().filter(|field| !fields.has(&field.name) && !is_for_caches(&field.name)).collect();
            set(missing.into_iter(), fields, asked);
        }
    }
}

/// Whether some caches obey this field rather than `Cache-Control`: `CDN-Cache-Control` and others of such names
/// (RFC 9213 §2), and `Surrogate-Control`.
fn is_for_caches(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("cache-control") || name == "surrogate-control"
}

/// Sets fields, and removes those that the configuration gives no value.
pub(super) fn set<'a>(
    all: impl ExactSizeIterator<Item = &'a SetField>,
    fields: &mut Fields,
    asked: RouteRequest<'_>,
) {
    if all.len() == 0 {
        return;
    }
    let mut written = Vec::new();
    asked.with_variables(|variables| {
        for SetField { name, value } in all {
            match value {
                None => fields.remove(name),
                Some(value) => {
                    written.clear();
                    value.write(variables, &mut written);
                    fields.set(name, &written);
                }
            }
        }
    });
}
