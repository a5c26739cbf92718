//! How important a client's requests are while requests wait for a backend: its limit says so, else its plan.

use balancer_importance::{Importance, Priority};

/// Weight and priority, as far as a limit or a plan gives them. Those of a limit win over those of its plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenImportance {
    /// The client's part of the places of its priority, 1 to [`Importance::MAX_WEIGHT`].
    pub weight: Option<u32>,
    /// The priority of its requests.
    pub priority: Option<Priority>,
}

impl GivenImportance {
    /// Takes from `other` what this does not give.
    pub fn or(self, other: Self) -> Self {
        Self { weight: self.weight.or(other.weight), priority: self.priority.or(other.priority) }
    }

    /// Fills in the defaults: weight 1, priority `normal`.
    pub fn in_force(self) -> Importance {
        let Importance { weight, priority } = Importance::default();
        Importance { weight: self.weight.unwrap_or(weight), priority: self.priority.unwrap_or(priority) }
    }
}

/// Returns the weight if it is one.
///
/// # Errors
/// What a weight must be.
pub fn check_weight(weight: u32) -> Result<u32, String> {
    let fault = || format!("must be a whole number from 1 to {}", Importance::MAX_WEIGHT);
    (1..=Importance::MAX_WEIGHT).contains(&weight).then_some(weight).ok_or_else(fault)
}

/// Reads a priority's name.
///
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
