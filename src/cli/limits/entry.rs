//! Reads one line of an import as a limit: a JSON object, or a row of a CSV file.

use serde::Deserialize;

use super::csv;
use balancer_limiter::document::{NewBucket, NewLimit};
use balancer_limiter::identity::ClientId;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::DEFAULT_BUCKET;

/// The members of a line: a limit as the API has it, or one rate in a short form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client_id: Option<String>,
    plan: Option<String>,
    buckets: Option<Vec<NewBucket>>,
    max_in_flight: Option<u32>,
    mode: Option<String>,
    shared: Option<bool>,
    per_instance: Option<bool>,
    weight: Option<u32>,
    priority: Option<String>,
    /// `2/s`, in place of `buckets`.
    rate: Option<String>,
    /// With `rate_per_sec`, in place of `buckets`, as `/limits/create` has them.
    capacity: Option<u32>,
    rate_per_sec: Option<serde_json::Number>,
}

/// A limit from a JSON object.
///
/// # Errors
/// What is wrong with it, to be written after the number of the line.
pub fn of_json(text: &str) -> Result<NewLimit, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| {
        // Keeps the column; "line 1" would be taken for the first line of the file.
        error.to_string().replace(" at line 1 column ", " at column ")
    })?;
    checked(line)
}

/// The columns of a CSV file, as its first line names them.
#[derive(Debug)]
pub struct EntryColumns {
    names: Vec<String>,
    separator: char,
}

impl EntryColumns {
    /// Reads the first line.
    ///
    /// # Errors
    /// What is wrong with it. Then no other line can be read.
    pub fn of_head(line: &str) -> Result<Self, String> {
        let separator = csv::separator(line);
        let names: Vec<String> =
            csv::cells(line, separator)?.iter().map(|name| name.to_ascii_lowercase()).collect();
        let known = || csv::COLUMNS.iter().chain(&csv::SHORTHANDS);
        for (at, name) in names.iter().enumerate() {
            if !known().any(|known| known == name) {
                let all: Vec<&str> = known().copied().collect();
                return Err(format!("{name:?} is no column; the first line names them: {}", all.join(", ")));
            }
            if names[..at].contains(name) {
                return Err(format!("column {name} is there twice"));
            }
        }
        if !names.iter().any(|name| name == "client_id") {
            return Err("no column client_id".into());
        }
        Ok(Self { names, separator })
    }

    /// A limit from a row. An empty cell counts as left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, text: &str) -> Result<NewLimit, String> {
        let cells = csv::cells(text, self.separator)?;
        if cells.len() != self.names.len() {
            return Err(format!(
                "has {} cells; the first line names {} columns",
                cells.len(),
                self.names.len()
            ));
        }
        let mut line = Line::default();
        for (name, cell) in self.names.iter().zip(cells) {
            if cell.is_empty() {
                continue;
            }
            let number = || cell.parse::<u32>().map_err(|_| format!("{name}: must be a whole number"));
            match name.as_str() {
                "client_id" => line.client_id = Some(cell),
                "plan" => line.plan = Some(cell),
                "mode" => line.mode = Some(cell),
                "rate" => line.rate = Some(cell),
                "max_in_flight" => line.max_in_flight = Some(number()?),
                "capacity" => line.capacity = Some(number()?),
                "weight" => line.weight = Some(number()?),
                "priority" => line.priority = Some(cell),
                "buckets" => {
                    let buckets = csv::read_buckets(&cell).map_err(|fault| format!("buckets: {fault}"))?;
                    line.buckets = Some(buckets);
                }
                "rate_per_sec" => {
                    let number = cell.parse().map_err(|_| "rate_per_sec: must be a number")?;
                    line.rate_per_sec = Some(number);
                }
                "per_instance" => line.per_instance = Some(truth(name, &cell)?),
                _ => line.shared = Some(truth(name, &cell)?),
            }
        }
        checked(line)
    }
}

fn truth(name: &str, cell: &str) -> Result<bool, String> {
    match cell.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(format!("{name}: must be true or false")),
    }
}

