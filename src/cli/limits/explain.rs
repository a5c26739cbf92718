//! `balancer limits explain`: what a request would get, and why.

use std::fmt::Write;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::item;
use crate::cli::api::Api;
use crate::cli::failure::CommandFailure;
use crate::cli::session::ApiSession;
use balancer_limiter::document::NewLimit;

/// Most bytes of a file of header fields.
const MAX_FIELD_BYTES: u64 = 64 << 10;

/// Fields whose values are secrets. They are refused as arguments, which the list of processes and the shell's history
/// show.
const SECRET_FIELDS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

const EXAMPLES: &str = "\
Examples:
  balancer limits explain 127.0.0.1
  balancer limits explain 10.0.0.7:4711 --method POST --path /login
  balancer limits explain 10.0.0.7 --header \"X-Forwarded-For: 203.0.113.9\"
  balancer limits explain 10.0.0.7 --headers-file - < headers.txt      # for those that hold a secret";

/// Say what a request would get now, and why: who it is taken for, which limits were tried, which one decides, what is
/// left of it. Takes no token.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Explain {
    /// Where the request comes from: 127.0.0.1, 127.0.0.1:5000, [2001:db8::1]:5000.
    #[arg(value_name = "ADDRESS[:PORT]")]
    address: String,
    /// Its method.
    #[arg(long, value_name = "NAME", default_value = "GET")]
    method: String,
    /// Its path.
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// A field of its head; may be repeated. Secrets belong into --headers-file.
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A file with more fields, one a line; - is stdin.
    #[arg(long, value_name = "FILE")]
    headers_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    decision: String,
    identity: String,
    #[serde(default)]
    candidates: Vec<String>,
    matched: Option<String>,
    policy: String,
    #[serde(default)]
    buckets: Vec<Level>,
    /// Older balancers send neither this nor the priority.
    weight: Option<u32>,
    priority: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Level {
    name: String,
    capacity: u64,
    level: u64,
}

/// A row of `/v1/limited`.
#[derive(Debug, Deserialize, Serialize)]
struct Refused {
    client_id: String,
    denied: u64,
    #[serde(default)]
    reasons: Vec<Reason>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Reason {
    policy: String,
    bucket: String,
    rule: Option<String>,
    denied: u64,
}

/// Runs the command. The arguments are checked before `open` is called.
pub fn run(
    explain: &Explain,
    open: impl FnOnce() -> Result<ApiSession, CommandFailure>,
) -> Result<(), CommandFailure> {
    let question = question(explain)?;
    let ApiSession { api, mut out } = open()?;
    let answer = api.send(Method::POST, "/-/v1/check", &[], Some(&question.to_string()))?;
    let verdict: Verdict = api.read(&answer.body)?;
    let refused = refused(&api, &verdict, &explain.address)?;
    if out.is_json() {
        let mut all: Map<String, Value> = api.read(&answer.body)?;
        all.insert("refused".into(), refused.map_or(Value::Null, |refused| json!(refused)));
        out.raw(&format!("{}\n", Value::Object(all)))?;
        return out.flush();
    }
    // The limit that decides, in words. It may have been removed since the answer.
    let matched =
        verdict.matched.as_deref().filter(|_| ["client", "range"].contains(&verdict.policy.as_str()));
    let granted = match matched.map(|id| api.get(&item("", id))) {
        Some(Ok(body)) => Some(api.read::<NewLimit>(&body)?.describe()),
        Some(Err(CommandFailure::Refused { status: 404, .. })) | None => None,
        Some(Err(other)) => return Err(other),
    };
    out.raw(&tell(explain, &verdict, granted.as_deref(), refused.as_ref()))?;
    out.flush()
}

/// How often the client was refused in the last hour, and why: by the limits of that time, not by those of now.
fn refused(api: &Api, verdict: &Verdict, address: &str) -> Result<Option<Refused>, CommandFailure> {
    #[derive(Deserialize)]
    struct Limited {
        limited: Vec<Refused>,
    }
    let answer = api.get("/-/v1/limited?window=1h&top=1000")?;
    let Limited { limited } = api.read(&answer)?;
    let own = verdict.matched.as_deref().filter(|_| ["client", "range"].contains(&verdict.policy.as_str()));
    let address = verdict.identity.parse::<IpAddr>().ok().or_else(|| address.parse().ok());
    let is_it = |refused: &Refused| {
        let id = refused.client_id.as_str();
        let group = id.parse::<IpNet>().ok().filter(|net| matches!(net, IpNet::V6(_)));
        id == verdict.identity
            || Some(id) == own
            || verdict.identity.parse::<IpAddr>().is_ok()
                && group.zip(address).is_some_and(|(group, address)| group.contains(&address))
    };
    Ok(limited.into_iter().find(is_it))
}

fn question(explain: &Explain) -> Result<Value, CommandFailure> {
    let (address, port) = match (explain.address.parse::<IpAddr>(), explain.address.parse::<SocketAddr>()) {
        (Ok(address), _) => (address, None),
        (_, Ok(peer)) => (peer.ip(), Some(peer.port())),
        _ => {
            return Err(CommandFailure::Usage(format!(
                "{:?} is no address: explain asks for where a request comes from, as 127.0.0.1 or 127.0.0.1:5000; keys \
                 and tenants stand in its fields (--header, --headers-file)",
                explain.address
            )));
        }
    };
    let mut headers = Map::new();
    for line in &explain.header {
        let name = add_field(&mut headers, line)
            .map_err(|fault| CommandFailure::Usage(format!("--header: {fault}")))?;
        if SECRET_FIELDS.contains(&name.as_str()) {
            return Err(CommandFailure::Usage(format!(
                "--header: {name} holds a secret, and arguments can be seen by others: put it into a file, or pipe it \
                 into --headers-file -"
            )));
        }
    }
    if let Some(file) = &explain.headers_file {
        let shown = file.display();
        let text = text_of(file).map_err(|error| CommandFailure::Usage(format!("{shown}: {error}")))?;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            add_field(&mut headers, line)
                .map_err(|fault| CommandFailure::Usage(format!("{shown}:{}: {fault}", at + 1)))?;
        }
    }
    let mut question = json!({ "address": address, "method": explain.method, "path": explain.path });
    if let Some(port) = port {
        question["port"] = port.into();
    }
    if !headers.is_empty() {
        question["headers"] = headers.into();
    }
    Ok(question)
}

