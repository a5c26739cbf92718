//! Measures how many requests at once a backend has a use for: `max_in_flight: "auto"`.
//!
//! A backend whose places are all taken and that answers as quickly as ever gets more places. If it has become slow,
//! a *trial* with fewer places is made. If as many answers come then, and more quickly, the places were *idle*, and
//! some are taken away. If there are fewer answers, as slow as before, the places are *busy*, and the backend itself
//! has become slower.

use std::collections::BTreeSet;

use super::window::{Measured, Window};
use balancer_time::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// A window lasts at least `SHORTEST`, and until it has so many answers or has lasted `LONGEST`.
const SHORTEST: Nanos = SECOND / 2;
const LONGEST: Nanos = 10 * SECOND;
const ANSWERS: u64 = 10;
/// The same for the window of a trial, which is compared with the one before.
const TRIAL_LONGEST: Nanos = 20 * SECOND;
const TRIAL_ANSWERS: u64 = 100;
/// A trial with fewer answers than `TRIAL_LEAST` has no verdict; with fewer than `TRIAL_TO_GROW` the bound does not
/// grow.
const TRIAL_LEAST: u64 = 20;
const TRIAL_TO_GROW: u64 = 50;
/// With fewer answers in a window, a bound does not grow above its start.
const ANSWERS_TO_GROW: u64 = 30;
/// The longest median, in seconds, for which measuring waits after a change.
const MOST_IGNORED_S: f64 = 5.0;
/// Seconds beside that until a trial's fewer places are what is measured.
const SETTLES_S: f64 = 0.4;
/// The part of the places that a trial leaves.
const TRIAL: f64 = 0.6;
/// A backend is slow if its median is more than so many times the base.
const TOLERANCE: f64 = 1.5;
/// Full windows from a verdict to the next trial: `BACK` while the backend is slow, else `EVERY`.
const BACK: u32 = 8;
const EVERY: u32 = 20;

/// Start and limits of a measured bound: `balancing.auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoBounds {
    /// The bound before anything was measured.
    pub start: u32,
    /// The lowest bound, at least 1.
    pub min: u32,
    /// The highest bound.
    pub max: u32,
}

impl Default for AutoBounds {
    fn default() -> Self {
        Self { start: 16, min: 1, max: 1_000 }
    }
}

/// The verdict of a trial with fewer places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// Places were idle: requests only waited in the backend instead of in the line. The bound is lowered.
    Idle,
    /// All places were busy. The bound is raised, if there were enough answers.
    Busy,
    /// Neither, or there were too few answers.
    None,
}

impl ProbeVerdict {
    /// All verdicts, in order.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Busy, Self::None];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::None => "none",
        }
    }
}

/// Why a bound has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoMove {
    /// All places were taken, and answers came as quickly as ever: it grew.
    Quick,
    /// A trial with fewer places began.
    Trial,
    /// A trial ended with that verdict.
    Verdict(ProbeVerdict),
    /// Other limits were set.
    Bounds,
}

impl AutoMove {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Trial => "trial",
            Self::Verdict(verdict) => verdict.name(),
            Self::Bounds => "bounds",
        }
    }
}

/// A request in flight on the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "it is in flight until its end is told"]
pub struct AutoAttempt {
    began: Nanos,
    number: u64,
}

/// What was measured before a trial.
#[derive(Debug)]
struct Trial {
    /// Answers a second.
    rate: f64,
    median_s: f64,
    limit: f64,
    /// Whether there were enough answers in a window for the bound to grow above its start.
    may_grow: bool,
}

impl Trial {
    /// How idle the places were that the trial took away, about 0 to 1: the mean of what the times and the number of
    /// answers say. `kept`: the part of the places that the trial left, below 1.
    fn idle(&self, measured: &Measured, kept: f64) -> f64 {
        let by_median = (1.0 - measured.median_s / self.median_s) / (1.0 - kept);
        let by_rate = 1.0 - (1.0 - measured.rate / self.rate) / (1.0 - kept);
        f64::midpoint(by_median, by_rate)
    }
}

