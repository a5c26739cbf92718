//! No loop waits for anything but events. The code that a loop runs, which is `src/engine/loops` and `src/proxy`, makes no
//! call that may wait, except in the places named here. The code of the libraries and of the store is not checked.

use super::{code, files, none, shown};

/// Calls that wait, or may wait.
const WAITS: [&str; 13] = [
    ".recv()",
    "recv_timeout",
    ".wait(",
    ".wait_for(",
    "park(",
    "park_timeout",
    "sleep(",
    ".lock()",
    ".join()",
    ".block(",
    "std::fs",
    "File::",
    "TcpStream::connect",
];

/// Where which of them may occur, and why.
const ALLOWED: [(&str, &str, &str); 12] = [
    ("src/engine/loops/counts.rs", ".lock()", "one look into the map of a few addresses"),
    ("src/engine/loops/http2/pipe.rs", ".lock()", "only one thread uses both ends"),
    ("src/engine/loops/http2/stream.rs", ".lock()", "only one thread uses it"),
    ("src/engine/loops/mod.rs", ".join()", "the thread that stops the engine waits for its loops"),
    ("src/engine/loops/mod.rs", "sleep(", "the thread that drains the engine waits for its connections"),
    ("src/engine/loops/state.rs", ".lock()", "a letter is put in, or all are taken"),
    ("src/engine/loops/watchdog.rs", "recv_timeout", "the watchdog has a thread of its own"),
    ("src/proxy/forward/line.rs", "sleep(", "a place in the line is put to sleep, not a thread"),
    ("src/proxy/identify.rs", ".wait(", "only for the portable engine, whose workers wait"),
    (
        "src/proxy/routes/passwords.rs",
        ".lock()",
        "one look at the verdicts; passwords are checked outside of it",
    ),
    ("src/proxy/routes/seats.rs", ".lock()", "a seat is counted"),
    ("src/proxy/lone_peer.rs", ".lock()", "one look at what was seen"),
];

/// Files whose code runs on threads that may wait.
const THREADS: [&str; 1] = ["src/engine/loops/lane.rs"];

#[test]
fn no_loop_waits_for_anything_but_events() {
    let (mut found, mut needed) = (Vec::new(), vec![false; ALLOWED.len()]);
    for path in ["src/engine/loops", "src/proxy"].iter().flat_map(|folder| files(folder, ".rs")) {
        let name = shown(&path);
        let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
        if is_test || THREADS.contains(&&*name) {
            continue;
        }
        let lines = code(&path).into_iter().take_while(|(_, line)| !line.starts_with("mod tests {"));
        for (at, line) in lines {
            for word in WAITS.iter().filter(|word| line.contains(**word)) {
                match ALLOWED.iter().position(|(file, allowed, _)| *file == name && allowed == word) {
                    Some(row) => needed[row] = true,
                    None => found.push(format!("{name}:{at}: {word}")),
                }
            }
        }
    }
    none("a loop may have to wait", &found);
    let stale = ALLOWED.iter().zip(&needed).filter(|(_, needed)| !**needed);
    let stale: Vec<String> = stale.map(|((file, word, _), _)| format!("{file}: {word}")).collect();
    none("rows of ALLOWED in tests/tidy/waits.rs that nothing needs", &stale);
}
