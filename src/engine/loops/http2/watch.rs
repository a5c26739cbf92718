//! Counts the frames of a client that cost us something and carry no request. The `h2` crate ends connections that
//! flood it with resets, CONTINUATION or empty DATA; these it answers or swallows, however many there are.

use crate::proxy::exchange::Http2Flood;
use balancer_time::Nanos;

/// How many such frames may come at once.
const BURST: u64 = 1_000;
/// How many a second may come after that.
const PER_SECOND: u64 = 100;
/// Bytes of a frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// Bytes of the preface (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// Follows the frames of one connection as their bytes pass.
pub(super) struct FrameWatch {
    /// Bytes of payload, or of the preface, that are still to pass.
    skip: usize,
    /// The first `have` bytes of a frame's header.
    header: [u8; HEADER],
    have: usize,
    /// Frames that may come now, in billionths.
    left: u64,
    at: Nanos,
}

impl FrameWatch {
    pub fn new(now: Nanos) -> Self {
        Self { skip: PREFACE, header: [0; HEADER], have: 0, left: BURST * 1_000_000_000, at: now }
    }

    /// Follows what came. Returns the kind of frame that came too often, if one did.
    pub fn follow(&mut self, mut bytes: &[u8], now: Nanos) -> Option<Http2Flood> {
        let gained = now.saturating_sub(self.at).saturating_mul(PER_SECOND);
        self.left = self.left.saturating_add(gained).min(BURST * 1_000_000_000);
        self.at = now;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEADER {
                return None;
            }
            self.have = 0;
            let [a, b, c, kind, ..] = self.header;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if let Some(kind) = counted(kind) {
                match self.left.checked_sub(1_000_000_000) {
                    Some(left) => self.left = left,
                    None => return Some(kind),
                }
            }
        }
        None
    }
}

/// The name of a frame's kind, if frames of that kind are counted (RFC 9113 §6).
fn counted(kind: u8) -> Option<Http2Flood> {
    match kind {
        // DATA and HEADERS belong to requests; WINDOW_UPDATE and CONTINUATION come with them.
        0 | 1 | 8 | 9 => None,
        2 => Some(Http2Flood::Priority),
        3 => Some(Http2Flood::Reset),
        4 => Some(Http2Flood::Settings),
        6 => Some(Http2Flood::Ping),
        _ => Some(Http2Flood::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let mut bytes = (payload as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 0]);
        bytes.resize(bytes.len() + payload, kind);
        bytes
    }

    fn begun() -> FrameWatch {
        let mut watch = FrameWatch::new(0);
        assert_eq!(watch.follow(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0), None);
        watch
    }

    #[test]
    fn what_carries_no_request_is_bounded_and_the_rest_is_not() {
        for (kind, name) in [
            (2, Http2Flood::Priority),
            (3, Http2Flood::Reset),
            (4, Http2Flood::Settings),
            (6, Http2Flood::Ping),
            (5, Http2Flood::Other),
            (200, Http2Flood::Other),
        ] {
            let mut watch = begun();
            for number in 0..BURST {
                assert_eq!(watch.follow(&frame(kind, 8), 0), None, "{name:?} {number}");
            }
            assert_eq!(watch.follow(&frame(kind, 8), S / 200), Some(name));
            assert_eq!(watch.follow(&frame(kind, 8), S / 10), None, "{name:?}: a hundred a second");
        }
        for kind in [0, 1, 8, 9] {
            let mut watch = begun();
            for _ in 0..3 * BURST {
                assert_eq!(watch.follow(&frame(kind, 3), 0), None, "{kind}");
            }
        }
    }

    #[test]
    fn bytes_may_come_one_by_one() {
        let mut watch = begun();
        let bytes: Vec<u8> = (0..=BURST).flat_map(|_| [frame(6, 8), frame(0, 300)].concat()).collect();
        let told = bytes.iter().filter_map(|byte| watch.follow(&[*byte], 0)).collect::<Vec<_>>();
        assert_eq!(told, [Http2Flood::Ping]);
        // A payload that looks like frames is none.
        let mut watch = begun();
        let inner = frame(6, 0).repeat(2 * BURST as usize);
        let mut outer = frame(0, inner.len());
        outer.truncate(HEADER);
        outer.extend(inner);
        assert_eq!(watch.follow(&outer, 0), None);
    }
}
