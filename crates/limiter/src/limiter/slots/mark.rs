//! What a slot remembers about sharing between two decisions.

use crate::bucket::MICRO;
use crate::limit::Limit;

/// What a slot remembers about sharing, in 8 bytes. While it is quiet: what is hidden from the others, in millionths of
/// a token. While it is held to a part: that part, the number of the silence, and whether it gave out more than it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// This bit is set while the slot is held to a part. What is hidden is less than 2 × 10^15, so it reaches neither this
/// bit nor the next.
const PARTED: u64 = 1 << 63;

/// This bit is set if the slot gave out more than it had.
const OWES: u64 = 1 << 62;

/// The bits that are kept of a silence's number.
const SILENCE: u32 = (1 << 30) - 1;

impl Mark {
    /// Nothing is hidden.
    pub const QUIET: Self = Self(0);

    /// Held to that part, from 0 to 1, in the silence after `returns` others.
    pub fn parted(part: f64, returns: u32) -> Self {
        // Stored less one 2^32nd, so that 1 fits.
        let part = (part * f64::from(u32::MAX)) as u32;
        Self(PARTED | u64::from(returns & SILENCE) << 32 | u64::from(part))
    }

    pub fn is_parted(self) -> bool {
        self.0 & PARTED != 0
    }

    /// Whether it was made in the silence after `returns` others.
    pub fn is_of(self, returns: u32) -> bool {
        (self.0 >> 32) as u32 & SILENCE == returns & SILENCE
    }

    /// The part of a level, in millionths; 0 of a debt.
    pub fn of(self, micro: i64) -> i64 {
        ((i128::from(micro.max(0)) * i128::from(self.part())) >> 32) as i64
    }

    /// The level of which so many tokens are the part, in millionths; rounded up.
    pub fn price(self, cost: u32) -> i64 {
        let micro = (u128::from(cost) * MICRO as u128) << 32;
        // For 10^9 tokens and the smallest part, a 2^32nd, it needs more than 64 bits.
        i64::try_from(micro.div_ceil(u128::from(self.part()))).unwrap_or(i64::MAX)
    }

    /// The part in 2^32nds, never 0.
    fn part(self) -> u64 {
        u64::from(self.0 as u32) + 1
    }

    /// Notes that it gave out more than it had.
    pub fn owe(&mut self) {
        self.0 |= OWES;
    }

    pub fn owes(self) -> bool {
        self.is_parted() && self.0 & OWES != 0
    }

    fn hidden_micro(self) -> u64 {
        if self.is_parted() { 0 } else { self.0 }
    }
}

impl Mark {
    /// So many millionths flowed into the bucket: as many of the hidden ones are dropped as this instance's part of
    /// these.
    pub fn leak(&mut self, gained_micro: u64, members: u32) {
        if self.hidden_micro() > 0 {
            self.0 = self.0.saturating_sub(part_of(gained_micro, members));
        }
    }

    /// Tokens were taken, and are hidden. True: so many are hidden that the others have to hear of it: a quarter of an
    /// even part of the capacity.
    pub fn hide(&mut self, cost: u32, full: Limit, members: u32) -> bool {
        let most = u64::from(full.capacity) * MICRO as u64;
        // At most the capacity, since a bucket can't lack more.
        let hidden = (self.hidden_micro() + u64::from(cost) * MICRO as u64).min(most);
        self.0 = hidden;
        hidden >= MICRO as u64 && hidden * 4 * u64::from(members) >= most
    }

    /// Whole tokens that are hidden, rounded down, so that others are never charged more than was spent.
    pub fn hidden(self) -> u64 {
        self.hidden_micro() / MICRO as u64
    }

    /// What was hidden has been published.
    pub fn publish(&mut self) {
        if !self.is_parted() {
            *self = Self::QUIET;
        }
    }
}

/// `whole / members`, perhaps one less. Multiplies by an inverse, since a division takes a tenth of the time of a
/// decision.
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
    let inverse = INVERSE[(members as usize).min(MOST)];
    ((u128::from(whole) * u128::from(inverse)) >> 64) as u64
}

#[cfg(test)]
mod tests;
