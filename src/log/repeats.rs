//! Keeps one cause from filling the log: for a dead backend under 10,000 requests a second there is one line every 10
//! seconds, and each line says how many were left out before it.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;

use balancer_time::Nanos;
use balancer_time::nanos;

/// How long no line of a key is written after one was.
const QUIET: Duration = Duration::from_secs(10);

/// Most keys that are told apart; all further keys share one.
const MAX_KEYS: usize = 1024;

/// The key that is shared by all keys for which there is no room.
const CROWD: &str = "(others)";

/// When a line of each key was last written. Each call takes a lock, so it is meant for errors, not for every request.
#[derive(Debug, Default)]
pub struct LogLimit {
    lines: Mutex<HashMap<Box<str>, Line>>,
}

#[derive(Debug)]
struct Line {
    quiet_until: Nanos,
    suppressed: u64,
}

/// How many lines of the same key were left out since the last one. It is displayed as nothing when there were none,
/// else as ` (N more like this before)`; put it at the end of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(pub u64);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " ({lines} more like this before)"),
        }
    }
}

impl LogLimit {
    /// Asks whether a line of this key may be written now. `None`: it may not, and is counted as left out.
    pub fn admit(&self, key: &str, now: Nanos) -> Option<Suppressed> {
        let quiet_until = now.saturating_add(nanos(QUIET));
        let mut lines = self.lines.lock();
        let key = if lines.contains_key(key) || lines.len() < MAX_KEYS {
            key
        } else if lines.get(CROWD).is_some_and(|line| line.quiet_until > now) {
            // Under a flood of keys, the table is not searched for room at each of them.
            CROWD
        } else {
            // Keys that may be written again and left nothing out need not be remembered.
            lines.retain(|_, line| line.suppressed > 0 || line.quiet_until > now);
            if lines.len() < MAX_KEYS { key } else { CROWD }
        };
        match lines.get_mut(key) {
            Some(line) if line.quiet_until > now => {
                line.suppressed += 1;
                None
            }
            Some(line) => {
                line.quiet_until = quiet_until;
                Some(Suppressed(std::mem::take(&mut line.suppressed)))
            }
            None => {
                lines.insert(key.into(), Line { quiet_until, suppressed: 0 });
                Some(Suppressed(0))
            }
        }
    }

    /// Forgets the keys of which a line may be written again, and returns those of them that left lines out, with the
    /// count. To be called now and then, and at the end, so that the end of a burst is reported, too.
    pub fn sweep(&self, now: Nanos) -> Vec<(String, u64)> {
        let mut left_out = Vec::new();
        self.lines.lock().retain(|key, line| {
            let keep = line.quiet_until > now;
            if !keep && line.suppressed > 0 {
                left_out.push((key.to_string(), line.suppressed));
            }
            keep
        });
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_burst_is_one_line_and_the_next_says_how_many_were_left_out() {
        let limit = LogLimit::default();
        assert_eq!(limit.admit("a", 0), Some(Suppressed(0)));
        for _ in 0..10_000 {
            assert_eq!(limit.admit("a", 9 * SECOND), None);
        }
        assert_eq!(limit.admit("b", 9 * SECOND), Some(Suppressed(0)), "another key has its own line");
        let next = limit.admit("a", 10 * SECOND);
        assert_eq!(next, Some(Suppressed(10_000)));
        assert_eq!(next.unwrap().to_string(), " (10000 more like this before)");
        assert_eq!(limit.admit("a", 20 * SECOND).unwrap().to_string(), "");
    }

    #[test]
    fn the_end_of_a_burst_is_said_by_the_sweep() {
        let limit = LogLimit::default();
        for key in ["a", "a", "a", "b"] {
            let _ = limit.admit(key, 0);
        }
        assert_eq!(limit.sweep(9 * SECOND), []);
        assert_eq!(limit.sweep(10 * SECOND), [("a".to_owned(), 2)]);
        assert_eq!(limit.sweep(10 * SECOND), []);
        assert_eq!(limit.admit("a", 10 * SECOND), Some(Suppressed(0)));
    }

    #[test]
    fn a_flood_of_keys_shares_one_line_and_the_table_stays_bounded() {
        let limit = LogLimit::default();
        let admitted = (0..100_000).filter(|key| limit.admit(&key.to_string(), 5).is_some()).count();
        assert_eq!(admitted, MAX_KEYS + 1);
        assert_eq!(limit.lines.lock().len(), MAX_KEYS + 1);
        let later = 5 + 10 * SECOND;
        let admitted = (0..100_000).filter(|key| limit.admit(&format!("n{key}"), later).is_some()).count();
        assert!(admitted >= MAX_KEYS, "{admitted}: room is made when the time of a line is over");
        assert!(limit.lines.lock().len() <= MAX_KEYS + 1);
    }
}
