//! What one exchange with a backend costs: CPU time of the calling thread, over loopback, on a kept connection.
//!
//! `cargo bench --bench upstream` prints it beside the floor, the same bytes through a bare socket, measured in turns.
//! `strace -c -f -e trace=network,poll,ppoll target/release/deps/upstream-… calls 20000` counts system calls.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer::clock::Clock;
use balancer::config::{RetryOn, UpstreamConfig};
use balancer::proxy::exchange::{Abort, Pull, RequestBody, Stream, Wait};
use balancer::proxy::{Outgoing, Reuse, Upstream};
use balancer::upstream::UreqUpstream;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;
use balancer_pool::backends::Endpoint;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 7;
const CALLS: u32 = 20_000;

/// What a proxied request carries.
const FIELDS: &[(&str, &str)] = &[
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-GB,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Host", "shop.example"),
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Host", "shop.example"),
    ("Via", "1.1 balancer (0190c1a0)"),
    ("X-Request-Id", "0190c1a0-7d5c-7b3e-9c41-1f2e3d4c5b6a"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
];

struct NoBody;

impl RequestBody for NoBody {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
    fn buffered(&self) -> Option<&[u8]> {
        Some(&[])
    }
    fn consumed(&self) -> bool {
        false
    }
}

/// A body that never ends by itself.
struct Zeros;

impl RequestBody for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(buffer.len())
    }
    fn buffered(&self) -> Option<&[u8]> {
        None
    }
    fn consumed(&self) -> bool {
        true
    }
}

/// Answers every request (a head without a body, or a body of `upload` bytes behind it) with a body of `bytes` bytes.
fn backend(bytes: usize, upload: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n"
    );
    let answer = Arc::new([head.into_bytes(), vec![b'b'; bytes]].concat());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream, &answer, upload));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &[u8], upload: usize) {
    let mut buffer = vec![0; 256 * 1024];
    let _ = stream.set_nodelay(true);
    'requests: loop {
        let (mut received, mut end) = (0, None);
        while end.is_none_or(|end| received < end + upload) {
            let room = received % (buffer.len() / 2);
            match stream.read(&mut buffer[room..]) {
                Ok(0) | Err(_) => break 'requests,
                Ok(read) => {
                    received += read;
                    end = end.or_else(|| {
                        let seen = &buffer[..received.min(buffer.len())];
                        seen.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
                    });
                }
            }
        }
        if stream.write_all(answer).is_err() {
            break;
        }
    }
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// User CPU time of this thread, in ticks of 10 ms.
fn user_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    behind_name.split_whitespace().nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

struct Caller {
    upstream: UreqUpstream,
    endpoint: Arc<Endpoint>,
    fields: Fields,
    abort: Abort,
    buffer: Vec<u8>,
}

impl Caller {
    fn new(address: SocketAddr) -> Self {
        let config = UpstreamConfig {
            request_timeout: None,
            retry_on: RetryOn::default(),
            retry_budget: 0.2,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(4),
            retries: 1,
            resolve_interval: Duration::from_secs(10),
            max_head_bytes: 32 * 1024,
            max_headers: 256,
            accept_invalid: false,
            via: true,
        };
        let mut fields = Fields::new();
        FIELDS.iter().for_each(|(name, value)| fields.push(name, value.as_bytes()));
        Self {
            upstream: UreqUpstream::new(&config, Clock::real()),
            endpoint: Endpoint::alone("bench", address),
            fields,
            abort: Abort::default(),
            buffer: vec![0; 64 * 1024],
        }
    }

    fn call(&mut self, method: &str, length: BodyLength, body: &mut dyn RequestBody) -> usize {
        let request = Outgoing {
            method,
            target: "/index.html?q=1",
            fields: &self.fields,
            length,
            reuse: Reuse::Any,
            deadline: None,
        };
        let mut incoming =
            self.upstream.send(&self.endpoint, &request, body, &self.abort).expect("an answer");
        read_all(&mut *incoming.body, &mut self.buffer)
    }
}

fn read_all(body: &mut dyn Stream, buffer: &mut [u8]) -> usize {
    let mut all = 0;
    loop {
        match body.pull(buffer, Wait::Block) {
            Pull::Bytes(read) => all += read,
            Pull::End => return all,
            other => panic!("{other:?}"),
        }
    }
}

