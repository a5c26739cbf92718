//! Why a command failed: the text for the person at the terminal, and the exit code.

use std::fmt::Write;

use serde::Deserialize;

/// Why a command failed.
#[derive(Debug)]
pub enum CommandFailure {
    /// The arguments make no sense, or no balancer is named; exit code 2. Nothing was sent.
    Usage(String),
    /// The balancer answered with a status that is an error or a redirect; exit code 1.
    Refused {
        /// The status.
        status: u16,
        /// One line, and one more for each faulty field.
        text: String,
        /// The fields that were wrong: a JSON pointer (RFC 6901) and what is wrong there.
        errors: Vec<(String, String)>,
    },
    /// There was no answer, or one that a balancer does not give; exit code 1. What was asked may have happened.
    Unreachable(String),
    /// The command ran, but only in part or with a bad result; exit code 1.
    Incomplete(String),
    /// The reader of the output has closed it; exit code 0, since that is normal in a pipe.
    Closed,
}

impl CommandFailure {
    /// The exit code: 0, 1 or 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused { .. } | Self::Unreachable(_) | Self::Incomplete(_) => 1,
            Self::Closed => 0,
        }
    }

    /// An answer that refuses. `json`: its body, where that is JSON; it should be a problem document (RFC 9457).
    pub(super) fn refused(base: &str, status: u16, json: Option<&str>) -> Self {
        let Some(problem) = json.and_then(|body| serde_json::from_str::<Problem>(body).ok()) else {
            let text = format!(
                "{base} answered {status} and no word of a balancer's API: does it listen there? With admin.listen \
                 set, the API is at that address alone"
            );
            return Self::Refused { status, text, errors: Vec::new() };
        };
        let errors: Vec<(String, String)> =
            problem.errors.into_iter().map(|error| (error.pointer, error.detail)).collect();
        Self::Refused {
            status,
            text: text(status, &problem.title, &problem.detail, &problem.instance, &errors),
            errors,
        }
    }

    /// There was no answer, or only a part of one.
    pub(super) fn unreachable(base: &str, error: &ureq::Error) -> Self {
        let (cause, hint) = match error {
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => (
                "nothing listens there".to_owned(),
                "; is the balancer running? Another place: --url or BALANCER_URL",
            ),
            ureq::Error::Timeout(_) => ("no answer in time".to_owned(), "; what was asked may have happened"),
            ureq::Error::HostNotFound => ("there is no host of that name".to_owned(), ""),
            other => (other.to_string(), ""),
        };
        Self::Unreachable(format!("{base}: {cause}{hint}"))
    }
}

impl std::fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text)
            | Self::Refused { text, .. }
            | Self::Unreachable(text)
            | Self::Incomplete(text) => f.write_str(text),
            Self::Closed => Ok(()),
        }
    }
}

/// Writing the output failed. A reader that has closed it is not an error.
impl From<std::io::Error> for CommandFailure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Incomplete(format!("the output cannot be written: {error}")),
        }
    }
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    instance: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    #[serde(default)]
    pointer: String,
    #[serde(default)]
    detail: String,
}

fn text(status: u16, title: &str, detail: &str, instance: &str, errors: &[(String, String)]) -> String {
    let said = match (title.is_empty(), detail.is_empty()) {
        (false, false) => format!("{title}: {detail}"),
        (false, true) => title.to_owned(),
        (true, false) => detail.to_owned(),
        (true, true) => "refused".to_owned(),
    };
    let mut text = format!("{status} {said}");
    // Writing to a string cannot fail.
    for (pointer, detail) in errors {
        let _ = match pointer.as_str() {
            "" => write!(text, "\n  {detail}"),
            pointer => write!(text, "\n  {pointer}: {detail}"),
        };
    }
    match status {
        401 => text.push_str("\n  (name the token with --token-file or BALANCER_ADMIN_TOKEN)"),
        500.. if !instance.is_empty() => {
            let _ = write!(text, "\n  (its log says more about request {instance})");
        }
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_and_one_for_each_field() {
        let rows = [
            (
                404,
                Some(r#"{"title":"Not Found","status":404,"detail":"no such limit","instance":"x"}"#),
                "404 Not Found: no such limit",
            ),
            (
                400,
                Some(
                    r#"{"title":"Bad Request","detail":"2 faults","errors":[{"pointer":"/capacity","detail":"must be a number"},{"detail":"is odd"}]}"#,
                ),
                "400 Bad Request: 2 faults\n  /capacity: must be a number\n  is odd",
            ),
            (
                401,
                Some(r#"{"title":"Unauthorized"}"#),
                "401 Unauthorized\n  (name the token with --token-file or BALANCER_ADMIN_TOKEN)",
            ),
            (
                503,
                Some(r#"{"detail":"the store is down","instance":"01-a"}"#),
                "503 the store is down\n  (its log says more about request 01-a)",
            ),
            (500, Some("{}"), "500 refused"),
        ];
        for (status, body, expected) in rows {
            let failure = CommandFailure::refused("http://h", status, body);
            assert_eq!(failure.to_string(), expected);
            assert_eq!(failure.exit_code(), 1);
        }
    }

    #[test]
    fn what_is_no_problem_document_is_no_balancers() {
        for body in [None, Some("[1]"), Some("<html>")] {
            let text = CommandFailure::refused("http://h:1", 404, body).to_string();
            assert!(text.starts_with("http://h:1 answered 404 and no word"), "{text}");
        }
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        assert_eq!(CommandFailure::Usage("x".into()).exit_code(), 2);
        assert_eq!(CommandFailure::Incomplete("x".into()).exit_code(), 1);
        let closed = CommandFailure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit_code(), 0);
        let full = CommandFailure::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.exit_code(), 1);
    }
}
