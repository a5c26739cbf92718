//! Whether more running workers would get anything done. When the processors are the bottleneck, another worker only adds
//! switches; when backends are, another worker is another request under way. Both look alike from inside, so the kernel
//! is asked: how many threads of the machine want to run, how much of it is ours, and how long our own threads wait for a
//! processor.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::time::{ClockId, clock_gettime};

use balancer_time::Nanos;

/// See the module. The keeper's own.
pub(super) struct Pressure {
    /// `/proc/loadavg`; without it nothing is ever called saturated.
    loadavg: Option<File>,
    processors: u32,
    /// Threads that want to run, in eighths: a mean over the last eight or so looks.
    runnable_x8: u32,
    looked_at: Nanos,
    own: Own,
    /// `schedstat` of the keeper itself: opened by its own thread.
    schedstat: Option<File>,
    waits: Waits,
}

/// What a look brought.
pub(super) struct Look {
    /// Whether the processors are the bottleneck.
    pub saturated: bool,
    /// What all our threads have used since this was last said, in hundredths of one processor.
    pub used: Option<u64>,
}

/// What all our threads used lately, in hundredths of one processor, and what it was last computed from.
#[derive(Clone, Copy, Default)]
struct Own {
    used: u64,
    ns: Nanos,
    at: Nanos,
}

/// How often a thread was given a processor, and how long it waited for that, since it began.
#[derive(Clone, Copy, Default)]
struct Waits {
    ns: u64,
    times: u64,
}

/// How often it is worth looking.
const INTERVAL_NS: Nanos = 16_000_000;
/// What all our threads used takes the kernel a walk over them, 90 µs for 300: not so often.
const OWN_INTERVAL_NS: Nanos = 128_000_000;
/// From this share of all processors, in percent, we are part of what keeps them busy.
const OWN_PERCENT: u64 = 15;
/// With this mean wait for a processor our own threads suffer from it, whoever keeps them busy. On an idle machine it is
/// below 20 µs.
const LONG_WAIT_NS: u64 = 100_000;

impl Pressure {
    pub fn new() -> Self {
        Self {
            loadavg: File::open("/proc/loadavg").ok(),
            processors: processors(),
            runnable_x8: 0,
            looked_at: 0,
            own: Own::default(),
            schedstat: None,
            waits: Waits::default(),
        }
    }

    /// At most once an interval.
    pub fn look(&mut self, now: Nanos) -> Option<Look> {
        let span = now.saturating_sub(self.looked_at);
        if span < INTERVAL_NS {
            return None;
        }
        self.looked_at = now;
        // One of them is the keeper, which looks.
        let runnable = self.runnable()?.saturating_sub(1);
        self.runnable_x8 = self.runnable_x8 - self.runnable_x8 / 8 + runnable;
        let wait_ns = self.mean_wait();
        let used = self.used(now);
        let own_percent = self.own.used / u64::from(self.processors).max(1);
        let saturated = is_saturated(self.runnable_x8, self.processors, own_percent, wait_ns);
        Some(Look { saturated, used })
    }

    fn used(&mut self, now: Nanos) -> Option<u64> {
        let span = now.saturating_sub(self.own.at);
        if span < OWN_INTERVAL_NS {
            return None;
        }
        let ns = own_processor_time();
        let used = ns.saturating_sub(self.own.ns).saturating_mul(100) / span;
        self.own = Own { used, ns, at: now };
        Some(used)
    }

    /// The keeper's mean wait for a processor since the last look; 0 where the kernel does not count it.
    fn mean_wait(&mut self) -> u64 {
        if self.schedstat.is_none() {
            self.schedstat = File::open("/proc/thread-self/schedstat").ok();
        }
        let mut text = [0; 96];
        let count = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let Some(waits) = std::str::from_utf8(&text[..count]).ok().and_then(parse_waits) else { return 0 };
        let before = std::mem::replace(&mut self.waits, waits);
        waits.ns.saturating_sub(before.ns) / waits.times.saturating_sub(before.times).max(1)
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

/// Three numbers: time on a processor, time waiting for one, how often it got one (proc_schedstat in the kernel's
/// documentation, sched-stats).
fn parse_waits(schedstat: &str) -> Option<Waits> {
    let mut words = schedstat.split_whitespace().skip(1);
    Some(Waits { ns: words.next()?.parse().ok()?, times: words.next()?.parse().ok()? })
}

fn is_saturated(runnable_x8: u32, processors: u32, own_percent: u64, wait_ns: u64) -> bool {
    runnable_x8 > processors * 8 && (own_percent >= OWN_PERCENT || wait_ns >= LONG_WAIT_NS)
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
        let waits = parse_waits("48621 2493046 3\n").expect("three numbers");
        assert_eq!((waits.ns, waits.times), (2_493_046, 3));
        assert!(parse_waits("0 0").is_none());
        for (list, count) in [("0", 1), ("0-1", 2), ("0-3,8", 5), ("0-3,8-11", 8), ("", 0), ("x", 0)] {
            assert_eq!(count_ranges(list), count, "{list:?}");
        }
    }

    #[test]
    fn saturated_means_that_all_processors_are_wanted_and_that_we_are_why() {
        let ms = 1_000_000;
        // (mean runnable in eighths, processors, our share, our mean wait)
        for (runnable_x8, processors, percent, wait_ns, saturated) in [
            (8 * 5, 2, 50, 0, true),
            (8 * 2, 2, 50, 0, false),
            (8 * 2, 2, 50, ms, false),
            (8 * 50, 2, 14, 0, false),
            (8 * 50, 2, 14, ms, true),
            (8 * 50, 2, 15, 0, true),
            (0, 2, 0, 0, false),
        ] {
            let verdict = is_saturated(runnable_x8, processors, percent, wait_ns);
            assert_eq!(verdict, saturated, "{runnable_x8} {percent} {wait_ns}");
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
