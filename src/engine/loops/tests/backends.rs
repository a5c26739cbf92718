//! Requests that backends answer: a proxy of one backend, which each test plays.

use super::*;
use std::net::Shutdown;

use crate::proxy::tests::{Fixture, policy, settings};
use balancer_pool::backends::Settings;
use balancer_pool::queue::QueuePolicy;

/// An engine with a proxy, and the listener of its backend.
pub(super) struct Proxied {
    pub door: Door,
    pub fixture: Arc<Fixture>,
    listener: TcpListener,
}

impl Proxied {
    fn open(config: &Frontend) -> Self {
        Self::with(config, &settings(policy()))
    }

    pub fn with(config: &Frontend, settings: &Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let fixture = Arc::new(Fixture::new(&[address], settings, Clock::real()));
        let proxy = Arc::clone(&fixture.proxy);
        let door = Door::open(config, move |asked| proxy.begin(asked));
        Self { door, fixture, listener }
    }

    /// The next connection to the backend.
    fn accept(&self) -> TcpStream {
        self.listener.set_nonblocking(true).expect("set");
        let mut accepted = None;
        until("the engine connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.expect("it has");
        stream.set_nonblocking(false).expect("set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// The same, when the head of its first request was read.
    pub fn asked(&self) -> (TcpStream, String) {
        let mut stream = self.accept();
        let head = read_head(&mut stream);
        (stream, head)
    }

    /// Sends a request whose backend answers so and closes: what the client reads up to the connection's end.
    pub fn once(&self, request: &str, answer: &[u8]) -> (TcpStream, Vec<u8>, std::io::Result<usize>) {
        let mut client = self.door.send(request.as_bytes());
        let (mut backend, _) = self.asked();
        backend.write_all(answer).expect("sent");
        drop(backend);
        let mut bytes = Vec::new();
        // Fails where the answer has ended with a reset by now.
        let _ = client.shutdown(Shutdown::Write);
        let end = client.read_to_end(&mut bytes);
        (client, bytes, end)
    }

    fn status(&self) -> u16 {
        until("its end is written down", || !self.fixture.journal.records.lock().is_empty());
        self.fixture.journal.records.lock().remove(0).status
    }
}

pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub(super) const OLD: &str = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn an_answer_is_relayed_whole_however_it_is_framed_on_both_sides() {
    let proxied = Proxied::open(&config());
    let long = "x".repeat(300_000);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let until_close = format!("HTTP/1.1 200 OK\r\n\r\n{long}");
    let known = format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{long}");
    // The request, the answer, a line of the head, the end of what the client reads.
    for (request, answer, line, end) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", "Content-Length: 5", "\r\n\r\nabcde"),
        (GET, &known, "Content-Length: 300000", &*format!("\r\n\r\n{long}")),
        (GET, chunked, "Transfer-Encoding: chunked", "e\r\n0\r\n\r\n"),
        (GET, "HTTP/1.1 200 OK\r\n\r\nabcde", "Transfer-Encoding: chunked", "e\r\n0\r\n\r\n"),
        (GET, &until_close, "Transfer-Encoding: chunked", "x\r\n0\r\n\r\n"),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content", "\r\n\r\n"),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "Content-Length: 5", "\r\n\r\n"),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "Content-Length: 5",
            "\r\n\r\n",
        ),
        (OLD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde", "Connection: keep-alive", "\r\n\r\nabcde"),
        // Its length is found out, so that the connection can be kept.
        (OLD, chunked, "Content-Length: 5", "\r\n\r\nabcde"),
        (OLD, "HTTP/1.1 200 OK\r\n\r\nabcde", "Connection: keep-alive", "\r\n\r\nabcde"),
        // Too long for that.
        (OLD, &until_close, "Connection: close", &*format!("\r\n\r\n{long}")),
        ("GET / HTTP/1.0\r\n\r\n", chunked, "Connection: close", "\r\n\r\nabcde"),
    ] {
        let (_, bytes, result) = proxied.once(request, answer.as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        let short = &text[..text.len().min(400)];
        result.unwrap_or_else(|error| panic!("{request:?}: {error} after {short:?}"));
        assert!(text.contains(&format!("{line}\r\n")) && text.ends_with(end), "{request:?}: {short:?}");
        assert_eq!(
            text.contains("Transfer-Encoding"),
            line.starts_with("Transfer"),
            "{request:?}: {short:?}"
        );
        assert!(matches!(proxied.status(), 200 | 204 | 304));
    }
    assert_eq!(proxied.fixture.leases(), 0);
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_be_broken() {
    let proxied = Proxied::open(&config());
    for (request, answer, needs_reset) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde", false),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabcde", false),
        (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nx", false),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabcde", true),
    ] {
        let (_, bytes, end) = proxied.once(request, answer.as_bytes());
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "no last chunk");
        // Without a length the only sign is a reset.
        assert!(end.is_err() || !needs_reset, "{request:?}");
        assert_eq!(proxied.status(), 200);
    }
    for answer in ["", "HTTP/1.1 200 OK\r\nConte", "nonsense\r\n\r\n"] {
        let (_, bytes, _) = proxied.once("POST / HTTP/1.1\r\nHost: a\r\n\r\n", answer.as_bytes());
        assert!(bytes.starts_with(b"HTTP/1.1 502 "), "{answer:?}");
        assert_eq!(proxied.status(), 502);
    }
}

#[test]
fn a_backends_connection_is_kept_while_it_is_clean() {
    let proxied = Proxied::open(&config());
    let mut client = proxied.door.send(GET.as_bytes());
    let (mut backend, _) = proxied.asked();
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for _ in 0..3 {
        backend.write_all(OK).expect("sent");
        assert_eq!(read_answer(&mut client).1, "ok");
        client.write_all(GET.as_bytes()).expect("sent");
        read_head(&mut backend);
    }
    // Bytes behind an answer belong to no request: the next request gets a new connection.
    for last in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    ] {
        backend.write_all(last).expect("sent");
        assert_eq!(read_answer(&mut client).1, "ok");
        client.write_all(GET.as_bytes()).expect("sent");
        backend = proxied.asked().0;
    }
    // A connection that was closed while it was kept is not taken.
    backend.write_all(OK).expect("sent");
    assert_eq!(read_answer(&mut client).1, "ok");
    drop(backend);
    client.write_all(GET.as_bytes()).expect("sent");
    let (mut backend, _) = proxied.asked();
    backend.write_all(OK).expect("sent");
    assert_eq!(read_answer(&mut client).1, "ok");
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    for (abort_on_close, by_reset) in [(true, true), (true, false), (false, true), (false, false)] {
        let proxied = Proxied::open(&Frontend { abort_on_close, ..config() });
        let mut client = proxied.door.send(GET.as_bytes());
        let (mut backend, _) = proxied.asked();
        let stays = !abort_on_close && !by_reset;
        if by_reset {
            reset(client);
        } else {
            client.shutdown(Shutdown::Write).expect("open");
            if stays {
                let clock = Clock::real();
                let begun = clock.now();
                until("a second has passed", || clock.now() - begun > 1_500_000_000);
                backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
                assert_eq!(read_answer(&mut client).1, "ok");
            }
        }
        if !stays {
            assert!(matches!(backend.read(&mut [0]), Ok(0) | Err(_)), "its connection is closed");
        }
        assert_eq!(proxied.status(), if stays { 200 } else { 499 });
        assert_eq!(proxied.fixture.leases(), 0);
        proxied.door.until_empty();
    }
}