/// Checks what can be checked without a balancer. The balancer checks again, and its faults are reported in the same
/// way.
fn checked(line: Line) -> Result<NewLimit, String> {
    let client_id = line.client_id.ok_or("client_id: missing")?;
    ClientId::parse(&client_id).map_err(|fault| format!("client_id: {fault}"))?;
    let short = match (&line.rate, line.capacity, &line.rate_per_sec) {
        (Some(rate), None, None) => {
            Some(NewBucket::parse(DEFAULT_BUCKET, rate).map_err(|fault| format!("rate: {fault}"))?)
        }
        (None, Some(capacity), Some(rate)) => {
            let rate =
                Rate::parse_decimal(&rate.to_string()).map_err(|fault| format!("rate_per_sec: {fault}"))?;
            Some(NewBucket::new(DEFAULT_BUCKET, Limit { capacity, rate }))
        }
        (None, None, None) => None,
        (Some(_), _, _) => return Err("rate: stands for capacity and rate_per_sec; give one of them".into()),
        _ => return Err("capacity and rate_per_sec belong together".into()),
    };
    let buckets = match (short, line.buckets) {
        (Some(_), Some(buckets)) if !buckets.is_empty() => {
            return Err("a rate and buckets; give one of them".into());
        }
        (Some(bucket), _) => vec![bucket],
        (None, buckets) => buckets.unwrap_or_default(),
    };
    let limit = NewLimit {
        client_id: Some(client_id),
        name: None,
        plan: line.plan,
        buckets,
        max_in_flight: line.max_in_flight,
        mode: line.mode,
        shared: line.shared.unwrap_or_default(),
        per_instance: line.per_instance.unwrap_or_default(),
        weight: line.weight,
        priority: line.priority,
    };
    limit.check().map(|_| limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_a_limit_in_long_or_in_short() {
        for (text, expected) in [
            (r#"{"client_id":"a","rate":"2/s burst 5"}"#, "2/s burst 5"),
            (r#"{"client_id":"a","capacity":10,"rate_per_sec":0.5}"#, "0.5/s burst 10"),
            (
                r#"{"client_id":"a","plan":"pro","buckets":[],"max_in_flight":3,"shared":false}"#,
                "plan pro; at most 3 at once",
            ),
            (
                r#"{"client_id":"10.0.0.0/8","plan":null,"buckets":[{"name":"day","amount":10,"per":"1d","capacity":10,"mode":"shadow","reset":"utc"}],"max_in_flight":null,"shared":true}"#,
                "day 10/d shadow utc; shared",
            ),
            (r#"{"client_id":"a","mode":"exempt"}"#, "exempt"),
            (
                r#"{"client_id":"a","buckets":[{"name":"minute","amount":60,"per":"1m"},{"name":"day","amount":500,"per":"1d","reset":"utc"}]}"#,
                "minute 60/m, day 500/d utc",
            ),
        ] {
            assert_eq!(of_json(text).unwrap().describe(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_limit_is_told_by_its_fault() {
        for (text, fault) in [
            ("{", "EOF while parsing an object at column 1"),
            ("[]", "invalid length 0"),
            (r#"{"client":"a"}"#, "unknown field `client`"),
            (r#"{"rate":"2/s"}"#, "client_id: missing"),
            (r#"{"client_id":"","rate":"2/s"}"#, "client_id: must not be empty"),
            (r#"{"client_id":"a\nb","rate":"2/s"}"#, "client_id: must not hold control characters"),
            (r#"{"client_id":"a"}"#, "neither a plan"),
            (r#"{"client_id":"a","rate":"2"}"#, "rate: must look like"),
            (r#"{"client_id":"a","rate":"2/s","capacity":2}"#, "rate: stands for"),
            (r#"{"client_id":"a","capacity":2}"#, "belong together"),
            (r#"{"client_id":"a","capacity":2,"rate_per_sec":-1}"#, "rate_per_sec: must not be negative"),
            (r#"{"client_id":"a","capacity":-2,"rate_per_sec":1}"#, "invalid value: integer `-2`"),
            (r#"{"client_id":"a","rate":"2/s","plan":"p"}"#, "a plan and buckets"),
            (r#"{"client_id":"a","rate":"2/s","mode":"shadow"}"#, "mode: must be"),
            (
                r#"{"client_id":"a","buckets":[{"name":"b","amount":1,"per":"1w","capacity":1}]}"#,
                "bucket \"b\": per:",
            ),
            (
                r#"{"client_id":"a","buckets":[{"name":"b","amount":1,"per":"1s","capacity":9999999999}]}"#,
                "bucket \"b\": capacity:",
            ),
        ] {
            let found = of_json(text).unwrap_err();
            assert!(found.contains(fault), "{text}: {found}");
        }
    }

    #[test]
    fn rows_are_read_by_their_heads_names() {
        for (head, row, expected) in [
            ("client_id,rate", "a,2/s", Ok("2/s")),
            ("rate;client_id", "\"600/m burst 50\";a", Ok("600/m burst 50")),
            ("CLIENT_ID,Capacity,Rate_per_sec", "a,10,1", Ok("1/s burst 10")),
            (
                "client_id,plan,buckets,max_in_flight,mode,shared,per_instance,weight,priority",
                "a,,day=5/d; s=1/s,7,,true,yes,9,critical",
                Ok("day 5/d, s 1/s; at most 7 at once; weight 9; critical; shared; per instance"),
            ),
            ("client_id,plan", "a,pro", Ok("plan pro")),
            ("client_id,mode", "a,exempt", Ok("exempt")),
            ("client_id,rate", "a", Err("has 1 cells")),
            ("client_id,rate", "a,2/s,x", Err("has 3 cells")),
            ("client_id,rate", "\"a,2/s", Err("quote")),
            ("client_id,capacity,rate_per_sec", "a,ten,1", Err("capacity: must be a whole number")),
            ("client_id,capacity,rate_per_sec", "a,1,x", Err("rate_per_sec: must be a number")),
            ("client_id,buckets", "a,5/d", Err("buckets: must look like")),
            ("client_id,rate,shared", "a,1/s,perhaps", Err("shared: must be")),
            ("client_id,rate,weight", "a,1/s,0", Err("weight: must be a whole number from 1 to 1000")),
            ("client_id,rate,priority", "a,1/s,high", Err("priority: must be \"critical\"")),
        ] {
            let read = EntryColumns::of_head(head).unwrap().read(row);
            match (read, expected) {
                (Ok(terms), Ok(expected)) => assert_eq!(terms.describe(), expected, "{row}"),
                (Err(found), Err(fault)) => assert!(found.contains(fault), "{row}: {found}"),
                (read, expected) => panic!("{row}: {read:?}, {expected:?}"),
            }
        }
        for head in ["", "a,b", "rate", "client_id,client_id", "client_id,\"x"] {
            assert!(EntryColumns::of_head(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn an_exported_line_reads_back_the_same() {
        for json in [
            r#"{"client_id":"a","plan":null,"buckets":[{"name":"default","amount":0.1,"per":"1s","capacity":3,"mode":"enforced","reset":null}],"max_in_flight":null,"shared":false}"#,
            r#"{"client_id":"say \"hi\", now","plan":"p;q","buckets":[],"max_in_flight":4,"weight":7,"priority":"background","shared":false}"#,
            r#"{"client_id":" x ","plan":null,"buckets":[{"name":"a b","amount":1e-6,"per":"90s","capacity":3,"mode":"shadow","reset":null}],"max_in_flight":null,"shared":true}"#,
            r#"{"client_id":"🦀","plan":null,"buckets":[],"max_in_flight":null,"mode":"exempt","shared":false}"#,
        ] {
            let terms: NewLimit = serde_json::from_str(json).unwrap();
            let row = csv::line(&terms);
            let again = EntryColumns::of_head(csv::head().trim_end())
                .unwrap()
                .read(row.trim_end_matches('\n'))
                .unwrap();
            let plain = |mut terms: NewLimit| {
                for bucket in &mut terms.buckets {
                    bucket.mode = bucket.mode.take().filter(|mode| mode != "enforced");
                }
                terms
            };
            assert_eq!(plain(again), plain(terms), "{row}");
        }
    }
}
