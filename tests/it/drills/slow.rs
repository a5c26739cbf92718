//! 4,000 clients that send or read one byte after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::crowd::{Crowd, End, Habit};
use super::farm::Farm;
use super::normal::Normal;
use super::{may_open, setup, turn};
use crate::support::{PATIENCE, aloud, until};

/// Of each of the five kinds.
const EACH: usize = 800;
const ALL: usize = 5 * EACH;
/// How often a slow client moves a byte (a slow reader: some), far below `min_bytes_per_sec`.
const TICK: Duration = Duration::from_millis(250);
const SIP_BYTES: usize = 8;
/// Requests that must succeed while all of the slow ones are there.
const MEANWHILE: usize = 500;
/// What 99 % of them took with nginx in front of the same backend, in the same drill on two cores.
const NGINX_P99: Duration = Duration::from_millis(1280);

const HEAD: &str = "a head";
const BODY_64K: &str = "a body of 64 KiB";
const BODY_4M: &str = "a body of 4 MiB";
const ANSWER_64K: &str = "an answer of 64 KiB";
const ANSWER_4M: &str = "an answer of 4 MiB";

/// All clients connect and begin, the kinds in turns, so that every kind is there all the time.
fn gather(crowd: &mut Crowd, to: std::net::SocketAddr) {
    let post = |size: usize| format!("POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\nbegin");
    let get = |size: usize| format!("GET /bytes/{size} HTTP/1.1\r\nHost: a\r\n\r\n");
    let kinds = [
        (HEAD, Habit::Drip, "GET /ok HTTP/1.1\r\nHost: a\r\nX: ".to_owned()),
        (BODY_64K, Habit::Drip, post(64 << 10)),
        (BODY_4M, Habit::Drip, post(4 << 20)),
        (ANSWER_64K, Habit::Sip(SIP_BYTES), get(64 << 10)),
        (ANSWER_4M, Habit::Sip(SIP_BYTES), get(4 << 20)),
    ]
    .map(|(group, habit, first)| (group, habit, Arc::<[u8]>::from(first.into_bytes())));
    for _ in 0..EACH {
        for (group, habit, first) in &kinds {
            crowd.join(to, group, *habit, first);
        }
    }
}

#[test]
fn four_thousand_slow_clients_hold_nobody_up_and_are_ended() {
    let _turn = turn();
    if !may_open(3 * ALL as u64) {
        return;
    }
    // On a busy machine the first of them may be ended before the last are there.
    assert!([1, 3].into_iter().any(all_are_there_and_are_ended), "some ended early");
}

/// With so many times the usual deadlines. False: some clients were ended before all had been there for long enough.
fn all_are_there_and_are_ended(times: u32) -> bool {
    let farm = Farm::start();
    let seconds = |seconds: u32| json!(format!("{}s", times * seconds));
    let balancer = setup()
        .backend(farm.address())
        .set("frontend.head_timeout", seconds(15))
        .set("frontend.body_timeout", seconds(13))
        .set("frontend.write_timeout", seconds(15))
        .set("frontend.slow_grace", seconds(20))
        .start();
    let normal = Normal::start(balancer.address);
    let mut crowd = Crowd::new(TICK);
    gather(&mut crowd, balancer.address);

    // All are there at once, each in the middle of its own kind of slowness.
    crowd.act_until("every slow reader has its first bytes and the uploads are under way", |crowd| {
        let reads = |group| crowd.group(group).all(|client| client.got > 0);
        crowd.open() < ALL || reads(ANSWER_64K) && reads(ANSWER_4M) && farm.bodies() == EACH
    });
    let before = normal.answered();
    crowd.act_until("the normal requests were answered", |_| normal.answered() >= before + MEANWHILE);
    let p99 = normal.p99_since(before);
    if crowd.open() < ALL {
        aloud(&format!("some ended early, with {times} times the usual deadlines: {}", crowd.story()));
        return false;
    }
    assert!(p99 < NGINX_P99, "99 % of the normal requests took {p99:?}");
    assert!(crowd.group(ANSWER_64K).all(|client| client.got < 64 << 10), "a slow reader was no slow one");
    assert!(farm.answers() > 0, "long answers wait at the backend, too");

    // The slow sides are ended. What lies whole in the kernel's buffers has no slow side left for us to end. The deadlines
    // above alone take twenty seconds.
    crowd.act_at_most(times * 2 * PATIENCE, "the slow sides were ended", |crowd| {
        crowd.clients.iter().all(|client| client.group == ANSWER_64K || client.end.is_some())
    });
    let (answered, slowest) = normal.finish();
    let mut ends: BTreeMap<_, usize> = BTreeMap::new();
    for client in crowd.clients.iter().filter(|client| client.group != ANSWER_64K) {
        *ends.entry((client.group, client.status(), client.end)).or_default() += 1;
        if client.group == ANSWER_4M {
            assert!(client.got < 4 << 20, "{} bytes", client.got);
        }
    }
    let clean = Some(End::Closed);
    for group in [HEAD, BODY_64K, BODY_4M] {
        assert_eq!(ends[&(group, Some(408), clean)], EACH, "{ends:?}");
    }
    assert_eq!(ends[&(ANSWER_4M, Some(200), Some(End::Reset))], EACH, "{ends:?}");
    until("nothing is left at the backend", || (farm.answers() + farm.bodies() == 0).then_some(()));
    assert!(slowest < Duration::from_secs(10), "the slowest of {answered} took {slowest:?}");
    true
}
