//! Compares our parsers with two others: `h11` and `httptools` from PyPI. The latter is llhttp, the parser of Node.js.
//!
//! All three read the cases of `cases.txt` and mutations of them. When another parser reads a stream differently from ours,
//! the difference has a class, and `judged.rs` says for each class why ours is right. A class that is not there fails the
//! test. A second test gives the others what we would write to a backend for each request that we take: both have to read
//! it as we meant it, except for methods that llhttp does not know.
//!
//! `BALANCER_TEST_PYTHON` names a Python that has both packages (`.ci/run` makes one). Without them the tests are skipped,
//! and say so; with `BALANCER_TEST_REQUIRE_PARSERS=1` they fail. `BALANCER_TEST_DIFFERENTIAL_ROUNDS` and
//! `BALANCER_TEST_DIFFERENTIAL_SEED` ask for more, or other, mutations.

#![forbid(unsafe_code)]

mod cases;
mod compare;
mod judged;
mod reading;
// Only a part of it is used here.
#[allow(dead_code)]
#[path = "../../fuzz/src/lib.rs"]
mod properties;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use self::cases::{Case, Kind};
use self::compare::difference;
use self::properties::stream::Event;
use self::properties::{mutate, seeds, stream};
use self::reading::{Reading, ours};

/// Mutations by default; with the interpreters they take a few seconds.
const ROUNDS: u64 = 4000;
/// Most mutations of one stream, one after the other.
const MOST_STEPS: usize = 3;

/// The readings of one stream by both other parsers.
#[derive(Deserialize)]
struct Theirs {
    h11: Reading,
    httptools: Reading,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// A Python that has both packages.
fn python() -> Option<String> {
    let python = std::env::var("BALANCER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python)
        .args(["-c", "import h11, httptools"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if found {
        return Some(python);
    }
    let why = format!("{python} has no h11 and httptools: nothing was compared with other parsers");
    assert!(std::env::var_os("BALANCER_TEST_REQUIRE_PARSERS").is_none(), "{why}");
    // Not by a macro of `std`, whose output the test runner hides for tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    None
}

/// Has both parsers read every case.
fn ask(python: &str, cases: &[Case]) -> Vec<Theirs> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/peers.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let (mut to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    let frames: Vec<u8> = cases
        .iter()
        .flat_map(|case| {
            let kind = match case.kind {
                Kind::Requests => b'Q',
                Kind::Answers => b'S',
                Kind::AnswersToHead => b'H',
            };
            let length = u32::try_from(case.stream.len()).expect("short").to_be_bytes();
            [&[kind][..], &length, &case.stream].concat()
        })
        .collect();
    let readings = std::thread::scope(|scope| {
        scope.spawn(move || {
            // This fails when the script has ended early, which is noticed below.
            let _ = to.write_all(&frames);
        });
        BufReader::new(from)
            .lines()
            .map(|line| serde_json::from_str(&line.expect("text")).expect("a reading"))
            .collect::<Vec<_>>()
    });
    assert!(child.wait().expect("a child").success(), "peers.py failed; its words are above");
    assert_eq!(readings.len(), cases.len());
    readings
}

fn mutations(cases: &[Case]) -> Vec<Case> {
    let streams: Vec<Vec<u8>> = cases.iter().map(|case| case.stream.clone()).collect();
    let mut random = fastrand::Rng::with_seed(number("BALANCER_TEST_DIFFERENTIAL_SEED", 1));
    (0..number("BALANCER_TEST_DIFFERENTIAL_ROUNDS", ROUNDS))
        .map(|_| {
            let mut case = cases[random.usize(0..cases.len())].clone();
            for _ in 0..random.usize(1..=MOST_STEPS) {
                mutate::mutate(&mut case.stream, &streams, &mut random);
            }
            case
        })
        .collect()
}

#[test]
fn every_difference_from_other_parsers_is_judged() {
    let Some(python) = python() else { return };
    let mut cases = cases::all();
    let by_hand = cases.len();
    cases.extend(mutations(&cases));
    let readings = ask(&python, &cases);
    let mut counts: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut unjudged: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (case, theirs) in cases.iter().zip(&readings) {
        let ours = ours(case);
        for (peer, theirs) in [("h11", &theirs.h11), ("httptools", &theirs.httptools)] {
            // httptools can't be told that an answer is one to HEAD.
            if peer == "httptools" && case.kind == Kind::AnswersToHead {
                continue;
            }
            let Some(found) = difference(case, &ours, theirs) else { continue };
            let class = format!("{peer}: {found:?}");
            let to = if judged::why(peer, &found, case).is_some() { &mut counts } else { &mut unjudged };
            let example = || format!("{:?} {}", case.kind, seeds::line(&case.stream));
            let (count, shortest) = to.entry(class).or_insert_with(|| (0, example()));
            *count += 1;
            if example().len() < shortest.len() {
                *shortest = example();
            }
        }
    }
    println!("{} streams, {by_hand} of them by hand; judged differences:", cases.len());
    for (class, (count, example)) in &counts {
        println!("{count:6} {class}\n         {example}");
    }
    let unjudged: Vec<String> = unjudged
        .iter()
        .map(|(class, (count, example))| format!("{count:6} {class}\n         {example}"))
        .collect();
    assert!(unjudged.is_empty(), "{} classes are not judged:\n{}", unjudged.len(), unjudged.join("\n"));
}

/// The requests of a client's stream as we write them to a backend; `None` when there are none.
fn upstream(case: &Case) -> Option<Case> {
    let mut wire = Vec::new();
    for event in stream::read([&case.stream[..]]) {
        let Event::Request(head, body) = event else { continue };
        let is_chunked = head.ends_with(b"\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.extend_from_slice(&head);
        if is_chunked {
            balancer_http::framing::write::chunk(&mut wire, &body);
            wire.extend_from_slice(balancer_http::framing::write::LAST_CHUNK);
        } else {
            wire.extend_from_slice(&body);
        }
    }
    (!wire.is_empty()).then_some(Case { kind: Kind::Requests, stream: wire })
}

#[test]
fn what_goes_to_a_backend_is_read_by_others_as_we_meant_it() {
    let Some(python) = python() else { return };
    let mut cases = cases::all();
    cases.extend(mutations(&cases));
    let requests = cases.iter().filter(|case| case.kind == Kind::Requests);
    let written: Vec<Case> = requests.filter_map(upstream).collect();
    assert!(written.len() > 200, "too few to mean anything: {}", written.len());
    let mut wrong = Vec::new();
    for (case, theirs) in written.iter().zip(ask(&python, &written)) {
        let ours = ours(case);
        assert_eq!(ours.refusal(), None, "{}", seeds::line(&case.stream));
        for (peer, theirs) in [("h11", &theirs.h11), ("httptools", &theirs.httptools)] {
            if let Some(found) = difference(case, &ours, theirs)
                && !judged::unknown_method(peer, &found, case)
            {
                wrong.push(format!("{peer}: {found:?}\n  {}", seeds::line(&case.stream)));
            }
        }
    }
    wrong.sort_by_key(String::len);
    wrong.truncate(20);
    assert!(wrong.is_empty(), "of {}:\n{}", written.len(), wrong.join("\n"));
}
