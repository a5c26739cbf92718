//! Fair under overload: who goes next when every backend is full, and how many requests a backend can take.
//!
//! [`FairLine`] is a line ordered by use: whoever has had the least of the places, by weight, goes next, so that a client
//! that asks for ten times what there is waits for itself and not in front of the others. [`AutoLimit`] measures how many
//! requests a backend has a use for. [`StraightCounts`] counts what goes past an empty line. All are values: they know no
//! clock (`now` is an argument), hold no lock and wake nobody.

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
