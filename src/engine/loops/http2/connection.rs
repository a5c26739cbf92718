//! A connection of the `h2` crate, and how it is polled.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream};

use super::pipe::Pipe;
use super::watch::FrameWatch;
use crate::engine::loops::keys::ClientSlot;
use crate::proxy::exchange::Http2Flood;
use balancer_time::Nanos;

/// Most streams at once.
const MOST_STREAMS: u32 = 100;
/// Most bytes of one header list, as RFC 9113 §10.5.1 counts them.
const MOST_HEADER_LIST: u32 = 16 * 1024;
/// How many bytes of one body a client may send before some of them were passed on.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all bodies of a connection: no body waits because others are not read.
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;
/// Most bytes of one answer that the crate keeps.
const MOST_SENDING: usize = 64 * 1024;
/// Streams that the client has reset before we accepted them; more are a flood.
const MOST_PENDING_RESETS: usize = 20;
/// Most streams that are remembered for a second after we have ended them: frames that were still on their way to them
/// are no fault of the client.
const MOST_REMEMBERED: usize = 1000;
/// Streams that the client made us reset by its errors; more are a flood.
const MOST_OWN_RESETS: usize = 64;

/// A client's HTTP/2 connection.
pub(in crate::engine::loops) struct Http2 {
    state: State,
    pipe: Pipe,
    watch: FrameWatch,
    waker: Waker,
    /// Its requests, each of which is a client of the loop.
    pub streams: Vec<ClientSlot>,
    /// Bodies of which the rest is not wanted and is dropped as it comes. They keep their streams open for the crate.
    unread: Vec<RecvStream>,
    /// When its last request ended.
    pub idle_since: Nanos,
    /// It had a request.
    pub is_used: bool,
    /// The client was told that no more requests are taken (GOAWAY).
    is_leaving: bool,
    /// It is over: only what is written already is still sent.
    pub is_over: bool,
    is_flooded: bool,
}

enum State {
    Begins(Pin<Box<Handshake<Pipe, Bytes>>>),
    Open(Box<Connection<Pipe, Bytes>>),
}

/// A request that came.
pub(in crate::engine::loops) type NewStream = (http::Request<RecvStream>, SendResponse<Bytes>);

/// What polling came to.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(in crate::engine::loops) enum Polled {
    Opened(NewStream),
    Nothing,
    /// The connection is over.
    Over,
    /// The connection is over, because the crate has found a flood.
    Flooded,
}

impl Polled {
    fn failed(error: &h2::Error) -> Self {
        if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) { Self::Flooded } else { Self::Over }
    }
}

impl Http2 {
    pub fn new(waker: Waker, now: Nanos) -> Self {
        let pipe = Pipe::default();
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(MOST_HEADER_LIST)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_pending_accept_reset_streams(MOST_PENDING_RESETS)
            .max_local_error_reset_streams(Some(MOST_OWN_RESETS))
            .max_concurrent_reset_streams(MOST_REMEMBERED)
            .max_send_buffer_size(MOST_SENDING);
        let begins = Box::pin(builder.handshake(pipe.clone()));
        Self {
            state: State::Begins(begins),
            pipe,
            watch: FrameWatch::new(now),
            waker,
            streams: Vec::new(),
            unread: Vec::new(),
            idle_since: now,
            is_used: false,
            is_leaving: false,
            is_over: false,
            is_flooded: false,
        }
    }

    /// Lets the crate read, write and tell what came.
    pub fn poll(&mut self) -> Polled {
        let context = &mut Context::from_waker(&self.waker);
        loop {
            match &mut self.state {
                State::Begins(begins) => match begins.as_mut().poll(context) {
                    Poll::Pending => return Polled::Nothing,
                    Poll::Ready(Ok(mut connection)) => {
                        if self.is_leaving {
                            connection.graceful_shutdown();
                        }
                        self.state = State::Open(Box::new(connection));
                    }
                    Poll::Ready(Err(error)) => return Polled::failed(&error),
                },
                State::Open(connection) => {
                    return match connection.poll_accept(context) {
                        Poll::Pending => Polled::Nothing,
                        Poll::Ready(Some(Ok(opened))) => Polled::Opened(opened),
                        Poll::Ready(Some(Err(error))) => Polled::failed(&error),
                        Poll::Ready(None) => Polled::Over,
                    };
                }
            }
        }
    }

    /// Takes in what came. A flood ends the connection, and is returned.
    pub fn take_in(&mut self, came: &[u8], now: Nanos) -> Option<Http2Flood> {
        let flood = self.watch.follow(came, now);
        self.pipe.feed(came);
        if flood.is_some() {
            self.is_flooded = true;
            // The crate can tell the client why only after it has seen the client's preface.
            drop(self.poll());
            self.abort(Reason::ENHANCE_YOUR_CALM);
        }
        flood
    }

    /// The client sends no more.
    pub fn end_input(&self) {
        self.pipe.end();
    }

    /// Whether the crate has read everything that came.
    pub fn is_drained(&self) -> bool {
        self.pipe.is_drained()
    }

    /// Swaps what is to be sent with `out`, which is empty; true if the crate waited for the room.
    pub fn take_out(&self, out: &mut Vec<u8>) -> bool {
        self.pipe.take(out)
    }

    /// Gives memory back that an idle connection does not need.
    pub fn rest(&self) {
        if self.streams.is_empty() {
            self.pipe.rest();
        }
    }

    /// The flood to count when the crate has found one; `None`: ours was found and counted before.
    pub fn found_by_crate(&self) -> Option<Http2Flood> {
        (!self.is_flooded).then_some(Http2Flood::Other)
    }

    /// Ends the connection at once, and tells the client why.
    pub fn abort(&mut self, reason: Reason) {
        match &mut self.state {
            State::Open(connection) => connection.abrupt_shutdown(reason),
            State::Begins(_) => self.is_over = true,
        }
    }

    /// Takes no more requests. Those under way are answered.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true)
            && let State::Open(connection) = &mut self.state
        {
            connection.graceful_shutdown();
        }
    }

    /// Reads and drops the bodies that are not wanted.
    pub fn drop_unread(&mut self) {
        let context = &mut Context::from_waker(&self.waker);
        self.unread.retain_mut(|stream| {
            loop {
                match stream.poll_data(context) {
                    Poll::Pending => return true,
                    Poll::Ready(Some(Ok(bytes))) => {
                        let _ = stream.flow_control().release_capacity(bytes.len());
                    }
                    Poll::Ready(_) => return false,
                }
            }
        });
    }

    /// One of its requests is over; true if it was the last.
    pub fn forget(&mut self, key: ClientSlot, unread: Option<RecvStream>, now: Nanos) -> bool {
        self.unread.extend(unread);
        self.streams.retain(|one| *one != key);
        if self.streams.is_empty() {
            self.idle_since = now;
        }
        self.streams.is_empty()
    }
}
