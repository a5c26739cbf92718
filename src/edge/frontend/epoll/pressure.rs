//! Whether more running workers would get anything done. When the processors are the bottleneck, another worker only adds
//! switches; when backends are, another worker is another request under way. Both look alike from inside, so the kernel
//! is asked: how many threads of the machine want to run, and how much of it is ours.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::time::{ClockId, clock_gettime};

use crate::rules::Nanos;

/// See the module. The keeper's own.
pub(super) struct Pressure {
    /// `/proc/loadavg`; without it nothing is ever called saturated.
    loadavg: Option<File>,
    processors: u32,
    /// Threads that want to run, in eighths: a mean over the last eight or so looks.
    runnable_x8: u32,
    looked_at: Nanos,
    own_ns: Nanos,
}

/// How often it is worth looking: what our threads used takes a walk over all of them.
const INTERVAL_NS: Nanos = 16_000_000;
/// Below this share of all processors, in percent, we are not what keeps them busy: then waiting is waiting.
const OWN_PERCENT: u64 = 15;

impl Pressure {
    pub fn new() -> Self {
        Self {
            loadavg: File::open("/proc/loadavg").ok(),
            processors: processors(),
            runnable_x8: 0,
            looked_at: 0,
            own_ns: 0,
        }
    }

    /// Whether the processors are the bottleneck, at most once an interval.
    pub fn look(&mut self, now: Nanos) -> Option<bool> {
        let span = now.saturating_sub(self.looked_at);
        if span < INTERVAL_NS {
            return None;
        }
        let own_ns = own_processor_time();
        let own = own_ns.saturating_sub(self.own_ns);
        (self.looked_at, self.own_ns) = (now, own_ns);
        // One of them is the keeper, which looks.
        let runnable = self.runnable()?.saturating_sub(1);
        self.runnable_x8 = self.runnable_x8 - self.runnable_x8 / 8 + runnable;
        Some(is_saturated(self.runnable_x8, self.processors, own, span))
    }

    fn runnable(&self) -> Option<u32> {
        let mut text = [0; 128];
        let count = self.loadavg.as_ref()?.read_at(&mut text, 0).ok()?;
        parse_runnable(std::str::from_utf8(&text[..count]).ok()?)
    }
}

/// The fourth word is `RUNNABLE/ALL` (proc_loadavg(5)).
fn parse_runnable(loadavg: &str) -> Option<u32> {
    loadavg.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
}

fn is_saturated(runnable_x8: u32, processors: u32, own_ns: Nanos, span_ns: Nanos) -> bool {
    let share = own_ns.saturating_mul(100) / span_ns.saturating_mul(u64::from(processors)).max(1);
    runnable_x8 > processors * 8 && share >= OWN_PERCENT
}

/// Processors of the machine, since the threads are the machine's, too: more than a container may use.
fn processors() -> u32 {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = count_ranges(online.trim());
    if count > 0 { count } else { std::thread::available_parallelism().map_or(1, |count| count.get() as u32) }
}

/// `0-3,8` is five.
fn count_ranges(list: &str) -> u32 {
    list.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
        })
        .sum()
}

fn own_processor_time() -> Nanos {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts() {
        assert_eq!(parse_runnable("0.20 0.18 0.12 13/746 11206\n"), Some(13));
        assert_eq!(parse_runnable("0.20 0.18"), None);
        for (list, count) in [("0", 1), ("0-1", 2), ("0-3,8", 5), ("0-3,8-11", 8), ("", 0), ("x", 0)] {
            assert_eq!(count_ranges(list), count, "{list:?}");
        }
    }

    #[test]
    fn saturated_means_that_all_processors_are_wanted_and_that_we_are_why() {
        let ms = 1_000_000;
        // (mean runnable in eighths, processors, our time, span)
        for (runnable_x8, processors, own, saturated) in [
            (8 * 5, 2, 8 * ms, true),
            (8 * 2, 2, 8 * ms, false),
            (8 * 50, 2, 2 * ms, false),
            (8 * 50, 2, 3 * ms, true),
            (0, 2, 0, false),
        ] {
            assert_eq!(is_saturated(runnable_x8, processors, own, 8 * ms), saturated, "{runnable_x8} {own}");
        }
    }

    #[test]
    fn it_looks_at_this_machine() {
        let mut pressure = Pressure::new();
        assert!(pressure.look(INTERVAL_NS).is_some());
        assert!(pressure.look(INTERVAL_NS + 1).is_none(), "not again so soon");
        assert!(pressure.processors >= 1);
    }
}
