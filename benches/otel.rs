//! What it costs a loop to record a request, and the sender's thread to encode one.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, missing_docs)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use balancer::clock::Clock;
use balancer::config;
use balancer::metrics::Metrics;
use balancer::otel::encode::encode;
use balancer::otel::span::{AskedFor, AttemptSpan, RequestSpans};
use balancer::otel::{RequestTrace, Tracer, TracerThreads};
use balancer_http::fields::Fields;
use balancer_http::trace::TraceParent;
use balancer_pool::backend::BackendEntry;
use balancer_pool::backends::{Backends, Endpoint, Settings};
use balancer_pool::strategy::Strategy;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Takes whatever comes, and says so once it has been silent for a moment.
fn sink() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(5)));
            let mut buffer = vec![0; 1 << 20];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(_) => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    }
                }
            }
        }
    });
    format!("http://{address}")
}

fn endpoint() -> Arc<Endpoint> {
    let entry = BackendEntry::new("a", "127.0.0.1", 9001);
    let backends = Backends::new(&Settings::of(Strategy::First), std::slice::from_ref(&entry));
    backends.resolved(&entry, &[([127, 0, 0, 1], 9001).into()], 1);
    Arc::clone(&backends.snapshot().endpoints()[0])
}

fn asked() -> AskedFor {
    AskedFor {
        method: "GET".into(),
        path: "/api/v1/things/12".into(),
        host: Some("api.example.com".into()),
        is_secure: true,
        version: Some("1.1"),
        client: Some([10, 0, 0, 7].into()),
        peer: Some(([10, 0, 0, 1], 40_000).into()),
        agent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Safari/537.36".into(),
    }
}

fn record(trace: Box<RequestTrace>, endpoint: &Endpoint, clock: &Clock) {
    let mut trace = trace;
    trace.sent(endpoint, None, clock.now());
    black_box(trace.traceparent().to_string());
    trace.concluded(Ok(200), clock.now());
    trace.answered(asked(), None, Some(200), None);
    trace.finish(clock.now(), None, None);
}

fn otel(c: &mut Criterion) {
    let text = format!(r#"{{"backends": ["http://127.0.0.1:9"], "otel": {{"endpoint": "{}"}}}}"#, sink());
    let config = config::from_text(&text, Path::new("/")).expect("a configuration").otel.expect("given");
    let (metrics, clock, endpoint) = (Metrics::new(), Clock::real(), endpoint());
    let tracer = Tracer::start(&config, "i", &TracerThreads::default(), (&metrics, &Arc::default()), &clock)
        .expect("a thread");
    let (mut sampled, mut not) = (Fields::new(), Fields::new());
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";
    sampled.push("traceparent", format!("{parent}1").as_bytes());
    not.push("traceparent", format!("{parent}0").as_bytes());
    c.bench_function("a request that is recorded", |b| {
        b.iter(|| record(tracer.begin(&sampled, clock.now()).expect("sampled"), &endpoint, &clock));
    });
    c.bench_function("a request whose parent is not sampled", |b| {
        b.iter(|| black_box(tracer.begin(&not, 1).is_none()));
    });
    let attempt = AttemptSpan {
        id: 2,
        start: 1,
        end: 2,
        to: endpoint.address,
        host: endpoint.group.host.clone(),
        is_secure: false,
        backend: Arc::clone(&endpoint.group.title),
        resent: 0,
        result: Some(Ok(200)),
    };
    let request = RequestSpans {
        place: TraceParent { trace: 1, span: 1, flags: 1 },
        parent: Some(3),
        state: String::new(),
        start: 1,
        end: 2,
        asked: asked(),
        route: None,
        pool: Some("default".into()),
        sent_path: None,
        status: Some(200),
        error: None,
        attempts: vec![attempt],
    };
    let batch = vec![request; 256];
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(256));
    group.bench_function("256 requests", |b| b.iter(|| black_box(encode(&batch, "0123456789abcdef").len())));
    group.finish();
}

criterion_group!(benches, otel);
criterion_main!(benches);
