//! Ends what the tests started when the test process itself is gone, however it went: a shell of its own process group
//! keeps the list and reads it from a pipe, whose end it sees when this process dies.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// `kill PID` and `quit PID` (PostgreSQL's immediate shutdown) are undone by `gone PID`; `dir PATH` by `kept PATH`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
kill= ; quit= ; dirs=
without() { out= ; for x in $1; do [ "$x" = "$2" ] || out="$out $x"; done; echo "$out"; }
while read -r what arg; do
  case $what in
    kill) kill="$kill $arg" ;;
    quit) quit="$quit $arg" ;;
    dir)  dirs="$dirs $arg" ;;
    gone) kill=$(without "$kill" "$arg"); quit=$(without "$quit" "$arg") ;;
    kept) dirs=$(without "$dirs" "$arg") ;;
  esac
done
for p in $kill; do kill -KILL "$p"; done
for p in $quit; do
  kill -CONT "$p"
  for c in $(cat "/proc/$p/task/$p/children"); do kill -CONT "$c"; done
  kill -QUIT "$p"
done
for p in $quit; do
  n=0
  while kill -0 "$p" && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.05; done
  kill -KILL "$p"
done
for d in $dirs; do rm -rf "$d"; done
"#;

fn tell(line: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        use std::os::unix::process::CommandExt;
        // Never waited for: it is there to outlive this process.
        #[allow(clippy::zombie_processes)]
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Mutex::new(shell.stdin.take().expect("piped"))
    });
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{line}").expect("the watchdog reads");
}

/// SIGKILL for that process should this one die.
pub fn kill(pid: u32) {
    tell(&format!("kill {pid}"));
}

/// SIGQUIT for that PostgreSQL should this one die.
pub fn quit(pid: u32) {
    tell(&format!("quit {pid}"));
}

/// The process has ended and was waited for: its number may belong to somebody else now.
pub fn gone(pid: u32) {
    tell(&format!("gone {pid}"));
}

/// Remove that folder should this process die.
pub fn dir(path: &Path) {
    tell(&format!("dir {}", path.display()));
}

/// The folder has been removed.
pub fn dir_gone(path: &Path) {
    tell(&format!("kept {}", path.display()));
}
