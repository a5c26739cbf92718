//! Active health: the status of an endpoint by the results of its checks. The first result decides alone. After that,
//! `fall` failures in a row take an endpoint out, and `rise` successes in a row bring it back.

use balancer_time::Nanos;

/// The status of an endpoint by its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No check has ended yet.
    Unknown,
    /// It may be used.
    Up,
    /// It must not be used.
    Down,
}

/// How many results in a row change a known status. 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Successes that bring it back.
    pub rise: u32,
    /// Failures that take it out.
    pub fall: u32,
}

/// A change of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new status, never [`Status::Unknown`].
    pub to: Status,
    /// How many results in a row caused it.
    pub in_a_row: u32,
    /// Whether it was the first result of all.
    pub first: bool,
}

/// The last check of an endpoint, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheck {
    /// Whether it passed.
    pub passed: bool,
    /// Request and result, as [`crate::backend_state::Asked`] words them.
    pub came: String,
    /// How long it took.
    pub took: Nanos,
    /// When it ended.
    pub ended: Nanos,
}

/// The health of one endpoint, as its checker keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    status: Status,
    /// Results in a row that contradict the status.
    against: u32,
}

impl Health {
    /// Begins with that status.
    pub const fn from_status(status: Status) -> Self {
        Self { status, against: 0 }
    }

    /// The status by the results so far.
    pub const fn status(self) -> Status {
        self.status
    }

    /// Takes one more result into account. `Some` if and only if the status has changed.
    pub fn observe(&mut self, passed: bool, thresholds: Thresholds) -> Option<Transition> {
        let (says, needed) = match (self.status, passed) {
            (Status::Unknown, true) => (Status::Up, 1),
            (Status::Unknown, false) => (Status::Down, 1),
            (Status::Down, true) => (Status::Up, thresholds.rise),
            (Status::Up, false) => (Status::Down, thresholds.fall),
            (Status::Up, true) | (Status::Down, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return None;
        }
        let transition =
            Transition { to: says, in_a_row: self.against, first: self.status == Status::Unknown };
        *self = Self::from_status(says);
        Some(transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each letter of `results` is a check: `+` passed, `-` failed. Returns the status after each: `U` up, `D` down.
    fn run(start: Status, results: &str, rise: u32, fall: u32) -> String {
        let mut health = Health::from_status(start);
        let mut seen = String::new();
        for result in results.chars() {
            let before = health.status();
            let transition = health.observe(result == '+', Thresholds { rise, fall });
            assert_eq!(transition.is_some(), before != health.status(), "{results}");
            assert!(transition.is_none_or(|change| change.to == health.status()));
            seen.push(match health.status() {
                Status::Up => 'U',
                Status::Down => 'D',
                Status::Unknown => '?',
            });
        }
        seen
    }

    #[test]
    fn the_first_result_decides_and_then_a_row_is_needed() {
        for (start, results, rise, fall, statuses) in [
            (Status::Unknown, "+", 2, 3, "U"),
            (Status::Unknown, "-", 2, 3, "D"),
            (Status::Unknown, "+--+---", 2, 3, "UUUUUUD"),
            (Status::Unknown, "-+-++", 2, 3, "DDDDU"),
            (Status::Unknown, "+---++", 2, 3, "UUUDDU"),
            (Status::Unknown, "-+-+", 1, 1, "DUDU"),
            (Status::Unknown, "-+-+", 0, 0, "DUDU"),
            (Status::Up, "--+---", 2, 3, "UUUUUD"),
            (Status::Down, "+-++", 2, 3, "DDDU"),
        ] {
            assert_eq!(run(start, results, rise, fall), statuses, "{start:?} {results} {rise} {fall}");
        }
    }

    #[test]
    fn a_transition_says_how_many_results_made_it() {
        let thresholds = Thresholds { rise: 2, fall: 3 };
        let mut health = Health::from_status(Status::Unknown);
        assert_eq!(
            health.observe(true, thresholds),
            Some(Transition { to: Status::Up, in_a_row: 1, first: true })
        );
        assert_eq!(health.observe(false, thresholds), None);
        assert_eq!(health.observe(false, thresholds), None);
        assert_eq!(
            health.observe(false, thresholds),
            Some(Transition { to: Status::Down, in_a_row: 3, first: false })
        );
    }
}
