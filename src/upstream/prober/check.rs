//! One health check: a fresh connection, one GET, the answer's status. All of it within one deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;

use crate::clock::Clock;
use crate::config::HealthCheck;
use balancer_http::framing::response::HeadRules;
use balancer_pool::backend_state::Failed;
use balancer_time::Nanos;
use balancer_time::nanos;

/// The request of a check. `path` and `authority` were checked by the configuration.
pub(super) fn request(path: &str, authority: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: balancer-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotPassed {
    /// The backend's fault, as far as can be told.
    Failed(Failed),
    /// This process has no descriptor or memory left for a connection.
    Shortage(String),
}

/// Asks once, on a connection of its own, and takes at most the time-out for everything. The status when it is
/// expected.
pub(super) fn check(
    address: SocketAddr,
    request: &[u8],
    settings: &HealthCheck,
    clock: &Clock,
) -> Result<u16, NotPassed> {
    let deadline = Deadline { clock, at: clock.now().saturating_add(nanos(settings.timeout)) };
    let status = connect(address, &deadline)
        .and_then(|socket| ask(socket, request, &settings.head_rules, &deadline))?;
    if settings.expect.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        Ok(status)
    } else {
        Err(NotPassed::Failed(Failed::Status(status)))
    }
}

struct Deadline<'a> {
    clock: &'a Clock,
    at: Nanos,
}

impl Deadline<'_> {
    /// What is left, never zero: that would mean "for ever" to a socket.
    fn left(&self) -> io::Result<Duration> {
        match self.at.saturating_sub(self.clock.now()) {
            0 => Err(ErrorKind::TimedOut.into()),
            left => Ok(Duration::from_nanos(left)),
        }
    }
}

fn connect(address: SocketAddr, deadline: &Deadline<'_>) -> Result<TcpStream, NotPassed> {
    let connected = deadline.left().and_then(|left| TcpStream::connect_timeout(&address, left));
    connected.map_err(|error| {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) = errno {
            return NotPassed::Shortage(error.to_string());
        }
        NotPassed::Failed(match error.kind() {
            ErrorKind::ConnectionRefused => Failed::Refused,
            // A socket's time-out shows as either.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failed::NoConnection,
            _ => Failed::Other(named(&error)),
        })
    })
}

/// What became of a connection that was made.
impl From<io::Error> for NotPassed {
    fn from(error: io::Error) -> Self {
        Self::Failed(match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failed::NoAnswer,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Failed::Reset
            }
            _ => Failed::Other(named(&error)),
        })
    }
}

