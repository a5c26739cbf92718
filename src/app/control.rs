//! Commands to whoever owns what changes while we serve (`parts`): from signals and from the API, over a bounded channel.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::backends::Facts;
use crate::api::{self, BackendError, BackendShown, ReloadError, Reloaded};
use crate::store::backends::BackendSettings;
use crate::store::v1::Actor;
use crate::waits;

/// Commands that wait for their turn; more are refused.
const WAITING: usize = 16;
/// How long a caller waits for his command: those before it take a few seconds each at worst, while names are looked up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the thread is told. Answers have room for their one word.
pub(super) enum Command {
    /// Read the configuration again.
    Reload {
        /// Who asked.
        by: String,
        /// Where the outcome goes.
        answer: Option<Sender<Result<Reloaded, ReloadError>>>,
    },
    /// The stored backends have changed.
    Backends {
        /// One that was taken away, and how long its requests have until it is gone for good.
        leaving: Option<(String, Duration)>,
        /// Told when that is in force.
        answer: Sender<()>,
    },
}

/// Tells the thread what to do.
pub(super) struct Handle {
    commands: Sender<Command>,
    /// Set before the first question.
    pub facts: OnceLock<Facts>,
}

/// The channel to a thread that is still to be started.
pub(super) fn channel() -> (Arc<Handle>, Receiver<Command>) {
    let (commands, receive) = bounded(WAITING);
    (Arc::new(Handle { commands, facts: OnceLock::new() }), receive)
}

impl Handle {
    /// Asks for a reload and does not wait for it.
    pub fn ask_reload(&self, by: &str) {
        if self.commands.try_send(Command::Reload { by: by.to_owned(), answer: None }).is_err() {
            log::warn!(
                "{by}: no reload: {WAITING} commands are waiting already, or everything is at its end"
            );
        }
    }

    /// Gives a command and waits until it is done; an error is what was in the way.
    pub fn tell<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, &'static str> {
        let (answer, outcome) = bounded(1);
        self.commands.try_send(command(answer)).map_err(|_| "too many commands are waiting")?;
        waits::during(|| outcome.recv_timeout(PATIENCE)).map_err(|_| "it took too long")
    }
}

impl api::Control for Handle {
    fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        self.tell(|answer| Command::Reload { by: by.to_owned(), answer: Some(answer) })
            .unwrap_or_else(|cause| Err(ReloadError::Busy(cause.to_owned())))
    }

    fn backends(&self) -> Result<Vec<BackendShown>, BackendError> {
        self.list_backends()
    }

    fn create_backend(
        &self,
        name: &str,
        settings: BackendSettings,
        actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        self.add_backend(name, settings, actor)
    }

    fn patch_backend(
        &self,
        name: &str,
        said: BackendSettings,
        actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        self.change_backend(name, said, actor)
    }

    fn delete_backend(&self, name: &str, drain: Duration, actor: &Actor) -> Result<(), BackendError> {
        self.remove_backend(name, drain, actor)
    }
}
