//! A connection: what it is in the middle of, and what is left over from its last read. Idle it is a few hundred bytes;
//! buffers belong to the workers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use super::deliver::Delivery;
use super::seats::Seat;
use super::table::Token;
use super::timers::Pace;
use super::uploads::Place;
use super::wire::Wire;
use crate::engine::owner;
use crate::proxy::exchange::{Abort, Awaitable, Parked, Upgrade};
use balancer_http::framing::chunk::ChunkDecoder;
use balancer_http::message::Connection;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// What several threads may hold of a connection at once. The last holder closes the descriptor.
pub(super) struct Link {
    pub wire: Wire,
    pub abort: Abort,
    /// The TCP peer, for the bound per address.
    pub address: IpAddr,
}

/// A connection's own state; one owner at a time.
pub(super) struct Conn {
    pub link: Arc<Link>,
    pub token: Token,
    /// The TCP peer, or the client that a trusted peer's PROXY header named.
    pub peer: SocketAddr,
    /// A PROXY header has come.
    pub is_proxied: bool,
    pub state: State,
    /// Received and not yet parsed; no memory while idle.
    pub inbox: Vec<u8>,
    /// The inbox may hold a whole request: look before reading.
    pub look_first: bool,
    /// Bytes of the inbox that a parser has judged to be a proper beginning.
    pub judged: usize,
    /// When the first byte of the head in the inbox came; 0 before.
    pub head_since: Nanos,
    /// Nothing was ever answered on it.
    pub fresh: bool,
    /// Its first bytes must be a PROXY header.
    pub expects_proxy: bool,
    /// The kernel is to tell of a hang-up while the request waits for its backend.
    pub hangup_armed: bool,
    /// The right to wait for an answer, once it was waited for.
    pub seat: Option<Seat>,
}

impl Connection for Link {
    fn peer_owner(&self) -> Result<u32, String> {
        owner::of_peer(&self.wire)
    }
}

impl Conn {
    /// Says in a head where it came from.
    pub fn sign(&self, head: &mut RequestHead) {
        head.peer = self.peer;
        head.is_proxied = self.is_proxied;
        // Weak: a head that a worker keeps for later must not keep the connection open.
        let link: Weak<Link> = Arc::downgrade(&self.link);
        head.connection = Some(link);
    }

    /// Its backend's socket, while it waits for the answer's head or for more of its body.
    pub fn backend(&self) -> Option<Awaitable<'_>> {
        match &self.state {
            State::Queued(queued) => queued.parked.socket(),
            State::Answer(delivery) => delivery.stream.as_ref()?.socket(),
            State::Head | State::Body(_) | State::Linger { .. } => None,
        }
    }
}

/// What a connection is in the middle of.
pub(super) enum State {
    /// A request head, or nothing.
    Head,
    /// A request whose body is read ahead, or that waits for a place to stream it.
    Body(Box<Pending>),
    /// A request that its service has parked.
    Queued(Box<Queued>),
    /// An answer.
    Answer(Box<Delivery>),
    /// Closing: what the client still sends is dropped.
    Linger { dropped: usize, since: Nanos },
}

/// A request whose body is not yet here.
pub(super) struct Pending {
    pub head: RequestHead,
    pub keep_alive: bool,
    pub received_at: Nanos,
    /// The body so far, its framing taken off.
    pub body: Vec<u8>,
    /// For a chunked body.
    pub decoder: ChunkDecoder,
    pub pace: Pace,
    /// The right to stream it, once it was waited for.
    pub place: Option<Place>,
}

/// A parked request. Its body is whole, unless it has a place to stream it.
pub(super) struct Queued {
    pub pending: Pending,
    pub parked: Box<dyn Parked>,
    /// It waits for its answer.
    pub seat: Option<Seat>,
    /// It waits for long: the kernel tells when its client leaves.
    pub is_watched: bool,
    /// It has waited long enough, and a worker is to go on with it.
    pub is_late: bool,
    /// It could go on, but no worker was free.
    pub is_put_off: bool,
}

/// What becomes of a connection when a worker is through with it.
pub(super) enum Next {
    /// Wait for the client to send; `idle` when nothing has come since the last answer.
    Readable,
    /// Go on as soon as any worker is free.
    Again,
    /// Wait for the client to send more of its body.
    Body,
    /// Wait for one of the places for streamed uploads.
    UploadPlace,
    /// Wait for what its service parked the request for.
    Backend,
    /// Wait for the client to take more of its answer.
    ClientWritable,
    /// Wait for the backend to send more of it.
    UpstreamReadable,
    /// Close now.
    Close,
    /// Close so that the client sees that something is missing.
    Reset,
    /// End our direction, drop what still comes for a while, close.
    Linger,
    /// Go on with that.
    LingerOn,
    /// Relay both directions from now on.
    Relay(Box<Relayed>),
}

/// An upgraded connection on its way to the keeper.
pub(super) struct Relayed {
    pub upgrade: Upgrade,
    /// What the client sent behind its request already.
    pub early: Vec<u8>,
    /// What the kernel did not take of the 101 at once, and the ticket.
    pub delivery: Delivery,
}
