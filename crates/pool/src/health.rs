//! Active health: what a row of check results makes of an endpoint. The first result decides alone; after that it
//! takes `rise` successes in a row to come back and `fall` failures in a row to go.

use balancer_time::Nanos;

/// What the checks say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No check has ended yet.
    Unknown,
    /// May be used.
    Up,
    /// Must not be used.
    Down,
}

/// How many results in a row change a known status; both count as at least 1.
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
    /// How many results in a row made it.
    pub in_a_row: u32,
    /// It was the first result of all.
    pub first: bool,
}

/// What the last check of an endpoint came to, for whoever looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheck {
    /// Whether it passed.
    pub passed: bool,
    /// What was asked, and what came.
    pub came: String,
    /// How long it took.
    pub took: Nanos,
    /// When it ended.
    pub ended: Nanos,
}

/// One endpoint's health. Belongs to its checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    status: Status,
    /// Results in a row that contradict the status.
    against: u32,
}

impl Health {
    /// Goes on from a status that is already known, or from [`Status::Unknown`].
    pub const fn from_status(status: Status) -> Self {
        Self { status, against: 0 }
    }

    /// What the results so far say.
    pub const fn status(self) -> Status {
        self.status
    }

    /// Takes one more result into account. `Some` exactly when the status changed.
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

    /// One result a letter, `+` passed and `-` failed; the status after each: `U` up, `D` down.
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