#[test]
fn interim_answers_reach_who_understands_them() {
    let proxied = Proxied::open(&config());
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (request, interim) in [(GET, true), ("GET / HTTP/1.0\r\n\r\n", false)] {
        let (_, bytes, _) = proxied.once(request, answer);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(
            text.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 "),
            interim,
            "{text:?}"
        );
        assert!(!text.contains("100 Continue") && text.ends_with("ok"));
    }
    let many = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9);
    let (_, bytes, _) = proxied.once("POST / HTTP/1.1\r\nHost: a\r\n\r\n", &many);
    assert!(String::from_utf8_lossy(&bytes).contains("HTTP/1.1 502 "));
}

#[test]
fn a_large_body_streams_and_the_next_request_follows() {
    let proxied = Proxied::open(&config());
    let body: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
    let mut chunked = Vec::new();
    for piece in body.chunks(54_321) {
        write!(chunked, "{:x}\r\n", piece.len()).expect("memory");
        chunked.extend_from_slice(&[piece, b"\r\n"].concat());
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut client = proxied.door.connect();
    let (fields, known) = ("Content-Length: 1000000\r\n", body.clone());
    for (fields, bytes) in [(fields, &known), ("Transfer-Encoding: chunked\r\n", &chunked)] {
        let (mut writer, all) =
            (client.try_clone().expect("a second handle"), [&post(fields)[..], bytes].concat());
        let sender = thread::spawn(move || writer.write_all(&all).expect("the engine reads"));
        let (mut backend, head) = proxied.asked();
        assert!(head.contains(fields), "{head:?}");
        let mut came = Vec::new();
        if fields.starts_with("Content") {
            came = vec![0; body.len()];
            backend.read_exact(&mut came).expect("the whole body");
        } else {
            // Chunks of any size: taken apart as they come.
            loop {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    let mut byte = [0];
                    backend.read_exact(&mut byte).expect("a size");
                    line.push(byte[0]);
                }
                let size = String::from_utf8_lossy(&line);
                let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
                let mut piece = vec![0; size + 2];
                backend.read_exact(&mut piece).expect("a chunk");
                if size == 0 {
                    break;
                }
                came.extend_from_slice(&piece[..size]);
            }
        }
        assert!(came == body);
        backend
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            .expect("sent");
        assert_eq!(read_answer(&mut client).1, "ok");
        sender.join().expect("the sender ends");
    }
}

