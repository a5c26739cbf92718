//! Signals, one after the other. A second request to stop ends the process at once, by the signal itself.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::{emulate_default_handler, signal_name};

/// Signals that wait to be handled; one more of the same kind than that tells nothing new.
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
    /// SIGUSR2: never kills.
    Unused(&'static str),
}

/// The signals of this process.
pub(super) struct Signals(Receiver<Signal>);

impl Signals {
    /// From now on no signal of ours kills the process unasked.
    pub fn catch() -> io::Result<Self> {
        let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
        let (send, receive) = bounded(QUEUE);
        thread::Builder::new().name("signals".into()).spawn(move || {
            let mut stopping = false;
            for number in caught.forever() {
                let name = signal_name(number).unwrap_or("a signal");
                let signal = match number {
                    SIGTERM | SIGINT if stopping => {
                        // A second signal means: end now. Only fails for signals that don't end a process.
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
                // Full: as many wait already.
                let _ = send.try_send(signal);
            }
        })?;
        Ok(Self(receive))
    }

    /// Each signal as it comes.
    pub fn stream(&self) -> impl Iterator<Item = Signal> {
        self.0.iter()
    }
}
