//! A backend of the simulation: so many processors, whose work is shared by all requests that it has.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balancer_pool::fair::{AutoBounds, AutoLimit};

/// How many requests a backend gets.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// All.
    None,
    /// So many.
    Static(u32),
    /// As many as were measured.
    Auto,
}

/// What `balancing.auto` says.
pub const AUTO: AutoBounds = AutoBounds { start: 16, min: 1, max: 1000 };

/// See the module. Times are in seconds.
pub struct Backend {
    pub processors: f64,
    pub speed: f64,
    /// Work that each request has been given since the beginning.
    virtual_s: f64,
    at_s: f64,
    /// (virtual time of its end as ordered bits, order, request).
    work: BinaryHeap<Reverse<(u64, u64, usize)>>,
    order: u64,
    /// A finish that was foreseen with another number is void.
    pub version: u64,
    pub in_flight: u32,
    pub bound: Bound,
    pub auto: AutoLimit,
    pub done_s: f64,
}

impl Backend {
    pub fn new(processors: f64, bound: Bound) -> Self {
        Self {
            processors,
            speed: 1.0,
            virtual_s: 0.0,
            at_s: 0.0,
            work: BinaryHeap::new(),
            order: 0,
            version: 0,
            in_flight: 0,
            bound,
            auto: AutoLimit::new(AUTO, 0),
            done_s: 0.0,
        }
    }

    pub fn limit(&self) -> u32 {
        match self.bound {
            Bound::None => u32::MAX,
            Bound::Static(most) => most,
            Bound::Auto => self.auto.limit(),
        }
    }

    fn rate(&self) -> f64 {
        self.speed * (self.processors / self.work.len() as f64).min(1.0)
    }

    fn advance(&mut self, now_s: f64) {
        if !self.work.is_empty() {
            self.virtual_s += (now_s - self.at_s) * self.rate();
        }
        self.at_s = now_s;
    }

    /// So many processors of that speed from now on; when the next request ends.
    pub fn set(&mut self, processors: f64, speed: f64, now_s: f64) -> Option<f64> {
        self.advance(now_s);
        (self.processors, self.speed) = (processors, speed);
        self.next()
    }

    /// A request begins to work; when the next one ends.
    pub fn work(&mut self, request: usize, cpu_s: f64, now_s: f64) -> Option<f64> {
        self.advance(now_s);
        self.order += 1;
        self.work.push(Reverse(((self.virtual_s + cpu_s).to_bits(), self.order, request)));
        self.next()
    }

    /// Whose work is done now.
    pub fn finish(&mut self, now_s: f64) -> usize {
        self.advance(now_s);
        self.work.pop().map(|Reverse((_, _, request))| request).expect("a finish was foreseen")
    }

    /// When the next request ends, if nothing changes until then.
    pub fn next(&mut self) -> Option<f64> {
        self.version += 1;
        let Reverse((end, _, _)) = self.work.peek()?;
        Some(self.at_s + (f64::from_bits(*end) - self.virtual_s).max(0.0) / self.rate())
    }
}
