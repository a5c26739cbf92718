//! Reports: what instances tell each other about the tokens that they spent; as values and as bytes.
//!
//! A report identifies a bucket in a way that is the same in every process, and has the bucket's numbers, so that an
//! instance that never saw the client can keep the same bucket. Its counter only grows within an episode. So reports
//! may be lost, come twice or in another order: the next one puts everything right.

use crate::identity::ClientKey;
use crate::limit::{Limit, Rate};
use crate::reset::Reset;
use crate::terms::BucketId;

/// Identifies a running process among those that share a budget: a random number, another one at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// What one instance has spent of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentReport {
    /// The client that the bucket belongs to.
    pub client: ClientKey,
    /// The bucket.
    pub bucket: BucketId,
    /// Whether it is the bucket of a rule.
    pub of_rule: bool,
    /// An entry names the client, so that it has a row of its own in every instance, even if the table is full.
    pub has_own_row: bool,
    /// The numbers in force. With a reset their rate is 0.
    pub limit: Limit,
    /// With a reset: the kind of period, and the number of the one in which the tokens were spent.
    pub reset: Option<(Reset, u32)>,
    /// The number of the sender's count. After a bucket was idle for a while it is counted from 0 again, in a later
    /// episode.
    pub episode: u32,
    /// Tokens spent in this episode. Never decreases within it.
    pub spent: u64,
    /// How many of these are new since the last report.
    pub fresh: u64,
    /// How fast tokens are being spent, in millionths of a token a second.
    pub rate_micro: u64,
}

/// Flags of a report; the two bits between them are the kind of period.
const RULE: u8 = 1;
const OWN_ROW: u8 = 1 << 3;

/// Bytes of an IPv4 client. Most clients are IPv4 addresses, which are written without the twelve zeros behind them.
const SHORT_CLIENT: usize = 5;

impl SpentReport {
    /// Most bytes that [`SpentReport::write`] appends. With a usual limit, an IPv4 client takes about 33 and another
    /// one 45.
    pub const MAX_BYTES: usize = ClientKey::BYTES + 8 + 1 + 7 * MAX_VARINT;

    /// Appends the report: client, bucket, flags, and numbers of variable length (unsigned LEB128).
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let client = self.client.to_bytes();
        let used = if self.client.is_ipv4() { SHORT_CLIENT } else { ClientKey::BYTES };
        bytes.extend(&client[..used]);
        bytes.extend(self.bucket.0.to_be_bytes());
        let (period, turn) = match self.reset {
            None => (0, None),
            Some((Reset::Hour, turn)) => (1, Some(turn)),
            Some((Reset::Day, turn)) => (2, Some(turn)),
            Some((Reset::Month, turn)) => (3, Some(turn)),
        };
        let flags = [(self.of_rule, RULE), (self.has_own_row, OWN_ROW)];
        bytes
            .push(period << 1 | flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum::<u8>());
        let Limit { capacity, rate } = self.limit;
        for number in [capacity.into(), rate.micro, rate.per_secs.into()] {
            write_varint(number, bytes);
        }
        if let Some(turn) = turn {
            write_varint(turn.into(), bytes);
        }
        for number in [self.episode.into(), self.spent, self.fresh, self.rate_micro] {
            write_varint(number, bytes);
        }
    }

    /// Reads one report and moves `bytes` behind it. `None`: there is no valid report.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut client = [0; ClientKey::BYTES];
        let used = if ClientKey::tags_ipv4(*bytes.first()?) { SHORT_CLIENT } else { ClientKey::BYTES };
        let (head, rest) = bytes.split_at_checked(used)?;
        client[..used].copy_from_slice(head);
        let client = ClientKey::from_bytes(client).filter(|client| !client.is_crowd())?;
        let (bucket, rest) = rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first()?;
        *bytes = rest;
        let capacity = read_varint(bytes).and_then(|capacity| u32::try_from(capacity).ok())?;
        let micro = read_varint(bytes)?;
        let per_secs = read_varint(bytes).and_then(|secs| u32::try_from(secs).ok())?;
        let period = match (flags & !(RULE | OWN_ROW)) >> 1 {
            0 => None,
            1 => Some(Reset::Hour),
            2 => Some(Reset::Day),
            3 => Some(Reset::Month),
            _ => return None,
        };
        let reset = match period {
            None => None,
            Some(period) => Some((period, u32::try_from(read_varint(bytes)?).ok()?)),
        };
        let episode = u32::try_from(read_varint(bytes)?).ok()?;
        let (spent, fresh, rate_micro) = (read_varint(bytes)?, read_varint(bytes)?, read_varint(bytes)?);
        let limit = Limit { capacity, rate: Rate { micro, per_secs } };
        (limit.is_within_bounds() && fresh <= spent).then_some(Self {
            client,
            bucket: BucketId(u64::from_be_bytes(*bucket)),
            of_rule: flags & RULE != 0,
            has_own_row: flags & OWN_ROW != 0,
            limit,
            reset,
            episode,
            spent,
            fresh,
            rate_micro,
        })
    }
}

/// Bytes of the longest number: 64 bits, 7 in each byte.
const MAX_VARINT: usize = 10;

fn write_varint(mut number: u64, bytes: &mut Vec<u8>) {
    for _ in 0..MAX_VARINT {
        let part = number as u8 & 0x7f;
        number >>= 7;
        if number == 0 {
            return bytes.push(part);
        }
        bytes.push(part | 0x80);
    }
}

/// Reads one number and moves `bytes` behind it. `None`: it does not end, or does not fit into 64 bits.
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..MAX_VARINT {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if place == MAX_VARINT - 1 && part > 1 {
            return None;
        }
        number |= part << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests;
