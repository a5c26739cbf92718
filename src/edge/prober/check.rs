//! One health check: a fresh connection, one GET, the answer's status. All of it within one deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock::{Clock, nanos};
use crate::config::HealthCheck;
use crate::rules::Nanos;
use crate::rules::framing::response::HeadRules;

/// The request of a check. `path` and `authority` were checked by the configuration.
pub(super) fn request(path: &str, authority: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: balancer-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Asks once, on a connection of its own, and takes at most the settings' time-out for everything. The status when it is
/// one of those expected; else the cause, for the log.
pub(super) fn check(
    address: SocketAddr,
    request: &[u8],
    settings: &HealthCheck,
    clock: &Clock,
) -> Result<u16, String> {
    let HealthCheck { timeout, head_rules, .. } = *settings;
    let deadline = Deadline { clock, at: clock.now().saturating_add(nanos(timeout)), timeout };
    let status = ask(address, request, &head_rules, &deadline).map_err(|error| deadline.describe(&error))?;
    if settings.expect.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        Ok(status)
    } else {
        Err(format!("status {status}"))
    }
}

struct Deadline<'a> {
    clock: &'a Clock,
    at: Nanos,
    timeout: Duration,
}

impl Deadline<'_> {
    /// What is left, never zero: that would mean "for ever" to a socket.
    fn left(&self) -> io::Result<Duration> {
        match self.at.saturating_sub(self.clock.now()) {
            0 => Err(ErrorKind::TimedOut.into()),
            left => Ok(Duration::from_nanos(left)),
        }
    }

    fn describe(&self, error: &io::Error) -> String {
        match error.kind() {
            // A socket's time-out shows as either.
            ErrorKind::TimedOut | ErrorKind::WouldBlock => format!("no answer within {:?}", self.timeout),
            kind if error.get_ref().is_none() && kind != ErrorKind::Other => kind.to_string(),
            _ => error.to_string(),
        }
    }
}

fn ask(address: SocketAddr, request: &[u8], rules: &HeadRules, deadline: &Deadline<'_>) -> io::Result<u16> {
    let mut socket = TcpStream::connect_timeout(&address, deadline.left()?)?;
    socket.set_write_timeout(Some(deadline.left()?))?;
    socket.write_all(request)?;
    let mut received = Vec::with_capacity(1024);
    let mut buffer = [0; 4096];
    loop {
        socket.set_read_timeout(Some(deadline.left()?))?;
        let count = match socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the connection was closed before an answer's head ended")),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&buffer[..count]);
        match status(&received, rules.accept_invalid) {
            Err(cause) => return Err(io::Error::other(cause)),
            Ok(Some(status)) => return Ok(status),
            // Interim answers before it included; the body is not read.
            Ok(None) if received.len() > rules.max_head_bytes => {
                return Err(io::Error::other("the answer's head is larger than upstream.max_head_bytes"));
            }
            Ok(None) => {}
        }
    }
}

/// What the operator can do about an answer that is refused as it is.
const BARE_LINE_FEEDS: &str =
    "the answer's lines end with a bare line feed (upstream.accept_invalid takes such answers)";
const HIGH_STATUS: &str = "a status above 599 (upstream.accept_invalid takes such answers)";

