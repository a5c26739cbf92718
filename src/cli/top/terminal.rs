//! Takes over the screen of a terminal, so that single keys can be read. Dropping it gives the screen back, however the
//! command ends.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

use crate::cli::failure::CommandFailure;
use crate::clock::Clock;
use balancer_time::nanos;

/// Escape sequences: to the alternate screen without a cursor, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The screen.
pub struct Terminal {
    clock: Clock,
    /// The settings that stdin had before, where stdin is a terminal.
    before: Option<Termios>,
    ended: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

/// Why a wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// q, Ctrl-C, a signal, or the terminal is gone.
    Quit,
    /// It has another size.
    Resized,
    /// The time is up.
    Elapsed,
}

impl Terminal {
    /// Takes the screen. From here on signals end [`Terminal::wait`] and not the process, so that the screen is given
    /// back.
    ///
    /// # Errors
    /// When there is no terminal to draw on, or signals cannot be caught.
    pub fn take() -> Result<Self, CommandFailure> {
        let (ended, resized) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        signal_hook::flag::register(SIGWINCH, Arc::clone(&resized))?;
        let stdin = std::io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut single = before.clone();
            // Keys are read at once and not echoed. Ctrl-C still raises its signal.
            single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            let _ = tcsetattr(&stdin, OptionalActions::Now, &single);
        }
        // From here on, `Drop` restores what was changed.
        let terminal = Self { clock: Clock::real(), before, ended, resized };
        terminal.write(ENTER)?;
        Ok(terminal)
    }

    /// The size of the screen in columns and lines.
    pub fn size(&self) -> (u16, u16) {
        match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        }
    }

    /// Draws these lines over the last ones, without clearing the screen first, which would flicker.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&self, lines: &[String]) -> Result<(), CommandFailure> {
        let drawn: Vec<String> = lines.iter().map(|line| format!("{line}\x1b[K")).collect();
        self.write(&format!("\x1b[H{}\x1b[J", drawn.join("\r\n")))
    }

    fn write(&self, text: &str) -> Result<(), CommandFailure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Waits at most that long, for a key or a signal.
    pub fn wait(&self, time: Duration) -> Woken {
        let deadline_ns = self.clock.now().saturating_add(nanos(time));
        let stdin = std::io::stdin();
        loop {
            if self.ended.load(Ordering::Relaxed) {
                return Woken::Quit;
            }
            if self.resized.swap(false, Ordering::Relaxed) {
                return Woken::Resized;
            }
            let left = Duration::from_nanos(deadline_ns.saturating_sub(self.clock.now()));
            if left.is_zero() {
                return Woken::Elapsed;
            }
            // A signal that comes between the checks above and this call is noticed at most a second later.
            let left = Timespec::try_from(left.min(Duration::from_secs(1))).unwrap_or_default();
            let mut sources = [PollFd::new(&stdin, PollFlags::IN)];
            let watched = if self.before.is_some() { &mut sources[..] } else { &mut sources[..0] };
            if poll(watched, Some(&left)).is_ok_and(|ready| ready > 0) {
                let mut keys = [0; 16];
                // Not through `std`, which would keep keys in a buffer that `poll` does not see.
                match rustix::io::read(&stdin, &mut keys) {
                    Ok(0) | Err(_) => return Woken::Quit,
                    Ok(count) if keys[..count].iter().any(|key| b"qQ\x03\x04".contains(key)) => {
                        return Woken::Quit;
                    }
                    Ok(_) => {}
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // These fail when the terminal is gone; then there is nothing to restore.
        let _ = self.write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
