//! A line on the terminal that shows the progress of an import.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::clock::Clock;
use balancer_time::nanos;

/// Least time before the line is drawn again.
const STEP: Duration = Duration::from_millis(200);

/// Width of the bar, in characters.
const WIDTH: usize = 30;

/// The line. Nothing is drawn where stderr is not a terminal.
pub struct Progress<'a> {
    clock: &'a Clock,
    size: Option<u64>,
    started_ns: u64,
    drawn_ns: u64,
    terminal: bool,
    visible: bool,
}

impl<'a> Progress<'a> {
    /// `size`: the size of the source in bytes, where it is known.
    pub fn new(size: Option<u64>, clock: &'a Clock) -> Self {
        let now_ns = clock.now();
        let terminal = std::io::stderr().is_terminal();
        Self { clock, size, started_ns: now_ns, drawn_ns: now_ns, terminal, visible: false }
    }

    /// Draws the line again if it is time to.
    pub fn show(&mut self, read: u64, imported: u64, wrong: usize) {
        if !self.terminal {
            return;
        }
        let now_ns = self.clock.now();
        if now_ns.saturating_sub(self.drawn_ns) < nanos(STEP) {
            return;
        }
        self.drawn_ns = now_ns;
        self.visible = true;
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(self.started_ns));
        // When stderr is closed, there is no place to report that.
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", text(self.size, read, imported, wrong, elapsed));
    }

    /// Removes the line, so that something else can be written in its place.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.visible) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn text(size: Option<u64>, read: u64, imported: u64, wrong: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = (imported as f64 / seconds) as u64;
    let wrong = if wrong == 0 { String::new() } else { format!(", {wrong} wrong") };
    let Some(size) = size.filter(|size| *size > 0) else {
        return format!("{imported} limits, {rate} a second{wrong}");
    };
    let share = (read as f64 / size as f64).clamp(0.0, 1.0);
    let full = (share * WIDTH as f64) as usize;
    let left = if share > 0.0 { (seconds / share * (1.0 - share)).round() as u64 } else { 0 };
    format!(
        "[{}{}] {:3.0} %  {imported} limits, {rate} a second{wrong}, {left} s left",
        "#".repeat(full),
        "-".repeat(WIDTH - full),
        share * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_it_is() {
        let second = Duration::from_secs(1);
        assert_eq!(
            text(Some(200), 50, 1_000, 0, 2 * second),
            "[#######-----------------------]  25 %  1000 limits, 500 a second, 6 s left"
        );
        assert_eq!(
            text(Some(200), 500, 7, 2, second),
            "[##############################] 100 %  7 limits, 7 a second, 2 wrong, 0 s left"
        );
        assert_eq!(text(None, 50, 10, 0, second), "10 limits, 10 a second");
        assert_eq!(text(Some(0), 0, 0, 0, Duration::ZERO), "0 limits, 0 a second");
        assert!(text(Some(9), 0, 0, 0, second).ends_with("0 s left"));
    }
}
