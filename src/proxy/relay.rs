//! The third step: a backend's answer becomes the client's.

use super::{Answered, Incoming};
use crate::proxy::exchange::{Answer, AnswerBody, Pull, Wait};
use balancer_http::headers;
use balancer_http::message::BodyLength;

/// Makes the client's answer out of a backend's. The body is not read here: the frontend pulls it as the client takes
/// it. `protocol`: what was switched to, if it was.
pub(super) fn relay(answered: Answered, is_head: bool, protocol: &str) -> Answer {
    match answered {
        Answered::Http(incoming) => relay_http(incoming, is_head),
        Answered::Switched { reason, fields, connection } => Answer {
            status: 101,
            reason: Some(reason),
            fields: headers::to_client(101, fields),
            body: AnswerBody::Upgrade(connection),
            close: false,
            cause: None,
            ticket: None,
        }
        .with("Upgrade", protocol),
    }
}

fn relay_http(incoming: Incoming, is_head: bool) -> Answer {
    let Incoming { status, reason, fields, length, mut body } = incoming;
    let bodiless = is_head || matches!(status, 204 | 304);
    let empty = length == BodyLength::Empty;
    if bodiless || empty {
        // At its end already: this gives the connection back to the pool.
        let ended = body.pull(&mut [0; 1], Wait::Poll);
        debug_assert!(matches!(ended, Pull::End | Pull::Broken(_)), "a body where RFC 9110 allows none");
    }
    let body = if bodiless {
        AnswerBody::None {
            declared: match length {
                BodyLength::Known(bytes) => Some(bytes),
                BodyLength::Empty | BodyLength::Chunked | BodyLength::UntilClose => None,
            },
        }
    } else if empty {
        AnswerBody::Bytes(Vec::new())
    } else {
        AnswerBody::Stream(length, body)
    };
    Answer {
        status,
        reason: Some(reason),
        fields: headers::to_client(status, fields),
        body,
        close: false,
        cause: None,
        ticket: None,
    }
}
