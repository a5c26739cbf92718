//! Which backends there are: those of the configuration file, with the changes that were made by the API, and those
//! that were added by the API.

use crate::config;
use crate::store::backends::{BackendRow, BackendSettings};
use balancer_pool::backend::{BackendEntry, Located};
use balancer_pool::backends::{Operator, Placed, title};

/// A backend as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedBackend {
    pub entry: BackendEntry,
    /// What the operator wants of it; `None`: nothing was said.
    pub operator: Option<Operator>,
}

impl WantedBackend {
    /// The same at these addresses; none: at those that it has.
    pub fn placed(&self, addresses: Vec<Located>) -> Placed {
        Placed { entry: self.entry.clone(), addresses, operator: self.operator }
    }
}

/// All backends of a pool: the file's in their order, then the stored ones in the order of their names. A backend of
/// the file replaces a stored one of the same name, with a warning. A stored row that is no valid backend is left out,
/// with an error.
pub(super) fn wanted(pool: &str, file: &[BackendEntry], stored: &[BackendRow]) -> Vec<WantedBackend> {
    let own: Vec<(&str, &BackendSettings)> =
        stored.iter().filter_map(|row| Some((row.name_in(pool)?, &row.settings))).collect();
    let of_file = file.iter().map(|entry| {
        let row = own.iter().find(|(name, _)| *name == entry.name);
        match row.map(|(_, settings)| *settings) {
            None => WantedBackend { entry: entry.clone(), operator: Some(Operator::Up) },
            Some(settings) if settings.url.is_some() => {
                log::warn!(
                    "backend {}: the configuration file has the place of the stored one of that name",
                    title(pool, &entry.name)
                );
                WantedBackend { entry: entry.clone(), operator: Some(Operator::Up) }
            }
            Some(settings) => changed(entry.clone(), settings),
        }
    });
    let mut all: Vec<WantedBackend> = of_file.collect();
    for (name, settings) in own {
        let Some(url) = &settings.url else { continue };
        if all.iter().any(|one| one.entry.name == name) {
            continue;
        }
        match config::parse_backend(name, url) {
            Ok(entry) => all.push(changed(entry, settings)),
            Err(faults) => log::error!("store: backend {:?} is left out: {}", title(pool, name), faults[0].1),
        }
    }
    all
}

fn changed(mut entry: BackendEntry, settings: &BackendSettings) -> WantedBackend {
    entry.weight = settings.weight.unwrap_or(entry.weight);
    entry.backup = settings.backup.unwrap_or(entry.backup);
    entry.max_in_flight = settings.max_in_flight.unwrap_or(entry.max_in_flight);
    WantedBackend { entry, operator: Some(settings.state.unwrap_or(Operator::Up)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_pool::backend::InFlightBound;

    fn row(name: &str, text: &str) -> BackendRow {
        BackendRow { name: name.into(), settings: serde_json::from_str(text).unwrap(), version: 1 }
    }

    #[test]
    fn the_file_comes_first_and_is_changed_by_what_was_stored() {
        let mut bounded = BackendEntry::new("b", "h", 1);
        bounded.max_in_flight = Some(InFlightBound::Number(9));
        let file = [BackendEntry::new("a", "h", 1), bounded];
        let stored = [
            row("a", r#"{"url":"http://elsewhere:2","weight":7,"state":"down"}"#),
            row("b", r#"{"weight":5,"max_in_flight":null,"state":"drain"}"#),
            row("c", r#"{"url":"http://[::1]:3","max_in_flight":2,"backup":true}"#),
            row("d", r#"{"url":"srv://_http._tcp.d.test","max_in_flight":"auto"}"#),
            row("gone", r#"{"weight":5}"#),
            row("odd", r#"{"url":"ftp://x"}"#),
        ];
        let all = wanted("default", &file, &stored);
        let up = |entry: BackendEntry, operator| WantedBackend { entry, operator: Some(operator) };
        let expected = [
            up(file[0].clone(), Operator::Up),
            up(BackendEntry { weight: 5, max_in_flight: None, ..file[1].clone() }, Operator::Drain),
            up(
                BackendEntry {
                    max_in_flight: Some(InFlightBound::Number(2)),
                    backup: true,
                    ..config::parse_backend("c", "http://[::1]:3").unwrap()
                },
                Operator::Up,
            ),
            up(
                BackendEntry {
                    max_in_flight: Some(InFlightBound::Auto),
                    ..config::parse_backend("d", "srv://_http._tcp.d.test").unwrap()
                },
                Operator::Up,
            ),
        ];
        assert_eq!(all, expected);
    }
}
