//! Bytes that are not TLS, or wrong TLS: each such connection ends, is counted, and leaves nothing behind.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::json;

use super::{handshakes, until_alone};
use crate::support::backend::OK;
use crate::support::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, PREFACE, SETTINGS, frame, get};
use crate::support::secure::tls_port;
use crate::support::tls_ends::{begin, client, setup, shake_hands};
use crate::support::{Backend, Balancer, PATIENCE, Setup, get as plain_get, until};

/// Connections for each kind of fault.
const MANY: usize = 2_000;
/// How many of these are open at once.
const BATCH: usize = 100;
/// What they may leave behind, the allocator's own slack with it.
const MOST_KIB: u64 = 4 * 1024;

struct Bench {
    _backend: Backend,
    balancer: Balancer,
    door: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Bench {
    fn of(change: impl FnOnce(Setup) -> Setup, alpn: &[&str]) -> Self {
        let backend = Backend::answering(OK);
        let balancer = change(setup().backend(backend.address())).start();
        let (door, config) = (tls_port(&balancer), Arc::new(client(balancer.folder(), VERSIONS, alpn)));
        Self { _backend: backend, balancer, door, config }
    }

    /// Does that [`MANY`] times, and sees that nothing of it stays. Connections that it gives stay open until their batch
    /// is through.
    fn repeat<T>(&self, what: &str, mut once: impl FnMut(usize) -> T, mut end: impl FnMut(T)) {
        let mut before = 0;
        for first in (0..MANY).step_by(BATCH) {
            let batch: Vec<T> = (first..first + BATCH).map(&mut once).collect();
            batch.into_iter().for_each(&mut end);
            if first == 2 * BATCH {
                until_alone(&self.balancer);
                before = self.balancer.proc.rss_kib();
            }
        }
        until_alone(&self.balancer);
        let grown = self.balancer.proc.rss_kib().saturating_sub(before);
        assert!(grown < MOST_KIB, "{what}: {grown} KiB more");
        assert_eq!(self.balancer.metric("balancer_panics_total"), 0.0, "{what}");
        plain_get(self.balancer.address, "/-/livez").expect(200);
    }
}

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// All that comes until the other side ends it, by a reset perhaps.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return came,
            Ok(count) => came.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return came,
            Err(error) => panic!("it stays open: {error}"),
        }
    }
}

/// The records of a client's hello.
fn hello(bench: &Bench) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
    let mut session = rustls::ClientConnection::new(Arc::clone(&bench.config), name).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_handshake_that_stops_has_a_deadline() {
    let bench = Bench::of(|setup| setup.set("tls.handshake_timeout", json!("500ms")), &[]);
    let hello = hello(&bench);
    let stop = |n: usize| {
        let mut socket = connect(bench.door);
        // The whole of it, too: what comes then is not waited for.
        socket.write_all(&hello[..n % (hello.len() + 1)]).unwrap();
        socket
    };
    bench.repeat("half a handshake", stop, |socket| drop(rest(socket)));
    assert_eq!(handshakes(&bench.balancer, "timeout"), MANY as f64);
}

#[test]
fn a_handshake_that_is_left_is_a_failure() {
    let bench = Bench::of(|setup| setup, &[]);
    let hello = hello(&bench);
    let leave = |n: usize| {
        let mut socket = connect(bench.door);
        socket.write_all(&hello[..n % (hello.len() + 1)]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        socket
    };
    bench.repeat("a handshake that is left", leave, |socket| drop(rest(socket)));
    assert_eq!(handshakes(&bench.balancer, "failed"), MANY as f64);
}

#[test]
fn garbage_is_no_handshake() {
    let bench = Bench::of(|setup| setup, &[]);
    let kinds: [Vec<u8>; 6] = [
        // A hello of SSL 2.
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec(),
        vec![0xff; 3_000],
        vec![0; 1],
        b"\x17\x03\x03\x00\x05hello".to_vec(),
        b"get / http/1.1\r\n\r\n".to_vec(),
        // A record of a handshake with nothing that could be one.
        [&b"\x16\x03\x01\x02\x00"[..], &[0xee; 512]].concat(),
    ];
    let talk = |n: usize| {
        let mut socket = connect(bench.door);
        socket.write_all(&kinds[n % kinds.len()]).unwrap();
        socket
    };
    bench.repeat("garbage", talk, |socket| drop(rest(socket)));
    assert_eq!(handshakes(&bench.balancer, "failed"), MANY as f64);
}

#[test]
fn a_hello_has_a_longest_length() {
    let bench = Bench::of(|setup| setup, &[]);
    // A hello of 16 MiB less one byte, by its header; then whatever follows, in records of a handshake.
    let mut first = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3];
    first.resize(5 + 0x4000, 7);
    let mut more = vec![22, 3, 1, 0x40, 0];
    more.resize(5 + 0x4000, 7);
    let talk = |_: usize| {
        let mut socket = connect(bench.door);
        for n in 0..64 {
            // It may have been ended already.
            if socket.write_all(if n == 0 { &first } else { &more }).is_err() {
                break;
            }
        }
        socket
    };
    bench.repeat("a hello that is too long", talk, |socket| drop(rest(socket)));
    assert_eq!(handshakes(&bench.balancer, "failed"), MANY as f64);
}

