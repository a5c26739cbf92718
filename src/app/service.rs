//! Ours or the proxy's: what each listener does with a request.

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

/// The public port: our exact paths first, everything else goes to a backend.
pub struct Public {
    /// Answers our paths.
    pub api: Arc<AdminApi>,
    /// Answers all others.
    pub proxy: Arc<Proxy>,
}

/// The admin listener: everything is ours.
pub struct Private {
    /// Answers our paths.
    pub api: Arc<AdminApi>,
    /// Gives calls their ids, and counts what connections do, as for the public port.
    pub proxy: Arc<Proxy>,
}

fn work(api: &AdminApi, accounts: &Accounts, mut exchange: BlockingRequest<'_>, surface: Surface) -> Answer {
    let own = OwnCall::begin(accounts, exchange.head);
    let answer = api.serve(&mut exchange, surface, own.request_id());
    own.end(accounts, answer)
}

/// What needs no thread that may block is answered at once: probes, and what is refused before its body
/// is read.
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

/// What a frontend refuses of a call of ours. A body that is too large comes after who may call, and how.
fn refuse_own(
    api: &AdminApi,
    accounts: &Accounts,
    head: &RequestHead,
    reject: &Reject,
    received_at: Nanos,
    surface: Surface,
) -> Answer {
    if reject.reason == Reason::ContentTooLarge {
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
