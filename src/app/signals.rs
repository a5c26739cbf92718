//! The signals of the process, one after the other. A second signal to stop ends the process at once.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
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
        // One place is for the first signal to stop, which must not be dropped.
        let (send, receive) = bounded(QUEUE + 1);
        thread::Builder::new().name("signals".into()).spawn(move || {
            pass_on(caught.forever(), &send, |number| {
                // This fails only for signals that don't end a process.
                let _ = emulate_default_handler(number);
            });
        })?;
        Ok(Self(receive))
    }

    /// The signals as they come. Blocks for the next one.
    pub fn stream(&self) -> impl Iterator<Item = Signal> {
        self.0.iter()
    }
}

/// Queues signals as long as there are some. A second one to stop means: `end` now.
fn pass_on(numbers: impl IntoIterator<Item = i32>, queue: &Sender<Signal>, end: impl Fn(i32)) {
    let mut stopping = false;
    for number in numbers {
        let name = signal_name(number).unwrap_or("a signal");
        let signal = match number {
            SIGTERM | SIGINT if stopping => {
                end(number);
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
        if matches!(signal, Signal::Stop(_)) || queue.len() < QUEUE {
            // Fails only if nobody takes signals any more.
            let _ = queue.try_send(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_signal_to_stop_is_queued_behind_any_number_of_others() {
        let (send, receive) = bounded(QUEUE + 1);
        let ended = Cell::new(0);
        let numbers = std::iter::repeat_n(SIGHUP, 100).chain([SIGTERM, SIGHUP, SIGINT]);
        pass_on(numbers, &send, |_| ended.set(ended.get() + 1));
        let queued: Vec<Signal> = receive.try_iter().collect();
        assert_eq!(queued.len(), QUEUE + 1);
        assert_eq!(queued.last(), Some(&Signal::Stop("SIGTERM")));
        assert_eq!(ended.get(), 1, "the second one ends the process");
    }
}
