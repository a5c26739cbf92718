//! A refusal as an answer: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use serde::Serialize;

use super::Answer;
use crate::error::{FieldFault, Reject};
use balancer_http::message::Reason;

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "<[FieldFault]>::is_empty")]
    errors: &'a [FieldFault],
    #[serde(rename = "violated-policies", skip_serializing_if = "<[_]>::is_empty")]
    violated_policies: &'a [Cow<'static, str>],
}

/// Enough for most problems, that of a 429 included. A longer one makes the buffer grow.
const USUAL_PROBLEM_BYTES: usize = 320;

impl Reject {
    /// The answer as `application/problem+json` (RFC 9457); `instance` is the request's id.
    pub fn answer(&self, instance: &str) -> Answer {
        let (status, title) = self.reason.status();
        let problem = Problem {
            kind: self.reason.kind(),
            title,
            status,
            detail: &self.detail,
            instance,
            cause: self.cause_word,
            errors: &self.errors,
            violated_policies: &self.violated_policies,
        };
        let mut body = Vec::with_capacity(USUAL_PROBLEM_BYTES);
        // It holds strings and integers alone and is written to memory: this can't fail.
        let _ = serde_json::to_writer(&mut body, &problem);
        let mut answer = Answer::new(status, body).with("Content-Type", "application/problem+json");
        answer.cause = Some(self.words());
        if let Some(seconds) = self.retry_after_s {
            answer.fields.push("Retry-After", seconds.to_string().as_bytes());
        }
        if let Some(allow) = self.allow {
            answer.fields.push("Allow", allow.as_bytes());
        }
        match self.reason {
            Reason::Unauthorized => {
                let challenge = self.challenge.as_deref().unwrap_or("Bearer");
                answer.fields.push("WWW-Authenticate", challenge.as_bytes());
            }
            Reason::QuotaExceeded => answer.fields.push("Cache-Control", b"no-store"),
            _ => {}
        }
        answer
    }

    /// The text for the operator: the internal cause where there is one, else what the client is told.
    fn words(&self) -> Cow<'static, str> {
        let said = if self.cause.is_empty() { self.detail.clone() } else { self.cause.clone().into() };
        match self.errors.first() {
            None => said,
            Some(FieldFault { pointer, detail }) => format!("{said}: {pointer}: {detail}").into(),
        }
    }
}
