//! Start order, stop in reverse.

use std::fmt;

use crate::config::Config;

/// Why the program ended otherwise than asked.
#[derive(Debug)]
pub struct Failure {
    /// What the process ends with: 2 for what the configuration could have told, else 1; 128 + its number for a second
    /// signal.
    pub exit_code: u8,
    /// For stderr.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Balances until a signal asks it to stop, and drains.
pub fn run(_config: Config) -> Result<(), Failure> {
    Err(Failure { exit_code: 1, text: "the start order is not in place yet".into() })
}
