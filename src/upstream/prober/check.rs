//! One health check as a state machine: what happens on its connection goes in; what to send, and the result, come out.
//! It does no I/O and knows no time, so that one thread can have many under way.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustix::io::Errno;

use crate::config::HealthCheck;
use balancer_http::framing::response::{self, HeadRules};
use balancer_pool::backend_state::Failed;

/// The `User-Agent` of checks.
pub(super) const USER_AGENT: &str = "balancer-health";

/// What a check has found: the status, if it is an expected one.
pub(super) type CheckResult = Result<u16, NotPassed>;

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotPassed {
    /// The backend's fault, as far as can be told.
    Failed(Failed),
    /// This process has no descriptor or memory left for a connection.
    Shortage(String),
}

/// One GET on a connection of its own.
pub(super) struct Check {
    settings: Arc<HealthCheck>,
    is_connected: bool,
    request: Vec<u8>,
    /// How many bytes of it were sent.
    sent: usize,
    /// What came of the answer, without interim answers before it.
    received: Vec<u8>,
    /// How long the interim answers were. They count as part of the head.
    interim_bytes: usize,
    /// Where the search for the head's end goes on, so that a head that comes byte by byte is not searched from its
    /// start each time.
    searched: usize,
}

impl Check {
    /// A check of the backend with that authority. The configuration has checked the authority and the path.
    pub fn new(settings: &Arc<HealthCheck>, authority: &str) -> Self {
        let path = &settings.path;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n"
        );
        Self {
            settings: Arc::clone(settings),
            is_connected: false,
            request: request.into_bytes(),
            sent: 0,
            received: Vec::new(),
            interim_bytes: 0,
            searched: 0,
        }
    }

    /// Whether the connection is made.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The connection is made.
    pub fn connected(&mut self) {
        self.is_connected = true;
    }

    /// What is still to be sent.
    pub fn unsent(&self) -> &[u8] {
        &self.request[self.sent..]
    }

    /// So many bytes of it were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }

    /// Bytes came; if `bytes` is empty, the connection was closed. `Some`: the check is over.
    pub fn received(&mut self, bytes: &[u8]) -> Option<CheckResult> {
        if bytes.is_empty() {
            return Some(Err(Failed::Closed.into()));
        }
        self.received.extend_from_slice(bytes);
        match self.status() {
            Ok(Some(status)) => Some(judge(status, &self.settings)),
            Ok(None) => None,
            Err(failed) => Some(Err(failed.into())),
        }
    }

    /// The result when the connection could not be made, or broke.
    pub fn broken(&self, error: &io::Error) -> NotPassed {
        if self.is_connected { NotPassed::lost(error) } else { NotPassed::unconnected(error) }
    }

    /// The result when its time is over.
    pub fn timed_out(&self) -> NotPassed {
        self.broken(&ErrorKind::TimedOut.into())
    }

    /// The status of the final answer (RFC 9112 §4) once its head is whole; interim answers (RFC 9110 §15.2) are passed
    /// over. It is as strict as [`response`] about status lines and line ends. It does not look at fields.
    fn status(&mut self) -> Result<Option<u16>, Failed> {
        let HeadRules { max_head_bytes, accept_invalid, .. } = self.settings.head_rules;
        loop {
            let received = &self.received[..];
            let start = b"HTTP/1.";
            if !received.starts_with(&start[..received.len().min(start.len())]) {
                // A TLS alert, or a handshake: content type and major version (RFC 8446 §5.1).
                let is_tls = matches!(received, [21 | 22, 3, ..]);
                return Err(if is_tls { Failed::Tls } else { Failed::NotHttp });
            }
            let end = match empty_line(received, self.searched) {
                Some(_) if !accept_invalid => {
                    let proper = received.windows(4).position(|window| window == b"\r\n\r\n");
                    Some(proper.ok_or(Failed::BareLineFeeds)? + 4)
                }
                end => end,
            };
            if self.interim_bytes + end.unwrap_or(received.len()) > max_head_bytes {
                return Err(Failed::HeadTooLarge(max_head_bytes));
            }
            let Some(end) = end else {
                // The last two bytes may be the beginning of the empty line.
                self.searched = received.len().saturating_sub(2);
                return Ok(None);
            };
            match response::status(&received[..end], accept_invalid) {
                Ok(Some(100 | 102..=199)) => {
                    self.received.drain(..end);
                    (self.interim_bytes, self.searched) = (self.interim_bytes + end, 0);
                }
                Err(response::HIGH_STATUS) => return Err(Failed::HighStatus),
                status => return status.map_err(|_| Failed::StatusLine),
            }
        }
    }
}

