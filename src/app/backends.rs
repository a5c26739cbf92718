//! Which backends there are: those of the configuration file, with what the API changed of them, and those that the API
//! added.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::api::{BackendError, BackendShown, EndpointShown, Origin};
use crate::config::{self, Config};
use crate::store::Limits;
use crate::store::StoreError;
use crate::store::backends::{BackendRow, BackendSettings};
use crate::store::v1::Actor;
use balancer_pool::backend::BackendEntry;
use balancer_pool::backends::{Backend, Backends, Endpoint, Operator, Snapshot, Told};

/// A backend as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub entry: BackendEntry,
    /// `None`: nobody said anything.
    pub operator: Option<Operator>,
}

/// All of them: the file's in its order, then the others in the order of their names. One of the file has the place of a
/// stored one of the same name, with a warning. A row that somebody wrote by hand and that is no backend is left out.
pub(super) fn wanted(file: &[BackendEntry], stored: &[BackendRow]) -> Vec<Wanted> {
    let of_file = file.iter().map(|entry| {
        let row = stored.iter().find(|row| row.name == entry.name);
        match row.map(|row| &row.settings) {
            None => Wanted { entry: entry.clone(), operator: Some(Operator::Up) },
            Some(settings) if settings.url.is_some() => {
                log::warn!(
                    "backend {}: the configuration file has the place of the stored one of that name",
                    entry.name
                );
                Wanted { entry: entry.clone(), operator: Some(Operator::Up) }
            }
            Some(settings) => changed(entry.clone(), settings),
        }
    });
    let mut all: Vec<Wanted> = of_file.collect();
    for BackendRow { name, settings, .. } in stored {
        let Some(url) = &settings.url else { continue };
        if all.iter().any(|one| one.entry.name == *name) {
            continue;
        }
        match config::parse_backend(name, url) {
            Ok(entry) => all.push(changed(entry, settings)),
            Err(faults) => log::error!("store: backend {name:?} is left out: {}", faults[0].1),
        }
    }
    all
}

fn changed(mut entry: BackendEntry, settings: &BackendSettings) -> Wanted {
    entry.weight = settings.weight.unwrap_or(entry.weight);
    entry.backup = settings.backup.unwrap_or(entry.backup);
    entry.max_in_flight = settings.max_in_flight.unwrap_or(entry.max_in_flight);
    Wanted { entry, operator: Some(settings.state.unwrap_or(Operator::Up)) }
}

/// What the API's calls about backends read and write.
pub(super) struct BackendCalls {
    pub config: Arc<ArcSwap<Config>>,
    pub limits: Arc<Limits>,
    pub backends: Arc<Backends>,
    pub own_addresses: Vec<std::net::SocketAddr>,
}

impl BackendCalls {
    fn in_file(&self, name: &str) -> bool {
        self.config.load().backends.iter().any(|entry| entry.name == name)
    }

    fn shown(&self, snapshot: &Snapshot, group: &Arc<Backend>) -> BackendShown {
        let endpoint = |one: &Arc<Endpoint>| EndpointShown {
            address: one.address,
            health: one.health_word(),
            cause: one.cause().as_deref().map(str::to_owned),
            in_flight: one.in_flight(),
        };
        let Told { up, health, cause, .. } = snapshot.told(group);
        BackendShown {
            name: group.name.to_string(),
            url: format!("http://{}", group.authority),
            weight: group.weight(),
            state: group.operator(),
            max_in_flight: Some(group.max_in_flight()).filter(|most| *most != u32::MAX),
            backup: group.backup(),
            source: if self.in_file(&group.name) { Origin::File } else { Origin::Store },
            up,
            health,
            cause,
            in_flight: group.in_flight(),
            endpoints: snapshot.own(group).map(endpoint).collect(),
        }
    }

    /// All backends, as they are in the pool.
    pub fn list(&self) -> Vec<BackendShown> {
        let snapshot = self.backends.snapshot();
        snapshot.backends().iter().map(|group| self.shown(&snapshot, group)).collect()
    }

    /// One of them.
    pub fn one(&self, name: &str) -> Result<BackendShown, BackendError> {
        let snapshot = self.backends.snapshot();
        let group = snapshot.backends().iter().find(|group| *group.name == *name);
        group.map(|group| self.shown(&snapshot, group)).ok_or(BackendError::Store(StoreError::NotFound))
    }

    /// Stores a new one.
    pub fn create(&self, name: &str, settings: BackendSettings, actor: &Actor) -> Result<(), BackendError> {
        let url = settings.url.as_deref().unwrap_or_default();
        let entry = config::parse_backend(name, url).map_err(BackendError::Fields)?;
        if let Some(own) = self.own_addresses.iter().find(|own| config::is_own(own, &entry)) {
            let text = format!("is our own listener {own}: requests would go round in a circle");
            return Err(BackendError::Fields(vec![("url", text)]));
        }
        if self.in_file(name) {
            return Err(BackendError::Store(StoreError::Exists));
        }
        self.limits.create_backend(name, settings, actor).map_err(BackendError::Store)
    }

    /// Stores a change of one.
    pub fn patch(&self, name: &str, said: BackendSettings, actor: &Actor) -> Result<(), BackendError> {
        let in_file = self.in_file(name);
        self.limits.patch_backend(name, said, in_file, actor).map_err(BackendError::Store)
    }

    /// Takes a stored one away.
    pub fn delete(&self, name: &str, actor: &Actor) -> Result<(), BackendError> {
        if self.in_file(name) {
            return Err(BackendError::InFile);
        }
        self.limits.delete_backend(name, actor).map_err(BackendError::Store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, text: &str) -> BackendRow {
        BackendRow { name: name.into(), settings: serde_json::from_str(text).unwrap(), version: 1 }
    }

    #[test]
    fn the_file_comes_first_and_is_changed_by_what_was_stored() {
        let mut bounded = BackendEntry::new("b", "h", 1);
        bounded.max_in_flight = Some(9);
        let file = [BackendEntry::new("a", "h", 1), bounded];
        let stored = [
            row("a", r#"{"url":"http://elsewhere:2","weight":7,"state":"down"}"#),
            row("b", r#"{"weight":5,"max_in_flight":null,"state":"drain"}"#),
            row("c", r#"{"url":"http://[::1]:3","max_in_flight":2,"backup":true}"#),
            row("gone", r#"{"weight":5}"#),
            row("odd", r#"{"url":"ftp://x"}"#),
        ];
        let all = wanted(&file, &stored);
        let up = |entry: BackendEntry, operator| Wanted { entry, operator: Some(operator) };
        let expected = [
            up(file[0].clone(), Operator::Up),
            up(BackendEntry { weight: 5, max_in_flight: None, ..file[1].clone() }, Operator::Drain),
            up(
                BackendEntry {
                    max_in_flight: Some(2),
                    backup: true,
                    ..config::parse_backend("c", "http://[::1]:3").unwrap()
                },
                Operator::Up,
            ),
        ];
        assert_eq!(all, expected);
    }
}
