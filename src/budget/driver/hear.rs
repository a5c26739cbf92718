//! What the driver does with a text that was heard.

use std::sync::atomic::Ordering;

use balancer_limiter::budget::{DEAD_AFTER, GAP, InstanceId};
use balancer_limiter::message::{BudgetMessage, MessageFault};
use balancer_time::Moment;

use super::super::bodies::read_reports;
use super::super::known::Noted;
use super::Driver;

impl Driver {
    /// Takes a text that came. One that is not a message of this budget is counted as dropped and has no other effect.
    pub fn heard(&mut self, text: &str, when: Moment) {
        // Without a key no signature can be checked.
        let Some(key) = &self.key else { return };
        let taken = match BudgetMessage::from_text(text, key) {
            Ok(message) if message.instance == self.own.0 => Some(self.heard_own(&message, when)),
            Ok(message) => self.heard_other(&message, when),
            Err(fault) => {
                self.is_key_doubtful |= fault == MessageFault::Signature;
                if fault == MessageFault::Version {
                    self.heard_of_another_version();
                }
                log::debug!("budget: a message is dropped: {fault}");
                Some(false)
            }
        };
        match taken {
            Some(true) => self.heard_at = when.now,
            Some(false) => drop(self.parts.shown.dropped.fetch_add(1, Ordering::Relaxed)),
            None => {}
        }
    }

    /// While instances are replaced one after another, two versions run side by side. Neither knows what the other
    /// spends.
    fn heard_of_another_version(&self) {
        if self.parts.shown.other_versions.fetch_add(1, Ordering::Relaxed) == 0 {
            log::warn!(
                "budget: an instance of another version is there; until it is replaced, neither counts what the other spends"
            );
        }
    }

    fn heard_own(&mut self, message: &BudgetMessage, when: Moment) -> bool {
        let place = self.awaited.iter().position(|(sequence, _)| *sequence == message.sequence);
        let Some(place) = place.filter(|_| message.epoch == self.epoch) else { return false };
        // Messages come in order, so those that were sent before this one are lost.
        let told_at = self.awaited.drain(..=place).next_back().map_or(when.now, |(_, told_at)| told_at);
        let lag = when.now.saturating_sub(told_at);
        self.lag = Some(lag);
        if lag > DEAD_AFTER {
            // A message that took this long does not show that this instance is heard now.
            return true;
        }
        self.own_heard_at = when.now;
        self.parts.budget.heard(self.own, &[], when);
        true
    }

    /// Takes a message of another instance. Returns whether it counts; `None` where that is not known yet.
    fn heard_other(&mut self, message: &BudgetMessage, when: Moment) -> Option<bool> {
        let Some(reports) = read_reports(&message.reports) else {
            log::debug!("budget: a message is dropped: its reports can't be read");
            return Some(false);
        };
        let noted = self.known.note(message, when.now);
        if matches!(noted, Noted::Stranger(true) | Noted::Counts(true)) {
            // An instance that is heard for the first time is told so at once, since it waits for that.
            self.heartbeat_at = self.heartbeat_at.min((self.told_at + GAP).max(when.now));
        }
        match noted {
            Noted::Counts(_) => {}
            Noted::Stranger(_) => return None,
            Noted::Dropped => {
                log::debug!("budget: a message is dropped: it was heard before, or its sender finds no room");
                return Some(false);
            }
        }
        self.parts.shown.received.fetch_add(1, Ordering::Relaxed);
        let from = InstanceId(message.instance);
        if message.leaving {
            self.parts.budget.left(from);
        } else {
            self.parts.budget.heard(from, &reports, when);
        }
        Some(true)
    }
}
