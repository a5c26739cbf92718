//! The thread and its collector, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::config;
use crate::metrics::SeriesValue;

/// Long enough for anything that should happen, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// A collector that answers one request after the other with what it is told, and then with [`OK`]. An empty text hangs
/// up, `…` never answers.
struct Scripted {
    endpoint: String,
    /// Which connection each request came on, its head, and its body.
    requests: Receiver<(usize, String, Value)>,
}

impl Scripted {
    fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (tell, requests) = bounded(100);
        let answers: Vec<String> = answers.iter().map(|one| (*one).to_owned()).collect();
        thread::spawn(move || {
            let mut answers = answers.into_iter();
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                while let Some((head, body)) = read(&mut stream) {
                    let answer = answers.next().unwrap_or_else(|| OK.into());
                    if tell.send((number, head, body)).is_err() || answer.is_empty() {
                        break;
                    }
                    if answer == "…" {
                        // Until the other side has had enough.
                        let _ = stream.read(&mut [0]);
                        break;
                    }
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        Self { endpoint, requests }
    }

    #[track_caller]
    fn next(&self) -> (usize, String, Value) {
        self.requests.recv_timeout(PATIENCE).expect("a request")
    }
}

fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).expect("JSON")))
}

/// A port on which nothing listens, and which nothing else gets as long as this is held.
fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

struct Traced {
    tracer: Arc<Tracer>,
    threads: TracerThreads,
    metrics: Arc<Metrics>,
}

