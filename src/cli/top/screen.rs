//! Turns the counts that `balancer top` shows into lines of text.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::cli::backends::Occupied;
use crate::cli::session::{aligned, shown};

/// Columns of the table of clients with the most requests.
pub const ASKING: [&str; 5] = ["BUSIEST", "REQUESTS", "A SECOND", "REFUSED", "%"];

/// Columns of the table of clients with the most refusals.
pub const REFUSED: [&str; 3] = ["MOST REFUSED", "REFUSED", "A SECOND"];

/// Columns of the table of backends.
pub const BACKENDS: [&str; 6] = ["BACKEND", "STATE", "IN FLIGHT", "A SECOND", "ERRORS", "P99"];

/// A backend as it is now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackendNumbers {
    pub title: String,
    pub is: String,
    #[serde(flatten)]
    pub occupied: Occupied,
    pub requests_per_sec: f64,
    pub errors_per_sec: f64,
    /// In seconds.
    pub p99: Option<f64>,
}

/// The counts of one client.
#[derive(Clone, Debug, Deserialize)]
pub struct RankedClient<'a> {
    #[serde(borrow)]
    pub client_id: Cow<'a, str>,
    #[serde(default)]
    pub requests: u64,
    #[serde(default)]
    pub denied: u64,
}

/// Everything that one round shows.
pub struct Picture<'a> {
    /// The URL that was asked.
    pub place: &'a str,
    /// The instance that answered.
    pub instance: Cow<'a, str>,
    /// How far back the counts go.
    pub window: &'a str,
    /// The same in seconds.
    pub window_secs: u32,
    /// Most requests first.
    pub clients: Vec<RankedClient<'a>>,
    /// Most refusals first.
    pub limited: Vec<RankedClient<'a>>,
    /// A line that says whether the balancer is well.
    pub glance: &'a str,
    /// The worst first.
    pub backends: &'a [BackendNumbers],
    /// Why the last round failed; then the counts are old.
    pub fault: Option<&'a str>,
}

/// How many tables there are.
const TABLES: u16 = 3;

/// Lines that are not rows: the title, the line that says whether the balancer is well, and an empty line and a head
/// for each table.
const FRAME: u16 = 2 + 2 * TABLES;

/// Rows of each table that fit on a screen of that many lines.
pub fn most_rows(lines: u16) -> u16 {
    (lines.saturating_sub(FRAME) / TABLES).max(1)
}

impl Picture<'_> {
    /// Rows below [`ASKING`].
    pub fn asking_rows(&self) -> Vec<Vec<String>> {
        let row = |client: &RankedClient<'_>| {
            let share = (client.denied * 100).checked_div(client.requests).unwrap_or(0);
            vec![
                client.client_id.to_string(),
                client.requests.to_string(),
                self.a_second(client.requests),
                client.denied.to_string(),
                share.to_string(),
            ]
        };
        self.clients.iter().map(row).collect()
    }

    /// Rows below [`REFUSED`].
    pub fn refused_rows(&self) -> Vec<Vec<String>> {
        let row = |client: &RankedClient<'_>| {
            vec![client.client_id.to_string(), client.denied.to_string(), self.a_second(client.denied)]
        };
        self.limited.iter().map(row).collect()
    }

    /// Rows below [`BACKENDS`].
    pub fn backend_rows(&self) -> Vec<Vec<String>> {
        let row = |one: &BackendNumbers| {
            vec![
                one.title.clone(),
                one.is.clone(),
                one.occupied.to_string(),
                format!("{:.1}", one.requests_per_sec),
                format!("{:.1}", one.errors_per_sec),
                one.p99.map_or_else(|| "-".into(), percentile),
            ]
        };
        self.backends.iter().map(row).collect()
    }

    fn a_second(&self, count: u64) -> String {
        format!("{:.1}", count as f64 / f64::from(self.window_secs.max(1)))
    }

    /// A screen full of lines, none longer than `columns` characters.
    pub fn lines(&self, columns: u16, lines: u16) -> Vec<String> {
        let rows = usize::from(most_rows(lines));
        let Self { place, instance, window, .. } = self;
        let mut all = vec![match self.fault {
            None => format!("{place}  instance {instance}  last {window}  q quits"),
            // Only the first line of the fault, so that there is room for the tables.
            Some(fault) => format!("NO ANSWER, counts are old: {}", fault.lines().next().unwrap_or_default()),
        }];
        all.push(self.glance.to_owned());
        for (head, mut table, none) in [
            (&ASKING[..], self.asking_rows(), format!("nobody within {window}")),
            (&REFUSED[..], self.refused_rows(), format!("nobody within {window}")),
            (&BACKENDS[..], self.backend_rows(), "there is none".to_owned()),
        ] {
            table.truncate(rows);
            all.push(String::new());
            if table.is_empty() {
                all.push(format!("{}: {none}", head[0]));
            } else {
                all.extend(aligned(head, &table).lines().map(str::to_owned));
            }
        }
        all.truncate(lines.into());
        all.iter().map(|line| cut(&shown(line), columns.into())).collect()
    }
}

