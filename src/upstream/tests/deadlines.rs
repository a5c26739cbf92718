//! What is left of a request's time bounds whatever is under way.

use super::support::*;
use crate::clock::Clock;
use crate::proxy::Phase;
use crate::proxy::exchange::{Pull, Wait};
use crate::upstream::UreqUpstream;
use balancer_time::nanos;

#[test]
fn a_deadline_ends_the_wait_for_the_head() {
    let backend = Backend::start(|_, peer| {
        peer.head()?;
        peer.until_closed()
    });
    let (clock, start) = (Clock::real(), Watch::start());
    let upstream = UreqUpstream::new(&config(), clock.clone());
    let ask = |deadline| Request { deadline: Some(deadline), ..Request::default() }.send(&upstream, &backend);
    let error = ask(clock.now() + nanos(SHORT)).err().expect("no answer");
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG, "{:?}", start.elapsed());
    assert_eq!(error.phase, Phase::TimedOut);
    assert!(error.cause.contains("upstream.request_timeout"), "{}", error.cause);
    // Nothing is left: not even a connection is opened.
    let error = ask(1).err().expect("no answer");
    assert_eq!((error.phase, backend.connections()), (Phase::TimedOut, 1));
}

#[test]
fn a_deadline_ends_a_silent_body_and_one_that_never_pauses() {
    let silent = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")?;
        peer.until_closed()
    });
    let endless = Backend::start(|_, peer| {
        peer.head()?;
        peer.write("HTTP/1.1 200 OK\r\n\r\n")?;
        while peer.write("hello").is_ok() {
            std::thread::sleep(SHORT / 20);
        }
        Ok(())
    });
    let clock = Clock::real();
    let upstream = UreqUpstream::new(&config(), clock.clone());
    for backend in [silent, endless] {
        let start = Watch::start();
        let deadline = Some(clock.now() + nanos(SHORT));
        let mut incoming =
            Request { deadline, ..Request::default() }.send(&upstream, &backend).expect("a head");
        assert!(incoming.body.silence_limit() <= SHORT);
        let cause = read(&mut *incoming.body).expect_err("broken");
        assert!(cause.contains("upstream.request_timeout"), "{cause}");
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        assert!(matches!(incoming.body.pull(&mut [0; 9], Wait::Poll), Pull::Broken(_)));
    }
}
