//! What a slot keeps of sharing between two decisions.

use crate::bucket::MICRO;
use crate::limit::Limit;

/// What a slot keeps of sharing, in 8 bytes. While it is quiet: what is hidden from the others, in millionths of a token.
/// While it is held to a part: that part, the silence in which that began, and whether it gave out more than it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// Set: held to a part. What is hidden reaches neither: it is less than twice 10^15.
const PARTED: u64 = 1 << 63;

/// Set: it gave out more than it had.
const OWES: u64 = 1 << 62;

/// What is kept of a silence's number.
const SILENCE: u32 = (1 << 30) - 1;

impl Mark {
    /// Nothing is hidden.
    pub const QUIET: Self = Self(0);

    pub fn parted(part: f64, returns: u32) -> Self {
        // A part of 1 is one 2^32nd less.
        let part = (part * f64::from(u32::MAX)) as u32;
        Self(PARTED | u64::from(returns & SILENCE) << 32 | u64::from(part))
    }

    pub fn is_parted(self) -> bool {
        self.0 & PARTED != 0
    }

    /// Whether it was set in this silence.
    pub fn is_of(self, returns: u32) -> bool {
        (self.0 >> 32) as u32 & SILENCE == returns & SILENCE
    }

    /// That part of a level; none of a debt.
    pub fn of(self, micro: i64) -> i64 {
        ((i128::from(micro.max(0)) * i128::from(self.part())) >> 32) as i64
    }

    /// Of how much so many tokens are that part, in millionths; rounded up.
    pub fn price(self, cost: u32) -> i64 {
        let micro = (u128::from(cost) * MICRO as u128) << 32;
        // Of the least part, a 2^32nd, and 10^9 tokens it would take more than 64 bits.
        i64::try_from(micro.div_ceil(u128::from(self.part()))).unwrap_or(i64::MAX)
    }

    /// In 2^32nds; never 0.
    fn part(self) -> u64 {
        u64::from(self.0 as u32) + 1
    }

    /// It gave out more than it had.
    pub fn owe(&mut self) {
        self.0 |= OWES;
    }

    pub fn owes(self) -> bool {
        self.is_parted() && self.0 & OWES != 0
    }

    pub fn hidden_micro(self) -> u64 {
        if self.is_parted() { 0 } else { self.0 }
    }
}

impl Mark {
    /// Tokens flowed into the bucket: this instance's part of them is forgotten.
    pub fn leak(&mut self, gained_micro: u64, members: u32) {
        if self.hidden_micro() > 0 {
            self.0 = self.0.saturating_sub(part_of(gained_micro, members));
        }
    }

    /// Tokens were taken. True: so many are hidden that the others should know.
    pub fn hide(&mut self, cost: u32, full: Limit, members: u32) -> bool {
        let most = u64::from(full.capacity) * MICRO as u64;
        // More than the capacity can't be missing in any bucket.
        let hidden = (self.hidden_micro() + u64::from(cost) * MICRO as u64).min(most);
        self.0 = hidden;
        hidden >= MICRO as u64 && hidden * 4 * u64::from(members) >= most
    }

    /// Whole tokens that are hidden; rounded down, so that others are never charged what was not spent.
    pub fn hidden(self) -> u64 {
        self.hidden_micro() / MICRO as u64
    }

    pub fn publish(&mut self) {
        if !self.is_parted() {
            *self = Self::QUIET;
        }
    }
}

/// So much for each of so many instances. A product, where a division would be a tenth of a decision.
fn part_of(whole: u64, members: u32) -> u64 {
    const MOST: usize = 64;
    const INVERSE: [u64; MOST + 1] = {
        let mut inverse = [u64::MAX; MOST + 1];
        let mut members = 2;
        while members <= MOST {
            inverse[members] = u64::MAX / members as u64;
            members += 1;
        }
        inverse
    };
    // At most one below the quotient.
    let inverse = INVERSE[(members as usize).min(MOST)];
    ((u128::from(whole) * u128::from(inverse)) >> 64) as u64
}
