//! `balancer healthcheck`: asks a running balancer whether it is alive, for containers that have no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::clock::Clock;
use crate::config::Config;
use crate::timed::{TimedStream, left_until};
use crate::tls::BackendTlsSettings;
use crate::tls::upstream::BackendTls;
use balancer_http::framing::response;
use balancer_pool::backends::DEFAULT_POOL;
use balancer_time::{Nanos, nanos};

/// How long all of it may take. That is less than the usual time-out of a container's check.
const PATIENCE: Duration = Duration::from_secs(4);

/// Most bytes that are read to find the end of the status line.
const MAX_LINE: usize = 1_024;

/// The port at which a balancer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivezPort {
    address: SocketAddr,
    is_tls: bool,
}

impl LivezPort {
    /// A port without TLS.
    pub const fn plain(address: SocketAddr) -> Self {
        Self { address, is_tls: false }
    }

    /// The first of these that is configured: the admin listener, the plain port, the TLS port.
    pub fn of(config: &Config) -> Option<Self> {
        let of_tls =
            || config.tls.as_ref()?.listen.first().map(|address| Self { address: *address, is_tls: true });
        config.admin.listen.or(config.listen.first().copied()).map(Self::plain).or_else(of_tls)
    }
}

/// Asks the balancer at that port for `/-/livez`. It is alive if it answers 200.
///
/// # Errors
/// Why it does not count as alive, in words for the operator.
pub fn healthcheck(asked: LivezPort, clock: &Clock) -> Result<(), String> {
    let LivezPort { address, is_tls } = asked;
    if address.port() == 0 {
        return Err("the configured port is 0, so nobody knows the real one".into());
    }
    let address = reachable(address);
    let deadline = clock.now().saturating_add(nanos(PATIENCE));
    let scheme = if is_tls { "https" } else { "http" };
    let fault = |text: String| Err(format!("{scheme}://{address}/-/livez: {text}"));
    match ask(address, is_tls, clock, deadline) {
        Ok(answer) if response::status(&answer, true) == Ok(Some(200)) => Ok(()),
        Ok(answer) => {
            let answer = String::from_utf8_lossy(&answer);
            fault(format!("answered {:?}", answer.lines().next().unwrap_or_default()))
        }
        Err(error) => fault(error.to_string()),
    }
}

/// The address by which a listener is reached from this machine: loopback, where it listens on every address.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

/// The beginning of the answer, usually up to the end of the status line or further.
fn ask(address: SocketAddr, is_tls: bool, clock: &Clock, deadline: Nanos) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&address, left_until(deadline, clock)?)?;
    let stream = TimedStream { stream, clock: clock.clone(), deadline };
    if is_tls {
        let session = session(address).map_err(io::Error::other)?;
        talk(StreamOwned::new(session, stream), address)
    } else {
        talk(stream, address)
    }
}

fn talk(mut stream: impl Read + Write, address: SocketAddr) -> io::Result<Vec<u8>> {
    write!(stream, "GET /-/livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < MAX_LINE {
        let mut buffer = [0; 256];
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// A TLS session that accepts any certificate, which does no harm: nothing secret is sent.
fn session(address: SocketAddr) -> Result<ClientConnection, String> {
    let any = BackendTlsSettings { insecure_skip_verify: true, ..BackendTlsSettings::default() };
    let tls = BackendTls::default();
    tls.apply(DEFAULT_POOL, &any, true);
    tls.session(DEFAULT_POOL, &address.ip().to_string())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::tls::front::FrontTls;
    use crate::tls::tests::Papers;

    /// Answers one connection. The thread returns the request.
    fn serve(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut buffer = [0; 64];
                let count = stream.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "a whole request");
                asked.extend_from_slice(&buffer[..count]);
            }
            // Byte by byte, so that the reader has to put the line together. It may leave after the first line.
            for byte in answer.as_bytes() {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
            String::from_utf8(asked).unwrap()
        });
        (address, server)
    }

    #[test]
    fn two_hundred_alone_counts_as_alive() {
        for (answer, alive) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 200\r\n\r\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            ("HTTP/1.1 2000\r\n", false),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            let (address, server) = serve(answer);
            assert_eq!(healthcheck(LivezPort::plain(address), &Clock::real()).is_ok(), alive, "{answer:?}");
            let asked = server.join().unwrap();
            assert!(asked.starts_with("GET /-/livez HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
        }
    }

    #[test]
    fn a_tls_port_is_asked_by_tls_whatever_its_certificate() {
        let papers = Papers::new();
        let settings = papers.front(&[papers.pair("a", &["a.test"])]);
        let front = FrontTls::new(&settings, false, std::time::SystemTime::UNIX_EPOCH).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let session = rustls::ServerConnection::new(front.config()).unwrap();
            let mut stream = StreamOwned::new(session, socket);
            let mut asked = [0; 256];
            let read = stream.read(&mut asked).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            asked[..read].to_vec()
        });
        healthcheck(LivezPort { address, is_tls: true }, &Clock::real()).unwrap();
        assert!(server.join().unwrap().starts_with(b"GET /-/livez HTTP/1.1\r\n"));
    }

    #[test]
    fn a_tls_port_without_tls_and_one_that_never_answers_count_as_not_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let plain = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let text = healthcheck(LivezPort { address: plain, is_tls: true }, &Clock::real()).unwrap_err();
        assert!(text.starts_with(&format!("https://{plain}/-/livez: ")), "{text}");
        server.join().unwrap();
        // The system connects, and nobody reads.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, clock) = (silent.local_addr().unwrap(), Clock::real());
        for is_tls in [false, true] {
            let deadline = clock.now() + nanos(Duration::from_millis(100));
            let error = ask(address, is_tls, &clock, deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{is_tls}");
        }
    }

    #[test]
    #[cfg_attr(not(all(target_os = "linux", feature = "epoll")), ignore = "TLS needs the loops")]
    fn the_first_listener_that_there_is_is_asked() {
        let papers = Papers::new();
        papers.pair("a", &["a.test"]);
        let pair = r#"[{"cert": "a.pem", "key": "a.key"}]"#;
        for (listen, admin, is_tls, expected) in [
            (r#""127.0.0.1:1""#, r#""127.0.0.1:2""#, false, "127.0.0.1:2"),
            (r#""127.0.0.1:1""#, "null", false, "127.0.0.1:1"),
            ("null", "null", true, "127.0.0.1:3"),
            ("null", r#""127.0.0.1:2""#, false, "127.0.0.1:2"),
        ] {
            let text = format!(
                r#"{{"listen": {listen}, "admin": {{"listen": {admin}}}, "backends": [{{"name": "a", "url": "http://h"}}],
                    "tls": {{"listen": "127.0.0.1:3", "certificates": {pair}}}}}"#
            );
            let config = crate::config::from_text(&text, papers.folder()).unwrap();
            let expected = LivezPort { address: expected.parse().unwrap(), is_tls };
            assert_eq!(LivezPort::of(&config), Some(expected), "{listen} {admin}");
        }
    }

    #[test]
    fn wildcard_listeners_are_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn nobody_there_is_an_error_that_names_the_address() {
        // Bound and not listening: no other program gets the port, and connecting is refused.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let text = healthcheck(LivezPort::plain(address), &Clock::real()).unwrap_err();
        assert!(text.starts_with(&format!("http://{address}/-/livez: ")), "{text}");
        assert!(
            healthcheck(LivezPort::plain("127.0.0.1:0".parse().unwrap()), &Clock::real())
                .unwrap_err()
                .contains("port is 0")
        );
    }
}