fn trace_to(endpoint: &str) -> Traced {
    let text = format!(r#"{{"backends": ["http://127.0.0.1:9"], "otel": {{"endpoint": "{endpoint}"}}}}"#);
    let config = config::from_text(&text, Path::new("/")).unwrap().otel.unwrap();
    let (metrics, threads) = (Metrics::new(), TracerThreads::default());
    let tracer = Tracer::start(&config, "i", &threads, (&metrics, &Arc::default()), &Clock::real()).unwrap();
    Traced { tracer, threads, metrics }
}

impl Traced {
    fn request(&self) {
        let trace = self.tracer.begin(&Fields::new(), self.tracer.clock.now()).expect("a root is recorded");
        trace.finish(self.tracer.clock.now(), None, None);
    }

    /// How many spans were sent, and how many not, and why.
    fn counts(&self) -> (u64, Vec<(String, u64)>) {
        counts(&self.metrics)
    }

    /// Waits until that many spans were sent or dropped in all.
    #[track_caller]
    fn settled(&self, spans: u64) -> (u64, Vec<(String, u64)>) {
        let since = self.tracer.clock.now();
        loop {
            let (sent, dropped) = self.counts();
            if sent + dropped.iter().map(|(_, count)| count).sum::<u64>() == spans {
                return (sent, dropped);
            }
            let took = self.tracer.clock.now() - since;
            assert!(took < nanos(PATIENCE), "{spans} spans: {sent} sent, {dropped:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn counts(metrics: &Metrics) -> (u64, Vec<(String, u64)>) {
    let (mut sent, mut dropped) = (0, Vec::new());
    metrics.visit(&mut |family, labels, value| match (family, value) {
        (crate::metrics::Family::OtelSpansSent, SeriesValue::Counter(count)) => sent = count,
        (crate::metrics::Family::OtelSpansDropped, SeriesValue::Counter(count)) if count > 0 => {
            dropped.push((labels[0].1.to_owned(), count));
        }
        _ => {}
    });
    (sent, dropped)
}

fn none() -> Vec<(String, u64)> {
    Vec::new()
}

fn of(why: &str, count: u64) -> Vec<(String, u64)> {
    vec![(why.to_owned(), count)]
}

#[test]
fn batches_go_to_v1_traces_on_one_connection() {
    let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let collector = Scripted::new(&[chunked]);
    let traced = trace_to(&collector.endpoint);
    for spans in 1..=3 {
        traced.request();
        let (connection, head, body) = collector.next();
        assert_eq!(connection, 0, "it is kept");
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
        // Sending spans makes no spans.
        let parent = head.lines().find_map(|line| line.strip_prefix("traceparent: ")).expect(&head);
        assert!(TraceParent::read(parent).is_some_and(|parent| !parent.is_sampled()), "{parent}");
        assert_eq!(body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 1);
        assert_eq!(traced.settled(spans), (spans, none()));
    }
}

#[test]
fn what_the_collector_says_decides() {
    let partial = r#"{"partialSuccess":{"rejectedSpans":"1"}}"#;
    let partial = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{partial}", partial.len());
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(200_000));
    let cases = [
        (OK, 1, (1, none())),
        (&*partial, 1, (0, of("refused", 1))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot JSON!", 1, (1, none())),
        (&*long, 1, (1, none())),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 1, (0, of("refused", 1))),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 1, (0, of("refused", 1))),
        ("HTTP/1.1 307 Elsewhere\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 1, (0, of("refused", 1))),
        ("\0\0\x12\x04\0\0\0\0\0\0", 1, (0, of("refused", 1))),
        ("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", 2, (1, none())),
        ("HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", 2, (1, none())),
        // It hangs up without an answer.
        ("", 2, (1, none())),
    ];
    // All at once, since each waits for its batch, and some for another try.
    let running = cases.map(|(answer, tries, expected)| {
        let collector = Scripted::new(&[answer]);
        let traced = trace_to(&collector.endpoint);
        traced.request();
        (answer, tries, expected, collector, traced)
    });
    for (answer, tries, expected, collector, traced) in running {
        assert_eq!(traced.settled(1), expected, "{answer:?}");
        let bodies: Vec<_> = collector.requests.try_iter().map(|(_, _, body)| body).collect();
        assert_eq!(bodies.len(), tries, "{answer:?}");
        assert!(bodies.iter().all(|body| *body == bodies[0]), "the same is sent again");
    }
}

#[test]
fn a_kept_connection_that_was_closed_costs_no_try() {
    let closing = ["", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"].map(|closes| {
        let collector = Scripted::new(&[OK, closes]);
        let traced = trace_to(&collector.endpoint);
        (closes, collector, traced)
    });
    for spans in 1..=2 {
        closing.iter().for_each(|(.., traced)| traced.request());
        for (closes, _, traced) in &closing {
            assert_eq!(traced.settled(spans), (spans, none()), "{closes:?}");
        }
    }
    for (closes, collector, _) in &closing {
        let connections: Vec<_> = collector.requests.try_iter().map(|(connection, ..)| connection).collect();
        assert_eq!(connections, [0, 0, 1], "{closes:?}");
    }
}

#[test]
fn what_comes_unasked_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let traced = trace_to(&format!("http://{}", listener.local_addr().unwrap()));
    traced.request();
    let (mut first, _) = listener.accept().unwrap();
    read(&mut first).expect("a request");
    first.write_all(OK.as_bytes()).unwrap();
    assert_eq!(traced.settled(1), (1, none()));
    first.write_all(b"HTTP/1.1 400 Idle\r\nContent-Length: 0\r\n\r\n").unwrap();
    traced.request();
    // The next batch comes on another connection.
    assert!(read(&mut first).is_none());
    let (mut second, _) = listener.accept().unwrap();
    read(&mut second).expect("a request");
    second.write_all(OK.as_bytes()).unwrap();
    assert_eq!(traced.settled(2), (2, none()));
}

#[test]
fn a_collector_that_asks_for_no_pause_gets_few_posts_and_holds_up_no_stop() {
    let again = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
    let collector = Scripted::new(&[again; 100]);
    let traced = trace_to(&collector.endpoint);
    traced.request();
    let since = traced.tracer.clock.now();
    // Pauses of 0.5 s to 1 s and of 1 s to 2 s lie between them.
    (0..3).for_each(|_| drop(collector.next()));
    let took = traced.tracer.clock.now() - since;
    assert!(took >= nanos(Duration::from_millis(1_500)), "three posts within {took} ns");
    traced.tracer.stop(PATIENCE);
    traced.threads.wait(PATIENCE);
    assert_eq!(traced.counts(), (0, of("stopped", 1)));
}

#[test]
fn an_address_that_does_not_answer_leaves_time_for_the_next() {
    // Once its queue is full, the system drops what else wants to connect.
    let full = bound();
    full.listen(0).unwrap();
    let swallows = full.local_addr().unwrap().as_socket().unwrap();
    let brief = Duration::from_millis(200);
    let waiting: Vec<_> = std::iter::from_fn(|| TcpStream::connect_timeout(&swallows, brief).ok()).collect();
    assert!(!waiting.is_empty());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let answers = listener.local_addr().unwrap();
    let clock = Clock::real();
    let deadline = clock.now() + nanos(Duration::from_secs(4));
    let stream = collector::connect_to_one(&[swallows, answers], deadline, &clock).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), answers);
}

