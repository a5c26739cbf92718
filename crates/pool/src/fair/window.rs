//! A window of time in which a backend is measured, between two decisions about its bound.

use balancer_time::Nanos;

/// Most times of answers that a window keeps. If there are more, it keeps every second one, then every fourth, and so
/// on.
const MAX_KEPT: usize = 4096;

/// One window.
#[derive(Debug, Default)]
pub(super) struct Window {
    began: Nanos,
    kept: Vec<Nanos>,
    /// One in so many is kept.
    every: u64,
    answers: u64,
    /// The integral of requests in flight over nanoseconds.
    area: u128,
    /// How long all places were taken.
    full: Nanos,
}

/// The results of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    pub answers: u64,
    /// The median time of an answer in seconds; 0 if there was none.
    pub median_s: f64,
    /// Answers a second.
    pub rate: f64,
    /// The mean number of requests in flight.
    pub in_flight: f64,
    /// The part of the window in which all places were taken, 0 to 1.
    pub full: f64,
}

impl Window {
    /// Begins an empty window.
    pub fn begin(&mut self, now: Nanos) {
        self.kept.clear();
        (self.began, self.every, self.answers, self.area, self.full) = (now, 1, 0, 0, 0);
    }

    pub fn answered(&mut self, took: Nanos) {
        if self.answers.is_multiple_of(self.every.max(1)) {
            if self.kept.len() == MAX_KEPT {
                let mut stays = false;
                self.kept.retain(|_| {
                    stays = !stays;
                    stays
                });
                self.every *= 2;
            }
            self.kept.push(took);
        }
        self.answers += 1;
    }

    /// So many requests were in flight for so long; `full`: all places were taken.
    pub fn held(&mut self, in_flight: u32, full: bool, span: Nanos) {
        self.area += u128::from(in_flight) * u128::from(span);
        self.full += if full { span } else { 0 };
    }

    pub fn answers(&self) -> u64 {
        self.answers
    }

    pub fn span(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.began)
    }

    /// The results, if the window ends at `now`.
    pub fn measured(&mut self, now: Nanos) -> Measured {
        let span = self.span(now).max(1) as f64;
        let middle = self.kept.len() / 2;
        let median = if self.kept.is_empty() { 0 } else { *self.kept.select_nth_unstable(middle).1 };
        Measured {
            answers: self.answers,
            median_s: median as f64 / 1e9,
            rate: self.answers as f64 / (span / 1e9),
            in_flight: self.area as f64 / span,
            full: self.full as f64 / span,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    #[test]
    fn a_window_is_measured() {
        let mut window = Window::default();
        window.begin(10 * S);
        assert_eq!(
            window.measured(11 * S),
            Measured { answers: 0, median_s: 0.0, rate: 0.0, in_flight: 0.0, full: 0.0 }
        );
        for took in [5, 1, 3, 2, 4] {
            window.answered(took * S);
        }
        window.held(2, false, S);
        window.held(4, true, S);
        let measured = window.measured(12 * S);
        assert_eq!(measured, Measured { answers: 5, median_s: 3.0, rate: 2.5, in_flight: 3.0, full: 0.5 });
    }

    #[test]
    fn memory_is_bounded_and_the_median_holds() {
        let mut window = Window::default();
        window.begin(0);
        for answer in 0..100_000 {
            window.answered(answer * 1000 % 99_991);
        }
        assert!(window.kept.len() <= MAX_KEPT);
        let Measured { answers, median_s, .. } = window.measured(S);
        assert_eq!(answers, 100_000);
        assert!((median_s * 1e9 / 50_000.0 - 1.0).abs() < 0.03, "{median_s}");
    }

    #[test]
    fn early_answers_count_as_much_as_late_ones() {
        let mut window = Window::default();
        window.begin(0);
        for answer in 0..100_000 {
            window.answered(if answer < 60_000 { S } else { 3 * S });
        }
        assert_eq!(window.measured(S).median_s, 1.0);
    }
}
