//! Why something could not be done: one type from the statements up to the API, which has one table from it to statuses.

use std::fmt;

use super::{StartError, StoreState};

/// Why a call to the store came to nothing. Causes are for the log, never for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No such row: no limit for that id, or for one of equal value.
    NotFound,
    /// There is one already, for that id or for one of equal value.
    Exists,
    /// A bound is reached; the text says which, and is fit for the client.
    Full(&'static str),
    /// A condition of the caller does not hold: the row has another version, is there, or is not.
    Precondition,
    /// The limit names a plan that is not there.
    NoPlan,
    /// That many limits name the plan.
    InUse(u64),
    /// The database is newer than this program, or is not one of ours.
    Schema(String),
    /// The database answers, and does not do this.
    Refused {
        /// What it does instead; `Up`: it is well, and does not do this now: locked, cancelled.
        state: StoreState,
        /// For the log.
        cause: String,
    },
    /// The database could not be asked, did not answer in time, or broke off.
    Unavailable {
        /// For the log.
        cause: String,
        /// What became of what was asked for.
        outcome: CallOutcome,
    },
}

/// What is known of a call that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It was a question, which changes nothing whatever becomes of it.
    Question,
    /// Nothing was changed, for certain.
    NotDone,
    /// A commit was under way.
    Unknown,
}

impl StoreError {
    /// Whether it is the database's word on what was asked, and nothing is wrong with the database.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::NotFound | Self::Exists | Self::Full(_) => true,
            Self::Precondition | Self::NoPlan | Self::InUse(_) => true,
            Self::Schema(_) | Self::Refused { .. } | Self::Unavailable { .. } => false,
        }
    }

    /// Nothing came of it, for certain.
    pub fn down(cause: impl Into<String>) -> Self {
        Self::Unavailable { cause: cause.into(), outcome: CallOutcome::NotDone }
    }

    /// The same when it hit a commit. A database that refuses one has not done it; one that went away may have.
    pub fn in_commit(self) -> Self {
        match self {
            Self::Unavailable { cause, .. } => Self::Unavailable { cause, outcome: CallOutcome::Unknown },
            other => other,
        }
    }

    /// The same of a question: whatever is wrong with the database, it is not answered.
    pub fn of_question(self) -> Self {
        match self {
            Self::Schema(cause) | Self::Refused { cause, .. } | Self::Unavailable { cause, .. } => {
                Self::Unavailable { cause, outcome: CallOutcome::Question }
            }
            answer => answer,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such row"),
            Self::Exists => f.write_str("there is such a row already"),
            Self::Full(what) => f.write_str(what),
            Self::Precondition => f.write_str("it has changed in the meantime"),
            Self::NoPlan => f.write_str("there is no such plan"),
            Self::InUse(count) => write!(f, "{count} limits name this plan"),
            Self::Schema(cause) | Self::Refused { cause, .. } => f.write_str(cause),
            Self::Unavailable { cause, outcome } => {
                f.write_str(cause)?;
                f.write_str(if *outcome == CallOutcome::Unknown {
                    " (it may have been done all the same)"
                } else {
                    ""
                })
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Schema(text) => Self::Schema(text),
            other => Self::System(other.to_string()),
        }
    }
}
