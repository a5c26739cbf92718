//! The first line, which says whether all is well: its parts, each with a level of its own.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::rows::{BackendGlance, PoolGlance};
use super::{FEW, MOST_COUNTED, WellBeing};
use crate::api::v1::status::InstanceStatus;

/// From which share of all requests on errors are worth a look, and from which share on they are bad.
const ERRORS_WARN: f64 = 0.01;
const ERRORS_BAD: f64 = 0.05;

/// A certificate that is valid for less time is worth a look, and with even less time it is bad.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);
const EXPIRES_AT_ONCE: Duration = Duration::from_secs(3 * 86_400);

/// A part of the line.
#[derive(Serialize)]
pub(super) struct LineItem {
    pub name: &'static str,
    pub level: WellBeing,
    pub text: String,
    pub value: Value,
}

/// What the line is made from.
pub(super) struct Facts<'a> {
    pub pools: &'a [PoolGlance],
    pub backends: &'a [BackendGlance],
    /// Whether any request goes to a backend.
    pub need_backends: bool,
    /// Recent requests, and how many of them were answered 5xx.
    pub counted: (u64, u64),
    pub requests_per_sec: f64,
    /// How many clients are limited now; with more than [`MOST_COUNTED`] the rest was not counted.
    pub limited: usize,
    pub status: &'a InstanceStatus,
    pub loops_stuck: usize,
    pub wall: SystemTime,
}

impl Facts<'_> {
    /// Six parts that are always there, then those that stand there only where something is wrong.
    pub fn line(&self) -> Vec<LineItem> {
        let mut line = vec![
            self.backends(),
            self.errors(),
            item("requests", WellBeing::Ok, format!("{} req/s", rate(self.requests_per_sec)), {
                json!(super::rounded(self.requests_per_sec, 1e3))
            }),
            limited(self.limited),
            self.store(),
            self.instances(),
        ];
        if self.loops_stuck > 0 {
            let text = format!("{} stuck", counted(self.loops_stuck, "loop"));
            line.push(item("loops", WellBeing::Bad, text, json!(self.loops_stuck)));
        }
        line.extend(self.certificate());
        if self.status.draining {
            line.push(item("process", WellBeing::Warn, "shutting down".into(), json!("draining")));
        }
        line
    }

    fn backends(&self) -> LineItem {
        let (up, all) = (self.backends.iter().filter(|one| one.is_up()).count(), self.backends.len());
        let rows = self.backends.iter().map(BackendGlance::level_in_line);
        let pools = self.pools.iter().map(|pool| pool.level);
        let level = match all {
            0 if self.need_backends => WellBeing::Warn,
            _ => rows.chain(pools).max().unwrap_or(WellBeing::Ok),
        };
        let mut text = format!("{} of {} backends up", grouped(up as u64), grouped(all as u64));
        // Backends that are up and not well are told of in words, too: not everybody sees the colour.
        let failing = self.backends.iter().filter(|one| one.is_up() && one.mostly_fails).count();
        let in_part = self.backends.iter().filter(|one| one.is_up() && !one.is_whole()).count();
        let waiting = self.pools.iter().map(|one| one.pool.waiting).sum();
        for (count, what) in [(failing, "failing"), (in_part, "only in part")] {
            if count > 0 {
                text += &format!(", {} {what}", grouped(count as u64));
            }
        }
        if waiting > 0 {
            text += &format!(", {} waiting", counted(waiting, "request"));
        }
        item("backends", level, text, json!({ "up": up, "total": all }))
    }

    fn errors(&self) -> LineItem {
        let (requests, errors) = self.counted;
        let share = if requests == 0 { 0.0 } else { errors as f64 / requests as f64 };
        let level = match share {
            share if share >= ERRORS_BAD && errors >= FEW => WellBeing::Bad,
            share if share >= ERRORS_WARN => WellBeing::Warn,
            _ => WellBeing::Ok,
        };
        item("errors", level, format!("{} errors", percent(share)), json!(super::rounded(share, 1e6)))
    }

    fn store(&self) -> LineItem {
        let word = self.status.store;
        let level = if word == "up" { WellBeing::Ok } else { WellBeing::Bad };
        item("store", level, format!("store {word}"), json!(word))
    }

    fn instances(&self) -> LineItem {
        let all = &self.status.instances;
        let cut_off = all.iter().filter(|one| one.cut_off).count();
        let text = counted(all.len(), "instance");
        match cut_off {
            0 => item("instances", WellBeing::Ok, text, json!(all.len())),
            some => item("instances", WellBeing::Bad, format!("{text}, {some} cut off"), json!(all.len())),
        }
    }

    /// The certificate that expires first, if it expires soon.
    fn certificate(&self) -> Option<LineItem> {
        let (name, until) = self.status.tls.as_ref()?.first_to_expire()?;
        let left = until.duration_since(self.wall).unwrap_or_default();
        let level = match left {
            left if left < EXPIRES_AT_ONCE => WellBeing::Bad,
            left if left < EXPIRES_SOON => WellBeing::Warn,
            _ => return None,
        };
        let text = match left.as_secs() / 86_400 {
            _ if left.is_zero() => format!("certificate {name} has expired"),
            0 => format!("certificate {name} expires within a day"),
            days => {
                format!(
                    "certificate {name} expires in {}",
                    counted(usize::try_from(days).unwrap_or(0), "day")
                )
            }
        };
        Some(item("certificate", level, text, json!(name)))
    }
}

fn limited(clients: usize) -> LineItem {
    let level = if clients > 0 { WellBeing::Warn } else { WellBeing::Ok };
    let text = match clients {
        ..=MOST_COUNTED => counted(clients, "client"),
        _ => format!("{}+ clients", grouped(MOST_COUNTED as u64)),
    };
    item("limited", level, format!("{text} limited"), json!(clients.min(MOST_COUNTED)))
}

fn item(name: &'static str, level: WellBeing, text: String, value: Value) -> LineItem {
    LineItem { name, level, text, value }
}

/// `1 client`, `1,240 clients`.
fn counted(count: usize, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(count as u64))
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rate(number: f64) -> String {
    match number {
        0.0 => "0".into(),
        number if number < 9.95 => format!("{number:.1}"),
        number => grouped(number.round() as u64),
    }
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".into(),
        part if part < 0.05 => "<0.1 %".into(),
        part if part < 9.95 => format!("{part:.1} %"),
        part => format!("{part:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (1_240_000, "1,240,000"), (100_000, "100,000")]
        {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(0.0, "0"), (0.04, "0.0"), (0.6, "0.6"), (9.96, "10"), (1_239.7, "1,240")] {
            assert_eq!(rate(number), text);
        }
        for (share, text) in [
            (0.0, "0 %"),
            (0.0001, "<0.1 %"),
            (0.0005, "0.1 %"),
            (0.032, "3.2 %"),
            (0.32, "32 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(percent(share), text);
        }
        assert_eq!((counted(1, "client"), counted(2, "client")), ("1 client".into(), "2 clients".into()));
    }

    #[test]
    fn more_limited_clients_than_are_counted_are_said_to_be_more() {
        for (clients, text, value) in [
            (0, "0 clients limited", 0),
            (1, "1 client limited", 1),
            (MOST_COUNTED, "1,000 clients limited", 1_000),
            (MOST_COUNTED + 1, "1,000+ clients limited", 1_000),
        ] {
            let item = limited(clients);
            assert_eq!((item.text.as_str(), &item.value), (text, &json!(value)));
            assert_eq!(item.level, if clients == 0 { WellBeing::Ok } else { WellBeing::Warn });
        }
    }
}
