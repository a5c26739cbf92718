//! `balancer healthcheck`: one request over plain TCP, for containers that have no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock::Clock;
use balancer_http::framing::response;
use balancer_time::nanos;

/// How long the whole question may take; below the usual time-out of a container's check.
const PATIENCE: Duration = Duration::from_secs(4);

/// Longest status line.
const MAX_LINE: usize = 1_024;

/// Asks `/-/livez` of the balancer that listens there. `Err` says why it does not count as alive.
pub fn healthcheck(listen: SocketAddr, clock: &Clock) -> Result<(), String> {
    if listen.port() == 0 {
        return Err("the configured port is 0, so nobody knows the real one".into());
    }
    let address = reachable(listen);
    let deadline_ns = clock.now().saturating_add(nanos(PATIENCE));
    let fault = |text: String| Err(format!("http://{address}/-/livez: {text}"));
    match ask(address, clock, deadline_ns) {
        Ok(answer) if response::status(&answer, true) == Ok(Some(200)) => Ok(()),
        Ok(answer) => {
            let answer = String::from_utf8_lossy(&answer);
            fault(format!("answered {:?}", answer.lines().next().unwrap_or_default()))
        }
        Err(error) => fault(error.to_string()),
    }
}

/// Where a listener is reached from this machine: the wildcard addresses answer on loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

/// What is answered, at least to the end of the status line.
fn ask(address: SocketAddr, clock: &Clock, deadline_ns: u64) -> io::Result<Vec<u8>> {
    let left = || match deadline_ns.saturating_sub(clock.now()) {
        0 => Err(io::Error::from(io::ErrorKind::TimedOut)),
        left_ns => Ok(Duration::from_nanos(left_ns)),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "GET /-/livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < MAX_LINE {
        let mut buffer = [0; 256];
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What the system says when a time-out passes differs; the words should not.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one connection; gives what was asked.
    fn serve(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut buffer = [0; 64];
                let count = stream.read(&mut buffer).unwrap();
                asked.extend_from_slice(&buffer[..count]);
            }
            // A byte at a time: the reader must put the line together. It may leave after the first line.
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
            assert_eq!(healthcheck(address, &Clock::real()).is_ok(), alive, "{answer:?}");
            let asked = server.join().unwrap();
            assert!(asked.starts_with("GET /-/livez HTTP/1.1\r\nHost: 127.0.0.1:"), "{asked}");
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
        let text = healthcheck(address, &Clock::real()).unwrap_err();
        assert!(text.starts_with(&format!("http://{address}/-/livez: ")), "{text}");
        assert!(
            healthcheck("127.0.0.1:0".parse().unwrap(), &Clock::real()).unwrap_err().contains("port is 0")
        );
    }
}
