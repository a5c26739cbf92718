//! Carries what instances tell each other of the shared budget: signs and checks messages, knows who is there, and counts.
//!
//! Two threads: `budget` decides what to do (`driver`) and is never kept waiting; `budget-send` alone waits for the database.
//! No request waits for either. A database that hangs costs accuracy and nothing else: then each instance holds itself to a part.

mod bodies;
mod driver;
mod known;
mod sender;
mod shown;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, after, bounded, never, select};

use crate::clock::Clock;
use crate::store::BudgetChannel;
use balancer_limiter::budget::{Budget, InstanceId};
use balancer_limiter::limiter::Limiter;
use driver::{Driver, DriverParts};
use sender::{Order, Reply};
pub use shown::{InstanceShown, SharedBudget, shown_id};

/// So many texts in a row, and everything else has its turn.
const MAX_TEXTS: usize = 64;

/// How long an instance that ends waits for the database to take its last messages, and what went before them.
const GOODBYE: Duration = Duration::from_millis(200);

/// The running threads.
pub struct Carrier {
    life: Sender<Infallible>,
    thread: JoinHandle<()>,
}

/// Who takes part, and where it is seen.
#[allow(missing_docs)]
pub struct CarrierParts {
    pub limiter: Arc<Limiter>,
    pub channel: BudgetChannel,
    pub shown: Arc<SharedBudget>,
    /// Where it listens.
    pub address: SocketAddr,
    pub clock: Clock,
}

/// The ends of the channels of the thread that decides.
struct Ends {
    heard: Receiver<String>,
    replies: Receiver<Reply>,
    orders: Sender<Order>,
    woken: Receiver<()>,
    end: Receiver<Infallible>,
}

impl Carrier {
    /// Takes part from now on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: CarrierParts) -> io::Result<Self> {
        let CarrierParts { limiter, channel, shown, address, clock } = parts;
        let BudgetChannel { notifier, heard, missed } = channel;
        let own = InstanceId(shown.own());
        let budget = Budget::new(limiter, own, clock.now());
        // One call to wake is as good as many.
        let (wake, woken) = bounded(1);
        budget.wake_by(move || {
            let _ = wake.try_send(());
        });
        // One order at a time.
        let (orders, taken) = bounded(1);
        let (reply, replies) = bounded(1);
        Builder::new().name("budget-send".into()).spawn(move || sender::serve(notifier, &taken, &reply))?;
        let (life, end) = bounded(0);
        let ends = Ends { heard, replies, orders, woken, end };
        let now = clock.moment();
        let driver = Driver::new(DriverParts { budget, shown, missed, address }, now);
        let thread = Builder::new().name("budget".into()).spawn(move || drive(driver, ends, &clock))?;
        Ok(Self { life, thread })
    }

    /// Tells the others that this instance ends, and ends. Waits for the database for a moment only.
    pub fn stop(self) {
        drop(self.life);
        if self.thread.join().is_err() {
            log::error!("budget: its thread ended in a panic");
        }
    }
}

fn drive(mut driver: Driver, mut ends: Ends, clock: &Clock) {
    loop {
        let when = clock.moment();
        if let Some(order) = driver.step(when) {
            // It is free, or it would not have been given one.
            let _ = ends.orders.try_send(order);
        }
        let next = after(Duration::from_nanos(driver.wake_at().saturating_sub(clock.now())));
        select! {
            recv(ends.end) -> _ => break,
            recv(ends.heard) -> text => match text {
                Ok(text) => hear(&mut driver, text, &ends.heard, clock),
                // The store has stopped.
                Err(_) => ends.heard = never(),
            },
            recv(ends.replies) -> reply => match reply {
                Ok(reply) => driver.replied(reply, clock.now()),
                Err(_) => ends.replies = never(),
            },
            recv(ends.woken) -> _ => driver.woken(clock.now()),
            recv(next) -> _ => {}
        }
    }
    // What it is doing may come to an end first.
    if driver.is_busy()
        && let Ok(reply) = ends.replies.recv_timeout(GOODBYE)
    {
        driver.replied(reply, clock.now());
    }
    if let Some(goodbye) = driver.leave(clock.moment())
        && ends.orders.try_send(goodbye).is_ok()
    {
        let _ = ends.replies.recv_timeout(GOODBYE);
    }
}

fn hear(driver: &mut Driver, first: String, heard: &Receiver<String>, clock: &Clock) {
    driver.heard(&first, clock.moment());
    for _ in 1..MAX_TEXTS {
        match heard.try_recv() {
            Ok(text) => driver.heard(&text, clock.moment()),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
        }
    }
}
