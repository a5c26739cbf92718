//! Words for the state of a backend and its cause. The log, the probes, the API, the command line, the dashboard and
//! the metrics use these, so that a cause reads the same everywhere.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The state of a backend, by the operator's word and its health together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It gets requests.
    Up,
    /// It gets no new requests, because the operator wants it so.
    Drain,
    /// It is out of service: its health checks fail, it has no address, or the operator took it out.
    Down,
    /// It was taken out because of its answers, and gets one request at a time as a trial.
    Ejected,
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Up, Self::Drain, Self::Down, Self::Ejected];

    /// Its name in metrics and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }
}

/// Why a health check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The answer has a status that is not expected.
    Status(u16),
    /// The connection was refused.
    Refused,
    /// There was no connection in time.
    NoConnection,
    /// There was a connection, but no whole head in time.
    NoAnswer,
    /// The connection was reset before the head ended.
    Reset,
    /// The connection was closed before the head ended.
    Closed,
    /// The backend answered with TLS, but was called without.
    Tls,
    /// The TLS handshake failed, or the session broke; with the cause.
    Handshake(String),
    /// The answer is not HTTP/1.
    NotHttp,
    /// The status line breaks RFC 9112 §4.
    StatusLine,
    /// The answer's lines end with a bare LF.
    BareLineFeeds,
    /// The answer has a status above 599.
    HighStatus,
    /// The answer is a 101, which was not asked for.
    Switches,
    /// The answer's head has more than so many bytes.
    HeadTooLarge(usize),
    /// Any other fault, in the system's words.
    Other(String),
}

/// What a health check asks; makes the sentences about its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `health_check.path`.
    pub path: String,
    /// `health_check.expect`.
    pub expect: Vec<(u16, u16)>,
    /// `health_check.timeout`.
    pub timeout: Duration,
}

impl Asked {
    /// The sentence about a check that passed.
    pub fn passed(&self, status: u16) -> String {
        format!("GET {}: status {status}", self.path)
    }

    /// The sentence about a check that failed: request, result, and the configuration key to look at.
    pub fn failed(&self, failed: &Failed) -> String {
        let (came, hint) = self.words(failed);
        format!("GET {}: {came}; {hint}", self.path)
    }

    /// Like [`Asked::failed`], without the key.
    pub fn came(&self, failed: &Failed) -> String {
        format!("GET {}: {}", self.path, self.words(failed).0)
    }

    /// The result, and the key to look at.
    fn words(&self, failed: &Failed) -> (String, String) {
        const URL: &str = "is backends[].url right?";
        const ACCEPT: &str = "upstream.accept_invalid takes such answers";
        let Self { expect, timeout, .. } = self;
        match failed {
            Failed::Status(status) => {
                let expect = Ranges(expect);
                let hint =
                    format!("set health_check.expect, which is \"{expect}\", or another health_check.path");
                (format!("status {status}"), hint)
            }
            Failed::Refused => ("connection refused".into(), format!("does it run, and {URL}")),
            Failed::NoConnection => {
                (format!("no connection within {timeout:?}"), format!("{URL} Else set health_check.timeout"))
            }
            Failed::NoAnswer => (
                format!("no answer within {timeout:?}"),
                "set health_check.timeout or another health_check.path".into(),
            ),
            Failed::Reset => ("connection reset before an answer's head ended".into(), URL.into()),
            Failed::Closed => ("connection closed before an answer's head ended".into(), URL.into()),
            Failed::Tls => (
                "the answer is TLS".into(),
                "write https:// in backends[].url, or a port that speaks HTTP".into(),
            ),
            Failed::Handshake(cause) => (
                format!("no TLS: {cause}"),
                "is its certificate right? Else set upstream.tls.ca or .server_name".into(),
            ),
            Failed::NotHttp => ("the answer is not HTTP/1".into(), URL.into()),
            Failed::StatusLine => ("the answer's status line is malformed".into(), URL.into()),
            Failed::BareLineFeeds => ("the answer's lines end with a bare line feed".into(), ACCEPT.into()),
            Failed::HighStatus => ("the answer has a status above 599".into(), ACCEPT.into()),
            Failed::Switches => {
                ("the answer switches protocols".into(), "set another health_check.path".into())
            }
            Failed::HeadTooLarge(most) => (
                format!("the answer's head is larger than {most} bytes"),
                "set upstream.max_head_bytes or another health_check.path".into(),
            ),
            Failed::Other(cause) => (cause.clone(), URL.into()),
        }
    }
}

/// Ranges of statuses as the configuration writes them: `200-399,404`.
struct Ranges<'a>(&'a [(u16, u16)]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (from, to)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if from == to { write!(f, "{comma}{from}")? } else { write!(f, "{comma}{from}-{to}")? }
        }
        Ok(())
    }
}

