//! A call that may be made, as its handler reads it, and what handlers answer it with.

use serde::Serialize;

use super::auth::Caller;
use super::input::{self, Query};
use super::members;
use crate::error::Reject;
use crate::proxy::exchange::{Answer, AnswerBody, BlockingRequest};
use balancer_http::message::Reason;
use balancer_pool::backends::DEFAULT_POOL;

/// A call that may be made.
pub(super) struct ApiCall<'c, 'e> {
    pub exchange: &'c mut BlockingRequest<'e>,
    /// What stood for the path's `{…}`, undecoded, by their names.
    pub arguments: Vec<(&'static str, String)>,
    /// `/-`, or nothing on the admin listener: what comes before the route's path.
    pub base: &'static str,
    pub caller: Caller,
    pub request_id: &'c str,
}

impl ApiCall<'_, '_> {
    /// The whole body, at most [`input::MAX_BODY_BYTES`]; 413.
    pub fn body(&mut self) -> Result<Vec<u8>, Reject> {
        self.body_up_to(input::MAX_BODY_BYTES)
    }

    /// The whole body, at most that many bytes; 413.
    pub fn body_up_to(&mut self, max_bytes: usize) -> Result<Vec<u8>, Reject> {
        input::read_body(self.exchange, max_bytes)
    }

    /// Reads a body that should not be there: nothing, white space or `{}` passes.
    pub fn no_body(&mut self) -> Result<(), Reject> {
        members::read(&self.body()?, |_| Some(()))
    }

    /// The query, of which these parameters are known.
    pub fn query(&self, known: &[&str]) -> Result<Query, Reject> {
        Query::read(self.exchange.head.query(), known)
    }

    /// What stood for the path's last `{…}`, decoded once; `name` is what a fault points at.
    pub fn argument(&self, name: &str) -> Result<String, Reject> {
        let raw = self.arguments.last().map_or("", |(_, raw)| raw.as_str());
        decoded(raw, name)
    }

    /// The pool that the path names, or the default one.
    pub fn pool(&self) -> Result<String, Reject> {
        let named = self.arguments.iter().find(|(name, _)| *name == "pool");
        named.map_or_else(|| Ok(DEFAULT_POOL.to_owned()), |(name, raw)| decoded(raw, name))
    }

    /// What the path's `{…}`, or the query's only parameter, names; `what` says what that is. `parse` judges it.
    pub fn named<T, F: ToString>(
        &self,
        name: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, F>,
    ) -> Result<T, Reject> {
        let wrong = |fault: String| {
            Reject::new(Reason::BadRequest, format!("{name}: {fault}")).field(format!("/{name}"), fault)
        };
        let text = if !self.arguments.is_empty() {
            self.query(&[])?;
            self.argument(name)?
        } else {
            let query = self.query(&[name])?;
            query.get(name).ok_or_else(|| wrong(format!("missing; must be {what}")))?.to_owned()
        };
        parse(&text).map_err(|fault| wrong(fault.to_string()))
    }
}

fn decoded(raw: &str, name: &str) -> Result<String, Reject> {
    input::decode(raw, input::Plus::IsPlus).map_err(|fault| {
        Reject::new(Reason::BadRequest, format!("the {name} in the path {fault}"))
            .field(input::pointer(name), fault)
    })
}

/// 200 with that document.
pub(super) fn as_json(body: &impl Serialize) -> Result<Answer, Reject> {
    let bytes = serde_json::to_vec(body)
        .map_err(|error| Reject::new(Reason::Internal, "the answer could not be written").because(error))?;
    Ok(Answer::new(200, bytes).with("Content-Type", "application/json"))
}

/// 204.
pub(super) fn no_content() -> Answer {
    let mut answer = Answer::new(204, Vec::new());
    answer.body = AnswerBody::None { declared: None };
    answer
}
