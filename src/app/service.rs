//! What each listener does with a request: it goes to our own API or to the proxy.

use std::sync::Arc;

use crate::api::{AdminApi, Surface};
use crate::error::Reject;
use crate::proxy::Proxy;
use crate::proxy::account::{Accounts, OwnCall};
use crate::proxy::exchange::{Answer, BlockingRequest, FrontendEvent};
use crate::proxy::service::Service;
use crate::proxy::story::{NewRequest, Step};
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// The public ports: our own paths go to the API, everything else to the proxy.
pub struct Public {
    /// Answers our own paths.
    pub api: Arc<AdminApi>,
    /// Answers all other requests.
    pub proxy: Arc<Proxy>,
}

/// The admin listener: every request goes to the API.
pub struct Private {
    /// Answers all requests.
    pub api: Arc<AdminApi>,
    /// Gives calls their ids, and counts what happens on connections.
    pub proxy: Arc<Proxy>,
}

fn work(api: &AdminApi, accounts: &Accounts, mut exchange: BlockingRequest<'_>, surface: Surface) -> Answer {
    let own = OwnCall::begin(accounts, exchange.head);
    let answer = api.serve(&mut exchange, surface, own.request_id());
    own.end(accounts, answer)
}

/// Answers at once what needs no thread that may block: probes, and calls that are refused before their body is read.
fn begin_own(api: &AdminApi, accounts: &Accounts, asked: &NewRequest<'_>, surface: Surface) -> Step {
    let NewRequest { head, in_memory, received_at, .. } = asked;
    let own = OwnCall::begin(accounts, head);
    if let Some(answer) = api.probe(head, surface, own.request_id()) {
        return Step::Answer(own.end(accounts, answer));
    }
    if !in_memory && let Some(mut answer) = api.refuse_unread(head, surface, own.request_id(), *received_at) {
        answer.close = true;
        return Step::Answer(own.end(accounts, answer));
    }
    Step::Work(api.most_body_bytes(head, surface))
}

/// The answer to an API call that the engine refuses. Only a client that may make it is told that its body is too
/// large, or that there are too many calls.
fn refuse_own(
    api: &AdminApi,
    accounts: &Accounts,
    head: &RequestHead,
    reject: &Reject,
    received_at: Nanos,
    surface: Surface,
) -> Answer {
    if matches!(reject.reason, Reason::ContentTooLarge | Reason::Unavailable) {
        let own = OwnCall::begin(accounts, head);
        if let Some(mut answer) = api.refuse_unread(head, surface, own.request_id(), received_at) {
            answer.close = true;
            return own.end(accounts, answer);
        }
    }
    accounts.refuse_own(head, reject)
}

impl Service for Public {
    fn waits(&self, head: &RequestHead) -> bool {
        self.api.waits(head, Surface::Public)
    }

    fn begin(&self, asked: NewRequest<'_>) -> Step {
        #[cfg(debug_assertions)]
        super::faults::commit(&asked.head.target, &self.proxy.accounts.clock);
        if self.api.claims(asked.head, Surface::Public) {
            begin_own(&self.api, &self.proxy.accounts, &asked, Surface::Public)
        } else {
            self.proxy.begin(asked)
        }
    }

    fn work(&self, exchange: BlockingRequest<'_>) -> Answer {
        work(&self.api, &self.proxy.accounts, exchange, Surface::Public)
    }

    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer {
        let accounts = &self.proxy.accounts;
        if !self.api.claims(head, Surface::Public) {
            return accounts.refuse(head, reject, received_at);
        }
        refuse_own(&self.api, accounts, head, reject, received_at, Surface::Public)
    }

    fn observe(&self, event: FrontendEvent) {
        self.proxy.accounts.observe(event);
    }
}

impl Service for Private {
    fn waits(&self, head: &RequestHead) -> bool {
        self.api.waits(head, Surface::Admin)
    }

    fn begin(&self, asked: NewRequest<'_>) -> Step {
        begin_own(&self.api, &self.proxy.accounts, &asked, Surface::Admin)
    }

    fn work(&self, exchange: BlockingRequest<'_>) -> Answer {
        work(&self.api, &self.proxy.accounts, exchange, Surface::Admin)
    }

    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer {
        refuse_own(&self.api, &self.proxy.accounts, head, reject, received_at, Surface::Admin)
    }

    fn observe(&self, event: FrontendEvent) {
        self.proxy.accounts.observe(event);
    }
}
