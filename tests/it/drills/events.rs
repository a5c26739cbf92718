//! 2,000 open event streams.

use std::sync::Arc;
use std::time::Duration;

use super::crowd::{Crowd, Habit};
use super::farm::Farm;
use super::normal::Normal;
use super::{may_open, setup, turn};
use crate::support::client::find;

const STREAMS: usize = 2000;
const MEANWHILE: usize = 500;

#[test]
fn two_thousand_event_streams_leave_normal_requests_untouched() {
    let _turn = turn();
    if !may_open(3 * STREAMS as u64) {
        return;
    }
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).start();
    let threads = balancer.proc.threads();
    let mut crowd = Crowd::new(Duration::from_millis(100));
    let first: Arc<[u8]> = Arc::from(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n".as_slice());
    for _ in 0..STREAMS {
        crowd.join(balancer.address, "stream", Habit::Listen, &first);
    }
    // The heads come at once, though no event has come.
    crowd.act_until("all streams are open", |crowd| {
        crowd.clients.iter().all(|client| client.status() == Some(200)) && farm.streams() == STREAMS
    });
    let normal = Normal::start(balancer.address);
    for number in 0..3 {
        let before = normal.answered();
        crowd.act_until("normal requests were answered", |_| normal.answered() >= before + MEANWHILE / 3);
        // No client has an event before it is sent; every client has it afterwards, though its answer goes on.
        let event = format!("data: {number}\n\n");
        let has = |crowd: &Crowd| {
            crowd.clients.iter().filter(|client| find(&client.start, event.as_bytes()).is_some()).count()
        };
        assert_eq!(has(&crowd), 0);
        farm.send_event(&number.to_string());
        crowd.act_until("everybody has the event", |crowd| has(crowd) == STREAMS);
    }
    assert_eq!((crowd.open(), farm.streams()), (STREAMS, STREAMS), "{}", crowd.story());
    assert_eq!(balancer.proc.threads(), threads, "streams need no threads");
    let (answered, slowest) = normal.finish();
    assert!(slowest < Duration::from_secs(10), "the slowest of {answered} took {slowest:?}");
    // Clients that leave give their backend connections back: at once after a reset, else with the next event, since a
    // closed connection looks half-closed until something is written to it.
    drop(crowd);
    farm.send_event("nobody is there");
    crate::support::until("the backend's streams have ended", || (farm.streams() == 0).then_some(()));
}
