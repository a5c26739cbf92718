//! Lines on their way to a file or a pipe. A thread of its own writes them from a bounded queue, so that a full disk or
//! a stuck pipe slows no caller. Lines that do not fit into the queue are dropped, counted and reported.
//!
//! A line that wakes a sleeping thread costs a context switch, which is more than everything else about a line costs.
//! So the writer sleeps on the queue only while no lines come. Once one came, it collects lines for `GATHER` at a time
//! and writes them together.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, after, bounded, never, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Clock;
use crate::files;
use balancer_time::Nanos;
use balancer_time::nanos;

mod entry;
mod json;
mod stamp;

pub use entry::push_entry;
pub use json::push_json_text;
pub use stamp::{push_log_time, push_number, push_time};

/// Most lines in the queue: about 160 ms at 100,000 lines a second.
const QUEUE_LINES: usize = 16_384;

/// Most bytes in the queue, whatever the lines' length.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes that are taken from the queue before they are written.
const BATCH_BYTES: usize = 64 * 1024;

/// How long lines are collected once some came.
const GATHER: Duration = Duration::from_millis(10);

/// What a pipe that polls as writable takes without blocking (POSIX: at least one page, `PIPE_BUF`).
const PIPE_BYTES: usize = 4096;

/// How often a stuck pipe is looked at again.
const STUCK_POLL: Duration = Duration::from_millis(100);

/// Least time between two reports of dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Where lines go.
#[derive(Debug)]
pub enum Output {
    /// A pipe, a terminal or a socket, whose reader may stop reading.
    Pipe(File),
    /// A file that is appended to.
    File {
        /// For opening it again.
        path: PathBuf,
        /// Open for appending.
        file: File,
    },
}

impl Output {
    /// Stdout or stderr, by a descriptor of our own, so that a stuck write does not hold the lock of `std`.
    pub fn of(stream: impl AsFd) -> io::Result<Self> {
        Ok(Self::Pipe(File::from(stream.as_fd().try_clone_to_owned()?)))
    }

    /// A file, made with its folders when missing.
    pub fn append(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            files::make_folder(folder)?;
        }
        // Symbolic links are followed here, because `file:/dev/stderr` is one.
        let file = files::options().create(true).append(true).open(path)?;
        Ok(Self::File { path: path.to_owned(), file })
    }
}

/// Where dropped lines are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReport {
    /// In the error log.
    ErrorLog,
    /// In a line among the others, which is for the error log itself.
    InBand,
    /// In a line among the others, as a JSON object.
    InBandJson,
}

enum Order {
    Reopen,
    Stop { within: Duration },
}

