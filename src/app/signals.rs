//! The signals of the process, one after the other. A second signal to stop ends the process at once.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::{emulate_default_handler, signal_name};

/// Most signals that wait to be handled. More are dropped.
const QUEUE: usize = 16;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM, SIGINT.
    Stop(&'static str),
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    ReopenLogs,
    /// SIGUSR2: is caught, so that it does not kill the process, and does nothing.
    Unused(&'static str),
}

/// The signals of this process.
pub(super) struct Signals(Receiver<Signal>);

impl Signals {
    /// Catches the signals from now on: none of them kills the process by itself, except a second one to stop.
    pub fn catch() -> io::Result<Self> {
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
        let (send, receive) = bounded(QUEUE);
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut stopping = false;
            for number in caught.forever() {
                let name = signal_name(number).unwrap_or("a signal");
                let signal = match number {
                    SIGTERM | SIGINT if stopping => {
                        // A second signal means: end now. This fails only for signals that don't end a process.
                        let _ = emulate_default_handler(number);
                        continue;
                    }
                    SIGTERM | SIGINT => {
                        stopping = true;
                        Signal::Stop(name)
                    }
                    SIGHUP => Signal::Reload,
                    SIGUSR1 => Signal::ReopenLogs,
                    _ => Signal::Unused(name),
                };
                // Fails if the queue is full.
                let _ = send.try_send(signal);
            }
        })?;
        Ok(Self(receive))
    }

    /// The signals as they come. Blocks for the next one.
    pub fn stream(&self) -> impl Iterator<Item = Signal> {
        self.0.iter()
    }
}
