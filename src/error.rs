//! Refusals. Each keeps apart what the client reads and what the operator reads.

use std::borrow::Cow;

use serde::Serialize;

use balancer_http::message::Reason;

/// A refusal. `detail` and `errors` are for the client, `cause` is for the log alone.
#[derive(Clone, Debug)]
pub struct Reject {
    /// Decides status, title and type.
    pub reason: Reason,
    /// One sentence for the client, without any internal cause.
    pub detail: Cow<'static, str>,
    /// What the operator reads; empty when `detail` says it all.
    pub cause: String,
    /// One word for the cause, for programs. The client may read it, too.
    pub cause_word: Option<&'static str>,
    /// After how many seconds to try again, if waiting helps.
    pub retry_after_s: Option<u64>,
    /// The methods of a 405, as an `Allow` value.
    pub allow: Option<&'static str>,
    /// What a 401 asks for, as a `WWW-Authenticate` value; `None`: a token.
    pub challenge: Option<String>,
    /// Faults of single fields of a body.
    pub errors: Vec<FieldFault>,
    /// The buckets that refused, for a 429.
    pub violated_policies: Vec<Cow<'static, str>>,
}

/// A fault of one field of a JSON body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    /// JSON pointer (RFC 6901): `/capacity`.
    pub pointer: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl Reject {
    /// A refusal with a sentence for the client.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            cause: String::new(),
            cause_word: None,
            retry_after_s: None,
            allow: None,
            challenge: None,
            errors: Vec::new(),
            violated_policies: Vec::new(),
        }
    }

    /// The same with what the operator should read.
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = cause.to_string();
        self
    }

    /// The same with `Retry-After`, in seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same for a 401 that asks for something else than a token.
    pub fn challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// The same with one more faulty field.
    pub fn field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldFault { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// The status that it is answered with.
    pub fn status(&self) -> u16 {
        self.reason.status().0
    }
}
