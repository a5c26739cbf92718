//! Levels as bytes, in a format that all processes and versions on one database share.
//!
//! A piece is one byte with the version of the format, and then records of [`RECORD_BYTES`]. Numbers are big-endian.

use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::Saved;
use balancer_limiter::terms::{BucketId, Reset};

/// Bytes of a record: client 17, bucket 8, flags 1, level 8, capacity 4, rate 8 and 4, and 4 for the period in which the
/// level counts.
pub const RECORD_BYTES: usize = 54;

const VERSION: u8 = 1;

const OF_RULE: u8 = 1;

/// An empty piece.
pub fn piece() -> Vec<u8> {
    vec![VERSION]
}

/// Appends one bucket's level.
pub fn push(piece: &mut Vec<u8>, client: ClientKey, saved: &Saved) {
    let (reset, turn) = match saved.reset {
        None => (0, 0),
        Some((Reset::Hour, turn)) => (1, turn),
        Some((Reset::Day, turn)) => (2, turn),
        Some((Reset::Month, turn)) => (3, turn),
    };
    piece.extend(client.to_bytes());
    piece.extend(saved.id.0.to_be_bytes());
    piece.push(reset << 1 | if saved.of_rule { OF_RULE } else { 0 });
    piece.extend(saved.level_micro.to_be_bytes());
    piece.extend(saved.limit.capacity.to_be_bytes());
    piece.extend(saved.limit.rate.micro.to_be_bytes());
    piece.extend(saved.limit.rate.per_secs.to_be_bytes());
    piece.extend(turn.to_be_bytes());
}

/// Joins several pieces into one.
pub fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut all = piece();
    all.extend(pieces.iter().flat_map(|piece| piece.get(1..).unwrap_or_default()));
    all
}

/// Every level of a piece. A piece of an unknown version, and records that no program wrote, are left out; their buckets
/// start full.
pub fn read(piece: &[u8]) -> impl Iterator<Item = (ClientKey, Saved)> {
    let records = match piece.split_first() {
        Some((&VERSION, records)) => records,
        _ => &[],
    };
    records.chunks_exact(RECORD_BYTES).filter_map(record)
}

/// How many records of a piece [`read`] leaves out; a piece of an unknown version counts as one.
pub fn unreadable(piece: &[u8]) -> usize {
    match piece.split_first() {
        Some((&VERSION, records)) => records.len().div_ceil(RECORD_BYTES) - read(piece).count(),
        _ => 1,
    }
}

fn record(bytes: &[u8]) -> Option<(ClientKey, Saved)> {
    let mut rest = bytes;
    let client = ClientKey::from_bytes(take(&mut rest)?)?;
    let id = BucketId(u64::from_be_bytes(take(&mut rest)?));
    let [flags] = take(&mut rest)?;
    let level_micro = i64::from_be_bytes(take(&mut rest)?);
    let capacity = u32::from_be_bytes(take(&mut rest)?);
    let rate =
        Rate { micro: u64::from_be_bytes(take(&mut rest)?), per_secs: u32::from_be_bytes(take(&mut rest)?) };
    let turn = u32::from_be_bytes(take(&mut rest)?);
    let reset = match flags >> 1 {
        0 => None,
        1 => Some(Reset::Hour),
        2 => Some(Reset::Day),
        3 => Some(Reset::Month),
        _ => return None,
    };
    let limit = Limit { capacity, rate };
    let most = i64::from(Limit::MAX_CAPACITY) * 1_000_000;
    let fits = limit.is_within_bounds() && (-most..=most).contains(&level_micro);
    let reset = reset.map(|reset| (reset, turn));
    fits.then_some((client, Saved { id, of_rule: flags & OF_RULE != 0, limit, level_micro, reset }))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use balancer_limiter::limit::MAX_PER_SECS;

    #[test]
    fn numbers_that_no_bucket_has_are_left_out() {
        let client = ClientKey::address([1, 2, 3, 4].into());
        let read_back = |capacity, micro, per_secs, level_micro| {
            let limit = Limit { capacity, rate: Rate { micro, per_secs } };
            let saved = Saved { id: BucketId(7), of_rule: false, limit, level_micro, reset: None };
            let mut piece = piece();
            push(&mut piece, client, &saved);
            (read(&piece).count(), unreadable(&piece))
        };
        // A billion tokens.
        let most = 1_000_000_000_000_000;
        let (readable, left_out) = ((1, 0), (0, 1));
        for (capacity, micro, per_secs, level, expected) in [
            (Limit::MAX_CAPACITY, Rate::MAX_MICRO, MAX_PER_SECS, most, readable),
            (0, 0, 1, -most, readable),
            (Limit::MAX_CAPACITY + 1, 0, 1, 0, left_out),
            (0, Rate::MAX_MICRO + 1, 1, 0, left_out),
            (0, 0, 0, 0, left_out),
            (0, 0, MAX_PER_SECS + 1, 0, left_out),
            (0, 0, 1, most + 1, left_out),
            (0, 0, 1, -most - 1, left_out),
        ] {
            let read = read_back(capacity, micro, per_secs, level);
            assert_eq!(read, expected, "{capacity} {micro} {per_secs} {level}");
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_is_read_again(
            address in any::<u32>(), id in any::<u64>(), of_rule in any::<bool>(), capacity in 0..=Limit::MAX_CAPACITY,
            micro in 0..=Rate::MAX_MICRO, per_secs in 1..=MAX_PER_SECS, level in -1_000_000_i64..1_000_000_000,
            reset in prop::option::of((prop_oneof![Just(Reset::Hour), Just(Reset::Day), Just(Reset::Month)], any::<u32>())),
        ) {
            let client = ClientKey::address(std::net::Ipv4Addr::from(address).into());
            let rate = Rate { micro, per_secs };
            let saved = Saved { id: BucketId(id), of_rule, limit: Limit { capacity, rate }, level_micro: level, reset };
            let mut piece = piece();
            push(&mut piece, client, &saved);
            push(&mut piece, client, &saved);
            prop_assert_eq!(piece.len(), 1 + 2 * RECORD_BYTES);
            prop_assert_eq!(read(&piece).collect::<Vec<_>>(), [(client, saved), (client, saved)]);
            let joined = joined(&[piece.clone(), super::piece(), piece]);
            prop_assert_eq!(read(&joined).collect::<Vec<_>>(), [(client, saved); 4]);
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for (_, saved) in read(&bytes) {
                prop_assert!(saved.limit.capacity <= Limit::MAX_CAPACITY);
            }
        }
    }
}