/// The status of the final answer (RFC 9112 §4) once its head is whole, behind any interim ones (RFC 9110 §15.2). As
/// strict as [`crate::rules::framing::response`] about what it looks at, which fields are not.
fn status(mut received: &[u8], accept_invalid: bool) -> Result<Option<u16>, &'static str> {
    loop {
        let start = b"HTTP/1.";
        if !received.starts_with(&start[..received.len().min(start.len())]) {
            return Err("the answer is not HTTP/1");
        }
        let proper = received.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let end = match empty_line(received) {
            None => return Ok(None),
            Some(end) if accept_invalid => end,
            Some(_) => proper.ok_or(BARE_LINE_FEEDS)?,
        };
        let (head, rest) = received.split_at(end);
        match status_line(head, accept_invalid)? {
            101 => return Err("the answer switches protocols"),
            100..=199 => received = rest,
            600.. if !accept_invalid => return Err(HIGH_STATUS),
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
fn status_line(head: &[u8], accept_invalid: bool) -> Result<u16, &'static str> {
    const MALFORMED: &str = "the answer's status line is malformed";
    let line = match head.iter().position(|byte| *byte == b'\n') {
        Some(end) if accept_invalid => head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]),
        Some(end) => head[..end].strip_suffix(b"\r").ok_or(MALFORMED)?,
        None => return Err(MALFORMED),
    };
    let (digits, reason) = match line.strip_prefix(b"HTTP/1.") {
        // RFC 9110 §2.5: whatever minor version.
        Some([b'0'..=b'9', b' ', rest @ ..]) => rest.split_at_checked(3).ok_or(MALFORMED)?,
        _ => return Err(MALFORMED),
    };
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if !digits.iter().all(u8::is_ascii_digit) || reason.iter().any(control) {
        return Err(MALFORMED);
    }
    if !reason.is_empty() && reason[0] != b' ' {
        return Err(MALFORMED);
    }
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if status < 100 { Err(MALFORMED) } else { Ok(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn the_status_of_the_final_answer_is_found_and_nothing_else_passes() {
        const NOT_HTTP: Result<Option<u16>, &str> = Err("the answer is not HTTP/1");
        const BAD_LINE: Result<Option<u16>, &str> = Err("the answer's status line is malformed");
        let table: &[(&str, Result<Option<u16>, &str>)] = &[
            ("", Ok(None)),
            ("HTT", Ok(None)),
            ("HTTP/1.1 200 OK\r\n", Ok(None)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Ok(Some(200))),
            ("HTTP/1.0 503\r\n\r\n", Ok(Some(503))),
            ("HTTP/1.1 204 \r\n\r\n", Ok(Some(204))),
            ("HTTP/1.1 404 Not Found\r\n\r\nbody", Ok(Some(404))),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n", Ok(None)),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(Some(200))),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Err("the answer switches protocols")),
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
            ("HTTP/1.1 600 High\r\n\r\n", Err(HIGH_STATUS)),
            ("HTTP/1.1 200 OK\nA: b\n\n", Err(BARE_LINE_FEEDS)),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\n", Err(BARE_LINE_FEEDS)),
            ("HTTP/1.1 200 OK\nA: b\n", Ok(None)),
            ("HTTP/1.1 200 O\nK\r\n\r\n", BAD_LINE),
            ("HTTP/1.1 200\tOK\r\n\r\n", BAD_LINE),
        ];
        for (received, expected) in table {
            assert_eq!(status(received.as_bytes(), false), *expected, "{received:?}");
        }
        let with_the_key: &[(&str, Result<Option<u16>, &str>)] = &[
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

    /// Checks against a server that does `serve` with its one connection.
    fn check_against(
        timeout: Duration,
        serve: impl FnOnce(TcpStream) + Send + 'static,
    ) -> Result<u16, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        let request = request("/health?deep=1", "a.test:80");
        let result = check(address, &request, &settings(timeout), &Clock::real());
        server.join().unwrap();
        result
    }

    fn answer(text: &'static str) -> Result<u16, String> {
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
        assert_eq!(answer("HTTP/1.1 300 x\r\n\r\n"), Err("status 300".into()));
        assert_eq!(answer("HTTP/1.1 503 x\r\n\r\n"), Err("status 503".into()));
        assert_eq!(answer("ok\r\n\r\n"), Err("the answer is not HTTP/1".into()));
        let closed = Err("the connection was closed before an answer's head ended".into());
        assert_eq!(answer("HTTP/1.1 200 OK\r\n"), closed);
    }

    #[test]
    fn a_closed_port_is_named_as_such() {
        // Bound and not listening: nobody else can get the port meanwhile.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let result = check(address, b"", &settings(Duration::from_secs(30)), &Clock::real());
        assert_eq!(result, Err("connection refused".into()));
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
        assert_eq!(result, Err("no answer within 100ms".into()));
        let result = check_against(Duration::from_millis(50), |mut socket| {
            let _ = io::copy(&mut socket, &mut io::sink());
        });
        assert_eq!(result, Err("no answer within 50ms".into()));
    }

    #[test]
    fn an_endless_head_is_given_up() {
        let result = check_against(Duration::from_secs(30), |mut socket| {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
            while socket.write_all(b"A: b\r\n").is_ok() {}
        });
        assert_eq!(result, Err("the answer's head is larger than upstream.max_head_bytes".into()));
    }
}
