//! The statements, which are the same for both databases. Every value is a bound parameter.

mod audit;
mod backends;
mod bounds;
mod changes;
mod import;
mod levels;
mod merge;
mod plans;
mod probe;
mod read;
mod spans;
mod write;

use super::session::{Cell, Cells, Session, SqlValue};
use crate::store::StoreError;

pub use audit::{By, Keep, audit, note_reset};
pub use backends::{Judge, change as change_backend, list as backends};
pub use changes::{Followed, changes, last_change};
pub use import::import;
pub use levels::{forget as forget_levels, resets, save as save_levels, saved as saved_levels};
pub use merge::{Change, Done, To};
pub use plans::{
    all as all_plans, list as plans, numbers, one as plan, put as put_plan, remove as remove_plan,
};
pub use probe::{read_only, try_change};
pub use read::{get, list, load, load_all, named, ranges, total};
pub use write::{WriteTerms, Written, write};

/// Most rows that one statement writes or asks for. With up to 14 values for each row, that is far below the 32,766 values
/// that SQLite can bind.
const STATEMENT_ROWS: usize = 500;

/// Rows of parameters such as `($1, $2), ($3, $4)`, numbered in order. `shape` has a text for each parameter of a row, in
/// which `{}` is replaced by the parameter.
fn tuples(rows: usize, shape: &[&str]) -> String {
    let mut text = String::with_capacity(rows * shape.len() * 8);
    let mut number = 0;
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for (at, form) in shape.iter().enumerate() {
            number += 1;
            if at > 0 {
                text.push_str(", ");
            }
            text.push_str(&form.replace("{}", &format!("${number}")));
        }
        text.push(')');
    }
    text
}

/// That many parameters: `$1, $2, $3`.
fn list_of(count: usize) -> String {
    let numbers: Vec<String> = (1..=count).map(|number| format!("${number}")).collect();
    numbers.join(", ")
}

/// At most `count` rows that can be read. `page` returns at most so many rows after a place, in order; `place` tells the
/// place of a row; `read` reads a row, or logs that it can't be read. Such rows are left out, and more rows are asked for
/// instead, because a page with too few rows would look like the last one.
fn readable<P, T>(
    count: usize,
    mut after: P,
    mut page: impl FnMut(&P, i64) -> Result<Cells, StoreError>,
    place: impl Fn(&[Cell]) -> Option<P>,
    mut read: impl FnMut(Vec<Cell>) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    loop {
        let wanted = count - found.len();
        let rows = page(&after, i64::try_from(wanted).unwrap_or(i64::MAX))?;
        let is_last = rows.len() < wanted;
        let Some(next) = rows.iter().rev().find_map(|row| place(row)) else { return Ok(found) };
        after = next;
        found.extend(rows.into_iter().filter_map(&mut read));
        if is_last || found.len() >= count {
            return Ok(found);
        }
    }
}

/// The text in the first column of a row, which is its id.
fn first_text(row: &[Cell]) -> Option<String> {
    match row.first() {
        Some(Cell::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Logs that a row can't be read and is left out.
fn left_out<T>(table: &str, id: impl std::fmt::Debug, why: &str) -> Option<T> {
    log::error!("store: the row {id:?} of the table {table} can't be read and is left out: {why}");
    None
}

/// The one number that a statement returns; 0 for none.
fn number(cells: &Cells) -> i64 {
    match cells.first().and_then(|row| row.first()) {
        Some(Cell::Int(number)) => *number,
        _ => 0,
    }
}

/// The first column of every row.
fn texts(cells: Cells) -> impl Iterator<Item = String> {
    cells.into_iter().filter_map(|row| match row.into_iter().next() {
        Some(Cell::Text(text)) => Some(text),
        _ => None,
    })
}

/// Tells the other instances the number of the last change, when this transaction is committed.
fn announce(session: &mut dyn Session, seq: i64) -> Result<(), StoreError> {
    let sql = session.announce();
    if !sql.is_empty() {
        session.query(sql, &[SqlValue::Text(&seq.to_string())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;
    use crate::store::migrate::migrate;
    use crate::store::session::{Access, Store};
    use crate::store::sqlite::Sqlite;
    use crate::store::v1::Actor;
    use balancer_limiter::identity::ClientId;
    use balancer_limiter::limit::{Limit, Rate};
    use balancer_limiter::terms::ClientLimit;

    pub const WITHIN: Duration = Duration::from_secs(10);

    /// A database in memory that holds nothing.
    pub fn empty() -> Sqlite {
        let store = Sqlite::in_memory(WITHIN);
        migrate(&store, WITHIN).unwrap();
        store
    }

    /// Runs statements.
    pub fn batch(store: &Sqlite, sql: &str) {
        store.with(WITHIN, Access::Write, &mut |session| session.batch(sql)).unwrap();
    }

    /// Stores limits with these ids, all with the same numbers. Each IPv6 address is a group of its own.
    pub fn add(store: &Sqlite, ids: &[impl AsRef<str>]) {
        let limit = ClientLimit::of_numbers(Limit { capacity: 10, rate: Rate::per_second(1) });
        let rows: Vec<_> =
            ids.iter().map(|id| (ClientId::parse(id.as_ref()).unwrap(), limit.clone())).collect();
        let actor = Actor("tester".into());
        let by = By { actor: &actor, keep: Keep { age: WITHIN, rows: 10 }, note: &|_| () };
        import(store, WITHIN, &rows, 128, by).unwrap();
    }

    #[test]
    fn a_page_is_filled_up_where_rows_can_not_be_read() {
        // How many rows there are, which of them can't be read, how many are wanted; which come, and how many were asked for.
        let table = [
            (0, &[][..], 2, &[][..], &[2][..]),
            (5, &[], 2, &[1, 2], &[2]),
            (5, &[], 5, &[1, 2, 3, 4, 5], &[5]),
            // A page with too few rows is the last one.
            (1, &[], 2, &[1], &[2]),
            (5, &[1], 2, &[2, 3], &[2, 1]),
            (5, &[1, 2], 2, &[3, 4], &[2, 2]),
            (3, &[1, 2, 3], 2, &[], &[2, 2]),
        ];
        for (there, unreadable, count, found, asked) in table {
            let asks = RefCell::new(Vec::new());
            let page = |after: &i64, count: i64| {
                asks.borrow_mut().push(count);
                Ok((after + 1..=there).take(count as usize).map(|number| vec![Cell::Int(number)]).collect())
            };
            let int = |row: &[Cell]| match row {
                [Cell::Int(number)] => Some(*number),
                _ => None,
            };
            let read = |row: Vec<Cell>| int(&row).filter(|number| !unreadable.contains(number));
            assert_eq!(readable(count, 0, page, int, read).unwrap(), found, "{there} {unreadable:?} {count}");
            assert_eq!(*asks.borrow(), asked, "{there} {unreadable:?} {count}");
        }
    }

    #[test]
    fn parameters_are_numbered_in_the_order_in_which_they_stand() {
        assert_eq!(super::tuples(2, &["{}", "({} <> 0)"]), "($1, ($2 <> 0)), ($3, ($4 <> 0))");
        assert_eq!(super::list_of(3), "$1, $2, $3");
    }
}