/// The same bytes without anything in between: what blocking sockets cost by themselves.
struct Floor {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Floor {
    fn new(address: SocketAddr) -> Self {
        let mut request = "GET /index.html?q=1 HTTP/1.1\r\n".to_string();
        FIELDS.iter().for_each(|(name, value)| request += &format!("{}: {value}\r\n", name.to_lowercase()));
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, request: (request + "\r\n").into_bytes(), buffer: vec![0; 64 * 1024] }
    }

    fn call(&mut self, bytes: usize) -> usize {
        self.stream.write_all(&self.request).expect("sent");
        let mut received = self.stream.read(&mut self.buffer).expect("an answer");
        let head =
            self.buffer[..received].windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        while received < head + bytes {
            received += self.stream.read(&mut self.buffer).expect("a body");
        }
        received - head
    }
}

/// Median CPU time of one of `calls` calls, and the user share of all of them.
fn measure(calls: u32, mut both: [&mut dyn FnMut(); 2]) -> [(Duration, f64); 2] {
    let mut times = [Vec::new(), Vec::new()];
    let mut user = [0, 0];
    for _ in 0..ROUNDS {
        for (which, call) in both.iter_mut().enumerate() {
            let (cpu_before, user_before) = (cpu(), user_ticks());
            (0..calls).for_each(|_| call());
            times[which].push((cpu() - cpu_before) / calls);
            user[which] += user_ticks() - user_before;
        }
    }
    [0, 1].map(|which| {
        let all: Duration = times[which].iter().sum::<Duration>() * calls;
        times[which].sort();
        (times[which][ROUNDS / 2], user[which] as f64 / 100.0 / all.as_secs_f64())
    })
}

fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|one| one == "calls") {
        let calls = arguments.get(at + 1).and_then(|text| text.parse().ok()).unwrap_or(CALLS);
        let mut caller = Caller::new(backend(2, 0));
        for _ in 0..calls {
            caller.call("GET", BodyLength::Empty, &mut NoBody);
        }
        return;
    }
    println!(
        "{:<24} {:>10} {:>6} {:>10} {:>6} {:>12}",
        "exchange", "ours", "user", "bare", "user", "user on top"
    );
    for bytes in [2, 16 * 1024, 1024 * 1024] {
        let address = backend(bytes, 0);
        let (mut caller, mut floor) = (Caller::new(address), Floor::new(address));
        let calls = if bytes > 100_000 { CALLS / 100 } else { CALLS };
        let [ours, bare] = measure(
            calls,
            [&mut || assert_eq!(caller.call("GET", BodyLength::Empty, &mut NoBody), bytes), &mut || {
                assert_eq!(floor.call(bytes), bytes)
            }],
        );
        let on_top = ours.0.as_secs_f64() * ours.1 - bare.0.as_secs_f64() * bare.1;
        println!(
            "GET, {:<19} {:>10.2?} {:>5.0}% {:>10.2?} {:>5.0}% {:>9.2} µs",
            format!("{bytes} bytes back"),
            ours.0,
            ours.1 * 100.0,
            bare.0,
            bare.1 * 100.0,
            on_top * 1e6
        );
    }
    large(1 << 30);
}

/// A large body each way, and what it does to the resident size.
fn large(bytes: usize) {
    for (method, back, upload) in [("GET", bytes, 0), ("PUT", 2, bytes)] {
        // The answer itself would be a gigabyte in memory here.
        let mut caller = Caller::new(if back > 2 { endless(back) } else { backend(back, upload) });
        let length = if upload > 0 { BodyLength::Known(upload as u64) } else { BodyLength::Empty };
        let (before, start, cpu_before) = (resident_kib(), Instant::now(), cpu());
        let read = caller.call(method, length, &mut Zeros);
        assert_eq!(read, back);
        println!(
            "{method} of 1 GiB: {:.2?}, {:.2?} of CPU, resident size {before} KiB before, {} KiB after",
            start.elapsed(),
            cpu() - cpu_before,
            resident_kib()
        );
    }
}

/// A backend whose answer is that many bytes, made as it is sent.
fn endless(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
        let piece = vec![0; 64 * 1024];
        (0..bytes / piece.len()).try_for_each(|_| stream.write_all(&piece))
    });
    address
}
