//! Whether a request may be sent again after a failure, and where. It may if no byte of it was sent, or if its method
//! is idempotent (RFC 9110 §9.2.2); and only if its body can be sent again.

/// Why an attempt brought no answer, as far as it matters for sending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused: nothing was sent, and it took no time.
    Connect,
    /// There was no connection in time: nothing was sent.
    ConnectTimedOut,
    /// A kept connection broke before any byte of an answer.
    Stale,
    /// A new connection broke before the answer's head was whole.
    Reset,
    /// There was no head in time.
    TimedOut,
    /// The answer is broken: the backend may have acted on the request, but its answer can't be read.
    Malformed,
    /// There is a whole answer, with a status after which the request is sent again.
    Status,
    /// The client's side failed, so sending again would fail too.
    Client,
}

/// What matters about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether its method is [`idempotent`].
    pub idempotent: bool,
    /// Whether its body can be sent again: it is empty, in memory, or was not read yet.
    pub replayable: bool,
    /// How often it was sent again already, except after refused connections.
    pub retries_done: u32,
}

/// What the configuration allows. By default, nothing is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is sent again at most: `upstream.retries`. If it is above 0, refused connections do not
    /// count: the request fails only when every candidate has refused.
    pub retries: u32,
    /// Send again after [`Failure::Connect`] and [`Failure::ConnectTimedOut`].
    pub on_connect: bool,
    /// Send idempotent requests again after [`Failure::Reset`] and [`Failure::Malformed`].
    pub on_reset: bool,
    /// Send idempotent requests again after [`Failure::TimedOut`].
    pub on_timeout: bool,
}

/// Whether the request put load on a backend before it failed, so that sending it again needs a place in the retry
/// budget. A refused connection did not, nor did a kept connection that the backend had closed.
pub const fn costs(failure: Failure) -> bool {
    !matches!(failure, Failure::Connect | Failure::Stale)
}

/// Whether and where to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is not sent again.
    No,
    /// To an endpoint that was not tried yet, if there is one.
    Elsewhere,
    /// To an endpoint that was not tried yet; if there is none, to the same one on a new connection, since only the
    /// connection was bad.
    ElsewhereOrFresh,
}

/// Decides whether and where to send a request again after a failed attempt.
pub fn again(failure: Failure, request: Request, policy: RetryPolicy) -> Again {
    if policy.retries == 0 || !request.replayable {
        return Again::No;
    }
    match failure {
        Failure::Connect | Failure::ConnectTimedOut if !policy.on_connect => Again::No,
        Failure::Connect => Again::Elsewhere,
        _ if request.retries_done >= policy.retries => Again::No,
        Failure::ConnectTimedOut => Again::Elsewhere,
        Failure::Stale if request.idempotent => Again::ElsewhereOrFresh,
        Failure::Reset | Failure::Malformed if request.idempotent && policy.on_reset => Again::Elsewhere,
        Failure::TimedOut if request.idempotent && policy.on_timeout => Again::Elsewhere,
        Failure::Status if request.idempotent => Again::Elsewhere,
        Failure::Stale
        | Failure::Reset
        | Failure::TimedOut
        | Failure::Malformed
        | Failure::Status
        | Failure::Client => Again::No,
    }
}

/// Whether a method is idempotent: repeating it has no further effect (RFC 9110 §9.2.2). Methods are case-sensitive
/// (§9.1). Unknown methods are not idempotent.
pub fn idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_rfc_9110_section_9_2_2() {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            assert!(idempotent(method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "get", "Put", "PURGE", ""] {
            assert!(!idempotent(method), "{method}");
        }
    }

    const ALL_ON: RetryPolicy =
        RetryPolicy { retries: 1, on_connect: true, on_reset: true, on_timeout: true };

    #[test]
    fn only_what_is_safe_is_sent_again() {
        use Again::{Elsewhere, ElsewhereOrFresh, No};
        use Failure::{Client, Connect, ConnectTimedOut, Malformed, Reset, Stale, Status, TimedOut};
        let all_off = RetryPolicy { on_connect: false, on_reset: false, on_timeout: false, ..ALL_ON };
        // Failure; result for an idempotent method with all options, with none; for another method with all options.
        for (failure, with_all, with_none, unsafe_method) in [
            (Connect, Elsewhere, No, Elsewhere),
            (ConnectTimedOut, Elsewhere, No, Elsewhere),
            (Stale, ElsewhereOrFresh, ElsewhereOrFresh, No),
            (Reset, Elsewhere, No, No),
            (TimedOut, Elsewhere, No, No),
            (Status, Elsewhere, Elsewhere, No),
            (Malformed, Elsewhere, No, No),
            (Client, No, No, No),
        ] {
            let request = Request { idempotent: true, replayable: true, retries_done: 0 };
            let post = Request { idempotent: false, ..request };
            assert_eq!(again(failure, request, ALL_ON), with_all, "{failure:?}");
            assert_eq!(again(failure, request, all_off), with_none, "{failure:?}");
            assert_eq!(again(failure, post, ALL_ON), unsafe_method, "{failure:?}");
            let spent = Request { replayable: false, ..request };
            assert_eq!(again(failure, spent, ALL_ON), No, "{failure:?} with a body that is gone");
            assert_eq!(costs(failure), !matches!(failure, Connect | Stale));
        }
    }

    #[test]
    fn the_number_of_retries_is_kept() {
        for (retries, retries_done, decision) in
            [(0, 0, Again::No), (1, 0, Again::Elsewhere), (1, 1, Again::No), (3, 2, Again::Elsewhere)]
        {
            let request = Request { idempotent: true, replayable: true, retries_done };
            let policy = RetryPolicy { retries, ..ALL_ON };
            assert_eq!(
                again(Failure::ConnectTimedOut, request, policy),
                decision,
                "{retries} {retries_done}"
            );
            let refused = if retries == 0 { Again::No } else { Again::Elsewhere };
            assert_eq!(again(Failure::Connect, request, policy), refused, "{retries} {retries_done}");
        }
    }
}
