//! Words for how much of the backends' places a request may have while there are too few. The limiter knows them from a
//! client's limit, the line of a pool goes by them; neither library is the other's.
#![forbid(unsafe_code)]
#![warn(missing_docs, clippy::too_many_lines)]

use serde::{Deserialize, Serialize};

/// How much of the places a request's kind may take when there are too few: by weight, so that none starves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Sixteen parts of the places, where each priority has more to send than it gets.
    Critical,
    /// Four parts of them.
    #[default]
    Normal,
    /// One part of them.
    Background,
}

impl Priority {
    /// All of them, the most important first.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Background];

    /// What it is called in documents, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Normal => "normal",
            Self::Background => "background",
        }
    }

    /// What [`Priority::name`] gives, back.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Its part of the places, while requests of every priority wait.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Critical => 16,
            Self::Normal => 4,
            Self::Background => 1,
        }
    }
}

/// What a request has of its client, or of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Importance {
    /// The client's part of its priority's places, relative to other clients: 1 to [`Importance::MAX_WEIGHT`].
    pub weight: u32,
    /// The request's kind.
    pub priority: Priority,
}

impl Importance {
    /// The greatest weight.
    pub const MAX_WEIGHT: u32 = 1000;
}

impl Default for Importance {
    fn default() -> Self {
        Self { weight: 1, priority: Priority::Normal }
    }
}
