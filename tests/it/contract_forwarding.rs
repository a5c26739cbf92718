//! Forwarding: what the contract says of backends that refuse connections.

use crate::support::backend::refusing;
use crate::support::engine::each_engine;
use crate::support::{Backend, Engine, Setup, request};

each_engine! {
    every_candidate_is_asked_before_a_502,
}

/// "Every candidate … refused the connection …: 502": not before every one of them has.
fn every_candidate_is_asked_before_a_502(engine: Engine) {
    let good = Backend::named("good");
    let mut setup = Setup::on(engine);
    for _ in 0..4 {
        setup = setup.backend(refusing());
    }
    let balancer = setup.backend(good.address()).start();
    for _ in 0..10 {
        assert_eq!(balancer.get("/").expect(200).text(), "good");
        request(balancer.address, "POST", "/", &[], b"hello").expect(200);
    }
}
