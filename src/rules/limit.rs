//! What an operator grants a client: a capacity and a refill rate, both exact.

/// A token bucket's numbers. `Copy`, 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Most tokens that the bucket holds; 0 to [`Limit::MAX_CAPACITY`]. 0 refuses everything.
    pub capacity: u32,
    /// How fast it refills.
    pub rate: Rate,
}

/// Tokens per span, as an exact fraction: `micro` millionths of a token every `per_secs` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Millionths of a token; 0 never refills. At most [`Rate::MAX_MICRO`].
    pub micro: u64,
    /// The span in seconds, 1 to 86,400.
    pub per_secs: u32,
}

impl Limit {
    /// 10^9 tokens.
    pub const MAX_CAPACITY: u32 = 1_000_000_000;
}

impl Rate {
    /// 10^9 tokens a span.
    pub const MAX_MICRO: u64 = 1_000_000_000_000_000;

    /// Millionths of a token every second.
    pub const fn per_second(micro: u64) -> Self {
        Self { micro, per_secs: 1 }
    }
}