/// The cause while a backend's name was not looked up yet.
pub const NO_ADDRESS_YET: &str = "its name has no address yet";

/// The cause if there is no room for some addresses.
pub fn left_out(count: usize) -> String {
    format!("{count} addresses are left out: too many for one name or for the pool")
}

/// The cause if a name has no address.
pub fn unresolved(host: &str, cause: impl fmt::Display) -> String {
    format!("{host} does not resolve: {cause}; is backends[].url right, and discovery.resolver?")
}

/// The cause if the SRV record of a name says that there is no such service (RFC 2782, "Target").
pub fn not_offered(host: &str) -> String {
    format!("{host} says that the service is not available: the target of its SRV record is \".\" (RFC 2782)")
}

/// The cause of an ejection: an endpoint was taken out for that time because of its answers.
pub fn ejected(cause: impl fmt::Display, last: &str, time: Duration) -> String {
    format!("ejected for {time:?}: {cause}, the last: {last}; after that one request at a time tries it")
}

/// State and cause if the operator wants no new requests to go to a backend; else `None`.
pub fn withheld(is_drained: bool, is_out: bool, weight: u32) -> Option<(State, &'static str)> {
    match (is_drained, is_out) {
        (true, _) => Some((State::Drain, "the operator drains it")),
        (_, true) => Some((State::Down, "the operator took it out of service")),
        _ if weight == 0 => Some((State::Drain, "its weight is 0")),
        _ => None,
    }
}

/// The log line about a change of state: `backend a (127.0.0.1:9001) is down: …`.
pub fn line(backend: &str, address: Option<SocketAddr>, state: State, cause: &str) -> String {
    let state = if state == State::Drain { "in drain" } else { state.name() };
    format!("{} is {state}: {cause}", label(backend, address))
}

/// What log lines call a backend, or one of its addresses.
pub fn label(backend: &str, address: Option<SocketAddr>) -> String {
    match address {
        Some(address) => format!("backend {backend} ({address})"),
        None => format!("backend {backend}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_failed_says_what_was_asked_what_came_and_which_key_to_look_at() {
        let asked = Asked {
            path: "/up".into(),
            expect: vec![(200, 204), (301, 301)],
            timeout: Duration::from_millis(1_500),
        };
        let other = Failed::Other("network unreachable".into());
        for (failed, came, key) in [
            (Failed::Status(404), "status 404", "health_check.expect, which is \"200-204,301\""),
            (Failed::Refused, "connection refused", "backends[].url"),
            (Failed::NoConnection, "no connection within 1.5s", "health_check.timeout"),
            (Failed::NoAnswer, "no answer within 1.5s", "health_check.timeout"),
            (Failed::Reset, "connection reset", "backends[].url"),
            (Failed::Closed, "connection closed", "backends[].url"),
            (Failed::Tls, "the answer is TLS", "backends[].url"),
            (Failed::Handshake("expired".into()), "no TLS: expired", "upstream.tls.ca"),
            (Failed::NotHttp, "not HTTP/1", "backends[].url"),
            (Failed::StatusLine, "status line is malformed", "backends[].url"),
            (Failed::BareLineFeeds, "a bare line feed", "upstream.accept_invalid"),
            (Failed::HighStatus, "a status above 599", "upstream.accept_invalid"),
            (Failed::Switches, "switches protocols", "health_check.path"),
            (Failed::HeadTooLarge(9), "larger than 9 bytes", "health_check.path"),
            (other, "network unreachable", "backends[].url"),
        ] {
            let text = asked.failed(&failed);
            let (first, hint) = text.split_once("; ").unwrap();
            assert_eq!(asked.came(&failed), first);
            assert!(first.starts_with("GET /up: ") && first.contains(came) && hint.contains(key), "{text}");
        }
        assert_eq!(asked.passed(301), "GET /up: status 301");
    }

    #[test]
    fn the_operator_withholds_by_a_drain_by_taking_it_out_and_by_weight_0() {
        for (drained, out, weight, expected) in [
            (false, false, 1, None),
            (true, false, 0, Some((State::Drain, "the operator drains it"))),
            (false, true, 0, Some((State::Down, "the operator took it out of service"))),
            (false, false, 0, Some((State::Drain, "its weight is 0"))),
        ] {
            assert_eq!(withheld(drained, out, weight), expected);
        }
    }

    #[test]
    fn lines_name_backend_address_state_and_cause() {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 9001)));
        assert_eq!(line("a", address, State::Down, "x"), "backend a (127.0.0.1:9001) is down: x");
        assert_eq!(line("a", None, State::Drain, "x"), "backend a is in drain: x");
    }
}