#[test]
fn a_collector_that_hangs_or_is_away_holds_up_no_stop() {
    let hangs = Scripted::new(&["…"]);
    let unused = bound();
    let away = unused.local_addr().unwrap().as_socket().unwrap();
    for endpoint in [hangs.endpoint.clone(), format!("http://{away}")] {
        let traced = trace_to(&endpoint);
        traced.request();
        let since = traced.tracer.clock.now();
        traced.tracer.stop(Duration::from_millis(200));
        traced.threads.wait(PATIENCE);
        let took = traced.tracer.clock.now() - since;
        assert!(took < nanos(PATIENCE) / 2, "{endpoint}: {took} ns");
        assert_eq!(traced.counts(), (0, of("stopped", 1)), "{endpoint}");
        // What still comes is counted, too.
        traced.request();
        assert_eq!(traced.counts(), (0, of("stopped", 2)), "{endpoint}");
    }
}

#[test]
fn a_post_under_way_holds_up_no_stop() {
    let hangs = Scripted::new(&["…"]);
    let traced = trace_to(&hangs.endpoint);
    traced.request();
    hangs.next();
    let since = traced.tracer.clock.now();
    let brief = Duration::from_millis(200);
    traced.tracer.stop(brief);
    traced.threads.wait(brief);
    let took = traced.tracer.clock.now() - since;
    // Without a bound it would be what is left of a try's 10 s.
    assert!(took < nanos(PATIENCE) / 4, "{took} ns");
}

#[test]
fn what_is_left_is_sent_at_the_end() {
    let collector = Scripted::new(&[]);
    let traced = trace_to(&collector.endpoint);
    (0..3).for_each(|_| traced.request());
    traced.tracer.stop(PATIENCE);
    traced.threads.wait(PATIENCE);
    assert_eq!(traced.counts(), (3, none()));
    // The same when another collector is named: nobody records for this one any more.
    let traced = trace_to(&collector.endpoint);
    (0..3).for_each(|_| traced.request());
    drop(traced.tracer);
    traced.threads.wait(PATIENCE);
    assert_eq!(counts(&traced.metrics), (3, none()));
}

#[test]
fn the_queue_is_bounded_and_what_does_not_fit_is_counted() {
    let hangs = Scripted::new(&["…"]);
    let traced = trace_to(&hangs.endpoint);
    traced.request();
    hangs.next();
    // The thread waits for the answer.
    (0..QUEUE + 10).for_each(|_| traced.request());
    assert_eq!(traced.counts(), (0, of("queue_full", 10)));
}

#[test]
fn attempts_of_one_request_are_bounded() {
    let (metrics, clock) = (Metrics::new(), Clock::manual());
    let (tracer, queue) = Tracer::into_queue(1, &metrics, &clock);
    let entry = balancer_pool::backend::BackendEntry::new("a", "127.0.0.1", 9);
    let settings = balancer_pool::backends::Settings::of(balancer_pool::strategy::Strategy::First);
    let backends = balancer_pool::backends::Backends::new(&settings, std::slice::from_ref(&entry));
    backends.resolved(&entry, &[([127, 0, 0, 1], 9).into()], clock.now());
    let endpoint = Arc::clone(&backends.snapshot().endpoints()[0]);
    let mut trace = tracer.begin(&Fields::new(), clock.now()).unwrap();
    for _ in 0..recording::MAX_ATTEMPTS + 2 {
        trace.sent(&endpoint, None, clock.now());
        trace.concluded(Err("connect"), clock.now());
    }
    trace.finish(clock.now(), None, None);
    let spans = queue.try_recv().unwrap();
    assert_eq!(spans.attempts.len(), recording::MAX_ATTEMPTS);
    assert_eq!(counts(&metrics), (0, of("attempts", 2)));
}

#[test]
fn a_tracestate_goes_whole_or_not_at_all() {
    let long = "a=".to_owned() + &"x".repeat(600);
    let (most, too_long) = ("a=".to_owned() + &"x".repeat(510), "a=".to_owned() + &"x".repeat(511));
    let (rest, too_much) = (&most[..508], &most[..509]);
    let both = format!("a=1,{rest}");
    for (values, expected) in [
        (&[][..], ""),
        (&["a=1"], "a=1"),
        (&["a=1", "b=2"], "a=1,b=2"),
        (&["a=é"], ""),
        (&[&long], ""),
        (&["a=1", &long], ""),
        (&[&most], &*most),
        (&[&too_long], ""),
        (&["a=1", rest], &*both),
        (&["a=1", too_much], ""),
    ] {
        let mut fields = Fields::new();
        values.iter().for_each(|value| fields.push("tracestate", value.as_bytes()));
        assert_eq!(recording::state(&fields), expected);
    }
}
