//! What a loop must not forget: bytes that wait for a backend while its answer comes, clients that send no more, the
//! deadlines of others, and what a call had collected when its client left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{find, head};
use crate::support::{Backend, Conn, Fault, Gate, Setup, Then, until};

/// More than the kernel takes of a connection whose other end reads nothing.
const LARGE: usize = 24 << 20;

/// One loop that takes such a body.
fn setup() -> Setup {
    Setup::auto().one_loop().set("frontend.max_body_bytes", json!(LARGE))
}

/// Reads up to the end of a head; what came of the body behind it.
fn read_head(stream: &mut TcpStream) -> Option<usize> {
    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = find(&got, b"\r\n\r\n") {
            return Some(got.len() - end - 4);
        }
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        got.extend_from_slice(&piece[..count]);
    }
}

/// Reads a body of that length, of which some has come.
fn read_rest(stream: &mut TcpStream, length: usize, mut came: usize) {
    let mut piece = [0; 65536];
    while came < length {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => came += count,
        }
    }
}

/// A backend that waits for the gate behind each request's head, reads its body and answers.
fn late_reader(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::raw(move |_, stream, _| {
        // What is not read stays with the balancer.
        let _ = socket2::SockRef::from(&*stream).set_recv_buffer_size(64 * 1024);
        let Some(came) = read_head(stream) else { return Then::Close };
        gate.wait();
        read_rest(stream, LARGE, came);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        Then::Close
    })
}

fn post(conn: &mut Conn, length: usize) {
    conn.send(head("POST", "/", &[], Some(length)));
}

/// The body is larger than the kernel takes, and what is left of it waits in the loop when the answer's head comes.
#[test]
fn a_body_goes_on_while_its_answer_comes() {
    for in_memory in [0, 16 << 20] {
        let length = if in_memory > 0 { in_memory } else { LARGE };
        let gate = Gate::default();
        let opened = gate.clone();
        let backend = Backend::raw(move |_, stream, _| {
            let Some(came) = read_head(stream) else { return Then::Close };
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhead");
            opened.wait();
            read_rest(stream, length, came);
            let _ = stream.write_all(b"tail");
            Then::Close
        });
        let balancer = setup()
            .set("frontend.request_buffer_bytes", json!(in_memory))
            .set("upstream.read_timeout", json!("5s"))
            .backend(backend.address())
            .start();
        let mut conn = Conn::open(balancer.address);
        post(&mut conn, length);
        let mut sender = conn.another();
        let sending = std::thread::spawn(move || sender.try_send(vec![b'x'; length]));
        let answer =
            conn.read_head("POST").unwrap_or_else(|fault| panic!("{in_memory}: {fault:?}")).expect(200);
        let mut text = Vec::new();
        // The answer's beginning is with the client before the rest of the body is read.
        let read = conn.read_body(answer.framing, &mut |bytes| {
            text.extend_from_slice(bytes);
            gate.open();
        });
        assert_eq!((read, &text[..]), (Ok(()), &b"headtail"[..]), "{in_memory}");
        sending.join().unwrap().expect("the whole body is taken");
    }
}

/// An address that takes no more connections and refuses none, with what keeps it so.
fn full_door() -> (socket2::Socket, Vec<TcpStream>) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a free port");
    listener.listen(0).expect("it listens");
    let address = address_of(&listener);
    let patience = Duration::from_millis(300);
    let held = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
    (listener, held)
}

fn address_of(socket: &socket2::Socket) -> SocketAddr {
    socket.local_addr().expect("bound").as_socket().expect("an address")
}

/// The loop does not spin: it waits until the backend takes something.
#[test]
fn a_client_that_ends_inside_its_body_costs_nothing_while_the_backend_waits() {
    let (door, _held) = full_door();
    let balancer = Setup::auto()
        .one_loop()
        .backend(address_of(&door))
        .set("upstream.connect_timeout", json!("20s"))
        .start();
    let mut conn = Conn::open(balancer.address);
    post(&mut conn, 200_000);
    conn.send(vec![b'x'; 100_000]);
    conn.finish();
    // What the start and these bytes cost does not count.
    std::thread::sleep(Duration::from_millis(500));
    let before = balancer.proc.cpu_time();
    std::thread::sleep(Duration::from_secs(2));
    let spent = balancer.proc.cpu_time() - before;
    assert!(spent < Duration::from_millis(300), "{spent:?} of processor time in 2 s");
    conn.wait_at_most(Duration::from_millis(1));
    assert_eq!(conn.read_head("POST").unwrap_err(), Fault::TimedOut, "its request still waits");
}

