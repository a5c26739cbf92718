//! The fuzzing properties (`fuzz/`) under `cargo test`, for every committed seed and a few thousand mutations of them.
//! Unlike `fuzz/run`, this is not guided by coverage. It repeats what fuzzing has found, and finds what breaks easily.
//!
//! `BALANCER_TEST_FUZZ_ROUNDS` sets how many mutations each target gets, and `BALANCER_TEST_FUZZ_SEED` which ones.

#![forbid(unsafe_code)]

#[path = "../fuzz/src/lib.rs"]
mod properties;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Mutations of each target by default: one or two seconds for each target, without optimization.
const ROUNDS: u64 = 5000;
/// Most mutations of one input, one after the other.
const MOST_STEPS: usize = 4;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/seeds/{target}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    properties::seeds::read(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Checks a property for an input, and prints an input that breaks it.
fn run(target: &str, check: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        eprintln!("{target} breaks on\n{}", properties::seeds::line(input));
        resume_unwind(panic);
    }
}

fn hold(target: &str, check: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "no seeds for {target}");
    for seed in &seeds {
        run(target, check, seed);
    }
    let mut random = fastrand::Rng::with_seed(number("BALANCER_TEST_FUZZ_SEED", 1));
    for _ in 0..number("BALANCER_TEST_FUZZ_ROUNDS", ROUNDS) {
        let mut input = seeds[random.usize(0..seeds.len())].clone();
        for _ in 0..random.usize(1..=MOST_STEPS) {
            properties::mutate::mutate(&mut input, &seeds, &mut random);
        }
        run(target, check, &input);
    }
}

#[test]
fn request_heads() {
    hold("request", properties::request::check);
}

#[test]
fn streams_of_requests() {
    hold("stream", properties::stream::check);
}

#[test]
fn chunked_bodies() {
    hold("chunk", properties::chunk::check);
}

#[test]
fn response_heads() {
    hold("response", properties::response::check);
}

#[test]
fn proxy_headers() {
    hold("proxy", properties::proxy::check);
}

#[test]
fn seeds_read_as_they_are_written() {
    for input in [&b""[..], b"#a", b"a\\\"'\r\n\t\0\xff", b"\\", b" "] {
        let line = properties::seeds::line(input);
        assert!(!line.contains(['\r', '\n']), "{line}");
        assert_eq!(properties::seeds::read(&line), Ok(vec![input.to_vec()]), "{line}");
    }
    for broken in ["a\\", "\\q", "\\x1", "\\xgg"] {
        assert!(properties::seeds::read(broken).is_err(), "{broken}");
    }
}