/// Adds `NAME: VALUE` to a map of lists, and returns the name in lower case. The error does not repeat the line, which
/// may contain a secret.
fn add_field(headers: &mut Map<String, Value>, line: &str) -> Result<String, &'static str> {
    let (name, value) = line.split_once(':').ok_or("must look like \"NAME: VALUE\"")?;
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() {
        return Err("has no name before the colon");
    }
    let values = headers.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(values) = values {
        values.push(value.trim().into());
    }
    Ok(name)
}

fn text_of(file: &Path) -> Result<String, String> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|error| error.to_string())?)
    };
    let mut text = String::new();
    source.take(MAX_FIELD_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FIELD_BYTES {
        return Err(format!("is longer than {MAX_FIELD_BYTES} bytes"));
    }
    Ok(text)
}

/// The answer in words.
fn tell(explain: &Explain, verdict: &Verdict, granted: Option<&str>, refused: Option<&Refused>) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", crate::cli::session::shown(&line));
    };
    line(format!(
        "{} {} from {}: {}",
        explain.method,
        explain.path,
        explain.address,
        if verdict.decision == "allowed" { "would be allowed" } else { "would be refused" }
    ));
    line(format!("It is taken for {}.", verdict.identity));
    if !verdict.candidates.is_empty() {
        line("Limits are looked for in this order; the first that is there decides alone:".into());
    }
    let mut decided = false;
    for candidate in &verdict.candidates {
        let decides = verdict.matched.as_ref() == Some(candidate);
        let note = match (decides, decided) {
            (true, _) => "decides",
            (false, false) if candidate == "default" => "there is none",
            (false, false) => "has no limit",
            (false, true) => "not asked",
        };
        decided |= decides;
        line(format!("  {candidate}: {note}"));
    }
    let whose = match (verdict.policy.as_str(), &verdict.matched) {
        ("none", _) => "Nothing limits it.".to_owned(),
        ("default", _) => "The default for clients without a limit of their own is in force.".to_owned(),
        ("range", Some(id)) => format!("The limit of the range {id} is in force{}.", colon(granted)),
        (_, Some(id)) => format!("The limit of {id} is in force{}.", colon(granted)),
        (policy, None) => format!("A limit of kind {policy} is in force."),
    };
    line(whose);
    for bucket in &verdict.buckets {
        let empty = if bucket.level == 0 { ": empty" } else { "" };
        line(format!("  {}: {} of {} tokens left{empty}", bucket.name, bucket.level, bucket.capacity));
    }
    let usual = (Some(1), Some("normal"));
    let said = Some((verdict.weight, verdict.priority.as_deref())).filter(|said| *said != usual);
    if let Some((Some(weight), Some(priority))) = said {
        line(format!("Where requests wait for a place, it has weight {weight} and priority {priority}."));
    }
    if let Some(refused) = refused {
        line(format!("Refused in the last hour, as it was decided then: {}.", refused.denied));
        for Reason { policy, bucket, rule, denied } in &refused.reasons {
            let whose = match (rule, policy.as_str()) {
                (Some(rule), _) => format!("the rule {rule}"),
                (None, "client") => "its own limit".into(),
                (None, "range") => "its range".into(),
                (None, policy) => format!("the {policy}"),
            };
            line(format!("  {denied} by the bucket {bucket} of {whose}"));
        }
    }
    text
}