impl NotPassed {
    /// Whether its time was over.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed(Failed::NoConnection | Failed::NoAnswer))
    }

    /// For a connection that could not be made.
    pub fn unconnected(error: &io::Error) -> Self {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) = errno {
            return Self::Shortage(error.to_string());
        }
        Self::Failed(match error.kind() {
            ErrorKind::ConnectionRefused => Failed::Refused,
            // A socket's time-out shows as either.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failed::NoConnection,
            _ => Failed::Other(named(error)),
        })
    }

    /// For a connection that broke after it was made.
    pub fn lost(error: &io::Error) -> Self {
        Self::Failed(match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failed::NoAnswer,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Failed::Reset
            }
            _ => Failed::Other(named(error)),
        })
    }
}

impl From<Failed> for NotPassed {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// The error's text, without the system's error number.
fn named(error: &io::Error) -> String {
    match error.kind() {
        kind if error.get_ref().is_none() && kind != ErrorKind::Other => kind.to_string(),
        _ => error.to_string(),
    }
}

/// Judges the status of a final answer.
pub(super) fn judge(status: u16, settings: &HealthCheck) -> CheckResult {
    let is_expected = || settings.expect.iter().any(|(from, to)| (*from..=*to).contains(&status));
    match status {
        101 => Err(Failed::Switches.into()),
        600.. if !settings.head_rules.accept_invalid => Err(Failed::HighStatus.into()),
        _ if is_expected() => Ok(status),
        _ => Err(Failed::Status(status).into()),
    }
}

/// The end of a head whose lines may end with a bare LF. Searches from `from` on.
fn empty_line(received: &[u8], from: usize) -> Option<usize> {
    let line_feeds = received.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n');
    let mut line_ends = line_feeds.map(|(at, _)| at + 1);
    line_ends.find_map(|at| match received.get(at..)? {
        [b'\n', ..] => Some(at + 1),
        [b'\r', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use std::time::Duration;

    fn check(accept_invalid: bool) -> Check {
        let mut settings = settings(Duration::from_secs(1));
        settings.expect = vec![(200, 299), (304, 304), (404, 404), (503, 503), (999, 999)];
        settings.head_rules.accept_invalid = accept_invalid;
        Check::new(&Arc::new(settings), "a.test:80")
    }

    /// What is found when all of the answer comes at once, and byte by byte.
    fn found(received: &str, accept_invalid: bool) -> [Option<CheckResult>; 2] {
        let whole = Some(received.as_bytes()).filter(|bytes| !bytes.is_empty());
        let whole = whole.and_then(|bytes| check(accept_invalid).received(bytes));
        let mut check = check(accept_invalid);
        [whole, received.as_bytes().chunks(1).find_map(|byte| check.received(byte))]
    }

    #[test]
    fn the_status_of_the_final_answer_is_found_and_nothing_else_passes() {
        const NOT_HTTP: Result<Option<u16>, Failed> = Err(Failed::NotHttp);
        const BAD_LINE: Result<Option<u16>, Failed> = Err(Failed::StatusLine);
        let table: &[(&str, Result<Option<u16>, Failed>)] = &[
            ("", Ok(None)),
            ("HTT", Ok(None)),
            ("HTTP/1.1 200 OK\r\n", Ok(None)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Ok(Some(200))),
            ("HTTP/1.0 503\r\n\r\n", Ok(Some(503))),
            ("HTTP/1.1 204 \r\n\r\n", Ok(Some(204))),
            ("HTTP/1.1 404 Not Found\r\n\r\nbody", Ok(Some(404))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n", Ok(None)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(Some(200))),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Err(Failed::Switches)),
            ("\x15\x03\x01\0\x02\x02\x46", Err(Failed::Tls)),
            ("\x16\x03\x03", Err(Failed::Tls)),
            ("\x15", NOT_HTTP),
            ("SSH-2.0-OpenSSH", NOT_HTTP),
            ("HTTP/2 200\r\n\r\n", NOT_HTTP),
            ("HTTP/1.1 100 Continue\r\n\r\nx", NOT_HTTP),
            ("HTTP/1.2 200 OK\r\n\r\n", Ok(Some(200))),
            ("HTTP/1.10 200 OK\r\n\r\n", BAD_LINE),
            ("HTTP/1.1  200 OK\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 2000 OK\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 +20 OK\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 20\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 099 Low\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 600 High\r\n\r\n", Err(Failed::HighStatus)),
            ("HTTP/1.1 200 OK\nA: b\n\n", Err(Failed::BareLineFeeds)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\n", Err(Failed::BareLineFeeds)),
            ("HTTP/1.1 200 OK\nA: b\n", Ok(None)),
            ("HTTP/1.1 200 O\nK\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 200\tOK\r\n\r\n", BAD_LINE),
        ];
        for (received, expected) in table {
            let expected = expected.clone().map_err(NotPassed::from).transpose();
            let [whole, by_byte] = found(received, false);
            assert_eq!(whole, expected, "{received:?}");
            if !matches!(whole, Some(Err(NotPassed::Failed(Failed::Tls)))) {
                assert_eq!(by_byte, expected, "{received:?}, byte by byte");
            }
        }
        let with_the_key: &[(&str, Result<Option<u16>, Failed>)] = &[
            ("HTTP/1.1 200 OK\nA: b\n\nbody", Ok(Some(200))),
            ("HTTP/1.1 200\r\nA: b\n\r\n", Ok(Some(200))),
            ("HTTP/1.1 103 x\n\nHTTP/1.1 204\r\n\r\n", Ok(Some(204))),
            ("HTTP/1.1 999 High\r\n\r\n", Ok(Some(999))),
            ("HTTP/1.1 200 OK\nA: b\n", Ok(None)),
            ("HTTP/1.1 200 O\x00K\n\n", BAD_LINE),
            ("HTTP/1.1 200 O\rK\n\n", BAD_LINE),
        ];
        for (received, expected) in with_the_key {
            let expected = expected.clone().map_err(NotPassed::from).transpose();
            assert_eq!(found(received, true), [expected.clone(), expected], "{received:?}");
        }
    }

    #[test]
    fn statuses_are_held_against_the_ranges() {
        let mut settings = settings(Duration::from_secs(1));
        settings.expect = vec![(200, 299), (304, 304)];
        for (status, passes) in [(200, true), (299, true), (304, true), (300, false), (503, false)] {
            let expected = if passes { Ok(status) } else { Err(Failed::Status(status).into()) };
            assert_eq!(judge(status, &settings), expected);
        }
    }

    #[test]
    fn what_breaks_is_told_by_how_far_it_came() {
        let mut check = check(false);
        let refused = io::Error::from(ErrorKind::ConnectionRefused);
        assert_eq!(check.broken(&refused), Failed::Refused.into());
        assert_eq!(check.timed_out(), Failed::NoConnection.into());
        let lacking = check.broken(&Errno::MFILE.into());
        assert!(matches!(lacking, NotPassed::Shortage(_)), "{lacking:?}");
        check.connected();
        check.sent(check.unsent().len() - 1);
        assert_eq!(check.unsent(), b"\n");
        assert_eq!(check.timed_out(), Failed::NoAnswer.into());
        assert_eq!(check.broken(&ErrorKind::ConnectionReset.into()), Failed::Reset.into());
        assert_eq!(check.received(b""), Some(Err(Failed::Closed.into())));
    }

    #[test]
    fn interim_answers_count_as_head() {
        let mut check = check(false);
        let most = HeadRules::SHIPPED.max_head_bytes;
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let results: Vec<_> = (0..=most / interim.len()).map(|_| check.received(interim)).collect();
        let (last, before) = results.split_last().unwrap();
        assert!(before.iter().all(Option::is_none));
        assert_eq!(*last, Some(Err(Failed::HeadTooLarge(most).into())));
    }
}
