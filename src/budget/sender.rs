//! The thread that waits for the database: it takes one order after the other and replies to each.

use balancer_time::Nanos;
use crossbeam_channel::{Receiver, Sender};

use crate::store::{Notifier, Opened, Unopened};

/// What the sender is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Connect.
    Open,
    /// Read the key again, on the open connection.
    ReadKey,
    /// Tell these texts.
    Tell(Vec<String>),
}

/// What became of an order.
#[derive(Debug)]
pub(super) enum Reply {
    /// The connection is open, and the key was read.
    Opened(Opened),
    /// The texts were told.
    Told,
    /// It failed, and the connection is closed; why.
    Failed(String),
    /// It failed, the connection is closed, and trying again fails until the operator changes something; why.
    Refused(String),
}

/// The state of the sender, as the driver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SenderState {
    /// There is no connection; the next attempt is due then.
    Closed(Nanos),
    /// It has an order and waits for the database.
    Busy,
    /// It is connected and takes an order.
    Ready,
}

/// Carries out orders until the other end of either channel is gone.
pub(super) fn serve(mut notifier: Box<dyn Notifier>, orders: &Receiver<Order>, replies: &Sender<Reply>) {
    for order in orders {
        let done = match order {
            Order::Open => notifier.open().map_or_else(refused, Reply::Opened),
            Order::ReadKey => notifier.look().map_or_else(refused, Reply::Opened),
            Order::Tell(texts) => notifier.tell(&texts).map_or_else(Reply::Failed, |()| Reply::Told),
        };
        if replies.send(done).is_err() {
            return;
        }
    }
}

fn refused(Unopened { cause, is_refusal }: Unopened) -> Reply {
    if is_refusal { Reply::Refused(cause) } else { Reply::Failed(cause) }
}
