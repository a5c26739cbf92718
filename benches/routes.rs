//! What finding a request's route costs, by the number of routes: of 100 hosts with ten paths each, and of one host.
//!
//!     cargo bench --bench routes

#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::hint::black_box;

use balancer_http::routes::{HostPattern, RouteTable};
use criterion::{Criterion, criterion_group, criterion_main};

/// Routes that differ by host and path, every tenth host for all names below one.
fn table(hosts: usize, paths: usize) -> RouteTable {
    let host = |number: usize| {
        let wild = if number % 10 == 3 { "*." } else { "" };
        HostPattern::parse(&format!("{wild}service-{number}.example.com")).expect("a host")
    };
    let routes: Vec<(HostPattern, String)> = (0..hosts)
        .flat_map(|number| (0..paths).map(move |path| (host(number), format!("/api/v1/thing-{path}"))))
        .collect();
    RouteTable::new(routes.iter().map(|(host, path)| (host, path.as_str()))).expect("no two are the same")
}

fn finding(c: &mut Criterion) {
    let rows = [
        ("10 routes, 1 host", 1, 10),
        ("1000 routes, 100 hosts", 100, 10),
        ("1000 routes, 1 host", 1, 1000),
        ("100000 routes, 1000 hosts", 1000, 100),
    ];
    for (name, hosts, paths) in rows {
        let table = table(hosts, paths);
        let (host, path) = (format!("service-{}.example.com:8080", hosts / 2), "/api/v1/thing-7/part/12");
        c.bench_function(&format!("all that is met, {name}"), |b| {
            b.iter(|| black_box(table.met(Some(black_box(&host)), black_box(path))));
        });
    }
    let table = table(100, 10);
    c.bench_function("all that is met, 1000 routes, by a wildcard", |b| {
        b.iter(|| {
            black_box(table.met(Some(black_box("x.service-3.example.com")), black_box("/api/v1/thing-7")))
        });
    });
    c.bench_function("all that is met, 1000 routes, none", |b| {
        b.iter(|| black_box(table.met(Some(black_box("www.example.org")), black_box("/index.html"))));
    });
}

criterion_group!(benches, finding);
criterion_main!(benches);
