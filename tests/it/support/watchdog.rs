//! Ends what the tests have started when the test process is gone, however it ended. A shell in a process group of its own
//! reads the list of processes and folders from a pipe. The pipe ends when the test process dies; then the shell ends what
//! is on the list.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lines of the list: `kill PID` and `quit PID` (PostgreSQL's immediate shutdown) are taken back by `gone PID`, and `dir
/// PATH` by `kept PATH`.
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
        // It is never waited for, because it has to outlive this process.
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

/// Has that process killed by SIGKILL if the test process dies.
pub fn kill(pid: u32) {
    tell(&format!("kill {pid}"));
}

/// Has that PostgreSQL server ended by SIGQUIT if the test process dies.
pub fn quit(pid: u32) {
    tell(&format!("quit {pid}"));
}

/// The process has ended and was waited for, so that its number may belong to another process now.
pub fn gone(pid: u32) {
    tell(&format!("gone {pid}"));
}

/// Has that folder removed if the test process dies. One with a blank in its path is left, because to the shell that would be
/// the paths of two others.
pub fn dir(path: &Path) {
    let path = path.to_string_lossy();
    if !path.contains(char::is_whitespace) {
        tell(&format!("dir {path}"));
    }
}

/// The folder was removed.
pub fn dir_gone(path: &Path) {
    tell(&format!("kept {}", path.display()));
}
