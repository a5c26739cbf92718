//! The thread that alone waits for the database: one order after the other, each with its reply.

use balancer_time::Nanos;
use crossbeam_channel::{Receiver, Sender};

use crate::store::{Notifier, Opened, Unopened};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Order {
    /// Connect.
    Open,
    /// Read the key anew.
    ReadKey,
    /// Tell these texts.
    Tell(Vec<String>),
}

/// What became of an order.
#[derive(Debug)]
pub(super) enum Reply {
    /// It is connected, or still is, and that is what there is to know.
    Opened(Opened),
    /// It was told.
    Told,
    /// Neither, and it is not connected; why.
    Failed(String),
    /// The same, and it won't be until somebody changes something.
    Refused(String),
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SenderState {
    /// It is to connect, then.
    Closed(Nanos),
    /// It waits for the database.
    Busy,
    /// It can be given an order.
    Ready,
}

/// Serves until the other end of `orders` is gone.
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