fn colon(granted: Option<&str>) -> String {
    granted.map(|granted| format!(": {granted}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::command;

    fn asked(line: &str) -> Result<String, CommandFailure> {
        question(&command::<Explain>(line).unwrap()).map(|question| question.to_string())
    }

    #[test]
    fn words_become_a_question() {
        for (line, expected) in [
            ("127.0.0.1", r#"{"address":"127.0.0.1","method":"GET","path":"/"}"#),
            (
                "[::1]:80 --method PUT --path /a?b",
                r#"{"address":"::1","method":"PUT","path":"/a?b","port":80}"#,
            ),
            (
                "::1 -H X-A:b -H x-a:c",
                r#"{"address":"::1","headers":{"x-a":["b","c"]},"method":"GET","path":"/"}"#,
            ),
        ] {
            assert_eq!(asked(line).unwrap(), expected, "{line}");
        }
        for line in [
            "tenant=acme",
            "10.0.0.0/8",
            "::1 -H nothing",
            "::1 -H :x",
            "::1 -H AUTHORIZATION:x",
            "::1 -H cookie:x",
        ] {
            assert_eq!(asked(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_file_of_fields_may_hold_secrets_and_no_fault_repeats_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fields");
        let line = format!("::1 --headers-file {}", file.display());
        std::fs::write(&file, "Authorization: Bearer x:y\r\n\r\nCookie: a=b\n").unwrap();
        let question = asked(&line).unwrap();
        assert!(
            question.contains(r#""headers":{"authorization":["Bearer x:y"],"cookie":["a=b"]}"#),
            "{question}"
        );
        std::fs::write(&file, "a: b\nhunter2\n").unwrap();
        let text = asked(&line).unwrap_err().to_string();
        assert!(
            text.ends_with("fields:2: must look like \"NAME: VALUE\"") && !text.contains("hunter2"),
            "{text}"
        );
        std::fs::write(&file, "x".repeat(70_000)).unwrap();
        assert!(asked(&line).unwrap_err().to_string().contains("longer"));
        assert!(asked("::1 --headers-file /nowhere").is_err());
    }

    #[test]
    fn an_answer_is_told_in_words() {
        let explain = command::<Explain>("10.1.2.3 --path /x").unwrap();
        let verdict = r#"{"decision":"denied","identity":"10.1.2.3","candidates":["10.1.2.3","10.0.0.0/8","default"],
            "matched":"10.0.0.0/8","policy":"range","buckets":[{"name":"default","capacity":2,"level":0}],"weight":4,"priority":"critical","instance":"i"}"#;
        let refused = r#"{"client_id":"10.1.2.3","denied":5,"reasons":[
            {"policy":"rule","bucket":"minute","rule":"login","denied":3},
            {"policy":"range","bucket":"default","rule":null,"denied":2}]}"#;
        let refused: Refused = serde_json::from_str(refused).unwrap();
        assert_eq!(
            tell(&explain, &serde_json::from_str(verdict).unwrap(), Some("2/s"), Some(&refused)),
            "GET /x from 10.1.2.3: would be refused\n\
             It is taken for 10.1.2.3.\n\
             Limits are looked for in this order; the first that is there decides alone:\n  \
               10.1.2.3: has no limit\n  \
               10.0.0.0/8: decides\n  \
               default: not asked\n\
             The limit of the range 10.0.0.0/8 is in force: 2/s.\n  \
               default: 0 of 2 tokens left: empty\n\
             Where requests wait for a place, it has weight 4 and priority critical.\n\
             Refused in the last hour, as it was decided then: 5.\n  \
               3 by the bucket minute of the rule login\n  \
               2 by the bucket default of its range\n"
        );
        let verdict = r#"{"decision":"allowed","identity":"10.1.2.3","candidates":["10.1.2.3","default"],"matched":null,
            "policy":"none","buckets":[],"instance":"i"}"#;
        let text = tell(&explain, &serde_json::from_str(verdict).unwrap(), None, None);
        assert!(text.ends_with("  default: there is none\nNothing limits it.\n"), "{text}");
    }
}
