//! The pages of `docs/`, as their readers follow them: every command after a `$` is run, in order, in one folder, and has
//! to print what is below it. `tests/tidy/pages.rs` checks that each page has such commands and that a test runs them.

mod by_page;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::balancer::{Echo, PROGRAM};
use crate::support::{Balancer, Proc, Setup, aloud, in_ci, installed, root, terminal, until, watchdog};

/// A command of a page.
#[derive(Debug, PartialEq)]
pub struct Step {
    /// What is typed.
    pub command: String,
    /// The lines below it, which it prints.
    pub prints: Vec<String>,
}

/// The commands of a page: what is indented by four and begins with a `$`, a `\` at its end going on in the next line.
pub fn steps(page: &str) -> Vec<Step> {
    let mut found: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let code = line.strip_prefix("    ");
        if let Some(command) = code.and_then(|code| code.strip_prefix("$ ")) {
            found.push(Step { command: command.to_owned(), prints: Vec::new() });
            inside = true;
            continue;
        }
        // An empty line may belong to what was printed.
        inside = inside && (code.is_some() || line.is_empty());
        let Some(step) = found.last_mut().filter(|_| inside) else { continue };
        let code = code.unwrap_or_default();
        if step.command.ends_with('\\') && step.prints.is_empty() {
            step.command += "\n";
            step.command += code;
        } else {
            step.prints.push(code.to_owned());
        }
    }
    for step in &mut found {
        while step.prints.last().is_some_and(String::is_empty) {
            step.prints.pop();
        }
    }
    found
}

/// Whether a line is what the page says, where `…` stands for anything.
fn fits(said: &str, page: &str) -> bool {
    let Some((first, parts)) = page.split_once('…') else { return said == page };
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let (middle, last) = parts.rsplit_once('…').map_or((None, parts), |(middle, last)| (Some(middle), last));
    for part in middle.into_iter().flat_map(|middle| middle.split('…')) {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// With one blank for several: how wide a column is depends on the ports.
fn squeezed(line: &str) -> String {
    line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A reader: a folder in which the commands of a page are typed.
struct Reader {
    folder: TempDir,
    /// What stands in the page, and what is typed and read instead of it: addresses, most of all.
    instead: Vec<(String, String)>,
    /// Programs that were started and go on, each with its command.
    running: Vec<(String, Proc)>,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("balancer-it-page-").tempdir().expect("a folder");
        watchdog::dir(folder.path());
        Self { folder, instead: Vec::new(), running: Vec::new() }
    }

    /// At a balancer that stands for the one of the page, and in a folder whose configuration leads to it.
    fn at(balancer: &Balancer) -> Self {
        let (address, admin) = (balancer.address.to_string(), balancer.admin.to_string());
        let mut config: Value = json!({ "listen": address, "backends": ["http://127.0.0.1:9"] });
        if admin != address {
            config["admin"] = json!({ "listen": admin });
        }
        let reader = Self::new().instead("127.0.0.1:8080", &address).instead("127.0.0.1:9000", &admin);
        reader.file("config.json", &config.to_string())
    }

    /// With `actual` where the page says `written`.
    fn instead(mut self, written: &str, actual: &str) -> Self {
        self.instead.push((written.to_owned(), actual.to_owned()));
        self
    }

    /// With a free port of this machine where the page says `127.0.0.1:8081` or the like.
    fn free(self, written: &str) -> Self {
        self.instead(written, &crate::support::reserved().to_string())
    }

    /// With a file in the folder.
    fn file(self, name: &str, text: &str) -> Self {
        let text = self.actual(text);
        std::fs::write(self.folder.path().join(name), text).expect("written");
        self
    }

    fn actual(&self, text: &str) -> String {
        self.instead.iter().fold(text.to_owned(), |text, (written, actual)| text.replace(written, actual))
    }

    /// Follows a page of `docs/` from a heading on, or all of it without one. Not at all where a program is missing that
    /// its commands use.
    #[track_caller]
    fn follow(mut self, page: &str, from: &str, programs: &[&str]) {
        let missing: Vec<_> = programs.iter().filter(|program| !installed(program)).collect();
        if !missing.is_empty() {
            assert!(!in_ci(), "missing: {missing:?}");
            return aloud(&format!(
                "{missing:?} are not installed: the commands of docs/{page} were not run"
            ));
        }
        let text = std::fs::read_to_string(root().join("docs").join(page)).expect("the page");
        let at = text.find(from).unwrap_or_else(|| panic!("docs/{page} has no {from}"));
        let steps = steps(&text[at..]);
        assert!(!steps.is_empty(), "docs/{page} has no command");
        for step in steps {
            let command = self.actual(&step.command);
            let prints: Vec<_> = step.prints.iter().map(|line| self.actual(line)).collect();
            if command.contains("balancer run") {
                self.start(&command, &prints);
                continue;
            }
            let said = typed(&command, self.folder.path());
            let alike = |(said, page): (&String, &String)| fits(&squeezed(said), &squeezed(page));
            let fine = said.len() == prints.len() && said.iter().zip(&prints).all(alike);
            assert!(
                fine,
                "docs/{page}: $ {command}\n--- the page:\n{}\n--- the program:\n{}\n{}",
                prints.join("\n"),
                said.join("\n"),
                self.running.iter().map(|(_, proc)| proc.story()).collect::<String>()
            );
        }
    }

    /// Starts a program that goes on: of what it prints the page shows what matters. One that is started again ends first.
    fn start(&mut self, command: &str, prints: &[String]) {
        self.running.retain(|(earlier, _)| earlier != command);
        let mut shell = Command::new("sh");
        shell.args(["-c", &command.replace("balancer run", "exec balancer run")]);
        alone(&mut shell, self.folder.path());
        let proc = Proc::run(shell);
        for line in prints {
            until(line, || {
                let all = format!("{}\n{}", proc.out(), proc.err());
                all.lines().any(|said| fits(said.trim_end(), line)).then_some(())
            });
        }
        self.running.push((command.to_owned(), proc));
    }
}

/// In that folder, with our programs first in `PATH` and nothing else of our environment.
fn alone(command: &mut Command, folder: &Path) {
    let programs = Path::new(PROGRAM).parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    command.current_dir(folder).env_clear().env("PATH", format!("{programs}:{path}"));
}

/// Runs a line in a shell on a terminal, as a reader does; what it printed.
fn typed(line: &str, folder: &Path) -> Vec<String> {
    let (mut ours, theirs) = terminal(120, 40);
    let clone = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("cloned"));
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).stdin(Stdio::null()).stdout(clone(&theirs)).stderr(clone(&theirs));
    alone(&mut shell, folder);
    let mut child = shell.spawn().expect("a shell");
    // Closes this process's copies of the other end.
    drop((shell, theirs));
    watchdog::kill(child.id());
    let mut text = Vec::new();
    // Its end is an error (EIO) once nobody has the other end open.
    let _ = ours.read_to_end(&mut text);
    let pid = child.id();
    until("the command ends", || child.try_wait().expect("waitpid works"));
    watchdog::gone(pid);
    let text = String::from_utf8(text).expect("UTF-8");
    let text = plain(&text);
    let lines = text.trim_end().lines();
    // What a counter of progress wrote is overwritten.
    lines.map(|line| line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned()).collect()
}

