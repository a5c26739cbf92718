//! The thread that waits for the database: it takes one order after the other and replies to each.

use std::panic::{AssertUnwindSafe, catch_unwind};

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
        // An order that panics has failed like any other, so that the driver says so and tries again.
        let done = catch_unwind(AssertUnwindSafe(|| carry_out(notifier.as_mut(), order)));
        let done = done.unwrap_or_else(|_| {
            log::error!("budget: telling other instances ended in a panic; it is tried again");
            Reply::Failed("telling other instances ended in a panic, a fault of Balancer".into())
        });
        if replies.send(done).is_err() {
            return;
        }
    }
}

fn carry_out(notifier: &mut dyn Notifier, order: Order) -> Reply {
    match order {
        Order::Open => notifier.open().map_or_else(refused, Reply::Opened),
        Order::ReadKey => notifier.look().map_or_else(refused, Reply::Opened),
        Order::Tell(texts) => notifier.tell(&texts).map_or_else(Reply::Failed, |()| Reply::Told),
    }
}

fn refused(Unopened { cause, is_refusal }: Unopened) -> Reply {
    if is_refusal { Reply::Refused(cause) } else { Reply::Failed(cause) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::bounded;

    use super::*;

    /// Panics when it tells, and says how often it was opened.
    struct Fragile(u32);

    impl Notifier for Fragile {
        fn open(&mut self) -> Result<Opened, Unopened> {
            self.0 += 1;
            Err(Unopened { cause: format!("opened {} times", self.0), is_refusal: false })
        }

        fn look(&mut self) -> Result<Opened, Unopened> {
            panic!("a test's")
        }

        fn tell(&mut self, _: &[String]) -> Result<(), String> {
            panic!("a test's")
        }
    }

    #[test]
    fn a_panic_fails_its_order_and_the_next_one_is_carried_out() {
        let ((orders, taken), (reply, replies)) = (bounded(1), bounded(1));
        let sender = thread::spawn(move || serve(Box::new(Fragile(0)), &taken, &reply));
        for (order, cause) in [
            (Order::Tell(Vec::new()), "ended in a panic"),
            (Order::Open, "opened 1 times"),
            (Order::ReadKey, "ended in a panic"),
            (Order::Open, "opened 2 times"),
        ] {
            orders.send(order).unwrap();
            let reply = replies.recv().expect("the sender goes on");
            assert!(matches!(&reply, Reply::Failed(text) if text.contains(cause)), "{reply:?}");
        }
        drop(orders);
        sender.join().unwrap();
    }
}
