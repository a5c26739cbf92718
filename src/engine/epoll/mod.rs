//! Our own front door, for Linux. Idle connections wait in one epoll instance; a fixed set of workers waits on it, too,
//! so that a request is read, handled and answered on one thread without a hand-over. A client that sends or takes
//! slowly, and a backend that answers in pieces, hold a connection and a bounded buffer, never a worker. Beside the
//! workers stands one keeper.
//!
//! A connection has one owner at a time: whoever took it out of its slot (`table`). It is put back together with
//! what it waits for and until when (`timers`); the kernel wakes a worker, or the keeper finds the time passed.

mod accept;
mod ahead;
mod answer;
mod body;
mod conn;
mod core;
mod deliver;
mod expire;
mod gate;
mod gather;
mod head;
mod keeper;
mod pressure;
mod queued;
mod ready;
mod relay;
mod seats;
mod sockets;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod uploads;
mod wake;
mod wire;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustix::event::epoll::{self, CreateFlags, EventFlags};

use self::accept::Idlest;
use self::core::{Addresses, Core, Observer, end_data, listener_data, nudge_data};
use self::gate::{Active, Gate};
use self::keeper::{Keeper, Mail};
use self::ready::Ready;
use self::seats::Seats;
use self::sockets::Sockets;
use self::table::Table;
use self::timers::{Phase, Spans};
use self::uploads::Uploads;
use self::wake::Wake;
use self::worker::Worker;
pub use super::Stats;
use crate::clock::Clock;
use crate::config::Frontend;
use crate::proxy::service::Service;
use balancer_time::nanos;

/// What a worker's stack holds: the deepest path is a proxied request through the client library, measured below
/// 100 KiB in a debug build. Untouched pages cost nothing.
const STACK_BYTES: usize = 512 * 1024;
/// Most bytes of an answer that the kernel keeps beyond what it may send. Without it a client that does not read holds
/// as much kernel memory as tcp_wmem allows, usually 4 MiB; what is on its way to a fast client is not counted.
const KERNEL_UNSENT_BYTES: u32 = 256 * 1024;
/// Most workers that run at once, for each core, unless the configuration says otherwise. With the processors saturated
/// it is as many as get one (`gate::share`).
const ACTIVE_PER_CORE: usize = 4;
/// Otherwise never fewer than this: one to wait for events while another is at one.
const LEAST_ACTIVE: usize = 2;
/// How often a draining engine looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// The engine, running. Dropped without [`Running::stop`] its threads go on.
pub struct Running {
    core: Arc<Core>,
    addresses: Vec<SocketAddr>,
    inherited: bool,
    end: Wake,
    threads: Vec<JoinHandle<()>>,
}

/// Starts workers and keeper on sockets that listen already. `inherited`: they belong to other processes, too, and go on
/// listening when this one no longer accepts. `trusted_proxies`: whose PROXY headers count, when
/// `config.proxy_protocol` is on. Errors are those of making epoll instances and threads.
pub fn start(
    listeners: Vec<TcpListener>,
    inherited: bool,
    config: &Frontend,
    trusted_proxies: &[IpNet],
    service: Arc<dyn Service>,
    clock: Clock,
) -> io::Result<Running> {
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let wake = Wake::new()?;
    let core = core(listeners, config, trusted_proxies, service, clock, &wake)?;
    let core = Arc::new_cyclic(|me| Core { me: Weak::clone(me), ..core });
    let end = Wake::new()?;
    epoll::add(&core.epoll, &end, end_data(), EventFlags::IN)?;
    // Each nudge once, to one worker; it is never read.
    epoll::add(&core.epoll, &core.ready.nudge, nudge_data(), EventFlags::IN | EventFlags::ET)?;
    for (index, listener) in core.listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        // Both are inherited by every accepted connection.
        rustix::net::sockopt::set_tcp_nodelay(listener, true)?;
        socket2::SockRef::from(listener).set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)?;
        epoll::add(&core.epoll, listener, listener_data(index), EventFlags::IN | EventFlags::ONESHOT)?;
    }
    let mut running = Running { core, addresses, inherited, end, threads: Vec::new() };
    if let Err(error) = running.spawn(config.workers.unwrap_or(WORKERS), wake) {
        running.stop();
        return Err(error);
    }
    Ok(running)
}

/// Threads when no number is given.
const WORKERS: usize = 256;
/// The engines of this process are numbered from 1.
static NUMBER: AtomicU64 = AtomicU64::new(1);

