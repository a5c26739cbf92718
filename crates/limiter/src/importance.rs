//! How important a client's requests are where requests wait for a place: what its limit says, else its plan.

use balancer_importance::{Importance, Priority};

/// What a limit or a plan says of it. A limit's own word wins over its plan's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenImportance {
    /// Parts of the places of its priority, 1 to [`Importance::MAX_WEIGHT`].
    pub weight: Option<u32>,
    /// Which requests it goes with.
    pub priority: Option<Priority>,
}

impl GivenImportance {
    /// What this leaves open is as `other` says.
    pub fn or(self, other: Self) -> Self {
        Self { weight: self.weight.or(other.weight), priority: self.priority.or(other.priority) }
    }

    /// With the defaults of what nobody said: weight 1, `normal`.
    pub fn in_force(self) -> Importance {
        let Importance { weight, priority } = Importance::default();
        Importance { weight: self.weight.unwrap_or(weight), priority: self.priority.unwrap_or(priority) }
    }
}

/// # Errors
/// What a weight must be.
pub fn check_weight(weight: u32) -> Result<u32, String> {
    let fault = || format!("must be a whole number from 1 to {}", Importance::MAX_WEIGHT);
    (1..=Importance::MAX_WEIGHT).contains(&weight).then_some(weight).ok_or_else(fault)
}

/// # Errors
/// What a priority must be.
pub fn parse_priority(text: &str) -> Result<Priority, &'static str> {
    Priority::of_name(text).ok_or("must be \"critical\", \"normal\" or \"background\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limits_own_word_wins_and_the_rest_is_its_plans_or_usual() {
        let given = |weight, priority| GivenImportance { weight, priority };
        let (critical, background) = (Some(Priority::Critical), Some(Priority::Background));
        for (own, of_plan, weight, priority) in [
            (given(None, None), given(None, None), 1, Priority::Normal),
            (given(Some(1), None), given(Some(7), critical), 1, Priority::Critical),
            (given(None, background), given(Some(7), critical), 7, Priority::Background),
            (given(None, Some(Priority::Normal)), given(None, critical), 1, Priority::Normal),
        ] {
            assert_eq!(own.or(of_plan).in_force(), Importance { weight, priority }, "{own:?} {of_plan:?}");
        }
    }

    #[test]
    fn words_that_are_none_are_faults() {
        for (weight, good) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            assert_eq!(check_weight(weight).is_ok(), good, "{weight}");
        }
        for priority in Priority::ALL {
            assert_eq!(parse_priority(priority.name()), Ok(priority));
        }
        for text in ["", "Normal", "high"] {
            assert!(parse_priority(text).is_err(), "{text}");
        }
    }
}
