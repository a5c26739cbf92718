//! How many requests a backend has a use for, measured: `max_in_flight: "auto"`.
//!
//! A backend that is full and answers as quickly as ever gets more. One that became slow is tried with fewer: if its
//! answers then come quicker in the same number, the places were idle and some are taken away; if there are fewer answers
//! as slow as before, the places are at work, and that slow is what it is now.

use std::collections::BTreeSet;

use super::window::{Measured, Window};
use balancer_time::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// A window is at least so long, and has so many answers, or lasts until `LONGEST`.
const SHORTEST: Nanos = SECOND / 2;
const LONGEST: Nanos = 10 * SECOND;
const ANSWERS: u64 = 10;
/// The same for a window that is a trial, which compares two of them.
const TRIAL_LONGEST: Nanos = 20 * SECOND;
const TRIAL_ANSWERS: u64 = 100;
/// A trial with fewer says nothing, and one with fewer gives nothing more.
const TRIAL_LEAST: u64 = 20;
const TRIAL_TO_GROW: u64 = 50;
/// With fewer answers in a window a bound is never above where it began.
const ANSWERS_TO_GROW: u64 = 30;
/// What is waited for after a change, beside one median, is at most so long.
const MOST_IGNORED_S: f64 = 5.0;
/// Until a trial's fewer places are what is measured.
const SETTLES_S: f64 = 0.4;
/// The part of the places that a trial leaves.
const TRIAL: f64 = 0.6;
/// Slow: the median is so many times the base.
const TOLERANCE: f64 = 1.5;
/// Windows with no room between a verdict and the next trial, while it is slow; and while it is not.
const BACK: u32 = 8;
const EVERY: u32 = 20;

/// Where a measured bound starts, and between what it stays: `balancing.auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoBounds {
    /// Before anything was measured.
    pub start: u32,
    /// At least 1.
    pub min: u32,
    /// At most.
    pub max: u32,
}

impl Default for AutoBounds {
    fn default() -> Self {
        Self { start: 16, min: 1, max: 1_000 }
    }
}

/// What a trial with fewer places found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// Places were idle: requests waited in the backend as they would have in the line. The bound is lower now.
    Idle,
    /// All places were at work. The bound is higher now.
    Busy,
    /// Neither, or there was too little to see.
    None,
}

impl ProbeVerdict {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Idle, Self::Busy, Self::None];

    /// In metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::None => "none",
        }
    }
}

/// Why a bound is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoMove {
    /// It was full, and answers came as quickly as ever: it grew.
    Quick,
    /// A trial with fewer places began.
    Trial,
    /// A trial ended with that: places are taken away, or given, or it is what it was before the trial.
    Verdict(ProbeVerdict),
    /// Other bounds were set.
    Bounds,
}

impl AutoMove {
    /// In the API.
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

/// Before a trial.
#[derive(Debug)]
struct Trial {
    rate: f64,
    median_s: f64,
    limit: f64,
    /// There were enough answers in a window for the bound to be above where it began.
    may_grow: bool,
}

impl Trial {
    /// How idle the places were that the trial took away, as answers' times and their number say; about 0 to 1. `kept`:
    /// the part of the places that it left, below 1.
    fn idle(&self, measured: &Measured, kept: f64) -> f64 {
        let by_median = (1.0 - measured.median_s / self.median_s) / (1.0 - kept);
        let by_rate = 1.0 - (1.0 - measured.rate / self.rate) / (1.0 - kept);
        f64::midpoint(by_median, by_rate)
    }
}

/// The bound of one backend. A request is in flight up to its answer's head: what comes after it holds no place here.
#[derive(Debug)]
pub struct AutoLimit {
    bounds: AutoBounds,
    limit: f64,
    /// The median in seconds when it is not slow; `None`: nothing was measured yet.
    base_s: Option<f64>,
    last_s: f64,
    window: Window,
    /// What is measured before this is ignored.
    ignored_until: Nanos,
    trial: Option<Trial>,
    /// Windows with no room since the last trial.
    since: u32,
    /// Windows with no room until the next, if it is slow.
    wait: u32,
    /// No window was slow yet: it doubles.
    starting: bool,
    attempts: BTreeSet<AutoAttempt>,
    number: u64,
    now: Nanos,
    /// Those in flight up to this attempt are held for long, and so many they are.
    held: (Option<AutoAttempt>, u32),
    moved: Option<AutoMove>,
}

impl AutoLimit {
    /// Of a backend that nothing is known of.
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

