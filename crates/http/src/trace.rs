//! A place in a trace, as `traceparent` carries it (W3C Trace Context §3.2).

use std::fmt;

/// The trace that a request belongs to, the span that it was sent from, and what that said of sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Never 0.
    pub trace: u128,
    /// Never 0.
    pub span: u64,
    /// All eight; see [`SAMPLED`].
    pub flags: u8,
}

/// The flag of a trace whose spans are recorded (§3.2.2.5.1).
pub const SAMPLED: u8 = 1;

/// The flags that are defined, of which a later version may set more: sampled, and that the trace's id is random.
const KNOWN: u8 = SAMPLED | 2;

impl TraceParent {
    /// Reads the value of a field that [`super::headers::traceparent`] has found to be valid, of whichever version.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-').skip(1);
        let trace = u128::from_str_radix(parts.next()?, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(parts.next()?, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
        Some(Self { trace, span, flags })
    }

    /// Whether its spans are recorded.
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same place, as another span of this trace tells it: with no flag that we do not know.
    pub const fn with_span(self, span: u64) -> Self {
        Self { span, flags: self.flags & KNOWN, ..self }
    }
}

/// As version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_version_00() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (text, written, sampled) in [
            (good, good, true),
            (&good.replace("-01", "-00"), &good.replace("-01", "-00"), false),
            (&format!("cc{}-what-ever", &good[2..]), good, true),
            // A small id keeps its zeros.
            (
                "00-0000000000000000000000000000000a-000000000000000b-03",
                "00-0000000000000000000000000000000a-000000000000000b-03",
                true,
            ),
        ] {
            let parent = TraceParent::read(text).expect(text);
            assert_eq!((parent.to_string().as_str(), parent.is_sampled()), (written, sampled));
        }
        for text in ["", "00", "00-0-1-01", "00-1-0-01", "00-x-1-01", "00-1-1"] {
            assert_eq!(TraceParent::read(text), None, "{text}");
        }
    }

    #[test]
    fn another_span_is_told_with_the_flags_that_we_know() {
        let parent = TraceParent { trace: 7, span: 1, flags: 0xff };
        assert_eq!(parent.with_span(2), TraceParent { trace: 7, span: 2, flags: 3 });
    }
}
