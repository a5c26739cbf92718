//! The list of changes. Every write appends to it in its own transaction, and other instances go on reading where they stopped.

use std::time::Duration;

use super::super::session::{Access, Cell, Session, SqlValue, Store, inside};
use super::{STATEMENT_ROWS, left_out, number, tuples};
use crate::store::StoreError;

/// How many changes are kept for instances that follow. An instance that is further behind reads everything again.
pub const KEPT_CHANGES: i64 = 100_000;
/// Old changes are removed whenever a number passes a multiple of this, so that most writes have nothing to remove.
pub(super) const PRUNE_EVERY: i64 = 64;

/// What was changed: the values of the column `kind`.
pub(super) const LIMIT: &str = "limit";
pub(super) const RANGE: &str = "range";
pub(super) const PLAN: &str = "plan";
pub(super) const BACKEND: &str = "backend";
pub(super) const RESET: &str = "reset";
/// A batch that changed nothing in the end. It has a number, too.
pub(super) const BATCH: &str = "batch";

/// Appends changes and removes the oldest ones. Returns the numbers of the new ones, in their order. The writers' lock is held.
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
        // The rows may come in any order. Each id is in the list only once, so ids lead to their numbers.
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

/// The changes after a number, each as its id and its own number, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Limits that were changed.
    pub limits: Vec<(String, i64)>,
    /// Ranges that were changed.
    pub ranges: Vec<(String, i64)>,
    /// Clients whose buckets were filled.
    pub resets: Vec<(String, i64)>,
    /// Plans that were changed.
    pub plans: Vec<(String, i64)>,
    /// Backends that were changed.
    pub backends: Vec<(String, i64)>,
    /// The number of the last change that was read.
    pub last: i64,
    /// There are more changes to read.
    pub more: bool,
}

/// Most changes that are read at once.
const PAGE: usize = 2_000;

/// The changes after the number `seen`, at most [`PAGE`]. `None` when some of them may have been removed, or when the
/// database is not the one that gave that number.
pub fn changes(store: &dyn Store, within: Duration, seen: i64) -> Result<Option<Followed>, StoreError> {
    let (cells, last) = inside(store, within, Access::Read, |session| {
        let sql = format!("SELECT seq, kind, id FROM changes WHERE seq > $1 ORDER BY seq LIMIT {PAGE}");
        let cells = session.query(&sql, &[SqlValue::Int(Some(seen))])?;
        // Read after the rows, so that changes which were removed before the rows were read are noticed.
        Ok((cells, last_in(session)?))
    })?;
    // In these cases, changes after `seen` may have been removed.
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
            // Kinds of other versions, and batches without a change.
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
    use super::super::tests::{WITHIN, batch, empty};
    use super::*;

    /// Appends these changes in one write. Returns their numbers.
    fn append(store: &dyn Store, list: &[(&str, &str)]) -> Vec<i64> {
        inside(store, WITHIN, Access::Write, |session| record(session, list)).unwrap()
    }

    /// The number after which the next change comes.
    fn jump_to(number: i64) -> String {
        format!("UPDATE sqlite_sequence SET seq = {number} WHERE name = 'changes'")
    }

    #[test]
    fn changes_are_followed_by_kind_from_where_a_reader_was() {
        let store = empty();
        let after = |seen| changes(&store, WITHIN, seen).unwrap();
        assert_eq!(last_change(&store, WITHIN), Ok(0));
        assert_eq!(after(0), Some(Followed::default()));
        let list = [
            (LIMIT, "a"),
            (RANGE, "::/0"),
            (PLAN, "p"),
            (BACKEND, "b"),
            (RESET, "r"),
            (BATCH, ""),
            ("new", "x"),
        ];
        assert_eq!(append(&store, &list), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(last_change(&store, WITHIN), Ok(7));
        let one = |id: &str, seq| vec![(id.to_owned(), seq)];
        let all = Followed {
            limits: one("a", 1),
            ranges: one("::/0", 2),
            plans: one("p", 3),
            backends: one("b", 4),
            resets: one("r", 5),
            last: 7,
            more: false,
        };
        assert_eq!(after(0), Some(all));
        assert_eq!(after(4), Some(Followed { resets: one("r", 5), last: 7, ..Followed::default() }));
        assert_eq!(after(7), Some(Followed { last: 7, ..Followed::default() }));
        assert_eq!(after(8), None, "another database gave that number");
    }

    #[test]
    fn many_changes_come_page_by_page() {
        let store = empty();
        let ids: Vec<String> = (0..=PAGE).map(|number| number.to_string()).collect();
        append(&store, &ids.iter().map(|id| (LIMIT, id.as_str())).collect::<Vec<_>>());
        let seen = |from| {
            let followed = changes(&store, WITHIN, from).unwrap().unwrap();
            (followed.limits.len(), followed.last, followed.more)
        };
        let page = PAGE as i64;
        assert_eq!((seen(0), seen(page)), ((PAGE, page, true), (1, page + 1, false)));
    }

    #[test]
    fn who_is_further_behind_than_the_list_reaches_has_to_read_everything() {
        let store = empty();
        append(&store, &[(LIMIT, "a")]);
        batch(&store, &jump_to(KEPT_CHANGES));
        assert_eq!(append(&store, &[(LIMIT, "b")]), [100_001]);
        let found = |seen| changes(&store, WITHIN, seen).unwrap().map(|followed| followed.limits);
        assert_eq!((found(1), found(2)), (None, Some(vec![("b".into(), 100_001)])));
    }

    #[test]
    fn what_nobody_goes_on_from_is_removed() {
        let store = empty();
        let numbers = [1, 6_000_000, 6_350_000, 6_400_064];
        for number in numbers {
            batch(&store, &jump_to(number - 1));
            assert_eq!(append(&store, &[(LIMIT, "a")]), [number]);
        }
        let kept =
            inside(&store, WITHIN, Access::Read, |session| session.query("SELECT seq FROM changes", &[]));
        assert_eq!(kept.unwrap(), [[Cell::Int(6_350_000)], [Cell::Int(6_400_064)]]);
    }

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