/// A percentile of so many seconds is of longer times: the API tells none of them from another.
const BEYOND_S: f64 = 30.0;

fn percentile(seconds: f64) -> String {
    if seconds >= BEYOND_S { format!("> {BEYOND_S} s") } else { format!("{:.1} ms", 1_000.0 * seconds) }
}

fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(columns.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::backends::HeldPlaces;

    fn picture(count: u64) -> Picture<'static> {
        let backend = |n: u64| BackendNumbers {
            title: format!("web-{n}"),
            is: if n == 1 { "down".into() } else { "up".into() },
            occupied: Occupied {
                in_flight: n as u32,
                limit: (n > 1).then_some(9),
                measured: (n > 2).then_some(HeldPlaces { held: 1 }),
            },
            requests_per_sec: 2.0,
            errors_per_sec: 0.5,
            p99: (n > 1).then_some(if n > 2 { 30.0 } else { 0.0123 }),
        };
        let backends: Vec<BackendNumbers> = (1..=count).map(backend).collect();
        let client = |n: u64| RankedClient {
            client_id: format!("10.0.0.{n}").into(),
            requests: 600 / n,
            denied: 60 / n,
        };
        Picture {
            place: "http://h:1",
            instance: "i".into(),
            window: "1m",
            window_secs: 60,
            clients: (1..=count).map(client).collect(),
            limited: (1..=count).map(client).collect(),
            glance: "1 of 2 backends up",
            backends: backends.leak(),
            fault: None,
        }
    }

    #[test]
    fn all_tables_stand_on_the_screen() {
        assert_eq!(
            picture(3).lines(80, 24),
            [
                "http://h:1  instance i  last 1m  q quits",
                "1 of 2 backends up",
                "",
                "BUSIEST   REQUESTS  A SECOND  REFUSED  %",
                "10.0.0.1  600       10.0      60       10",
                "10.0.0.2  300       5.0       30       10",
                "10.0.0.3  200       3.3       20       10",
                "",
                "MOST REFUSED  REFUSED  A SECOND",
                "10.0.0.1      60       1.0",
                "10.0.0.2      30       0.5",
                "10.0.0.3      20       0.3",
                "",
                "BACKEND  STATE  IN FLIGHT            A SECOND  ERRORS  P99",
                "web-1    down   1                    2.0       0.5     -",
                "web-2    up     2 of 9               2.0       0.5     12.3 ms",
                "web-3    up     3 (1 of 9 measured)  2.0       0.5     > 30 s",
            ]
        );
    }

    #[test]
    fn it_fits_on_every_screen() {
        for (columns, lines) in [(80, 24), (20, 9), (1, 1), (0, 0), (200, 6)] {
            for count in [0, 1, 50] {
                let mut picture = picture(count);
                picture.fault = Some("down\nwhy");
                let drawn = picture.lines(columns, lines);
                assert!(drawn.len() <= usize::from(lines), "{columns}x{lines}: {drawn:?}");
                let widest = drawn.iter().map(|line| line.chars().count()).max().unwrap_or(0);
                assert!(widest <= usize::from(columns).max(1), "{columns}x{lines}: {drawn:?}");
            }
        }
        let drawn = picture(50).lines(80, 26);
        assert_eq!(drawn.len(), 26);
        for (start, rows) in [("10.", 12), ("web-", 6)] {
            assert_eq!(drawn.iter().filter(|line| line.starts_with(start)).count(), rows, "{start}");
        }
    }

    #[test]
    fn no_client_and_a_balancer_that_is_away_are_said() {
        let mut empty = picture(0);
        empty.fault = Some("http://h:1: nothing listens there");
        let drawn = empty.lines(80, 24);
        assert_eq!(drawn[0], "NO ANSWER, counts are old: http://h:1: nothing listens there");
        assert_eq!(drawn[3], "BUSIEST: nobody within 1m");
        assert_eq!(drawn[7], "BACKEND: there is none");
        // A client's id cannot control the terminal.
        let mut evil = picture(1);
        evil.clients[0].client_id = "\u{1b}[2Jx".into();
        assert!(evil.lines(80, 24).iter().all(|line| !line.contains('\u{1b}')));
    }
}
