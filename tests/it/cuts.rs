//! The answers and what a backend receives are the same, however the bytes of a client are cut into reads. `fuzz/` tests
//! this for the parsers; here it is tested for the engine, over real sockets.

use std::io::Write;
use std::time::Duration;

use crate::support::{Backend, Balancer, Conn, Engine, Fault, Setup, Then};

/// The pause between two pieces, so that most of them are read one by one. With a shorter one the test is only weaker.
const PAUSE: Duration = Duration::from_micros(300);
/// Streams up to this long are also sent byte by byte.
const BYTE_BY_BYTE: usize = 240;

/// What a client sends on one connection before it ends its direction.
fn streams() -> Vec<Vec<u8>> {
    let rows: &[&str] = &[
        "GET /1 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
        "\r\nGET http://b:81/c?d HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGET / HTTPOST /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;x=y\r\nhello\r\n06\r\n world\r\n0\r\nT: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        // Refused, first or behind a good one.
        "GET /1 HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /\x012 HTTP/1.1",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\nhello\r\n0\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\nabc",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // Ended in the middle of a request.
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n",
        "POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
        "POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    let mut streams: Vec<Vec<u8>> = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
    // Larger than what is read ahead: it streams.
    let large = vec![b'x'; 100_000];
    let next = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let known = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    streams.push([known, &large[..], next].concat());
    let chunked = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let half = [b"c350\r\n", &large[..50_000], b"\r\n"].concat();
    streams.push([chunked, &half[..], &half[..], b"0\r\nT: x\r\n\r\n", next].concat());
    streams.push([chunked, &half[..], &half[..], b"0\n\r\n", next].concat());
    streams
}

/// The ends of the pieces that a stream is sent in.
fn cuts(stream: &[u8], random: &mut fastrand::Rng, way: usize) -> Vec<usize> {
    if way == 0 {
        return vec![stream.len()];
    }
    if way == 1 && stream.len() <= BYTE_BY_BYTE {
        return (1..=stream.len()).collect();
    }
    let mut ends: Vec<usize> = (0..random.usize(1..8)).map(|_| random.usize(0..=stream.len())).collect();
    // Around the end of the first head, where a parser goes over to the body.
    let head = stream.windows(4).position(|word| word == b"\r\n\r\n").map_or(0, |at| at + 4);
    ends.push((head + random.usize(0..4)).saturating_sub(2).min(stream.len()));
    ends.push(stream.len());
    ends.sort_unstable();
    ends
}

/// Everything that was seen of one connection: the answers to the client, and the requests at the backend.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    answers: Vec<String>,
    requests: Vec<String>,
}

fn tell(balancer: &Balancer, backend: &Backend, stream: &[u8], ends: &[usize]) -> Story {
    let before = backend.seen().len();
    let mut conn = Conn::open(balancer.address);
    let mut start = 0;
    for end in ends {
        // A refusal may end the connection before everything is sent.
        if conn.try_send(&stream[start..*end]).is_err() {
            break;
        }
        start = *end;
        if ends.len() > 1 {
            std::thread::sleep(PAUSE);
        }
    }
    conn.finish();
    let mut answers = Vec::new();
    let ended = loop {
        let answer = match conn.read("GET") {
            Ok(answer) => answer,
            Err(fault) => break fault,
        };
        // Fields that differ from request to request are left out.
        let fields: Vec<_> = answer.fields.iter().filter(|(name, _)| !is_unique(name)).collect();
        let body = match answer.status {
            200 => answer.text(),
            _ => answer.json()["detail"].to_string(),
        };
        answers.push(format!("{} {fields:?} {body}", answer.status));
    };
    assert!(!matches!(ended, Fault::TimedOut | Fault::Malformed(_)), "{ended:?} behind {answers:?}");
    let requests = backend.seen().split_off(before);
    let requests = requests.iter().map(|seen| {
        let lines = seen.lines();
        let kept: Vec<_> =
            lines.iter().filter(|line| !line.split(':').next().is_some_and(is_unique)).collect();
        format!("{kept:?} {} {:?}", seen.body.len(), String::from_utf8_lossy(&seen.body))
    });
    Story { answers, requests: requests.collect() }
}

fn is_unique(name: &str) -> bool {
    ["date", "x-request-id", "traceparent"].iter().any(|one| name.eq_ignore_ascii_case(one))
}

#[test]
fn a_stream_tells_the_same_story_however_it_is_cut() {
    let backend = Backend::scripted(|seen, stream| {
        let text = format!("{} {}", seen.request_line(), seen.body.len());
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        Then::Keep
    });
    let balancer = Setup::on(Engine::Epoll).backend(backend.address()).start();
    let mut random = fastrand::Rng::with_seed(5);
    for stream in streams() {
        let text = String::from_utf8_lossy(&stream[..stream.len().min(400)]).into_owned();
        let whole = tell(&balancer, &backend, &stream, &cuts(&stream, &mut random, 0));
        assert!(!text.contains("/never") || !whole.requests.concat().contains("/never"), "{whole:?}");
        for way in 1..8 {
            let ends = cuts(&stream, &mut random, way);
            let cut = tell(&balancer, &backend, &stream, &ends);
            assert_eq!(cut, whole, "{text:?}\ncut at {ends:?}");
        }
    }
}