/// The callers' side of the queue. When it is dropped, the thread writes what is queued and ends.
#[derive(Debug)]
pub struct LogLines {
    lines: Sender<Vec<u8>>,
    orders: Sender<Order>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl LogLines {
    /// Starts the thread. `name` is the name of the thread, and of the log in its reports.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &'static str, output: Output, report: LogReport, clock: Clock) -> io::Result<Self> {
        let (lines, incoming) = bounded(QUEUE_LINES);
        let (orders, ordered) = bounded(4);
        let (alive, ended) = bounded(0);
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            name,
            output,
            report,
            clock,
            incoming,
            ordered,
            shared: Arc::clone(&shared),
            batch: Vec::with_capacity(BATCH_BYTES),
            batch_lines: 0,
            reported: 0,
            quiet_until: 0,
            give_up_at: None,
            broken_line: false,
            failing: false,
        };
        std::thread::Builder::new().name(name.into()).spawn(move || {
            // Dropped when the thread ends, which is what `stop` waits for.
            let _alive: Sender<()> = alive;
            writer.run();
        })?;
        Ok(Self { lines, orders, ended, shared })
    }

    /// Queues one line, its newline included. Never waits; a line that does not fit is dropped and counted.
    pub fn push(&self, line: Vec<u8>) {
        let bytes = line.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > QUEUE_BYTES || self.lines.try_send(line).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens a file again under its name, for log rotation; does nothing to a pipe. When that fails, the old file stays
    /// in use.
    pub fn reopen(&self) {
        match self.orders.try_send(Order::Reopen) {
            // Full: the orders that are queued reopen the file after this call. Disconnected: the thread has ended.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Writes what is queued and ends the thread; waits at most `within`, and what is not written by then is dropped.
    pub fn stop(&self, within: Duration) {
        if self.orders.send_timeout(Order::Stop { within }, within).is_ok() {
            // The channel never carries anything: this returns when the thread has ended.
            let _ = self.ended.recv_timeout(within + 2 * STUCK_POLL);
        }
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// The thread's side.
struct Writer {
    name: &'static str,
    output: Output,
    report: LogReport,
    clock: Clock,
    incoming: Receiver<Vec<u8>>,
    ordered: Receiver<Order>,
    shared: Arc<Shared>,
    batch: Vec<u8>,
    batch_lines: u64,
    /// How many dropped lines have been reported.
    reported: u64,
    /// No report before then.
    quiet_until: Nanos,
    /// When to give up on a reader that does not read; set by [`Order::Stop`].
    give_up_at: Option<Nanos>,
    /// The last write ended in the middle of a line, so the next write begins with a newline.
    broken_line: bool,
    /// The last write failed, and that was reported.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut idle = true;
        loop {
            let open = if idle { self.wait() } else { self.gather() };
            let taken = self.drain();
            if !open || self.give_up_at.is_some() {
                // The order may have been taken in the middle of a write, while lines from before it were still queued.
                self.drain();
                self.report_dropped();
                return;
            }
            self.report_dropped();
            idle = taken == 0;
        }
    }

    /// Sleeps until a line or an order comes, or a report is due. False when every sender is gone.
    fn wait(&mut self) -> bool {
        let unsaid = self.shared.dropped.load(Ordering::Relaxed) > self.reported;
        let until_report =
            Duration::from_nanos(self.quiet_until.saturating_sub(self.clock.now())).max(GATHER);
        let due = if unsaid { after(until_report) } else { never() };
        select! {
            recv(self.incoming) -> line => match line {
                Ok(line) => self.take(line),
                Err(_) => return false,
            },
            recv(self.ordered) -> order => match order {
                Ok(order) => self.obey(order),
                Err(_) => return false,
            },
            recv(due) -> _ => {}
        }
        true
    }

    /// Lets lines queue up for [`GATHER`], or until an order comes. False when every sender is gone.
    fn gather(&mut self) -> bool {
        match self.ordered.recv_timeout(GATHER) {
            Ok(order) => self.obey(order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop { within } => {
                self.give_up_at = Some(self.clock.now().saturating_add(nanos(within)));
            }
            Order::Reopen => {
                // Lines from before the order belong into the old file.
                self.drain();
                if let Output::File { path, .. } = &self.output {
                    match Output::append(path) {
                        Ok(output) => self.output = output,
                        Err(error) => {
                            log::error!("{}: {}: {error}; the old file stays", self.name, path.display())
                        }
                    }
                }
            }
        }
    }

    /// Writes everything that is queued, and what comes meanwhile, up to the size of the queue, so that it ends under
    /// any load. Returns the number of lines.
    fn drain(&mut self) -> usize {
        let mut taken = usize::from(!self.batch.is_empty());
        while taken <= QUEUE_LINES
            && let Ok(line) = self.incoming.try_recv()
        {
            taken += 1;
            self.take(line);
            if self.batch.len() >= BATCH_BYTES {
                self.write();
            }
        }
        self.write();
        taken
    }

    fn take(&mut self, line: Vec<u8>) {
        self.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        self.batch.extend_from_slice(&line);
        self.batch_lines += 1;
    }

    fn write(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        let mends = std::mem::take(&mut self.broken_line);
        if mends {
            batch.insert(0, b'\n');
        }
        match self.write_all(&batch) {
            Ok(()) => self.failing = false,
            Err((written, error)) => {
                let newlines = batch[..written].iter().filter(|byte| **byte == b'\n').count() as u64;
                let whole = newlines.saturating_sub(u64::from(mends));
                self.shared.dropped.fetch_add(self.batch_lines.saturating_sub(whole), Ordering::Relaxed);
                self.broken_line = if written > 0 { batch[written - 1] != b'\n' } else { mends };
                if !std::mem::replace(&mut self.failing, true) && self.report == LogReport::ErrorLog {
                    log::error!("{}: cannot be written: {error}", self.name);
                }
            }
        }
        self.batch = batch;
        self.batch.clear();
        self.batch_lines = 0;
    }

    /// Writes all bytes. The error says how many of them were written, and why no more.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_piece(&bytes[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }

    fn write_piece(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while let Output::Pipe(pipe) = &self.output {
            let given_up = self.give_up_at.is_some_and(|at| self.clock.now() >= at);
            if writable(pipe, if given_up { Duration::ZERO } else { STUCK_POLL })? {
                let mut pipe: &File = pipe;
                return match pipe.write(&bytes[..bytes.len().min(PIPE_BYTES)]) {
                    // Another process made the pipe non-blocking, and it filled up since we polled it.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    other => other,
                };
            }
            while let Ok(order) = self.ordered.try_recv() {
                // A pipe can't be opened again.
                if matches!(order, Order::Stop { .. }) {
                    self.obey(order);
                }
            }
            if given_up {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "its reader does not read"));
            }
            if self.report == LogReport::ErrorLog {
                self.report_dropped();
            }
        }
        match &mut self.output {
            Output::File { file, .. } => file.write(bytes),
            Output::Pipe(_) => Ok(0),
        }
    }

    fn report_dropped(&mut self) {
        let (dropped, now) = (self.shared.dropped.load(Ordering::Relaxed), self.clock.now());
        let last_word = self.give_up_at.is_some();
        if dropped == self.reported || (now < self.quiet_until && !last_word) {
            return;
        }
        let lost = dropped - self.reported;
        self.reported = dropped;
        self.quiet_until = now.saturating_add(nanos(REPORT_INTERVAL));
        let text =
            format!("{}: lines dropped: {lost}; their reader is too slow or their disk full", self.name);
        match self.report {
            LogReport::ErrorLog => log::error!("{text}"),
            LogReport::InBand | LogReport::InBandJson => {
                let json = self.report == LogReport::InBandJson;
                push_entry(&mut self.batch, self.clock.wall(), log::Level::Error, &text, json);
                self.batch_lines += 1;
                self.write();
            }
        }
    }
}

/// Waits until the pipe takes bytes. True also when its reader is gone: the write then fails and says so.
fn writable(pipe: &File, at_most: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(pipe, PollFlags::OUT)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
