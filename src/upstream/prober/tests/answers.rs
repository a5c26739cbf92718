//! What servers do to a check, and what is said of them.

use std::net::TcpStream;

use super::*;
use balancer_pool::backend_state::{Asked, Failed};

/// What a check finds of a server that does `serve` with its one connection: nothing, or the cause.
fn found(
    driver: CheckDriver,
    timeout: Duration,
    serve: impl FnOnce(TcpStream) + Send + 'static,
) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = pool(&[listener.local_addr().unwrap()]);
    let server = thread::spawn(move || serve(listener.accept().unwrap().0));
    let settings = HealthCheck { path: "/health?deep=1".into(), interval: PATIENCE * 4, ..settings(timeout) };
    let checks = start(driver, &pool, settings);
    assert!(checks.wait_first(PATIENCE));
    drop(checks);
    server.join().unwrap();
    let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
    match endpoint.health() {
        Status::Up => Ok(()),
        _ => Err(endpoint.cause().unwrap().split(';').next().unwrap().to_owned()),
    }
}

fn failed(failed: Failed, timeout: Duration) -> Result<(), String> {
    let asked = Asked { path: "/health?deep=1".into(), expect: Vec::new(), timeout };
    Err(asked.failed(&failed).split(';').next().unwrap().to_owned())
}

/// Reads a request to its end.
fn request(socket: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

#[test]
fn what_is_asked_is_the_same_by_every_driver() {
    for driver in DRIVERS {
        let up = found(*driver, PATIENCE, |mut socket| {
            let request = request(&mut socket);
            let (first, fields) = request.split_once("\r\n").unwrap();
            assert_eq!(first, "GET /health?deep=1 HTTP/1.1");
            let mut fields: Vec<_> = fields.trim_end().split("\r\n").map(str::to_lowercase).collect();
            fields.sort();
            let expected =
                ["accept: */*", "connection: close", "host: a.test:80", "user-agent: balancer-health"];
            assert_eq!(fields, expected);
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").unwrap();
        });
        assert_eq!(up, Ok(()), "{driver:?}");
    }
}

#[test]
fn answers_are_judged_by_every_driver() {
    let head = |fields: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(fields));
    let table: &[(&str, Option<Failed>)] = &[
        ("HTTP/1.1 204 No Content\r\n\r\n", None),
        ("HTTP/1.0 302\r\nLocation: http://127.0.0.1:1/\r\n\r\n", None),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        ("HTTP/1.1 503 x\r\n\r\n", Some(Failed::Status(503))),
        ("HTTP/1.1 600 x\r\n\r\n", Some(Failed::HighStatus)),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Some(Failed::Switches)),
        ("HTTP/1.1 200 OK\r\n", Some(Failed::Closed)),
        ("", Some(Failed::Closed)),
        (&head(30_000), None),
        (&head(33_000), Some(Failed::HeadTooLarge(HeadRules::SHIPPED.max_head_bytes))),
    ];
    for (driver, (answer, expected)) in DRIVERS.iter().flat_map(|one| table.iter().map(move |row| (one, row)))
    {
        let text = (*answer).to_owned();
        let found = found(*driver, PATIENCE, move |mut socket| {
            request(&mut socket);
            // A check that has read enough may have closed the connection.
            let _ = socket.write_all(text.as_bytes());
        });
        let expected = expected.clone().map_or(Ok(()), |one| failed(one, PATIENCE));
        assert_eq!(found, expected, "{driver:?}: {:?}", &answer[..answer.len().min(60)]);
    }
}

#[test]
fn what_is_no_http_is_called_so() {
    for driver in DRIVERS {
        let found = found(*driver, PATIENCE, |mut socket| {
            request(&mut socket);
            let _ = socket.write_all(b"SSH-2.0-OpenSSH\r\n");
        });
        assert!(found.as_ref().is_err_and(|cause| cause.contains("the answer is not HTTP/1")), "{found:?}");
    }
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    for driver in DRIVERS {
        let up = found(*driver, PATIENCE, |mut socket| {
            request(&mut socket);
            socket.set_nodelay(true).unwrap();
            for byte in b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
                socket.write_all(&[*byte]).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(up, Ok(()), "{driver:?}");
    }
}

#[test]
fn a_reset_is_called_so() {
    for driver in DRIVERS {
        let reset = found(*driver, PATIENCE, |mut socket| {
            request(&mut socket);
            socket.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        });
        assert_eq!(reset, failed(Failed::Reset, PATIENCE), "{driver:?}");
    }
}

/// A byte every few milliseconds would pass any time-out that starts anew with each read.
#[test]
fn the_deadline_counts_for_the_whole_check() {
    let timeout = Duration::from_millis(100);
    for driver in DRIVERS {
        let trickle = found(*driver, timeout, |mut socket| {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nA: ");
            while socket.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        assert_eq!(trickle, failed(Failed::NoAnswer, timeout), "{driver:?}");
        let silence = found(*driver, timeout, |mut socket| {
            let _ = io::copy(&mut socket, &mut io::sink());
        });
        assert_eq!(silence, failed(Failed::NoAnswer, timeout), "{driver:?}");
    }
}

#[test]
fn an_endless_head_is_given_up() {
    for driver in DRIVERS {
        let endless = found(*driver, PATIENCE, |mut socket| {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nA: ");
            while socket.write_all(b"bbbbbbbb").is_ok() {}
        });
        let expected = failed(Failed::HeadTooLarge(HeadRules::SHIPPED.max_head_bytes), PATIENCE);
        assert_eq!(endless, expected, "{driver:?}");
    }
}

/// The queue of waiting connections is full, so the kernel answers no new one.
#[test]
fn no_connection_in_time_is_called_so() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(one);
    }
    let timeout = Duration::from_millis(100);
    for driver in DRIVERS {
        let pool = pool(&[address]);
        let checks = start(*driver, &pool, settings(timeout));
        assert!(checks.wait_first(PATIENCE));
        let cause = pool.snapshot().endpoints()[0].cause().unwrap();
        assert!(cause.starts_with("GET /: no connection within 100ms"), "{driver:?}: {cause}");
    }
}
