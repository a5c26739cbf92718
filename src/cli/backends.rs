//! `balancer backends …`: lists and changes the backends of a running balancer.

use std::fmt::{self, Display, Formatter};

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Env;
use super::failure::CommandFailure;
use super::session::{ApiSession, CommandOutput, Common};
use balancer_http::path::encoded;
use balancer_pool::backend::InFlightBound;
use balancer_pool::backends::{DEFAULT_POOL, title};

const EXAMPLES: &str = "\
Examples:
  balancer backends ls
  balancer backends add b http://127.0.0.1:9002 --weight 2
  balancer backends set a --weight 0
  balancer backends drain a
  balancer backends set a --state up
  balancer backends rm b --drain 30s
  balancer backends add c http://10.0.0.7 --pool api";

/// The arguments of `balancer backends`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct BackendsCommand {
    #[command(flatten)]
    common: Common,
    /// The pool that is meant; without it the one at the top of the configuration, and all of them for ls.
    #[arg(long, global = true, value_name = "NAME")]
    pool: Option<String>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
enum What {
    /// List the backends, as the balancer that is asked has them.
    Ls,
    /// Add a backend.
    Add {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        /// Where it listens: http://HOST[:PORT], https://HOST[:PORT] or srv://_SERVICE._PROTO.DOMAIN.
        #[arg(value_name = "BACKEND_URL")]
        to: String,
        /// Share relative to the others, 0 to 1000.
        #[arg(long, value_name = "N")]
        weight: Option<u32>,
        /// Most requests at once; auto: as many as are measured to be of use.
        #[arg(long, value_name = "N|auto", value_parser = bound)]
        max_in_flight: Option<Bound>,
        /// Use it only when no other is left.
        #[arg(long)]
        backup: bool,
    },
    /// Change a backend, also one of the configuration file.
    Set(Set),
    /// Send a backend no new requests; those that are under way end.
    Drain {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove a backend that was added while the balancer runs.
    Rm {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
        /// How long it stays listed while requests are under way on it: 30s, at most 1h.
        #[arg(long, value_name = "TIME")]
        drain: Option<String>,
    },
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(required = true, multiple = true, id = "said", args = ["weight", "max_in_flight", "state"])]
struct Set {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Share relative to the others, 0 to 1000.
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Most requests at once; auto: as many as are measured to be of use; none: no bound.
    #[arg(long, value_name = "N|auto|none", value_parser = bound)]
    max_in_flight: Option<Bound>,
    /// Use it, drain it, or take it out of service.
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound(Option<InFlightBound>);

fn bound(text: &str) -> Result<Bound, String> {
    match text {
        "none" => Ok(Bound(None)),
        "auto" => Ok(Bound(Some(InFlightBound::Auto))),
        _ => match text.parse() {
            Ok(most) => Ok(Bound(Some(InFlightBound::Number(most)))),
            Err(_) => Err("must be a number, auto or none".into()),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Up,
    Drain,
    Down,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }
}

/// How many requests a backend has, and its bound.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Occupied {
    pub in_flight: u32,
    /// Older balancers do not send it.
    pub limit: Option<u32>,
    pub measured: Option<HeldPlaces>,
}

/// Of a measured bound.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct HeldPlaces {
    pub held: u32,
}

impl Display for Occupied {
    /// A measured bound counts requests up to their answers' heads, so their number stands beside that of all in
    /// flight.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { in_flight, limit, measured } = self;
        match (limit, measured) {
            (None, _) => write!(f, "{in_flight}"),
            (Some(limit), None) => write!(f, "{in_flight} of {limit}"),
            (Some(limit), Some(HeldPlaces { held })) => write!(f, "{in_flight} ({held} of {limit} measured)"),
        }
    }
}

/// The members of a backend that are shown here.
#[derive(Deserialize)]
struct ShownBackend {
    pool: String,
    name: String,
    url: String,
    weight: u32,
    state: String,
    health: String,
    cause: Option<String>,
    #[serde(flatten)]
    occupied: Occupied,
    source: String,
}

/// Runs the command.
pub(super) fn run(backends: &BackendsCommand, env: Env<'_>) -> Result<(), CommandFailure> {
    let mut session = ApiSession::open(&backends.common, env)?;
    let pool = backends.pool.as_deref();
    match &backends.what {
        What::Ls => ls(&mut session, pool),
        What::Add { name, to, weight, max_in_flight, backup } => {
            let mut body = json!({ "name": name, "url": to });
            if let Some(weight) = weight {
                body["weight"] = json!(weight);
            }
            if let Some(Bound(most)) = max_in_flight {
                body["max_in_flight"] = json!(most);
            }
            if *backup {
                body["backup"] = json!(true);
            }
            tell(&mut session, Method::POST, &all(pool), &body)
        }
        What::Set(set) => tell(&mut session, Method::PATCH, &item(pool, &set.name), &patch(set)),
        What::Drain { name } => {
            tell(&mut session, Method::PATCH, &item(pool, name), &json!({ "state": "drain" }))
        }
        What::Rm { name, drain } => {
            let query = drain.as_ref().map(|drain| format!("?drain={}", encoded(drain)));
            let path = format!("{}{}", item(pool, name), query.unwrap_or_default());
            session.api.send(Method::DELETE, &path, &[], None)?;
            let pool = pool.unwrap_or(DEFAULT_POOL);
            let done = json!({ "pool": pool, "name": name, "removed": true });
            session.out.ended(&done, &format!("removed backend {}", title(pool, name)))
        }
    }
}