    /// The bound, at least 1, without what is held for long.
    pub fn bound(&self) -> u32 {
        (self.limit as u32).max(1)
    }

    /// How many may be in flight: the bound, and what is held for long.
    pub fn limit(&self) -> u32 {
        self.bound() + self.held.1
    }

    /// The answers' time in the middle of the last window, in seconds; `None`: there was no answer in it, or no window yet.
    pub fn median_s(&self) -> Option<f64> {
        (self.last_s > 0.0).then_some(self.last_s)
    }

    /// What moved the bound last; `None`: it is where it began.
    pub fn moved(&self) -> Option<AutoMove> {
        self.moved
    }

    /// It stays between others from now on, and goes on from where it is.
    pub fn set_bounds(&mut self, bounds: AutoBounds) {
        if self.bounds != bounds {
            self.bounds = bounds;
            // A trial's end would put back what was before it, outside of these bounds.
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

    /// How many are in flight.
    pub fn in_flight(&self) -> u32 {
        self.attempts.len() as u32
    }

    /// A request was sent.
    pub fn began(&mut self, now: Nanos) -> AutoAttempt {
        self.advance(now);
        self.number += 1;
        let attempt = AutoAttempt { began: self.now, number: self.number };
        self.attempts.insert(attempt);
        attempt
    }

    /// Its answer's head came, or `answered` is false and none will.
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

    /// To be called every half second or so: the bound may be another one afterwards. What a trial found, if one ended.
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

    /// Requests that are in flight for much longer than usual hold a place, and no processor.
    fn hold(&mut self) {
        let usual_s = self.last_s.max(self.base_s.unwrap_or(1.0));
        let long = nanos((8.0 * usual_s).max(1.0));
        let most = (3.0 * self.limit) as usize;
        let old = self.attempts.iter().take_while(|attempt| self.now - attempt.began >= long).take(most);
        self.held = old.fold((None, 0), |(_, count), attempt| (Some(*attempt), count + 1));
    }

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

    /// The end of a trial.
    fn judge(&mut self, trial: &Trial, measured: &Measured) -> ProbeVerdict {
        self.ignore(SETTLES_S);
        let kept = f64::from(self.bound()) / trial.limit.floor();
        (self.limit, self.since, self.wait) = (trial.limit, 0, BACK);
        if measured.answers < TRIAL_LEAST || measured.full < 0.5 {
            return ProbeVerdict::None;
        }
        // What can't be made fewer is at work.
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

    /// The end of any other window.
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

    fn grow(&mut self, step: f64, may_grow: bool) {
        let most =
            if may_grow { f64::from(self.bounds.max) } else { f64::from(self.bounds.start).max(self.limit) };
        self.set((self.limit + step).min(most));
    }

    fn set(&mut self, limit: f64) {
        let most = f64::from(self.bounds.max.max(1));
        self.limit = limit.clamp(f64::from(self.bounds.min.max(1)).min(most), most);
    }

    /// What is measured until one median is over, and `more_s` seconds, is of before the change.
    fn ignore(&mut self, more_s: f64) {
        self.ignored_until = self.now + nanos(self.last_s.min(MOST_IGNORED_S) + more_s);
    }
}

fn nanos(seconds: f64) -> Nanos {
    (seconds * 1e9) as Nanos
}

#[cfg(test)]
mod tests;