#[test]
fn an_early_answer_reaches_the_client_while_it_pauses() {
    let proxied = Proxied::open(&config());
    let mut client = proxied.door.send(&[&post("Content-Length: 1000000\r\n")[..], &[b'x'; 1000]].concat());
    let (mut backend, _) = proxied.asked();
    backend.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno").expect("sent");
    let (head, body) = read_answer(&mut client);
    assert!(
        head.starts_with("HTTP/1.1 401 ") && head.contains("Connection: close") && body == "no",
        "{head:?}"
    );
    assert_eq!(proxied.status(), 401);
}

#[test]
fn a_panic_in_a_story_costs_its_own_request_a_500() {
    let proxied = Proxied::open(&config());
    let mut client = proxied.door.send(GET.as_bytes());
    let (mut backend, _) = proxied.asked();
    proxied.fixture.journal.breaks.store(true, Ordering::SeqCst);
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
    let (head, _) = read_answer(&mut client);
    assert!(head.starts_with("HTTP/1.1 500 ") && head.contains("Connection: close"), "{head:?}");
    assert_eq!(read_to_end(&mut client), "");
    assert_eq!(proxied.fixture.leases(), 0);
    let (_, bytes, _) = proxied.once(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(bytes.ends_with(b"ok"));
}

#[test]
fn a_request_that_found_every_backend_full_goes_on_when_one_has_room() {
    let queue = QueuePolicy { size: 9, ..QueuePolicy::default() };
    let lined = balancer_pool::policy::PoolPolicy { queue, queue_timeout: PATIENCE, ..policy() };
    let pool = Settings { max_in_flight: Some(1), ..settings(lined) };
    let proxied = Proxied::with(&config(), &pool);
    let mut first = proxied.door.send(GET.as_bytes());
    let (mut backend, _) = proxied.asked();
    let mut second = proxied.door.send(GET.as_bytes());
    proxied.door.until("it waits in line", |stats| stats.parked == 1);
    let gone = proxied.door.send(GET.as_bytes());
    proxied.door.until("two wait in line", |stats| stats.parked == 2);
    reset(gone);
    assert_eq!(proxied.status(), 499);
    for (number, client) in [&mut first, &mut second].into_iter().enumerate() {
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
        assert_eq!(read_answer(client).1, "ok");
        if number == 0 {
            read_head(&mut backend);
        }
    }
    until("leases come back", || proxied.fixture.leases() == 0);
}

#[test]
fn an_upgraded_connection_passes_both_directions_until_both_have_ended() {
    let proxied = Proxied::open(&config());
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for client_first in [true, false] {
        let mut client = proxied.door.send(format!("{request}early").as_bytes());
        let (mut backend, head) = proxied.asked();
        assert!(head.contains("\r\nUpgrade: websocket\r\n"), "{head:?}");
        let switch =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        backend.write_all(switch).expect("sent");
        assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
        let mut five = [0; 5];
        client.read_exact(&mut five).expect("what came with the head");
        assert_eq!(&five, b"hello");
        backend.read_exact(&mut five).expect("what came with the request");
        assert_eq!(&five, b"early");
        proxied.door.until("it is a tunnel", |stats| stats.relay == 1);
        let (one, other) =
            if client_first { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
        one.write_all(b"bytes").expect("sent");
        one.shutdown(Shutdown::Write).expect("open");
        assert_eq!(read_to_end(other), "bytes");
        other.write_all(b"still").expect("the other direction is open");
        other.shutdown(Shutdown::Write).expect("open");
        assert_eq!(read_to_end(one), "still");
        assert_eq!(proxied.status(), 101);
        proxied.door.until_empty();
    }
}

/// The second request of a client of HTTP/1.0 comes while the first one's answer, which is ended by its connection's
/// end, is on its way: closed with that unread, the connection would be reset, and the answer's end with it.
#[test]
fn what_comes_behind_a_last_answer_does_not_reset_it() {
    let proxied = Proxied::open(&config());
    let mut client = proxied.door.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let (mut backend, _) = proxied.asked();
    backend.write_all(b"HTTP/1.1 200 OK\r\n\r\nab").expect("sent");
    read_head(&mut client);
    let turns = proxied.door.service.turns.load(Ordering::SeqCst);
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    until("it was told", || proxied.door.service.turns.load(Ordering::SeqCst) > turns);
    backend.write_all(b"cd").expect("sent");
    drop(backend);
    assert_eq!(read_to_end(&mut client), "abcd");
}
