//! The list of changes: what every mutation appends in its own transaction, and what other instances read on from where
//! they were.

use std::time::Duration;

use super::super::session::{Access, Cell, Session, SqlValue, Store, inside};
use super::{STATEMENT_ROWS, left_out, number, tuples};
use crate::store::StoreError;

/// Changes that are kept for instances that follow. Whoever is further behind reads everything anew.
pub const KEPT_CHANGES: i64 = 100_000;
/// Old changes go when a number comes past a multiple of this, so that most writes have nothing to prune.
pub(super) const PRUNE_EVERY: i64 = 64;

/// What a change is of, as the column `kind` holds it.
pub(super) const LIMIT: &str = "limit";
pub(super) const RANGE: &str = "range";
pub(super) const PLAN: &str = "plan";
pub(super) const BACKEND: &str = "backend";
pub(super) const RESET: &str = "reset";
/// A batch that changed nothing in the end: it has a number all the same.
pub(super) const BATCH: &str = "batch";

/// Appends changes and prunes the oldest; gives their numbers, in order. The writers' lock is held.
pub(super) fn record(session: &mut dyn Session, changes: &[(&str, &str)]) -> Result<Vec<i64>, StoreError> {
    let mut numbers = Vec::with_capacity(changes.len());
    for part in changes.chunks(STATEMENT_ROWS) {
        let sql = format!(
            "INSERT INTO changes (kind, id) VALUES {} RETURNING seq, id",
            tuples(part.len(), &["{}"; 2])
        );
        let values: Vec<_> =
            part.iter().flat_map(|(kind, id)| [SqlValue::Text(kind), SqlValue::Text(id)]).collect();
        let cells = session.query(&sql, &values)?;
        // No database promises an order here; each id stands once in the list.
        let mut given: Vec<(String, i64)> = cells
            .into_iter()
            .filter_map(|row| match <[Cell; 2]>::try_from(row) {
                Ok([Cell::Int(seq), Cell::Text(id)]) => Some((id, seq)),
                _ => None,
            })
            .collect();
        given.sort_unstable();
        for (_, id) in part {
            let at = given.binary_search_by(|(other, _)| other.as_str().cmp(id));
            let seq = at.map_err(|_| StoreError::Schema("a change got no number".into()))?;
            numbers.push(given[seq].1);
        }
    }
    if let (Some(first), Some(last)) = (numbers.iter().min(), numbers.iter().max())
        && passes(*first, *last)
    {
        session.query("DELETE FROM changes WHERE seq <= $1", &[SqlValue::Int(Some(last - KEPT_CHANGES))])?;
    }
    Ok(numbers)
}

/// Whether a multiple of [`PRUNE_EVERY`] lies between two numbers, both included.
pub(super) fn passes(first: i64, last: i64) -> bool {
    (first - 1).div_euclid(PRUNE_EVERY) != last.div_euclid(PRUNE_EVERY)
}

/// What changed behind a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Limits: their ids with the change's number, oldest first.
    pub limits: Vec<(String, i64)>,
    /// Ranges, likewise.
    pub ranges: Vec<(String, i64)>,
    /// Clients whose levels were filled.
    pub resets: Vec<(String, i64)>,
    /// Plans, likewise.
    pub plans: Vec<(String, i64)>,
    /// Backends, likewise.
    pub backends: Vec<(String, i64)>,
    /// The number of the last change that was read.
    pub last: i64,
    /// More are to be read.
    pub more: bool,
}

/// Most changes that are read at once.
const PAGE: usize = 2_000;

/// The changes behind `seen`; `None` when some may have been pruned, or when the database is not the one in which that
/// number was given.
pub fn changes(store: &dyn Store, within: Duration, seen: i64) -> Result<Option<Followed>, StoreError> {
    let (cells, last) = inside(store, within, Access::Read, |session| {
        let sql = format!("SELECT seq, kind, id FROM changes WHERE seq > $1 ORDER BY seq LIMIT {PAGE}");
        let cells = session.query(&sql, &[SqlValue::Int(Some(seen))])?;
        // After the rows: what was pruned before they were read is then seen to be missing.
        Ok((cells, last_in(session)?))
    })?;
    // Beyond that, a change behind `seen` may have come and been pruned.
    if last < seen || last.saturating_sub(seen) >= KEPT_CHANGES {
        return Ok(None);
    }
    let mut followed = Followed { last: seen, more: cells.len() == PAGE, ..Followed::default() };
    for row in cells {
        let at = row.first().cloned();
        if let Some(Cell::Int(seq)) = at {
            followed.last = seq;
        }
        let Ok([Cell::Int(seq), Cell::Text(kind), Cell::Text(id)]) = <[Cell; 3]>::try_from(row) else {
            left_out::<()>("changes", at, "a column holds something else");
            continue;
        };
        match kind.as_str() {
            LIMIT => followed.limits.push((id, seq)),
            RANGE => followed.ranges.push((id, seq)),
            PLAN => followed.plans.push((id, seq)),
            BACKEND => followed.backends.push((id, seq)),
            RESET => followed.resets.push((id, seq)),
            // Of no concern to this program.
            _ => {}
        }
    }
    Ok(Some(followed))
}

/// The number of the last change.
pub fn last_change(store: &dyn Store, within: Duration) -> Result<i64, StoreError> {
    inside(store, within, Access::Read, last_in)
}

pub(super) fn last_in(session: &mut dyn Session) -> Result<i64, StoreError> {
    Ok(number(&session.query("SELECT max(seq) FROM changes", &[])?))
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn pruning_comes_once_in_so_many_numbers_however_many_are_taken_at_once() {
        for (first, last, due) in [
            (1, 1, false),
            (63, 63, false),
            (64, 64, true),
            (65, 127, false),
            (60, 70, true),
            (65, 128, true),
        ] {
            assert_eq!(passes(first, last), due, "{first} {last}");
        }
    }
}
