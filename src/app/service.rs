//! Ours or the proxy's: what each listener does with a request.

use std::sync::Arc;

use crate::api::{AdminApi, Surface};
use crate::error::Reject;
use crate::proxy::Proxy;
use crate::proxy::account::LocalRequest;
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
    /// Counts and logs, as for the public port.
    pub proxy: Arc<Proxy>,
}

fn work(api: &AdminApi, proxy: &Proxy, mut exchange: BlockingRequest<'_>, surface: Surface) -> Answer {
    let local = LocalRequest::begin(&proxy.accounts, exchange.head, exchange.received_at);
    let answer = api.serve(&mut exchange, surface, local.request_id());
    local.end(&proxy.accounts, exchange.head, answer)
}

/// What needs no thread that may block is answered at once: probes, and what is refused before its body
/// is read.
fn begin_own(api: &AdminApi, proxy: &Arc<Proxy>, asked: &NewRequest<'_>, surface: Surface) -> Step {
    let NewRequest { head, in_memory, received_at, .. } = asked;
    let local = LocalRequest::begin(&proxy.accounts, head, *received_at);
    if let Some(answer) = api.probe(head, surface, local.request_id()) {
        return Step::Answer(local.end(&proxy.accounts, head, answer));
    }
    if !in_memory && let Some(mut answer) = api.refuse_unread(head, surface, local.request_id(), *received_at)
    {
        answer.close = true;
        return Step::Answer(local.end(&proxy.accounts, head, answer));
    }
    Step::Work(api.most_body_bytes(head, surface))
}

/// What a frontend refuses by itself. A body that is too large comes after who may call, and how.
fn refuse(
    api: &AdminApi,
    proxy: &Proxy,
    head: &RequestHead,
    reject: &Reject,
    received_at: Nanos,
    surface: Surface,
) -> Answer {
    if reject.reason == Reason::ContentTooLarge && api.claims(head, surface) {
        let local = LocalRequest::begin(&proxy.accounts, head, received_at);
        if let Some(mut answer) = api.refuse_unread(head, surface, local.request_id(), received_at) {
            answer.close = true;
            return local.end(&proxy.accounts, head, answer);
        }
    }
    proxy.accounts.refuse(head, reject, received_at)
}

impl Service for Public {
    fn waits(&self, head: &RequestHead) -> bool {
        self.api.waits(head, Surface::Public)
    }

    fn begin(&self, asked: NewRequest<'_>) -> Step {
        #[cfg(debug_assertions)]
        super::faults::commit(&asked.head.target, &self.proxy.accounts.clock);
        if self.api.claims(asked.head, Surface::Public) {
            begin_own(&self.api, &self.proxy, &asked, Surface::Public)
        } else {
            self.proxy.begin(asked)
        }
    }

    fn work(&self, exchange: BlockingRequest<'_>) -> Answer {
        work(&self.api, &self.proxy, exchange, Surface::Public)
    }

    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer {
        refuse(&self.api, &self.proxy, head, reject, received_at, Surface::Public)
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
        begin_own(&self.api, &self.proxy, &asked, Surface::Admin)
    }

    fn work(&self, exchange: BlockingRequest<'_>) -> Answer {
        work(&self.api, &self.proxy, exchange, Surface::Admin)
    }

    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer {
        refuse(&self.api, &self.proxy, head, reject, received_at, Surface::Admin)
    }

    fn observe(&self, event: FrontendEvent) {
        self.proxy.accounts.observe(event);
    }
}