/// The measured bound of one backend. Here a request is in flight up to its answer's head.
#[derive(Debug)]
pub struct AutoLimit {
    bounds: AutoBounds,
    limit: f64,
    /// The base: the median in seconds while the backend is not slow; `None`: nothing was measured yet.
    base_s: Option<f64>,
    /// The median of the last window in seconds; 0: there was no answer.
    last_s: f64,
    window: Window,
    /// What is measured before this is ignored.
    ignored_until: Nanos,
    /// What was measured before the trial that is under way.
    trial: Option<Trial>,
    /// Full windows since the last trial.
    since: u32,
    /// Full windows until the next trial, if the backend is slow.
    wait: u32,
    /// No window was slow yet, so the bound doubles when it grows.
    starting: bool,
    attempts: BTreeSet<AutoAttempt>,
    number: u64,
    now: Nanos,
    /// The last of the oldest attempts that are in flight for long, and how many these are.
    held: (Option<AutoAttempt>, u32),
    moved: Option<AutoMove>,
}

impl AutoLimit {
    /// The bound of a backend of which nothing is known.
    pub fn new(bounds: AutoBounds, now: Nanos) -> Self {
        let mut limit = Self {
            bounds,
            limit: f64::from(bounds.start.max(bounds.min).min(bounds.max).max(1)),
            base_s: None,
            last_s: 0.0,
            window: Window::default(),
            ignored_until: 0,
            trial: None,
            since: 0,
            wait: 0,
            starting: true,
            attempts: BTreeSet::new(),
            number: 0,
            now,
            held: (None, 0),
            moved: None,
        };
        limit.window.begin(now);
        limit
    }

    /// The bound, at least 1, without places for requests that are in flight for long.
    pub fn bound(&self) -> u32 {
        (self.limit as u32).max(1)
    }

    /// How many requests may be in flight: the bound, and those that are in flight for long.
    pub fn limit(&self) -> u32 {
        self.bound() + self.held.1
    }

    /// The median time of the answers in the last window, in seconds; `None`: there was no answer in it, or no window
    /// yet.
    pub fn median_s(&self) -> Option<f64> {
        (self.last_s > 0.0).then_some(self.last_s)
    }

    /// What moved the bound last; `None`: it has not moved.
    pub fn moved(&self) -> Option<AutoMove> {
        self.moved
    }

