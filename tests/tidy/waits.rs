//! No loop waits for anything but events: what a loop runs, which is `src/engine/loops` and `src/proxy`, makes no call that
//! may wait, outside the places named here. (What the libraries and the store do for it is theirs to say.)

use super::{code, files, none, shown};

/// Calls that wait, or may.
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

/// Where which of them may stand, and why.
const ALLOWED: [(&str, &str, &str); 12] = [
    ("src/engine/loops/counts.rs", ".lock()", "one look into the map of a few addresses"),
    ("src/engine/loops/http2/pipe.rs", ".lock()", "both ends of it are the same thread's"),
    ("src/engine/loops/http2/stream.rs", ".lock()", "who is woken and who looks are the same thread"),
    (
        "src/engine/loops/mod.rs",
        ".join()",
        "who stops the engine waits for its loops, not the other way round",
    ),
    (
        "src/engine/loops/mod.rs",
        "sleep(",
        "who drains the engine waits for its connections, on its own thread",
    ),
    ("src/engine/loops/state.rs", ".lock()", "a letter is put in, or all are taken"),
    ("src/engine/loops/watchdog.rs", "recv_timeout", "its own thread"),
    ("src/proxy/forward/line.rs", "sleep(", "a place in line is asleep, no thread is"),
    ("src/proxy/identify.rs", ".wait(", "the portable engine's way, whose worker waits"),
    (
        "src/proxy/routes/passwords.rs",
        ".lock()",
        "one look at the verdicts; passwords are checked outside of it",
    ),
    ("src/proxy/routes/seats.rs", ".lock()", "a seat is counted"),
    ("src/proxy/lone_peer.rs", ".lock()", "one look at what was seen"),
];

/// Files whose threads are there to wait.
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
