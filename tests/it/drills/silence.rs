//! Thousands of connections that send nothing, from a few addresses of one IPv6 prefix, in a network namespace of their own.

use serde_json::{Value, json};

use super::{may_open, setup, turn};
use crate::support::balancer::{Setup, listening};
use crate::support::{Backend, Proc, aloud, installed};

const SILENT: usize = 2000;
const CLIENT: &str = include_str!("silent.py");

/// A network namespace with the addresses that clients and backends have; gone with the returned process. `None`, said aloud,
/// where it can't be had.
fn network() -> Option<Proc> {
    let tools = ["unshare", "nsenter", "ip", "python3"].into_iter().all(installed);
    if !rustix::process::geteuid().is_root() || !tools {
        aloud("skipped: a network namespace needs root, unshare, nsenter and ip, and its clients python3");
        return None;
    }
    let prefixes = (1..=7).map(|last| format!("fd00:1::{last}"));
    let addresses = prefixes.chain(["fd00:2::1", "fd00:2::2", "fd00:3::1", "fd00:9::1"].map(String::from));
    let add: String = addresses.map(|one| format!(" && ip -6 addr add {one}/128 dev lo nodad")).collect();
    let script = format!("ip link set lo up{add} && echo ready && exec sleep 1000 || echo refused");
    let holder = Proc::start("unshare", &["-n", "sh", "-c", &script], std::path::Path::new("/"), &[]);
    if holder.wait_out("re").contains("refused") {
        aloud(&format!("skipped: a network namespace can't be had: {}", holder.err()));
        return None;
    }
    Some(holder)
}

/// What clients in that network see of a balancer with these settings.
fn beside_silence(network: &Proc, setup: &Setup) -> Value {
    let script = setup.folder().join("silent.py");
    std::fs::write(&script, CLIENT).expect("written");
    let setup = setup.clone().set("listen", json!("[fd00:9::1]:0")).with_network_of(network.pid());
    let proc = setup.launch();
    let address = listening(&proc.wait_out("listening on http://"));
    let (port, count, pid) = (address.port().to_string(), SILENT.to_string(), network.pid().to_string());
    let script = script.to_str().expect("UTF-8");
    let args = ["-t", &pid, "-n", "python3", script, "fd00:9::1", &port, &count];
    let mut client = Proc::start("nsenter", &args, setup.folder(), &[]);
    let line = client.wait_out_at_most("{", 2 * crate::support::PATIENCE);
    assert!(client.wait().success(), "{}", client.story());
    serde_json::from_str(&line).expect("JSON")
}

/// A second is what is promised; a busy machine takes longer, and without a place it would be the head's time-out of 10 s.
const SOON_S: f64 = 4.0;

fn is_soon(found: &Value) -> bool {
    found[0] == 200 && found[1].as_f64().is_some_and(|seconds| seconds < SOON_S)
}

#[test]
fn silence_from_one_prefix_keeps_nobody_out() {
    let _turn = turn();
    if !may_open(3 * SILENT as u64) {
        return;
    }
    let Some(network) = network() else { return };
    // It is in another network, so that no connection to it comes about.
    let nowhere = Backend::named("elsewhere");
    let base = setup().backend(nowhere.address()).set("frontend.max_connections", json!(SILENT / 2));

    // The silent ones have all places: each new client gets one of theirs, at whatever address it is.
    let found = beside_silence(&network, &base);
    assert!(is_soon(&found["livez"]), "{found}");
    // No backend can be reached, so the answer is an error: it shows that the client was served.
    for who in ["other", "same"] {
        assert!(found[who][0] == 502 && found[who][1].as_f64().unwrap() < SOON_S, "{who}: {found}");
    }
    let held = found["held"].as_u64().unwrap() as usize;
    // A loop ends those of another one by a letter.
    assert!(held <= SILENT / 2 + 16 && held > SILENT / 4, "the bound is met: {found}");

    // A bound per client counts all six as one, and leaves the others alone.
    let found = beside_silence(&network, &base.clone().set("frontend.max_connections_per_ip", json!(100)));
    assert_eq!((&found["held"], &found["left"]), (&json!(100), &json!(100)), "{found}");
    assert!(is_soon(&found["livez"]) && found["other"][0] == 502, "{found}");
    assert_eq!(found["same"][0], 0, "its prefix has as many as it may: {found}");
    // By the address itself, each of the six has its own.
    let each =
        base.set("frontend.max_connections_per_ip", json!(100)).set("rate_limit.ipv6_prefix", json!(128));
    let found = beside_silence(&network, &each);
    assert_eq!((&found["held"], &found["same"][0]), (&json!(600), &json!(502)), "{found}");
}