    /// Sets other limits. The bound goes on from where it is, within these.
    pub fn set_bounds(&mut self, bounds: AutoBounds) {
        if self.bounds != bounds {
            self.bounds = bounds;
            // Ends a trial, since its end would put the bound back to what it was before, outside of these limits.
            if let Some(trial) = self.trial.take() {
                self.limit = trial.limit;
                self.ignore(SETTLES_S);
            }
            let before = self.limit;
            self.set(self.limit);
            if self.limit != before {
                self.moved = Some(AutoMove::Bounds);
            }
        }
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> u32 {
        self.attempts.len() as u32
    }

    /// A request is sent.
    pub fn began(&mut self, now: Nanos) -> AutoAttempt {
        self.advance(now);
        self.number += 1;
        let attempt = AutoAttempt { began: self.now, number: self.number };
        self.attempts.insert(attempt);
        attempt
    }

    /// The head of its answer came; or `answered` is false, and none will come.
    pub fn ended(&mut self, attempt: AutoAttempt, answered: bool, now: Nanos) {
        self.advance(now);
        if !self.attempts.remove(&attempt) {
            return;
        }
        if self.held.0.is_some_and(|last| attempt <= last) {
            self.held.1 -= 1;
        }
        if answered {
            self.window.answered(self.now - attempt.began);
        }
    }

    /// Lets the bound move; to be called about every half second. Returns the verdict of a trial that has ended.
    pub fn tick(&mut self, now: Nanos) -> Option<ProbeVerdict> {
        self.advance(now);
        let verdict = self.decide();
        self.hold();
        verdict
    }

    fn advance(&mut self, now: Nanos) {
        let span = now.saturating_sub(self.now);
        self.window.held(self.in_flight(), self.in_flight() >= self.limit(), span);
        self.now += span;
    }

    /// Counts requests that are in flight for much longer than usual: they hold a place but need no processor.
    fn hold(&mut self) {
        let usual_s = self.last_s.max(self.base_s.unwrap_or(1.0));
        let long = nanos((8.0 * usual_s).max(1.0));
        let most = (3.0 * self.limit) as usize;
        let old = self.attempts.iter().take_while(|attempt| self.now - attempt.began >= long).take(most);
        self.held = old.fold((None, 0), |(_, count), attempt| (Some(*attempt), count + 1));
    }

    /// Ends the window, if it has lasted long enough, and draws the conclusion.
    fn decide(&mut self) -> Option<ProbeVerdict> {
        if self.now < self.ignored_until {
            self.window.begin(self.now);
            return None;
        }
        let (answers, longest) =
            if self.trial.is_some() { (TRIAL_ANSWERS, TRIAL_LONGEST) } else { (ANSWERS, LONGEST) };
        let span = self.window.span(self.now);
        if (self.window.answers() < answers && span < longest)
            || span < SHORTEST.max(nanos(self.last_s.min(MOST_IGNORED_S)))
        {
            return None;
        }
        let measured = self.window.measured(self.now);
        self.window.begin(self.now);
        self.last_s = measured.median_s;
        if let Some(trial) = self.trial.take() {
            let verdict = self.judge(&trial, &measured);
            self.moved = Some(AutoMove::Verdict(verdict));
            return Some(verdict);
        }
        if measured.answers >= ANSWERS {
            self.steer(&measured);
        }
        None
    }

    /// Ends a trial.
    fn judge(&mut self, trial: &Trial, measured: &Measured) -> ProbeVerdict {
        self.ignore(SETTLES_S);
        let kept = f64::from(self.bound()) / trial.limit.floor();
        (self.limit, self.since, self.wait) = (trial.limit, 0, BACK);
        if measured.answers < TRIAL_LEAST || measured.full < 0.5 {
            return ProbeVerdict::None;
        }
        // If the trial could not take any places away, they count as busy.
        let idle = if kept < 1.0 { trial.idle(measured, kept) } else { 0.0 };
        let base = self.base_s.unwrap_or(measured.median_s);
        if idle > 0.6 {
            self.base_s = Some(base.min(measured.median_s));
            self.set(trial.limit * 0.75);
            self.starting = false;
            ProbeVerdict::Idle
        } else if idle < 0.4 {
            self.base_s = Some(base.max(measured.median_s.min(trial.median_s)));
            if measured.answers >= TRIAL_TO_GROW {
                self.grow(trial.limit.sqrt(), trial.may_grow);
            }
            ProbeVerdict::Busy
        } else {
            ProbeVerdict::None
        }
    }

    /// Ends a window that is not a trial.
    fn steer(&mut self, measured: &Measured) {
        let Measured { answers, median_s, .. } = *measured;
        let part = (answers as f64 / 50.0).min(1.0);
        let mut base = self.base_s.unwrap_or(median_s);
        if median_s < base {
            base += 0.3 * part * (median_s - base);
        }
        if measured.full < 0.5 {
            if measured.in_flight < self.limit / 2.0 {
                base += 0.1 * part * (median_s - base);
            }
            self.base_s = Some(base);
            return;
        }
        self.base_s = Some(base);
        self.since += 1;
        self.wait = self.wait.saturating_sub(1);
        let slow = median_s > TOLERANCE * base;
        let may_grow = answers >= ANSWERS_TO_GROW;
        if slow {
            self.starting = false;
        } else {
            let (before, step) = (self.limit, if self.starting { self.limit } else { self.limit.sqrt() });
            self.grow(step, may_grow);
            if self.limit > before {
                self.moved = Some(AutoMove::Quick);
                self.ignore(0.0);
            }
        }
        if (slow && self.wait == 0) || self.since >= EVERY {
            self.trial = Some(Trial { rate: measured.rate, median_s, limit: self.limit, may_grow });
            self.set(self.limit * TRIAL);
            self.moved = Some(AutoMove::Trial);
            self.ignore(SETTLES_S);
            self.starting = false;
        }
    }

    /// Raises the bound by `step`; without `may_grow` not above its start.
    fn grow(&mut self, step: f64, may_grow: bool) {
        let most =
            if may_grow { f64::from(self.bounds.max) } else { f64::from(self.bounds.start).max(self.limit) };
        self.set((self.limit + step).min(most));
    }

    /// Sets the bound within its limits.
    fn set(&mut self, limit: f64) {
        let most = f64::from(self.bounds.max.max(1));
        self.limit = limit.clamp(f64::from(self.bounds.min.max(1)).min(most), most);
    }

    /// The bound has changed: ignores answers for one median and `more_s` seconds, since these belong to the time
    /// before.
    fn ignore(&mut self, more_s: f64) {
        self.ignored_until = self.now + nanos(self.last_s.min(MOST_IGNORED_S) + more_s);
    }
}

fn nanos(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

#[cfg(test)]
mod tests;
