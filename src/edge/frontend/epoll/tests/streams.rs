//! Answers that arrive while they are sent.