impl From<Failed> for NotPassed {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Without the system's number.
fn named(error: &io::Error) -> String {
    match error.kind() {
        kind if error.get_ref().is_none() && kind != ErrorKind::Other => kind.to_string(),
        _ => error.to_string(),
    }
}

fn ask(
    mut socket: TcpStream,
    request: &[u8],
    rules: &HeadRules,
    deadline: &Deadline<'_>,
) -> Result<u16, NotPassed> {
    socket.set_write_timeout(Some(deadline.left()?))?;
    socket.write_all(request)?;
    let mut received = Vec::with_capacity(1024);
    let mut buffer = [0; 4096];
    loop {
        socket.set_read_timeout(Some(deadline.left()?))?;
        let count = match socket.read(&mut buffer) {
            Ok(0) => return Err(Failed::Closed.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        received.extend_from_slice(&buffer[..count]);
        match status(&received, rules.accept_invalid)? {
            Some(status) => return Ok(status),
            // Interim answers before it included; the body is not read.
            None if received.len() > rules.max_head_bytes => {
                return Err(Failed::HeadTooLarge(rules.max_head_bytes).into());
            }
            None => {}
        }
    }
}

/// The status of the final answer (RFC 9112 §4) once its head is whole, behind any interim ones (RFC 9110 §15.2). As
/// strict as [`balancer_http::framing::response`] about what it looks at, which fields are not.
fn status(mut received: &[u8], accept_invalid: bool) -> Result<Option<u16>, Failed> {
    loop {
        let start = b"HTTP/1.";
        if !received.starts_with(&start[..received.len().min(start.len())]) {
            // A TLS alert, or a handshake: content type and major version (RFC 8446 §5.1).
            let is_tls = matches!(received, [21 | 22, 3, ..]);
            return Err(if is_tls { Failed::Tls } else { Failed::NotHttp });
        }
        let proper = received.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let end = match empty_line(received) {
            None => return Ok(None),
            Some(end) if accept_invalid => end,
            Some(_) => proper.ok_or(Failed::BareLineFeeds)?,
        };
        let (head, rest) = received.split_at(end);
        match status_line(head, accept_invalid)? {
            101 => return Err(Failed::Switches),
            100..=199 => received = rest,
            600.. if !accept_invalid => return Err(Failed::HighStatus),
            status => return Ok(Some(status)),
        }
    }
}

/// The end of a head whose lines may end with a bare LF.
fn empty_line(received: &[u8]) -> Option<usize> {
    let mut line_ends = received.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    line_ends.find_map(|at| match received.get(at..)? {
        [b'\n', ..] => Some(at + 1),
        [b'\r', b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// `HTTP/1.1 200 OK`; the space before an absent reason may be missing, as many servers leave it out.
fn status_line(head: &[u8], accept_invalid: bool) -> Result<u16, Failed> {
    let line = match head.iter().position(|byte| *byte == b'\n') {
        Some(end) if accept_invalid => head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]),
        Some(end) => head[..end].strip_suffix(b"\r").ok_or(Failed::StatusLine)?,
        None => return Err(Failed::StatusLine),
    };
    let (digits, reason) = match line.strip_prefix(b"HTTP/1.") {
        // RFC 9110 §2.5: whatever minor version.
        Some([b'0'..=b'9', b' ', rest @ ..]) => rest.split_at_checked(3).ok_or(Failed::StatusLine)?,
        _ => return Err(Failed::StatusLine),
    };
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if !digits.iter().all(u8::is_ascii_digit) || reason.iter().any(control) {
        return Err(Failed::StatusLine);
    }
    if !reason.is_empty() && reason[0] != b' ' {
        return Err(Failed::StatusLine);
    }
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if status < 100 { Err(Failed::StatusLine) } else { Ok(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

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
            assert_eq!(status(received.as_bytes(), false), *expected, "{received:?}");
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
            assert_eq!(status(received.as_bytes(), true), *expected, "{received:?}");
        }
    }

    fn settings(timeout: Duration) -> HealthCheck {
        HealthCheck {
            path: "/".into(),
            expect: vec![(200, 299), (304, 304)],
            interval: timeout,
            timeout,
            rise: 1,
            fall: 1,
            head_rules: HeadRules::SHIPPED,
        }
    }

    fn failed(failed: Failed) -> Result<u16, NotPassed> {
        Err(NotPassed::Failed(failed))
    }

    /// Checks against a server that does `serve` with its one connection.
    fn check_against(
        timeout: Duration,
        serve: impl FnOnce(TcpStream) + Send + 'static,
    ) -> Result<u16, NotPassed> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        let request = request("/health?deep=1", "a.test:80");
        let result = check(address, &request, &settings(timeout), &Clock::real());
        server.join().unwrap();
        result
    }

    fn answer(text: &'static str) -> Result<u16, NotPassed> {
        check_against(Duration::from_secs(30), move |mut socket| {
            let mut request = [0; 1024];
            let count = socket.read(&mut request).unwrap();
            assert_eq!(
                std::str::from_utf8(&request[..count]).unwrap(),
                "GET /health?deep=1 HTTP/1.1\r\nHost: a.test:80\r\nUser-Agent: balancer-health\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            );
            socket.write_all(text.as_bytes()).unwrap();
        })
    }

    #[test]
    fn statuses_are_held_against_the_ranges() {
        assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), Ok(200));
        assert_eq!(answer("HTTP/1.1 299 x\r\n\r\n"), Ok(299));
        assert_eq!(answer("HTTP/1.1 304 x\r\n\r\n"), Ok(304));
        assert_eq!(answer("HTTP/1.1 300 x\r\n\r\n"), failed(Failed::Status(300)));
        assert_eq!(answer("HTTP/1.1 503 x\r\n\r\n"), failed(Failed::Status(503)));
        assert_eq!(answer("ok\r\n\r\n"), failed(Failed::NotHttp));
        assert_eq!(answer("HTTP/1.1 200 OK\r\n"), failed(Failed::Closed));
    }

    #[test]
    fn a_closed_port_is_named_as_such() {
        // Bound and not listening: nobody else can get the port meanwhile.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let result = check(address, b"", &settings(Duration::from_secs(30)), &Clock::real());
        assert_eq!(result, failed(Failed::Refused));
    }

    /// A byte every few milliseconds would pass any time-out that starts anew with each read.
    #[test]
    fn the_deadline_counts_for_the_whole_check() {
        let result = check_against(Duration::from_millis(100), |mut socket| {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nA: ");
            while socket.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        assert_eq!(result, failed(Failed::NoAnswer));
        let result = check_against(Duration::from_millis(50), |mut socket| {
            let _ = io::copy(&mut socket, &mut io::sink());
        });
        assert_eq!(result, failed(Failed::NoAnswer));
    }

    #[test]
    fn an_endless_head_is_given_up() {
        let result = check_against(Duration::from_secs(30), |mut socket| {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
            while socket.write_all(b"A: b\r\n").is_ok() {}
        });
        assert_eq!(result, failed(Failed::HeadTooLarge(HeadRules::SHIPPED.max_head_bytes)));
    }
}
