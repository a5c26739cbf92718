//! Clients and backends that do anything at any moment. It does not matter what they get; afterwards nothing of them is
//! left in the process, and every new client is served. `BALANCER_DRILL_SEED` chooses what happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::setup;
use crate::support::client::{find, head};
use crate::support::{Backend, Conn, Then, until};

const CLIENTS: u64 = 24;
const ROUNDS: u64 = 60;

/// Numbers that look random and are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// One of so many.
    fn roll(&mut self, of: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % of
    }

    fn pause(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.roll(most_ms + 1)));
    }
}

/// One answer, of any kind.
fn answer(dice: &mut Dice, stream: &mut TcpStream) -> std::io::Result<Then> {
    static BODY: [u8; 40_000] = [b'x'; 40_000];
    const OK: &[u8] = crate::support::backend::OK;
    match dice.roll(14) {
        0 => stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").and_then(|()| stream.write_all(OK))?,
        1 => return Ok(Then::Reset),
        2 => return Ok(Then::Close),
        3 => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 5 * BODY.len())?;
            for _ in 0..dice.roll(6) {
                stream.write_all(&BODY)?;
                dice.pause(10);
            }
            return Ok(Then::Close);
        }
        4 => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..dice.roll(5) {
                stream.write_all(b"3\r\nabc\r\n")?;
                dice.pause(20);
            }
            stream.write_all(b"0\r\n\r\n")?;
        }
        5 => stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n")?,
        6 => stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").map(|()| dice.pause(20))?,
        7 => stream.write_all(b"\0 garbage\r\n\r\n")?,
        8 => {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )?;
            dice.pause(20);
            stream.write_all(&BODY)?;
        }
        9 => {
            dice.pause(200);
            stream.write_all(OK)?;
        }
        _ => stream.write_all(OK)?,
    }
    Ok(Then::Keep)
}

/// Reads heads, and as much or little of bodies as it likes.
fn erratic() -> Backend {
    Backend::raw(|number, stream, _| {
        let mut dice = Dice::new(number as u64 + 1);
        let (mut bytes, mut buffer) = (Vec::new(), [0; 65536]);
        loop {
            while let Some(end) = find(&bytes, b"\r\n\r\n") {
                bytes.drain(..end + 4);
                dice.pause(5);
                match answer(&mut dice, stream) {
                    Ok(Then::Keep) => {}
                    Ok(then) => return then,
                    Err(_) => return Then::Close,
                }
            }
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                _ => return Then::Close,
            }
            // Bodies are nothing but x.
            if bytes.iter().all(|byte| *byte == b'x') {
                bytes.clear();
            }
        }
    })
}

/// The beginning of a connection, of any kind.
fn begin(dice: &mut Dice, conn: &mut Conn) -> std::io::Result<()> {
    static BODY: [u8; 30_000] = [b'x'; 30_000];
    let get = head("GET", "/", &[], None);
    match dice.roll(9) {
        0 => conn.try_send(get.repeat(5))?,
        1 => conn.try_send(&get[..get.len() / 2])?,
        2 => conn.try_send([head("POST", "/", &[], Some(10)), vec![b'x'; 10]].concat())?,
        3 => {
            // Of a body that streams any part, the whole included.
            conn.try_send(head("POST", "/", &[], Some(8 * BODY.len())))?;
            for _ in 0..dice.roll(9) {
                conn.try_send(BODY)?;
                dice.pause(5);
            }
        }
        4 => {
            conn.try_send(head("POST", "/", &[("Transfer-Encoding", "chunked")], None))?;
            for _ in 0..dice.roll(5) {
                conn.try_send(format!("{:x}\r\n", BODY.len()))?;
                conn.try_send(BODY)?;
                conn.try_send("\r\n")?;
            }
            if dice.roll(2) == 0 {
                conn.try_send("0\r\n\r\n")?;
            }
        }
        5 => conn.try_send(head("GET", "/", &[("Connection", "Upgrade"), ("Upgrade", "websocket")], None))?,
        6 => conn.try_send("garbage\r\n\r\n")?,
        7 => conn.try_send(head("POST", "/", &[("Expect", "100-continue")], Some(200_000)))?,
        _ => conn.try_send(get)?,
    }
    Ok(())
}

fn client(seed: u64, to: std::net::SocketAddr) {
    let mut dice = Dice::new(seed);
    for _ in 0..ROUNDS {
        let mut conn = Conn::open(to);
        if begin(&mut dice, &mut conn).is_err() {
            continue;
        }
        let wait = |conn: &mut Conn, ms| {
            conn.wait_at_most(Duration::from_millis(ms));
            let _ = conn.read("GET");
        };
        match dice.roll(5) {
            0 => {
                dice.pause(50);
                conn.reset();
            }
            1 => {
                conn.finish();
                wait(&mut conn, 100);
            }
            2 => {
                wait(&mut conn, 50);
                conn.reset();
            }
            3 => {
                wait(&mut conn, 300);
                let _ = begin(&mut dice, &mut conn);
                wait(&mut conn, 100);
            }
            _ => dice.pause(20),
        }
    }
}

#[test]
fn whatever_clients_and_backends_do_nothing_of_it_stays() {
    let backends = [erratic(), erratic()];
    let steady = Backend::named("steady");
    let mut setup = setup();
    for backend in &backends {
        setup = setup.backend_with(json!({ "url": backend.url(), "max_in_flight": 6 }));
    }
    let balancer = setup
        .backend_with(json!({ "url": steady.url(), "max_in_flight": 1 }))
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("frontend.workers", json!(2))
        .set("balancing.queue_timeout", json!("200ms"))
        .set("upstream.response_timeout", json!("500ms"))
        .set("upstream.read_timeout", json!("500ms"))
        .set("upstream.idle_timeout", json!("1s"))
        .set("upstream.retry_on", json!(["connect", "reset", "timeout"]))
        .set("frontend.body_timeout", json!("500ms"))
        .set("frontend.head_timeout", json!("1s"))
        .set("frontend.idle_timeout", json!("1s"))
        .set("frontend.tunnel_timeout", json!("1s"))
        .set("outlier", json!(null))
        .start();
    let files = balancer.proc.files();
    let address = balancer.address;
    let first = std::env::var("BALANCER_DRILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    std::thread::scope(|scope| {
        for seed in first..first + CLIENTS {
            scope.spawn(move || client(seed, address));
        }
    });
    let nothing = [
        "balancer_backend_in_flight{pool=\"default\",backend=\"a\"}",
        "balancer_backend_in_flight{pool=\"default\",backend=\"b\"}",
        "balancer_backend_in_flight{pool=\"default\",backend=\"c\"}",
        "balancer_queue_depth{pool=\"default\"}",
        "balancer_http_requests_in_flight",
        "balancer_loop_connections{loop=\"0\"}",
        "balancer_loop_connections{loop=\"1\"}",
    ];
    for series in nothing {
        until(&format!("{series} is 0"), || (balancer.series(series) == 0.0).then_some(()));
    }
    assert_eq!(balancer.series("balancer_panics_total"), 0.0, "{}", balancer.proc.story());
    // Kept connections end by their age, and no client has another connection.
    until("every descriptor is given back", || (balancer.proc.files() <= files + 4).then_some(()));
    // There are no clients, so nothing is to be done.
    let used = balancer.proc.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = balancer.proc.cpu_time() - used;
    assert!(used < Duration::from_millis(300), "{used:?}");
    until("the steady one answers", || {
        let mut conn = Conn::open(balancer.address);
        conn.send(head("GET", "/", &[], None));
        conn.read("GET").is_ok_and(|answer| answer.text() == "steady").then_some(())
    });
}
