//! Why a call to the store failed: one type from the statements up to the API, which maps it to statuses in one table.

use std::fmt;

use super::{StartError, StoreState};

/// Why a call to the store failed. Causes are for the log, never for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No such row: no limit for that id, or for one of equal value.
    NotFound,
    /// There is one already, for that id or for one of equal value.
    Exists,
    /// A bound is reached. The text says which one, and may be shown to the client.
    Full(&'static str),
    /// The caller's condition does not hold: the row has another version, exists, or does not exist.
    Precondition,
    /// The limit names a plan that is not there.
    NoPlan,
    /// The plan is in use, by that many limits.
    InUse(u64),
    /// The database is newer than this program, or is not one of ours.
    Schema(String),
    /// The database answers, but refuses the call.
    Refused {
        /// Its state; `Up` when it only refuses for now, because something is locked or was cancelled.
        state: StoreState,
        /// For the log.
        cause: String,
    },
    /// The database could not be asked, did not answer in time, or broke off.
    Unavailable {
        /// For the log.
        cause: String,
        /// Whether the call may have been done.
        outcome: CallOutcome,
    },
}

/// What is known about a call that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It was a question, which changes nothing.
    Question,
    /// Certainly nothing was changed.
    NotDone,
    /// A commit was under way, and may have been done.
    Unknown,
}

impl StoreError {
    /// Whether it is an answer to what was asked, and nothing is wrong with the database.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::NotFound | Self::Exists | Self::Full(_) => true,
            Self::Precondition | Self::NoPlan | Self::InUse(_) => true,
            Self::Schema(_) | Self::Refused { .. } | Self::Unavailable { .. } => false,
        }
    }

    /// The database could not be asked; certainly nothing was changed.
    pub fn down(cause: impl Into<String>) -> Self {
        Self::Unavailable { cause: cause.into(), outcome: CallOutcome::NotDone }
    }

    /// The same error, for a commit. A database that refuses a commit has not done it; one that stopped answering may have
    /// done it.
    pub fn in_commit(self) -> Self {
        match self {
            Self::Unavailable { cause, .. } => Self::Unavailable { cause, outcome: CallOutcome::Unknown },
            other => other,
        }
    }

    /// The same error, for a question: whatever is wrong with the database, the question has no answer.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_answers_is_told_from_what_is_wrong_with_it() {
        let text = || "locked".to_owned();
        let gone = |outcome| StoreError::Unavailable { cause: text(), outcome };
        for (error, is_answer, says) in [
            (StoreError::NotFound, true, "there is no such row"),
            (StoreError::Exists, true, "there is such a row already"),
            (StoreError::Full("no more plans"), true, "no more plans"),
            (StoreError::Precondition, true, "it has changed in the meantime"),
            (StoreError::NoPlan, true, "there is no such plan"),
            (StoreError::InUse(3), true, "3 limits name this plan"),
            (StoreError::Schema(text()), false, "locked"),
            (StoreError::Refused { state: StoreState::Up, cause: text() }, false, "locked"),
            (gone(CallOutcome::Question), false, "locked"),
            (gone(CallOutcome::NotDone), false, "locked"),
            (gone(CallOutcome::Unknown), false, "locked (it may have been done all the same)"),
        ] {
            assert_eq!((error.is_answer(), error.to_string().as_str()), (is_answer, says), "{error:?}");
        }
    }
}
