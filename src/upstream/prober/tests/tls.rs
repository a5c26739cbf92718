//! Checks of backends with `https://`.

use std::net::TcpStream;

use rustls::{ServerConnection, StreamOwned};

use super::*;
use crate::tls::BackendTlsSettings;
use crate::tls::front::FrontTls;
use crate::tls::tests::Papers;
use crate::tls::upstream::BackendTls;

/// A server with a certificate for `a.test` that answers each connection with that, and what it was asked.
fn secure(papers: &Papers, answer: &'static str) -> (SocketAddr, crossbeam_channel::Receiver<String>) {
    let front = FrontTls::new(
        &papers.front(&[papers.pair("a", &["a.test"])]),
        false,
        std::time::SystemTime::UNIX_EPOCH,
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = crossbeam_channel::unbounded();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket: TcpStream = socket.unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(front.config()).unwrap(), socket);
            let mut asked = Vec::new();
            let mut piece = [0; 256];
            while !asked.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read @ 1..) => asked.extend_from_slice(&piece[..read]),
                    // The client does not trust this server.
                    _ => break,
                }
            }
            let _ = tell.send(String::from_utf8_lossy(&asked).into_owned());
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.flush();
        }
    });
    (address, told)
}

/// What the checks of a backend there come to, by those settings.
fn found(address: SocketAddr, host: &str, settings: &BackendTlsSettings) -> (Status, String) {
    let entry = BackendEntry { is_tls: true, ..BackendEntry::new("a", host, address.port()) };
    let of = Settings { checked: true, ..Settings::of(balancer_pool::strategy::Strategy::LeastConnections) };
    let pool = Arc::new(Backends::new(&of, std::slice::from_ref(&entry)));
    pool.resolved(&entry, &[address], 1);
    let tls = Arc::new(BackendTls::default());
    tls.apply("default", settings, true);
    let prober = Prober::new(CheckDriver::Epoll, &tls, Clock::real());
    let checks = prober.check(&pool, super::settings(PATIENCE)).unwrap();
    assert!(checks.wait_first(PATIENCE));
    let endpoint = pool.snapshot().endpoints()[0].clone();
    (endpoint.health(), endpoint.cause().as_deref().map(str::to_owned).unwrap_or_default())
}

#[test]
fn a_backend_is_checked_by_tls_as_requests_go_to_it() {
    let (papers, strange) = (Papers::new(), Papers::new());
    let (address, asked) = secure(&papers, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let known = BackendTlsSettings { ca: Some(papers.ca()), ..BackendTlsSettings::default() };
    assert_eq!(found(address, "a.test", &known).0, Status::Up);
    let asked = asked.recv_timeout(PATIENCE).unwrap();
    assert!(asked.starts_with("GET / HTTP/1.1\r\nHost: a.test:"), "{asked}");
    let unknown = BackendTlsSettings { ca: Some(strange.ca()), ..known.clone() };
    for (host, settings, cause) in
        [("b.test", &known, "not valid for name"), ("a.test", &unknown, "UnknownIssuer")]
    {
        let (status, told) = found(address, host, settings);
        assert_eq!(status, Status::Down);
        assert!(told.starts_with("GET /: no TLS: ") && told.contains(cause), "{told}");
        assert!(told.contains("upstream.tls.ca"), "{told}");
    }
    let any = BackendTlsSettings { insecure_skip_verify: true, ..unknown };
    assert_eq!(found(address, "b.test", &any).0, Status::Up);
}

#[test]
fn what_is_no_tls_is_told() {
    let status = Arc::new(AtomicU16::new(200));
    let plain = server(&status);
    let papers = Papers::new();
    let known = BackendTlsSettings { ca: Some(papers.ca()), ..BackendTlsSettings::default() };
    let (status, told) = found(plain, "a.test", &known);
    assert_eq!(status, Status::Down);
    assert!(told.contains("no TLS: "), "{told}");
    let (closes, _) = secure(&papers, "");
    let (status, told) = found(closes, "a.test", &known);
    assert_eq!(status, Status::Down);
    assert!(told.contains("connection closed before"), "{told}");
}
