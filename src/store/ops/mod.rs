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
    #[test]
    fn parameters_are_numbered_in_the_order_in_which_they_stand() {
        assert_eq!(super::tuples(2, &["{}", "({} <> 0)"]), "($1, ($2 <> 0)), ($3, ($4 <> 0))");
        assert_eq!(super::list_of(3), "$1, $2, $3");
    }
}
