//! One request under way: its body, what it waits for, and the delivery of its answer.

use balancer_http::framing::chunk::ChunkDecoder;
use balancer_http::message::{BodyLength, RequestHead, Version};
use balancer_time::Nanos;

use super::keys::BackSlot;
use super::pace::Pace;
use crate::engine::render::{Framing, Persistence};
use crate::proxy::exchange::{Answer, DeliveryOutcome, Ticket};
use crate::proxy::story::{Call, Story};

/// See the module.
pub(super) struct Exchange {
    pub head: RequestHead,
    pub keep_alive: bool,
    pub received_at: Nanos,
    pub upload: Upload,
    pub doing: Doing,
}

/// What a request is in the middle of.
pub(super) enum Doing {
    /// Its body is read ahead, before the service is asked.
    Reading,
    /// The body of an API call is read, at most so many bytes of it, before a thread of the lane answers.
    Gathering(usize),
    /// Its story waits: in line, for the store or for a password. At most until then.
    Waiting(Box<Story>, Nanos),
    /// A thread of the lane answers it.
    InLane,
    /// It was sent, or is being sent.
    Calling(Calling),
    /// Its answer is being delivered.
    Answering(Delivery),
    /// Upgraded: both directions are relayed.
    Tunnel(Tunnel),
    /// Between two of these.
    Nothing,
}

/// A request that was sent to a backend.
pub(super) struct Calling {
    pub story: Box<Story>,
    pub call: Call,
    pub back: BackSlot,
    /// When the last of it was sent; before that, when the connection was begun.
    pub since: Nanos,
    /// How many interim answers came so far.
    pub interim: u8,
    /// No interim answer so far asked to close the connection.
    pub keep_alive: bool,
}

/// An answer that is not yet delivered.
pub(super) struct Delivery {
    /// Where the rest of its body comes from.
    pub source: Option<BodySource>,
    pub framing: Framing,
    /// Body bytes that were handed to the kernel or wait for it.
    pub body_bytes: u64,
    pub ticket: Option<Box<dyn Ticket>>,
    pub after: After,
    /// The head is not written yet, since the body's length is being found out.
    pub gather: Option<Box<Gather>>,
}

/// A backend whose answer is relayed.
pub(super) struct BodySource {
    pub back: BackSlot,
    /// When the backend last sent something.
    pub last: Nanos,
    /// Longest silence.
    pub read: Nanos,
    /// When the whole request must be over.
    pub deadline: Option<Nanos>,
}

/// An answer whose head waits for its body.
pub(super) struct Gather {
    /// Without its body.
    pub answer: Answer,
    pub collected: Vec<u8>,
}

/// An upgraded connection.
pub(super) struct Tunnel {
    pub back: BackSlot,
    pub delivery: Delivery,
    pub last: Nanos,
    /// The client sends no more, and the backend was told.
    pub client_done: bool,
    /// The backend sends no more, and the client was told.
    pub backend_done: bool,
}

/// What becomes of the connection after a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed, after what the client may still send was dropped.
    Linger,
}

/// A request's body.
pub(super) struct Upload {
    pub length: BodyLength,
    /// Read and not yet sent, without framing; all of it when it is read ahead.
    pub body: Vec<u8>,
    /// Bytes of a body of known length that are still to come from the client.
    pub left: u64,
    pub decoder: ChunkDecoder,
    /// Bytes of body that came.
    pub came: u64,
    /// Longest body, where that is less than `frontend.max_body_bytes`.
    pub most: Option<u64>,
    pub pace: Pace,
    /// All of it came.
    pub is_whole: bool,
    /// It is sent on while it still comes.
    pub streams: bool,
    /// The last of a streamed body was sent.
    pub is_sent: bool,
    /// Some of it was sent and is no longer in memory: the request can't be sent again.
    pub is_gone: bool,
    /// The rest of it is not wanted any more.
    pub is_stopped: bool,
    /// The client waits for a 100 before it sends it.
    pub owes_continue: bool,
}

impl Exchange {
    /// One without a request, for later use.
    pub fn blank(head: RequestHead) -> Box<Self> {
        let length = BodyLength::Empty;
        Box::new(Self {
            head,
            keep_alive: false,
            received_at: 0,
            upload: Upload::new(length, 0),
            doing: Doing::Nothing,
        })
    }

    pub fn is_head(&self) -> bool {
        self.head.method == "HEAD"
    }

    pub fn version(&self) -> Version {
        self.head.version
    }
}

impl Upload {
    pub fn new(length: BodyLength, now: Nanos) -> Self {
        Self {
            length,
            body: Vec::new(),
            left: if let BodyLength::Known(bytes) = length { bytes } else { 0 },
            decoder: ChunkDecoder::new(),
            came: 0,
            most: None,
            pace: Pace::new(now),
            is_whole: matches!(length, BodyLength::Empty | BodyLength::UntilClose | BodyLength::Known(0)),
            streams: false,
            is_sent: false,
            is_gone: false,
            is_stopped: false,
            owes_continue: false,
        }
    }

    /// Whether some of it is still to be read from the client, or to be sent.
    pub fn is_under_way(&self) -> bool {
        self.streams && !self.is_sent && !self.is_stopped
    }
}

impl Delivery {
    /// Tells the ticket how it ended. `unsent`: bytes that the kernel did not take.
    pub fn settle(&mut self, outcome: DeliveryOutcome, unsent: usize) {
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(self.body_bytes.saturating_sub(unsent as u64), outcome);
        }
    }
}

impl After {
    /// What an answer's `Connection` means. `unread`: the client may still be sending.
    pub fn of(persistence: Persistence, unread: bool) -> Self {
        match persistence {
            Persistence::Kept | Persistence::KeptAsAsked => Self::Keep,
            Persistence::Closed if unread => Self::Linger,
            Persistence::Closed => Self::Close,
        }
    }
}