/// A client that ended its direction behind its whole request waits for an answer, however long the backend took to read.
#[test]
fn the_end_of_a_client_counts_from_the_end_of_its_body() {
    let backend = Backend::raw(move |_, stream, _| {
        let Some(mut came) = read_head(stream) else { return Then::Close };
        let mut piece = [0; 65536];
        while came < LARGE {
            std::thread::sleep(Duration::from_millis(6));
            came += stream.read(&mut piece).ok().filter(|count| *count > 0).unwrap_or(LARGE);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        Then::Close
    });
    let balancer = setup().backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    post(&mut conn, LARGE);
    conn.send(vec![b'x'; LARGE]);
    conn.finish();
    assert_eq!(conn.read("POST").expect("an answer").expect(200).text(), "done");
}

/// The time that a client needs for its body does not count for the backend, whose own time begins when the body is
/// there.
#[test]
fn a_backend_is_asked_to_take_a_body_only_when_it_is_there() {
    let gate = Gate::default();
    let backend = late_reader(&gate);
    let balancer = setup().backend(backend.address()).set("upstream.response_timeout", json!("2s")).start();
    let mut conn = Conn::open(balancer.address);
    post(&mut conn, LARGE);
    let (slow, piece) = (6 * 500, [b'x'; 500]);
    for _ in 0..6 {
        conn.send(piece);
        std::thread::sleep(Duration::from_millis(500));
    }
    let opener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        gate.open();
    });
    conn.send(vec![b'x'; LARGE - slow]);
    assert_eq!(conn.read("POST").expect("an answer").expect(200).text(), "done");
    opener.join().unwrap();
}

/// There are bytes for the client to take, so `frontend.write_timeout` alone says how long it may pause.
#[test]
fn a_client_that_sends_no_more_may_pause_while_it_reads() {
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes(), &vec![b'x'; LARGE]]
            .concat();
    let backend = Backend::answering(answer);
    let balancer = Setup::auto().one_loop().backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/", &[], None));
    conn.finish();
    let answer = conn.read_head("GET").expect("an answer").expect(200);
    // Longer than a client that sends no more may wait for the first byte.
    std::thread::sleep(Duration::from_secs(3));
    let mut came = 0;
    let read = conn.read_body(answer.framing, &mut |bytes| came += bytes.len());
    assert_eq!((read, came), (Ok(()), LARGE));
}

/// A client is too slow only by its own pauses, not while the backend takes nothing.
#[test]
fn a_client_is_not_too_slow_while_others_keep_it_waiting() {
    let gate = Gate::default();
    let backend = late_reader(&gate);
    let setup = setup()
        .set("frontend.min_bytes_per_sec", json!(50_000_000))
        .set("frontend.slow_grace", json!("1s"))
        .set("frontend.body_timeout", json!("2s"));
    let balancer = setup.clone().backend(backend.address()).start();
    let opened = gate.clone();
    let opener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(3));
        opened.open();
    });
    let mut conn = Conn::open(balancer.address);
    post(&mut conn, LARGE);
    conn.send(vec![b'x'; LARGE]);
    assert_eq!(conn.read("POST").expect("an answer").expect(200).text(), "done");
    opener.join().unwrap();

    // A request in line is not asked for its body, so it is not too slow either.
    let gate = Gate::default();
    let door = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        door.wait();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        Then::Keep
    });
    let balancer = setup
        .set("frontend.min_bytes_per_sec", json!(240))
        .set("balancing.queue_timeout", json!("20s"))
        .set("balancing.queue_target", Value::Null)
        .backend_with(json!({ "url": backend.url(), "max_in_flight": 1 }))
        .start();
    let mut first = Conn::open(balancer.address);
    first.send(head("GET", "/first", &[], None));
    until("the first one is there", || (backend.seen().len() == 1).then_some(()));
    let mut second = Conn::open(balancer.address);
    second.send(head("PUT", "/second", &[("Expect", "100-continue")], Some(5)));
    until("the second one is in line", || (balancer.metric("balancer_queue_depth") == 1.0).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    gate.open();
    assert_eq!(first.read("GET").expect("an answer").expect(200).text(), "done");
    assert_eq!(second.read_interim(), Ok(100));
    second.send("hello");
    assert_eq!(second.read("PUT").expect("an answer").expect(200).text(), "done");
}