/// The path of a pool's backends.
fn all(pool: Option<&str>) -> String {
    match pool {
        Some(pool) => format!("/-/v1/pools/{}/backends", encoded(pool)),
        None => "/-/v1/backends".to_owned(),
    }
}

fn item(pool: Option<&str>, name: &str) -> String {
    format!("{}/{}", all(pool), encoded(name))
}

fn patch(set: &Set) -> Value {
    let mut body = Map::new();
    if let Some(weight) = set.weight {
        body.insert("weight".into(), json!(weight));
    }
    if let Some(Bound(most)) = set.max_in_flight {
        body.insert("max_in_flight".into(), json!(most));
    }
    if let Some(state) = set.state {
        body.insert("state".into(), json!(state.name()));
    }
    Value::Object(body)
}

fn ls(session: &mut ApiSession, pool: Option<&str>) -> Result<(), CommandFailure> {
    #[derive(Deserialize)]
    struct List {
        backends: Vec<Value>,
    }
    #[derive(Deserialize)]
    struct Pools {
        pools: Vec<List>,
    }
    let ApiSession { api, out } = session;
    let backends = match pool {
        Some(_) => api.read::<List>(&api.get(&all(pool))?)?.backends,
        None => {
            let Pools { pools } = api.read(&api.get("/-/v1/pools")?)?;
            pools.into_iter().flat_map(|pool| pool.backends).collect()
        }
    };
    if out.is_json() {
        out.raw(&format!("{}\n", json!({ "backends": backends, "next_cursor": null })))?;
        return out.flush();
    }
    let backends: Vec<ShownBackend> = api.read(&Value::from(backends).to_string())?;
    let several = backends.iter().any(|one| one.pool != backends[0].pool);
    let rows: Vec<_> = backends.into_iter().map(|one| row(one, several)).collect();
    let names = ["POOL", "BACKEND", "URL", "STATE", "HEALTH", "WEIGHT", "IN FLIGHT", "FROM", "CAUSE"];
    out.table(&names[usize::from(!several)..], &rows)?;
    out.flush()
}

/// A row of the table; `several`: it begins with the pool.
fn row(one: ShownBackend, several: bool) -> Vec<String> {
    let (weight, in_flight) = (one.weight.to_string(), one.occupied.to_string());
    let mut row = if several { vec![one.pool] } else { Vec::new() };
    row.extend([one.name, one.url, one.state, one.health, weight, in_flight, one.source]);
    row.extend(one.cause);
    row
}

/// Asks for a change and shows the backend that comes of it.
fn tell(session: &mut ApiSession, method: Method, path: &str, body: &Value) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    let answer = api.send(method, path, &[], Some(&body.to_string()))?;
    if out.is_json() {
        out.raw(&format!("{}\n", answer.body.trim_end()))?;
    } else {
        show(out, &api.read(&answer.body)?, answer.status == 201)?;
    }
    out.flush()
}

fn show(out: &mut CommandOutput, one: &ShownBackend, is_new: bool) -> Result<(), CommandFailure> {
    let done = if is_new { "added" } else { "changed" };
    let ShownBackend { pool, name, url, state, weight, .. } = one;
    let name = title(pool, name);
    out.line(&format!("{done} backend {name}: {url}, {state}, weight {weight}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_asked_for() {
        let set = |weight, max_in_flight, state| Set { name: "a".into(), weight, max_in_flight, state };
        for (set, expected) in [
            (set(Some(0), None, None), json!({ "weight": 0 })),
            (
                set(None, Some(Bound(None)), Some(State::Down)),
                json!({ "max_in_flight": null, "state": "down" }),
            ),
            (set(None, bound("3").ok(), None), json!({ "max_in_flight": 3 })),
            (set(None, bound("auto").ok(), None), json!({ "max_in_flight": "auto" })),
        ] {
            assert_eq!(patch(&set), expected);
        }
        assert_eq!(bound("none"), Ok(Bound(None)));
        assert!(bound("few").is_err());
        assert_eq!(item(None, "a:1/x"), "/-/v1/backends/a%3A1%2Fx");
        assert_eq!(item(Some("api"), "a"), "/-/v1/pools/api/backends/a");
    }

    #[test]
    fn a_bound_is_told_with_what_counts_for_it() {
        for (text, expected) in [
            (r#"{ "in_flight": 3 }"#, "3"),
            (r#"{ "in_flight": 3, "limit": null, "measured": null }"#, "3"),
            (r#"{ "in_flight": 3, "limit": 8, "measured": null }"#, "3 of 8"),
            (
                r#"{ "in_flight": 5, "limit": 8, "measured": { "held": 2, "moved": "quick" } }"#,
                "5 (2 of 8 measured)",
            ),
        ] {
            assert_eq!(serde_json::from_str::<Occupied>(text).unwrap().to_string(), expected);
        }
    }
}
