//! Deadlines without a system call: each connection has one word, in which whoever parks it writes what it waits for
//! and until when. The keeper walks the words; nobody is told of a change.

use std::time::Duration;

use crate::config::Frontend;
use balancer_time::Nanos;
use balancer_time::nanos;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is no connection.
    Vacant,
    /// A worker has it.
    Busy,
    /// Kept, with nothing received since its last answer.
    Idle,
    /// The rest of a request head, or the first byte of the first one.
    Head,
    /// The rest of a request body that is read ahead.
    Body,
    /// One of the places for streamed uploads.
    UploadPlace,
    /// What its service parked the request for.
    Backend,
    /// The client, to take more of the answer.
    ClientWritable,
    /// The backend, to send more of the answer.
    UpstreamReadable,
    /// The client, to read our last answer and close.
    Linger,
    /// Handed to the keeper's relay.
    Relay,
    /// The head of its backend's answer.
    Answer,
    /// One of the seats for requests that wait for answers, with something to say that was not read.
    Seat,
}

const PHASES: [Phase; 13] = [
    Phase::Vacant,
    Phase::Busy,
    Phase::Idle,
    Phase::Head,
    Phase::Body,
    Phase::UploadPlace,
    Phase::Backend,
    Phase::ClientWritable,
    Phase::UpstreamReadable,
    Phase::Linger,
    Phase::Relay,
    Phase::Answer,
    Phase::Seat,
];

const PHASE_BITS: u32 = 4;

/// A phase and its deadline in one word: the deadline in nanoseconds with its lowest four bits taken by the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub phase: Phase,
    /// When it is over; [`Nanos::MAX`] rounded down for never.
    pub at: Nanos,
}

impl Due {
    pub fn new(phase: Phase, at: Nanos) -> Self {
        Self { phase, at }
    }

    /// A phase that ends by itself.
    pub fn never(phase: Phase) -> Self {
        Self { phase, at: Nanos::MAX }
    }

    pub fn word(self) -> u64 {
        (self.at & !((1 << PHASE_BITS) - 1)) | self.phase as u64
    }

    pub fn of(word: u64) -> Self {
        let phase = (word & ((1 << PHASE_BITS) - 1)) as usize;
        Self { phase: *PHASES.get(phase).unwrap_or(&Phase::Vacant), at: word & !((1 << PHASE_BITS) - 1) }
    }
}

/// Every span of the configuration that the engine keeps, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    pub worker_wait: Nanos,
    pub head: Nanos,
    pub body: Nanos,
    pub idle: Nanos,
    pub write: Nanos,
    pub grace: Nanos,
    pub min_bytes_per_sec: u64,
    /// How often the keeper looks.
    pub tick: Nanos,
}

/// The keeper looks at least this often while there are connections: nine deadlines in ten are kept within it.
const LONGEST_TICK: Duration = Duration::from_millis(100);
/// And no more often than this, however short a time-out is.
const SHORTEST_TICK: Duration = Duration::from_millis(5);

/// How long a ready connection waits for a worker.
pub(super) const WORKER_WAIT: Duration = Duration::from_secs(1);

impl Spans {
    pub fn new(config: &Frontend) -> Self {
        let shortest = [
            WORKER_WAIT,
            config.head_timeout,
            config.body_timeout,
            config.idle_timeout,
            config.write_timeout,
            config.slow_grace,
        ]
        .into_iter()
        .filter(|span| !span.is_zero())
        .min()
        .unwrap_or(LONGEST_TICK);
        Self {
            worker_wait: nanos(WORKER_WAIT),
            head: nanos(config.head_timeout),
            body: nanos(config.body_timeout),
            idle: nanos(config.idle_timeout),
            write: nanos(config.write_timeout),
            grace: nanos(config.slow_grace),
            min_bytes_per_sec: config.min_bytes_per_sec,
            tick: nanos((shortest / 8).clamp(SHORTEST_TICK, LONGEST_TICK)),
        }
    }
}

/// How fast one side moves bytes, counted from when it first kept us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    since: Nanos,
    last: Nanos,
    bytes: u64,
}

impl Pace {
    pub fn new(now: Nanos) -> Self {
        Self { since: now, last: now, bytes: 0 }
    }

    /// Bytes moved.
    pub fn moved(&mut self, bytes: usize, now: Nanos) {
        self.bytes += bytes as u64;
        self.last = now;
    }

    /// When the side is too slow unless more bytes move before: `silence` after the last one, or when the mean since
    /// the start, less a grace, falls below the minimum rate.
    pub fn due(&self, silence: Nanos, spans: &Spans) -> Nanos {
        let silent = self.last.saturating_add(silence);
        if spans.min_bytes_per_sec == 0 {
            return silent;
        }
        let earned = u128::from(self.bytes) * 1_000_000_000 / u128::from(spans.min_bytes_per_sec);
        let earned = Nanos::try_from(earned).unwrap_or(Nanos::MAX);
        silent.min(self.since.saturating_add(spans.grace).saturating_add(earned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_phase_and_deadline() {
        for (index, phase) in PHASES.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
            let due = Due::new(phase, 1_234_567_890_123);
            let back = Due::of(due.word());
            assert_eq!(back.phase, phase);
            assert!(due.at - back.at < 16);
        }
        assert!(Due::of(Due::never(Phase::Busy).word()).at > Nanos::MAX - 16);
    }

    #[test]
    fn a_side_is_too_slow_by_silence_or_by_its_mean() {
        const S: Nanos = 1_000_000_000;
        let spans = Spans {
            worker_wait: 0,
            head: 0,
            body: 0,
            idle: 0,
            write: 0,
            grace: 5 * S,
            min_bytes_per_sec: 100,
            tick: 1,
        };
        let mut pace = Pace::new(10 * S);
        // (bytes at second, deadline in seconds): silence is 30 s, the rate 100 B/s after 5 s.
        assert_eq!(pace.due(30 * S, &spans), 15 * S);
        for (at, bytes, due) in [(11, 100, 16), (12, 400, 20), (13, 1_000_000, 43), (40, 1, 70)] {
            pace.moved(bytes, at * S);
            assert_eq!(pace.due(30 * S, &spans), due * S, "at {at}");
        }
        let unbounded = Spans { min_bytes_per_sec: 0, ..spans };
        assert_eq!(Pace::new(0).due(30 * S, &unbounded), 30 * S);
    }
}
