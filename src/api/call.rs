//! A call that may be made, as its handler reads it, and what handlers answer it with.

use serde::Serialize;

use super::auth::Caller;
use super::input;
use crate::declare::{Section, Spec, pointer};
use crate::error::Reject;
use crate::proxy::exchange::{Answer, AnswerBody, BlockingRequest};
use balancer_http::message::Reason;
use balancer_pool::backends::DEFAULT_POOL;

/// A call that may be made.
pub(super) struct ApiCall<'c, 'e> {
    pub exchange: &'c mut BlockingRequest<'e>,
    /// The values of the path's `{…}`, undecoded, by their names.
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
        input::read(self.body()?, |_| Some(()))
    }

    /// The query, of which the parameters that `read` reads are known.
    pub fn query<T>(&self, read: impl FnOnce(&mut Section<'_>) -> T) -> Result<T, Reject> {
        input::read_query(self.exchange.head.query(), read)
    }

    /// Refuses a query with parameters.
    pub fn no_query(&self) -> Result<(), Reject> {
        self.query(|_| ())
    }

    /// The value of the path's last `{…}`, decoded once; a fault points at `name`.
    pub fn argument(&self, name: &str) -> Result<String, Reject> {
        let raw = self.arguments.last().map_or("", |(_, raw)| raw.as_str());
        decoded(raw, name)
    }

    /// The pool that the path names, or the default one.
    pub fn pool(&self) -> Result<String, Reject> {
        let named = self.arguments.iter().find(|(name, _)| *name == "pool");
        named.map_or_else(|| Ok(DEFAULT_POOL.to_owned()), |(name, raw)| decoded(raw, name))
    }

    /// Reads the value of the path's `{…}`, else of the query's only parameter, with `parse`.
    pub fn named<T, F: ToString>(
        &self,
        spec: &Spec,
        parse: impl Fn(&str) -> Result<T, F>,
    ) -> Result<T, Reject> {
        let parse = |text: &str| parse(text).map_err(|fault| Some(fault.to_string()));
        let found = if self.arguments.is_empty() {
            self.query(|query| query.text(spec, parse))?.ok_or(None)
        } else {
            self.no_query()?;
            parse(&self.argument(spec.name)?)
        };
        found.map_err(|fault| {
            let fault = fault.unwrap_or_default();
            let name = spec.name;
            Reject::new(Reason::BadRequest, format!("{name}: {fault}")).field(pointer(name), fault)
        })
    }
}

fn decoded(raw: &str, name: &str) -> Result<String, Reject> {
    input::decode(raw, input::Plus::IsPlus).map_err(|fault| {
        Reject::new(Reason::BadRequest, format!("the {name} in the path {fault}")).field(pointer(name), fault)
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
