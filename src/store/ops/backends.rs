//! Statements for backends.

use std::time::Duration;

use super::super::backends::{BackendRow, BackendSettings, MAX_ROWS};
use super::super::json::text;
use super::super::session::{Access, Cell, Cells, Session, SqlValue, Store, inside};
use super::audit::{self, By};
use super::{changes, first_text, left_out, number};
use crate::store::StoreError;

const COLUMNS: &str = "name, settings, version";

/// Decides, inside the transaction, what a row is changed to: its new settings, or `None` to remove it.
pub type Judge<'a> = dyn FnMut(Option<&BackendRow>) -> Result<Option<BackendSettings>, StoreError> + 'a;

/// All backends, in byte order of their names.
pub fn list(store: &dyn Store, within: Duration) -> Result<Vec<BackendRow>, StoreError> {
    inside(store, within, Access::Read, |session| {
        Ok(rows(session.query(&format!("SELECT {COLUMNS} FROM backends ORDER BY name"), &[])?))
    })
}

/// Changes a backend as `judge` says, with a row in the audit. Returns the new row; `None` when it was removed.
pub fn change(
    store: &dyn Store,
    within: Duration,
    name: &str,
    judge: &mut Judge<'_>,
    by: By<'_>,
) -> Result<Option<BackendRow>, StoreError> {
    let mut changed = None;
    store.with(within, Access::Write, &mut |session| {
        let before = find(session, name)?;
        let after = judge(before.as_ref())?;
        if before.is_none()
            && after.is_some()
            && number(&session.query("SELECT count(*) FROM backends", &[])?) >= MAX_ROWS as i64
        {
            return Err(StoreError::Full("there are 1024 backends already, the most that are kept"));
        }
        let seq = changes::record(session, &[(changes::BACKEND, name)])?[0];
        match &after {
            Some(settings) => session.query(
                "INSERT INTO backends (name, settings, version) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE \
                 SET settings = excluded.settings, version = excluded.version",
                &[SqlValue::Text(name), SqlValue::Text(&text(settings)), SqlValue::Int(Some(seq))],
            )?,
            None => session.query("DELETE FROM backends WHERE name = $1", &[SqlValue::Text(name)])?,
        };
        let note = audit::of_backend(name, before.as_ref().map(|row| &row.settings), after.as_ref(), seq, by.actor);
        audit::finish(session, &note, by)?;
        changed = after.map(|settings| BackendRow { name: name.to_owned(), settings, version: seq });
        Ok(())
    })?;
    Ok(changed)
}

fn find(session: &mut dyn Session, name: &str) -> Result<Option<BackendRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM backends WHERE name = $1");
    Ok(rows(session.query(&sql, &[SqlValue::Text(name)])?).pop())
}

fn rows(cells: Cells) -> Vec<BackendRow> {
    cells.into_iter().filter_map(row).collect()
}

/// A row; `None`, and logged, when it can't be read.
fn row(cells: Vec<Cell>) -> Option<BackendRow> {
    let id = first_text(&cells);
    let Ok([Cell::Text(name), Cell::Text(settings), Cell::Int(version)]) = <[Cell; 3]>::try_from(cells)
    else {
        return left_out("backends", id, "a column holds something else");
    };
    match serde_json::from_str(&settings) {
        Ok(settings) => Some(BackendRow { name, settings, version }),
        Err(fault) => left_out("backends", name, &fault.to_string()),
    }
}
