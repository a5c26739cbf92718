//! Priority and weight of a request: how much of the backends' places it may have while there are too few. The limiter
//! takes them from a client's limit, the line of a pool orders by them. Neither library depends on the other, so the
//! types live here.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

use serde::{Deserialize, Serialize};

/// How important a request is. While there are too few places, each priority gets a part of them by its weight
/// ([`Priority::weight`]), so that none gets nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Sixteen of 21 parts of the places, while requests of every priority wait.
    Critical,
    /// Four parts.
    #[default]
    Normal,
    /// One part.
    Background,
}

impl Priority {
    /// All priorities, the most important first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Background];

    /// Its name in documents, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Background => "background",
        }
    }

    /// The priority with that name, as [`Priority::name`] writes it.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Its number of parts of the places, while requests of every priority wait.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Critical => 16,
            Self::Normal => 4,
            Self::Background => 1,
        }
    }
}

/// What the limit of a request's client or its route says about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Importance {
    /// The client's part of its priority's places, relative to other clients: 1 to [`Importance::MAX_WEIGHT`].
    pub weight: u32,
    /// The request's priority.
    pub priority: Priority,
}

impl Importance {
    /// The largest weight that a limit may have.
    pub const MAX_WEIGHT: u32 = 1000;
}

impl Default for Importance {
    fn default() -> Self {
        Self { weight: 1, priority: Priority::Normal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_priority_has_a_name_and_a_part() {
        let told = Priority::ALL.map(|one| (one.name(), one.weight()));
        assert_eq!(told, [("critical", 16), ("normal", 4), ("background", 1)]);
        assert_eq!(Priority::ALL.map(|one| Priority::of_name(one.name())), Priority::ALL.map(Some));
        assert_eq!(Priority::of_name("Critical"), None);
    }
}
