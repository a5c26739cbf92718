//! Fairness under overload: which request goes next when every backend is full, and how many requests a backend can
//! use.
//!
//! [`FairLine`] is a line ordered by use: the client that has had the least of the places, by weight, goes next. So a
//! client that asks for ten times what there is waits behind its own requests, and not the others. [`AutoLimit`]
//! measures how many requests at once a backend has a use for. [`StraightCounts`] counts requests that found no line.
//! None of them reads a clock (`now` is an argument), holds a lock or wakes anything.

mod auto;
mod line;
mod record;
mod share;
mod straight;
#[cfg(test)]
mod tests;
mod ticket;
mod window;

pub use auto::{AutoAttempt, AutoBounds, AutoLimit, AutoMove, ProbeVerdict};
pub use line::{FairLine, LinePolicy};
pub use straight::StraightCounts;
pub use ticket::{Joining, LineRefusal, LineTicket, Turn, WaitingClient, Who};
