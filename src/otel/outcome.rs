//! What a collector's answer means for the spans that it was sent (OTLP 1.x, "OTLP/HTTP Response").

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// A collector's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CollectorAnswer {
    pub status: u16,
    /// The first one.
    pub retry_after: Option<String>,
    /// Its beginning.
    pub body: Vec<u8>,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has them, all but those that it refused; what it says beside that.
    Taken { refused: u64, said: Option<String> },
    /// It does not want them, and must not be sent them again.
    Refused(String),
    /// It is to be sent them again, after that time if it names one.
    Again(String, Option<Duration>),
}

/// Longest text of a collector that is told in the log, in characters.
const MAX_SAID: usize = 200;

impl Outcome {
    /// `now`: what a date in `Retry-After` is compared with.
    pub fn of(answer: &CollectorAnswer, now: SystemTime) -> Self {
        let CollectorAnswer { status, retry_after, body } = answer;
        // Whatever the body is, the status says what counts.
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if (200..300).contains(status) {
            let partial = &body["partialSuccess"];
            return Self::Taken {
                refused: number(&partial["rejectedSpans"]),
                said: said(&partial["errorMessage"]),
            };
        }
        let said = said(&body["message"]).map_or_else(String::new, |said| format!(": {said}"));
        let cause = format!("it answered {status}{said}");
        match status {
            429 | 502 | 503 | 504 => {
                Self::Again(cause, retry_after.as_ref().and_then(|after| pause(after, now)))
            }
            _ => Self::Refused(cause),
        }
    }
}

/// 64-bit numbers are strings in JSON, and may be numbers.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// One line of a collector's words.
fn said(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| !text.is_empty())?;
    Some(text.chars().take(MAX_SAID).flat_map(char::escape_debug).collect())
}

/// Seconds or a date (RFC 9110 §10.2.3).
fn pause(value: &str, now: SystemTime) -> Option<Duration> {
    let date = || httpdate::parse_http_date(value).ok()?.duration_since(now).ok();
    value.parse().ok().map(Duration::from_secs).or_else(date)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn of(status: u16, retry_after: &str, body: &str) -> Outcome {
        let retry_after = (!retry_after.is_empty()).then(|| retry_after.to_owned());
        Outcome::of(&CollectorAnswer { status, retry_after, body: body.into() }, UNIX_EPOCH)
    }

    #[test]
    fn two_hundred_takes_all_but_what_it_names() {
        let taken = |refused, said: Option<&str>| Outcome::Taken { refused, said: said.map(str::to_owned) };
        for (body, expected) in [
            ("", taken(0, None)),
            ("{}", taken(0, None)),
            ("not JSON", taken(0, None)),
            (r#"{"partialSuccess":{}}"#, taken(0, None)),
            (
                r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#,
                taken(3, Some("too old")),
            ),
            (r#"{"partialSuccess":{"rejectedSpans":3}}"#, taken(3, None)),
            (r#"{"partialSuccess":{"errorMessage":"a\nb"}}"#, taken(0, Some("a\\nb"))),
            (r#"{"partialSuccess":{"rejectedSpans":-3,"errorMessage":7}}"#, taken(0, None)),
        ] {
            assert_eq!(of(200, "", body), expected, "{body}");
        }
        let long = format!(r#"{{"partialSuccess":{{"errorMessage":"{}"}}}}"#, "é".repeat(1_000));
        assert_eq!(of(200, "", &long), taken(0, Some(&"é".repeat(MAX_SAID))));
    }

    #[test]
    fn four_statuses_ask_for_another_try_and_no_other_does() {
        let again = |status: u16, after: Option<u64>| {
            Outcome::Again(format!("it answered {status}"), after.map(Duration::from_secs))
        };
        for (status, retry_after, expected) in [
            (429, "7", again(429, Some(7))),
            (502, "", again(502, None)),
            (503, "Thu, 01 Jan 1970 00:02:00 GMT", again(503, Some(120))),
            (503, "-1", again(503, None)),
            (504, "soon", again(504, None)),
        ] {
            assert_eq!(of(status, retry_after, ""), expected);
        }
        for status in [301, 400, 401, 404, 413, 500, 501, 599] {
            assert_eq!(of(status, "1", "<html>"), Outcome::Refused(format!("it answered {status}")));
        }
        let told = of(400, "", r#"{"code":3,"message":"no spans"}"#);
        assert_eq!(told, Outcome::Refused("it answered 400: no spans".into()));
    }
}
