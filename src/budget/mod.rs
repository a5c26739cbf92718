//! Carries the messages in which instances tell each other what was spent of the shared budget: signs and checks them,
//! knows which instances are there, and counts.
//!
//! There are two threads: `budget` decides what to do (`driver`) and never waits; `budget-send` waits for the database.
//! No request waits for either. While the database hangs, limits are less exact, since each instance then allows a part
//! of each; nothing else suffers.

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

/// Most texts that are handled in a row before everything else has its turn.
const MAX_TEXTS: usize = 64;

/// How long an instance that ends waits for the database: once for the order that is under way, and once for its last
/// messages.
const GOODBYE: Duration = Duration::from_millis(200);

/// The two threads while they run.
pub struct Carrier {
    life: Sender<Infallible>,
    thread: JoinHandle<()>,
}

/// What a carrier is made of.
pub struct CarrierParts {
    /// Whose buckets are shared.
    pub limiter: Arc<Limiter>,
    /// The way to the other instances and from them.
    pub channel: BudgetChannel,
    /// Where counts and state are shown.
    pub shown: Arc<SharedBudget>,
    /// Where this instance listens.
    pub address: SocketAddr,
    /// The time.
    pub clock: Clock,
}

/// The channel ends that the thread `budget` holds.
struct Ends {
    heard: Receiver<String>,
    replies: Receiver<Reply>,
    orders: Sender<Order>,
    woken: Receiver<()>,
    end: Receiver<Infallible>,
}

impl Carrier {
    /// Starts the threads; from now on this instance takes part in the shared budget.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(parts: CarrierParts) -> io::Result<Self> {
        let CarrierParts { limiter, channel, shown, address, clock } = parts;
        let BudgetChannel { notifier, heard, missed } = channel;
        let own = InstanceId(shown.own());
        let budget = Budget::new(limiter, own, clock.now());
        // One pending call to wake is as good as many.
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

    /// Tells the others that this instance ends, and ends its threads. Waits for the database for at most 0.4 s.
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
            // The channel has room: the driver gives an order only when the sender has replied to the last one.
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
    // The order that is under way may end first.
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
