//! The part of [`Limits`] that is about backends.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::Limits;
use crate::metrics::StoreOp;
use crate::store::StoreError;
use crate::store::backends::{BackendRow, BackendSettings};
use crate::store::v1::Actor;

impl Limits {
    /// The stored backends as they were last read; none until the database could be asked for the first time.
    pub fn backends(&self) -> Arc<Vec<BackendRow>> {
        self.core.backends.rows()
    }

    /// Has one signal after any number of changes that other instances made to backends.
    pub fn backend_changes(&self) -> Receiver<()> {
        self.core.backends.changes()
    }

    /// Stores a new backend. Waits at most `database.timeout`.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is a backend of that name; those of the database.
    pub fn create_backend(
        &self,
        name: &str,
        settings: BackendSettings,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        self.change_backend(StoreOp::Create, name, actor, move |before| match before {
            Some(_) => Err(StoreError::Exists),
            None => Ok(Some(settings.clone())),
        })
    }

    /// Changes those settings of a backend that `said` has. `in_file`: it is a backend of the configuration file, and the
    /// row keeps only what is changed about it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is neither in the file nor stored; those of the database.
    pub fn patch_backend(
        &self,
        name: &str,
        said: BackendSettings,
        in_file: bool,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        self.change_backend(StoreOp::Update, name, actor, move |before| {
            let stored = before.map(|row| row.settings.clone()).unwrap_or_default();
            match (in_file, &stored.url) {
                (true, _) => Ok(Some(BackendSettings { url: None, ..stored.with(&said) })),
                (false, Some(_)) => Ok(Some(stored.with(&said))),
                (false, None) => Err(StoreError::NotFound),
            }
        })
    }

    /// Removes a stored backend.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it is not stored, or is one of the configuration file; those of the database.
    pub fn delete_backend(&self, name: &str, actor: &Actor) -> Result<(), StoreError> {
        self.change_backend(StoreOp::Delete, name, actor, |before| match before {
            Some(BackendRow { settings: BackendSettings { url: Some(_), .. }, .. }) => Ok(None),
            _ => Err(StoreError::NotFound),
        })
    }

    fn change_backend(
        &self,
        op: StoreOp,
        name: &str,
        actor: &Actor,
        mut judge: impl FnMut(Option<&BackendRow>) -> Result<Option<BackendSettings>, StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (name, actor) = (name.to_owned(), actor.clone());
        self.change(move |core| core.write_backend(op, &name, &mut judge, &actor))
    }
}
