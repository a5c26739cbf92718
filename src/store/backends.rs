//! Backends as the store keeps them: those that the API added, and the changes that it made to those of the configuration file.

use serde::{Deserialize, Deserializer, Serialize};

use balancer_pool::backend::InFlightBound;
use balancer_pool::backends::{DEFAULT_POOL, Operator};

/// Most rows that a database may have.
pub const MAX_ROWS: usize = 1_024;

/// A stored backend, or a change of one of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRow {
    /// Its title among the backends of all pools ([`balancer_pool::backends::title`]).
    pub name: String,
    /// Its settings.
    pub settings: BackendSettings,
    /// Its version, from one sequence for all rows of a database.
    pub version: i64,
}

impl BackendRow {
    /// Its name in that pool; `None` when it belongs to another pool.
    pub fn name_in(&self, pool: &str) -> Option<&str> {
        let (own, name) = self.name.split_once('/').unwrap_or((DEFAULT_POOL, &self.name));
        (own == pool).then_some(name)
    }
}

/// The settings of a backend. `None` is a setting that was not given: the configuration file or the default decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSettings {
    /// Its URL, as [`crate::config::parse_backend`] takes it; `None`: it is a backend of the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Share relative to the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Most requests at once; `Some(None)`: no bound, whatever the file says.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "said")]
    pub max_in_flight: Option<Option<InFlightBound>>,
    /// What the operator wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Operator>,
    /// Used only when no other is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
}

/// Tells `null`, which is `Some(None)`, from a member that is left out.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<InFlightBound>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl BackendSettings {
    /// These settings, replaced by those that the other has.
    pub fn with(mut self, other: &Self) -> Self {
        let Self { url, weight, max_in_flight, state, backup } = other.clone();
        self.url = url.or(self.url);
        self.weight = weight.or(self.weight);
        self.max_in_flight = max_in_flight.or(self.max_in_flight);
        self.state = state.or(self.state);
        self.backup = backup.or(self.backup);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_names_a_backend_of_one_pool() {
        for (title, pool, name) in [
            ("a", DEFAULT_POOL, Some("a")),
            ("a", "images", None),
            ("images/a", "images", Some("a")),
            ("images/a", DEFAULT_POOL, None),
        ] {
            let row = BackendRow { name: title.into(), settings: BackendSettings::default(), version: 1 };
            assert_eq!(row.name_in(pool), name, "{title} in {pool}");
        }
    }

    #[test]
    fn what_was_not_said_is_not_written_and_null_was_said() {
        let bare = BackendSettings::default();
        assert_eq!(serde_json::to_string(&bare).unwrap(), "{}");
        let all = BackendSettings {
            url: Some("http://a:1".into()),
            weight: Some(0),
            max_in_flight: Some(None),
            state: Some(Operator::Drain),
            backup: Some(true),
        };
        let text = r#"{"url":"http://a:1","weight":0,"max_in_flight":null,"state":"drain","backup":true}"#;
        assert_eq!(serde_json::to_string(&all).unwrap(), text);
        for (settings, text) in [(&bare, "{}"), (&all, text)] {
            assert_eq!(&serde_json::from_str::<BackendSettings>(text).unwrap(), settings);
        }
        for (bound, text) in [(InFlightBound::Number(7), "7"), (InFlightBound::Auto, "\"auto\"")] {
            let settings = BackendSettings { max_in_flight: Some(Some(bound)), ..BackendSettings::default() };
            let text = format!(r#"{{"max_in_flight":{text}}}"#);
            assert_eq!(serde_json::to_string(&settings).unwrap(), text);
            assert_eq!(serde_json::from_str::<BackendSettings>(&text).unwrap(), settings);
        }
        for text in [r#"{"state":"off"}"#, r#"{"max_in_flight":"Auto"}"#, r#"{"max_in_flight":1.5}"#] {
            assert!(serde_json::from_str::<BackendSettings>(text).is_err(), "{text}");
        }
        assert_eq!(bare.clone().with(&all), all);
        assert_eq!(all.clone().with(&bare), all);
    }
}
