//! What is counted of TLS and HTTP/2 at the front door.

use std::time::Duration;

use super::shards::{Histogram, HistogramSum, PerLabel};
use super::{Family, Handshake, Http2Flood, Metrics, SeriesValue, Show};

/// The counters of one shard.
#[derive(Debug, Default)]
pub(super) struct Door {
    handshakes: PerLabel<Handshake>,
    durations: Histogram,
    floods: PerLabel<Http2Flood>,
}

impl Metrics {
    /// A handshake with a client ended, `took` after the connection's first byte.
    pub fn handshake(&self, end: Handshake, took: Duration) {
        let door = self.door.mine();
        door.handshakes.count(end);
        if end == Handshake::Ok {
            door.durations.observe(took);
        }
    }

    /// A connection was ended because of a flood.
    pub fn http2_flood(&self, of: Http2Flood) {
        self.door.mine().floods.count(of);
    }

    pub(super) fn visit_door(&self, show: &mut Show<'_>) {
        for end in Handshake::ALL {
            let count = SeriesValue::Counter(self.door.sum(|door| door.handshakes.get(end)));
            show(Family::TlsHandshakes, &[("result", end.name())], count);
        }
        let durations = HistogramSum::of(self.door.iter().map(|door| &door.durations));
        show(Family::TlsHandshakeDurationSeconds, &[], SeriesValue::Histogram(durations));
        for of in Http2Flood::ALL {
            let count = SeriesValue::Counter(self.door.sum(|door| door.floods.get(of)));
            show(Family::Http2Abuse, &[("kind", of.name())], count);
        }
    }
}
