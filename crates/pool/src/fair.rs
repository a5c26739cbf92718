//! Fair under overload: who goes next when every backend is full.
//!
//! [`FairLine`] is a line ordered by use: whoever has had the least of the places, by weight, goes next, so that a client
//! that asks for ten times what there is waits for itself and not in front of the others. [`StraightCounts`] counts what goes
//! past an empty line. Both are values: they know no clock (`now` is an argument), hold no lock and wake nobody.

mod line;
mod record;
mod share;
mod straight;
#[cfg(test)]
mod tests;
mod ticket;

pub use line::{FairLine, LinePolicy};
pub use straight::StraightCounts;
pub use ticket::{Joining, LineRefusal, LineTicket, Priority, Turn, Who};
