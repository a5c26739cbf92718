//! Backends, out of the store and as memory knows them.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::Limits;
use crate::metrics::StoreOp;
use crate::store::StoreError;
use crate::store::backends::{BackendRow, BackendSettings};
use crate::store::v1::Actor;

impl Limits {
    /// The stored backends as they were last read; none while the database could never be asked.
    pub fn backends(&self) -> Arc<Vec<BackendRow>> {
        self.core.backends.rows()
    }

    /// One signal waits here after any number of changes that other instances made of the backends.
    pub fn backend_changes(&self) -> Receiver<()> {
        self.core.backends.changes()
    }

    /// Stores a backend; [`StoreError::Exists`]. Waits at most `database.timeout`.
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

    /// Puts what is said over what is stored. Without `in_file` there must be such a backend, else
    /// [`StoreError::NotFound`]; with it the row is only a change of the configuration file's, which has the place.
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

    /// Takes one away; [`StoreError::NotFound`].
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