/// Without colours and the like, which a page does not have: control sequences end with a letter.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    let shown =
        |part: &str| part.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).get(1..).map(str::to_owned);
    parts.fold(first, |all, part| all + &shown(part).unwrap_or_default())
}

/// What `./run.sh` starts: two echo backends, and a balancer in front of them that answers like the shipped one.
struct Tried {
    balancer: Balancer,
    backends: [Echo; 2],
}

impl Tried {
    fn start(change: impl FnOnce(Setup) -> Setup) -> Self {
        let backends = ["a", "b"].map(|name| Echo::start(&["--name", name]));
        let setup = backends.iter().fold(Setup::auto(), |setup, echo| setup.backend(echo.address));
        let setup = setup.set("rate_limit.default", json!({ "capacity": 1000, "rate_per_sec": 500 }));
        Self { balancer: change(setup).start(), backends }
    }

    fn reader(&self) -> Reader {
        let [a, b] = &self.backends;
        let reader = Reader::at(&self.balancer);
        reader
            .instead("127.0.0.1:9001", &a.address.to_string())
            .instead("127.0.0.1:9002", &b.address.to_string())
            .instead(":9001", &a.address.to_string())
            .instead(":9002", &b.address.to_string())
    }
}

#[test]
fn pages_are_compared_as_they_should_be() {
    for (said, page, fine) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("in 0.2 s, 7 a second", "in … s, … a second", true),
        ("in 0.2 s, 7 a minute", "in … s, … a second", false),
        ("etag \"1\"", "etag \"…\"", true),
        ("etag \"1\" x", "etag \"…\"", false),
        ("any", "…", true),
        ("[{1},{2}]", "[{…}]", true),
        ("[{1},{2}]", "[{…},{…}", false),
    ] {
        assert_eq!(fits(said, page), fine, "{said:?} {page:?}");
    }
    assert_eq!(plain("\x1b[1;39m[\x1b[0;32m1\x1b[0mm\r\x1b[Kmore"), "[1m\rmore");
    let page = "text\n\n    ./run.sh\n\n    $ a\n    1\n\n    2\n    $ b \\\n      c\n    4\n\nmore\n    3\n";
    let found: Vec<_> = steps(page).into_iter().map(|step| (step.command, step.prints.join("\n"))).collect();
    let expected = [("a", "1\n\n2"), ("b \\\n  c", "4")];
    assert_eq!(found, expected.map(|(command, prints)| (command.to_owned(), prints.to_owned())));
}