#[test]
fn a_request_without_tls_is_told_so() {
    let bench = Bench::of(|setup| setup, &[]);
    let talk = |_: usize| {
        let mut socket = connect(bench.door);
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        socket
    };
    let told = |socket| {
        let came = String::from_utf8(rest(socket)).unwrap();
        assert!(came.starts_with("HTTP/1.1 400 ") && came.contains("this port speaks TLS"), "{came}");
    };
    bench.repeat("a plain request", talk, told);
    assert_eq!(handshakes(&bench.balancer, "plain"), MANY as f64);
}

#[test]
fn tls_on_the_plain_port_is_closed() {
    let bench = Bench::of(|setup| setup, &[]);
    let hello = hello(&bench);
    let talk = |_: usize| {
        let mut socket = connect(bench.balancer.address);
        socket.write_all(&hello).unwrap();
        socket
    };
    bench.repeat("TLS on the plain port", talk, |socket| assert_eq!(rest(socket), b""));
    let counted = bench.balancer.metric("balancer_connections_rejected_total{reason=\"tls\"}");
    assert_eq!(counted, MANY as f64);
}

#[test]
fn garbage_behind_a_handshake_ends_it() {
    let bench = Bench::of(|setup| setup, &[]);
    let kinds: [Vec<u8>; 5] = [
        vec![0xff; 2_000],
        // A record that is longer than any may be (RFC 8446 §5.2).
        [&b"\x17\x03\x03\xff\xff"[..], &[1; 3_000]].concat(),
        // A record that was not encrypted with this connection's keys.
        [&b"\x17\x03\x03\x00\x40"[..], &[1; 64]].concat(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        // An alert in the clear.
        b"\x15\x03\x03\x00\x02\x02\x28".to_vec(),
    ];
    let talk = |n: usize| {
        let mut tls = shake_hands(begin(bench.door, &bench.config));
        tls.write_all(b"GET /-/livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut first = [0; 12];
        tls.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        tls.sock.write_all(&kinds[n % kinds.len()]).unwrap();
        tls.sock
    };
    bench.repeat("garbage behind a handshake", talk, |socket| drop(rest(socket)));
    assert_eq!(handshakes(&bench.balancer, "ok"), MANY as f64);
    let counted = bench.balancer.metric("balancer_connections_rejected_total{reason=\"tls_record\"}");
    assert_eq!(counted, MANY as f64);
}

#[test]
fn http2_by_alpn_may_be_cut_anywhere() {
    let bench = Bench::of(|setup| setup, &["h2"]);
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/", &[]));
    let whole = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &head].concat();
    let talk = |n: usize| {
        let mut tls = shake_hands(begin(bench.door, &bench.config));
        assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]));
        let cut = n % (whole.len() + 1);
        tls.write_all(&whole[..cut]).unwrap();
        match n % 3 {
            0 => tls.conn.send_close_notify(),
            // Bytes that are not the ones to come.
            1 => tls.write_all(b"\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe").unwrap(),
            _ => {}
        }
        tls.flush().unwrap();
        tls.sock.shutdown(Shutdown::Write).unwrap();
        tls.sock
    };
    bench.repeat("a beginning of HTTP/2", talk, |socket| drop(rest(socket)));
    until("no connection of HTTP/2 is left", || {
        (bench.balancer.metric("balancer_http2_connections") == 0.0).then_some(())
    });
    let frames = Frames::secured(shake_hands(begin(bench.door, &bench.config)));
    frames.greet();
    assert_eq!(frames.ask(1, &get("/", &[])), Ok(200));
}
