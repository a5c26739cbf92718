//! Many clients at once.

use std::process::Command;

use crate::support::balancer::Echo;
use crate::support::engine::{Case, each_engine};
use crate::support::{Engine, Proc, Setup, aloud, in_ci, installed};

each_engine! { five_thousand_requests_at_concurrency_1000 }

/// The number behind `name:` in `ab`'s report; 0 where there is no such line.
fn number(report: &str, name: &str) -> u64 {
    let line = report.lines().find_map(|line| line.trim().strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn five_thousand_requests_at_concurrency_1000(engine: Engine) {
    if !installed("ab") {
        assert!(!in_ci(), "CI installs apache2-utils, and `ab` is not there");
        return aloud("`ab` (apache2-utils) is not installed: its test was skipped");
    }
    let (a, b) = (Echo::start(&["--name", "a"]), Echo::start(&["--name", "b"]));
    for keep_alive in [false, true] {
        if keep_alive && !engine.can(Case::ManyKept) {
            return;
        }
        let balancer = Setup::on(engine).backend(a.address).backend(b.address).start();
        let mut ab = Command::new("sh");
        let options = if keep_alive { "-k" } else { "" };
        let script = format!(
            "ulimit -n 4096; exec ab -q -r -s 60 {options} -n 5000 -c 1000 http://{}/",
            balancer.address
        );
        ab.args(["-c", &script]).current_dir("/");
        let mut ab = Proc::run(ab);
        let status = ab.wait_at_most(std::time::Duration::from_secs(120));
        let report = ab.out();
        assert!(status.success(), "{}", ab.story());
        assert_eq!(number(&report, "Complete requests:"), 5000, "{report}");
        // ab counts answers of another length than the first's as failed; the echo's are all alike.
        assert_eq!(number(&report, "Failed requests:"), 0, "{report}\n{}", balancer.proc.story());
        assert_eq!(number(&report, "Non-2xx responses:"), 0, "{report}\n{}", balancer.proc.story());
    }
}
