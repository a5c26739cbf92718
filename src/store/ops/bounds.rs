//! How many limits there may be of those that are held in memory, or loaded, together.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::super::session::{Cell, Session};
use super::spans::{IN_SPAN, Spans};
use super::{STATEMENT_ROWS, number, tuples};
use crate::store::StoreError;
use balancer_limiter::identity::{ClientId, IdForm, group};
use balancer_limiter::ranges;

/// Most ranges. Every instance holds all of them in memory.
const MAX_RANGES: i64 = ranges::MAX_RANGES as i64;
const _: () = assert!(MAX_RANGES == 100_000, "a message says so");
/// Most limits of one IPv4 address and its ports, or inside one IPv6 prefix. They are loaded together.
pub(super) const MAX_GROUP: i64 = 4_096;
const _: () = assert!(MAX_GROUP == 4_096, "a message says so");
/// Most rows that one statement of a load returns. A group may have more than [`MAX_GROUP`] limits if `ipv6_prefix` was
/// changed.
pub(super) const MAX_LOADED: i64 = 4 * MAX_GROUP;

/// Checks the bounds after the new ids were written, at the end of their transaction. The error, which undoes the
/// transaction, has the index of the first new id in the group that is too large.
pub(super) fn check(
    session: &mut dyn Session,
    new: &[&ClientId],
    ipv6_prefix: u8,
) -> Result<(), (usize, StoreError)> {
    if let Some(at) = new.iter().position(|id| matches!(id.form(), IdForm::Range(_))) {
        let cells = session.query("SELECT count(*) FROM limits WHERE kind = 3", &[]);
        if cells.as_ref().map(number).map_err(|fault| (at, fault.clone()))? > MAX_RANGES {
            return Err((at, StoreError::Full("there are 100000 ranges already, the most that are kept")));
        }
    }
    // The row of an IPv4 address itself is not counted as new: there is only one for each group.
    let crowded = |id: &&ClientId| match id.form() {
        IdForm::Address(address) => address.is_ipv6(),
        form => matches!(form, IdForm::AddressPort(_)),
    };
    let network = |id: &ClientId| id.address().map(|address| group(address, ipv6_prefix));
    let networks: BTreeSet<IpNet> = new.iter().copied().filter(crowded).filter_map(network).collect();
    let networks: Vec<IpNet> = networks.into_iter().collect();
    for part in networks.chunks(STATEMENT_ROWS) {
        let full = first_full(session, part).map_err(|fault| (0, fault))?;
        if let Some(full) = full {
            let at = new.iter().position(|id| network(id) == Some(full)).unwrap_or(0);
            return Err((
                at,
                StoreError::Full(
                    "there are 4096 limits for this address or IPv6 prefix already, the most that are kept",
                ),
            ));
        }
    }
    Ok(())
}

fn first_full(session: &mut dyn Session, networks: &[IpNet]) -> Result<Option<IpNet>, StoreError> {
    let sql = format!(
        "WITH v (number, low, high, length) AS (VALUES {}) SELECT v.number FROM v WHERE \
         (SELECT count(*) FROM limits WHERE {IN_SPAN}) > {MAX_GROUP} LIMIT 1",
        tuples(networks.len(), &["{}"; 4])
    );
    let cells = session.query(&sql, &Spans::of(networks).values())?;
    Ok(match cells.first().and_then(|row| row.first()) {
        Some(Cell::Int(number)) => usize::try_from(*number).ok().and_then(|at| networks.get(at)).copied(),
        _ => None,
    })
}