fn core(
    listeners: Vec<TcpListener>,
    config: &Frontend,
    trusted_proxies: &[IpNet],
    service: Arc<dyn Service>,
    clock: Clock,
    wake: &Wake,
) -> io::Result<Core> {
    let workers = config.workers.unwrap_or(WORKERS);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let active = Active { least: 1, usual: cores.max(LEAST_ACTIVE), most: ACTIVE_PER_CORE * cores };
    let sockets = Arc::new(Sockets::new());
    let gate = Arc::new(Gate::new(workers, active, clock.clone(), wake.clone()));
    Ok(Core {
        me: Weak::new(),
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        listeners,
        table: Table::new(),
        observer: Arc::new(Observer { gate: gate.clone(), sockets: sockets.clone() }),
        sockets,
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        gate,
        ready: Ready::new()?,
        uploads: Uploads::new(workers),
        seats: Seats::new(workers, nanos(timers::WORKER_WAIT)),
        mail: Mail::new(wake.clone()),
        service,
        clock,
        spans: Spans::new(config),
        bounds: config.head_bounds(),
        max_body_bytes: config.max_body_bytes,
        request_buffer_bytes: config.request_buffer_bytes,
        response_buffer_bytes: config.response_buffer_bytes,
        max_connections: config.max_connections,
        abort_on_close: config.abort_on_close,
        can_upgrade: !config.upgrades.is_empty(),
        proxy_peers: config.proxy_protocol.then(|| ArcSwap::from_pointee(trusted_proxies.to_vec())),
        connections: AtomicUsize::new(0),
        addresses: Addresses::new(config.max_connections_per_ip),
        idlest: Idlest::default(),
        closed_door: AtomicBool::new(false),
        draining: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
    })
}

impl Running {
    fn spawn(&mut self, workers: usize, wake: Wake) -> io::Result<()> {
        let keeper = Keeper::new(Arc::clone(&self.core), wake)?;
        self.threads.push(thread::Builder::new().name("keeper".into()).spawn(move || keeper.run())?);
        for number in 0..workers {
            let core = Arc::clone(&self.core);
            let builder = thread::Builder::new().name(format!("worker-{number}")).stack_size(STACK_BYTES);
            self.threads.push(builder.spawn(move || Worker::new(core, number, true).run())?);
        }
        Ok(())
    }

    /// Where it listens: the real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// New connections of other peers begin with a PROXY header from now on, if any do.
    pub fn set_trusted_proxies(&self, trusted: &[IpNet]) {
        if let Some(peers) = &self.core.proxy_peers {
            peers.store(Arc::new(trusted.to_vec()));
        }
    }

    /// Takes no new connections; kept ones end with their next answer, or when they have been idle for 2 s.
    pub fn stop_accepting(&self) {
        if !self.inherited {
            // Whoever is connected already is let in: a listener that ends resets those that it still has.
            (0..self.core.listeners.len()).for_each(|index| self.core.accept(index));
        }
        self.core.closed_door.store(true, Ordering::SeqCst);
        for listener in &self.core.listeners {
            let _ = epoll::delete(&self.core.epoll, listener);
            if !self.inherited {
                // Clients are refused from now on, instead of waiting in a queue that nobody empties.
                let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
            }
        }
        self.core.draining.store(true, Ordering::SeqCst);
        self.core.mail.wake();
    }

    /// Stops accepting and waits until the last connection is closed; false when that took longer than `patience`.
    pub fn drain(&self, patience: Duration) -> bool {
        self.stop_accepting();
        let until = self.core.clock.now().saturating_add(nanos(patience));
        loop {
            if self.core.connections.load(Ordering::SeqCst) == 0 {
                return true;
            }
            if self.core.clock.now() >= until {
                return false;
            }
            thread::sleep(DRAIN_LOOK);
        }
    }

    /// Ends all threads; what is still open is closed. Waits for workers, so for whatever they wait for.
    pub fn stop(self) {
        self.stop_accepting();
        self.core.stopping.store(true, Ordering::SeqCst);
        self.end.wake();
        self.core.mail.wake();
        self.core.gate.close();
        for thread in self.threads {
            // A worker catches panics; one that got through has been logged.
            let _ = thread.join();
        }
    }

    /// Counts connections and workers. Walks the table: for a scrape, not for a request.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            workers_busy: self.core.gate.busy() + self.core.seats.taken(),
            uploads_waiting: self.core.uploads.waiting(),
            ..Stats::default()
        };
        self.core.table.walk(|_, due| match due.phase {
            Phase::Vacant => {}
            Phase::Head | Phase::Body | Phase::UploadPlace | Phase::Seat => stats.reading += 1,
            Phase::Busy | Phase::Answer | Phase::Linger => stats.busy += 1,
            Phase::Idle => stats.idle += 1,
            Phase::Backend | Phase::ClientWritable | Phase::UpstreamReadable => stats.parked += 1,
            Phase::Relay => stats.relay += 1,
        });
        stats
    }
}