/// The first backend refuses before a byte of the body came: the second one gets all of it.
#[test]
fn a_body_that_had_not_begun_is_sent_to_the_next_backend() {
    let busy = Backend::raw(|_, stream, _| {
        let _ = read_head(stream);
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        Then::Hang
    });
    let good = Backend::named("good");
    let balancer = Setup::auto()
        .one_loop()
        .backend(busy.address())
        .backend(good.address())
        .set("balancing.strategy", json!("round_robin"))
        .set("outlier", Value::Null)
        .set("upstream.retry_on", json!(["503"]))
        .set("upstream.response_timeout", json!("3s"))
        .start();
    let body = vec![b'x'; 100_000];
    for _ in 0..2 {
        let mut conn = Conn::open(balancer.address);
        conn.send(head("PUT", "/", &[], Some(body.len())));
        let good = "balancer_backend_in_flight{pool=\"default\",backend=\"b\"}";
        until("it is with the good one", || (balancer.metric(good) == 1.0).then_some(()));
        conn.send(&body);
        assert_eq!(conn.read("PUT").expect("an answer").expect(200).text(), "good");
        until("its end is counted", || (balancer.metric(good) == 0.0).then_some(()));
    }
    assert_eq!(busy.connections(), 1);
    assert!(good.seen().iter().all(|seen| seen.body == body));
}

/// Calls' bodies are bounded together; what a client left behind is not counted for ever.
#[test]
fn calls_that_were_broken_off_leave_room_for_others() {
    let backend = Backend::named("a");
    let balancer = setup().backend(backend.address()).start();
    let begin = |length: usize| {
        let mut conn = Conn::open(balancer.admin);
        conn.send(head("POST", "/-/v1/batch", &[("Content-Type", "application/json")], Some(length)));
        conn
    };
    // The last byte never comes.
    let most = vec![b' '; (8 << 20) - 1];
    for _ in 0..9 {
        let mut conn = begin(most.len() + 1);
        conn.send(&most);
        conn.finish();
        conn.read("POST").expect("an answer").expect(400);
    }
    let mut conn = begin(1 << 20);
    conn.send(vec![b' '; 1 << 20]);
    conn.read("POST").expect("an answer").expect(400);
}

/// This holds for a backend that is never asked again, too.
#[test]
fn a_kept_connection_ends_after_its_time_whoever_asks_next() {
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .one_loop()
        .backend(backend.address())
        .set("upstream.idle_timeout", json!("500ms"))
        .start();
    balancer.get("/").expect(200);
    assert_eq!(backend.connections(), 1);
    until("its connection is closed", || (backend.open() == 0).then_some(()));
}

/// When an answer is refused and its request waits for another backend, the connection of that answer is closed.
#[test]
fn the_connection_of_a_refused_answer_is_closed_while_its_request_waits() {
    let gate = Gate::default();
    let door = gate.clone();
    let full = Backend::scripted(move |_, stream| {
        door.wait();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        Then::Keep
    });
    let odd =
        Backend::answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let balancer = Setup::auto()
        .one_loop()
        .backend_with(json!({ "url": full.url(), "max_in_flight": 1 }))
        .backend_with(json!({ "url": odd.url(), "max_in_flight": 1 }))
        .set("balancing.strategy", json!("round_robin"))
        .set("balancing.queue_timeout", json!("25s"))
        .set("outlier", Value::Null)
        .start();
    let mut conns: Vec<_> = (0..2).map(|_| Conn::open(balancer.address)).collect();
    conns[0].send(head("GET", "/", &[], None));
    until("the one has no room", || (full.seen().len() == 1).then_some(()));
    conns[1].send(head("GET", "/", &[], None));
    until("the odd one was asked", || (!odd.seen().is_empty()).then_some(()));
    until("the odd one's connection is closed", || (odd.open() == 0).then_some(()));
    gate.open();
    for conn in &mut conns {
        assert_eq!(conn.read("GET").expect("an answer").expect(200).text(), "good");
    }
}
