//! What ureq sees of a connection. ureq writes the request into our output buffer and asks for the answer; what it gets
//! is an error, always, so that it never judges framing, never keeps a connection and never touches a body. By then the
//! request has been sent, and the head was read; both stay with the [`Call`]. (An answer made up for it would be parsed,
//! stored and dropped again: a quarter of what ureq costs.)
//!
//! The call travels through a thread-local variable, since ureq builds the transport itself, on the thread that runs
//! the request: `run` puts it there, the connector takes it out, and the transport puts it back when ureq drops it.

use std::cell::Cell;

use ureq::Error;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::call::{Call, Stopped};

thread_local! {
    static SLOT: Cell<Option<Box<Call>>> = const { Cell::new(None) };
}

/// Empties the slot even when ureq, or the client's body, panics.
struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        SLOT.take();
    }
}

/// Runs ureq on a call's connection; the call comes back in whatever state ureq left it. `None` cannot happen unless
/// ureq keeps a transport for itself.
pub(super) fn run(
    call: Box<Call>,
    ureq: impl FnOnce() -> Result<(), Error>,
) -> (Option<Box<Call>>, Result<(), Error>) {
    let _cleared = Cleared;
    SLOT.set(Some(call));
    let result = ureq();
    (SLOT.take(), result)
}

/// Hands the thread's call to ureq.
#[derive(Debug)]
pub(super) struct CallConnector;

impl Connector<()> for CallConnector {
    type Out = CallTransport;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<CallTransport>, Error> {
        Ok(SLOT.take().map(|call| CallTransport { call: Some(call) }))
    }
}

/// Every call brings its connection along, so there is nothing to resolve.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// One call, as ureq's transport.
pub(super) struct CallTransport {
    /// Empty only in `drop`.
    call: Option<Box<Call>>,
}

impl CallTransport {
    fn call(&mut self) -> Result<&mut Call, Error> {
        self.call.as_deref_mut().ok_or(Error::ConnectionFailed)
    }
}

impl Drop for CallTransport {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            SLOT.set(Some(call));
        }
    }
}

impl std::fmt::Debug for CallTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallTransport").finish_non_exhaustive()
    }
}

impl Transport for CallTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        // Whatever stopped the sending, ureq has to leave; the call knows why.
        self.call()?.written(amount).map_err(|Stopped| Error::ConnectionFailed)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let call = self.call()?;
        if call.leaves {
            call.leave();
        } else if call.outcome.is_none() {
            call.conclude();
        }
        // However it ended, ureq has to leave now.
        Err(Error::ConnectionFailed)
    }

    fn is_open(&mut self) -> bool {
        // What becomes of the connection is ours to say.
        false
    }
}

impl Buffers for CallTransport {
    fn output(&mut self) -> &mut [u8] {
        self.call.as_deref_mut().map(Call::room).unwrap_or_default()
    }

    fn input(&self) -> &[u8] {
        &[]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        &mut []
    }

    fn input_appended(&mut self, _: usize) {}

    fn input_consume(&mut self, _: usize) {}

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        match self.call.as_deref_mut() {
            Some(call) => {
                // ureq asks for both at once only when the head is out.
                call.in_body = true;
                call.chunk_and_room()
            }
            None => (&mut [], &mut []),
        }
    }

    fn can_use_input(&self) -> bool {
        false
    }
}
