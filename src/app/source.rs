//! Where the configuration comes from, so that it can be read again.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::config::{self, Config, Faults, Options};

/// The command line and the environment that the process was started with. Files that they name are read anew each time.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The command line.
    pub options: Options,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Source {
    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_os_str())
    }

    /// Where the service manager wants state to be: the first folder of `STATE_DIRECTORY` (systemd.exec(5)).
    pub(super) fn state_folder(&self) -> Option<PathBuf> {
        let folders = self.variable("STATE_DIRECTORY")?;
        std::env::split_paths(folders).next().filter(|folder| folder.is_absolute())
    }

    /// Reads and checks all of it.
    pub(super) fn load(&self) -> Result<Config, Faults> {
        config::load(&self.options, &self.env).map(|loaded| loaded.config)
    }
}
