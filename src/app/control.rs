//! Commands to whoever owns what changes while we serve (`parts`): from signals and from the API, over a bounded channel.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::backends::BackendCalls;
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
    backends: BackendCalls,
}

/// The channel to a thread that is still to be started.
pub(super) fn channel(backends: BackendCalls) -> (Arc<Handle>, Receiver<Command>) {
    let (commands, receive) = bounded(WAITING);
    (Arc::new(Handle { commands, backends }), receive)
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
    fn tell<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, &'static str> {
        let (answer, outcome) = bounded(1);
        self.commands.try_send(command(answer)).map_err(|_| "too many commands are waiting")?;
        waits::during(|| outcome.recv_timeout(PATIENCE)).map_err(|_| "it took too long")
    }

    /// What was stored is in force when this returns.
    fn follow_store(&self, leaving: Option<(String, Duration)>) -> Result<(), BackendError> {
        self.tell(|answer| Command::Backends { leaving, answer })
            .map_err(|cause| BackendError::Busy(cause.into()))
    }
}

impl api::Control for Handle {
    fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        self.tell(|answer| Command::Reload { by: by.to_owned(), answer: Some(answer) })
            .unwrap_or_else(|cause| Err(ReloadError::Busy(cause.to_owned())))
    }

    fn backends(&self) -> Result<Vec<BackendShown>, BackendError> {
        Ok(self.backends.list())
    }

    fn create_backend(
        &self,
        name: &str,
        settings: BackendSettings,
        actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        self.backends.create(name, settings, actor)?;
        self.follow_store(None)?;
        self.backends.one(name)
    }

    fn patch_backend(
        &self,
        name: &str,
        said: BackendSettings,
        actor: &Actor,
    ) -> Result<BackendShown, BackendError> {
        self.backends.patch(name, said, actor)?;
        self.follow_store(None)?;
        self.backends.one(name)
    }

    fn delete_backend(&self, name: &str, drain: Duration, actor: &Actor) -> Result<(), BackendError> {
        self.backends.delete(name, actor)?;
        self.follow_store((!drain.is_zero()).then(|| (name.to_owned(), drain)))
    }
}
