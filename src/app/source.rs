//! Where the configuration comes from, kept so that a reload can read it again.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::config::{self, Config, DatabaseUrl, Faults, Options};

/// The name of the folder for our own files, beside the configuration, if no other folder is named.
const DATA: &str = "data";

/// The command line and the environment that the process was started with. Files that they name are read again each
/// time.
#[derive(Clone, Debug, Default)]
pub struct ConfigSource {
    /// The command line.
    pub options: Options,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
}

impl ConfigSource {
    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_os_str())
    }

    /// The folder for state that the service manager gives: the first one of `STATE_DIRECTORY` (systemd.exec(5)).
    fn state_folder(&self) -> Option<PathBuf> {
        let folders = self.variable("STATE_DIRECTORY")?;
        std::env::split_paths(folders).next().filter(|folder| folder.is_absolute())
    }

    /// The folder for an instance's own files; `None`: it writes none. Without a configuration file, files are written
    /// only to a folder that was named.
    pub(super) fn own_folder(&self, config: &Config) -> Option<PathBuf> {
        match (&config.database.url, &self.options.data) {
            (DatabaseUrl::Memory, _) => None,
            (_, Some(folder)) => Some(folder.clone()),
            _ if self.options.to.is_empty() => {
                Some(self.state_folder().unwrap_or_else(|| config.base_dir.join(DATA)))
            }
            _ => self.state_folder(),
        }
    }

    /// Reads and checks the whole configuration.
    pub(super) fn load(&self) -> Result<Config, Faults> {
        config::load(&self.options, &self.env).map(|loaded| loaded.config)
    }
}
