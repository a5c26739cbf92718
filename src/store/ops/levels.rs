//! Statements for levels of buckets, as each instance saved them last: numbered segments of bytes, whose content does not
//! matter here. Ages are measured on the database's clock, which all instances share.

use std::time::Duration;

use super::super::session::{Access, Cell, SqlValue, Store, inside};
use super::super::v1::SavedSegment;
use super::{first_text, left_out, readable, tuples};
use crate::store::StoreError;

/// Saves segments of an instance; each replaces the earlier one of its number.
pub fn save(
    store: &dyn Store,
    within: Duration,
    instance: &str,
    segments: &[(u8, Vec<u8>)],
) -> Result<(), StoreError> {
    if segments.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO instance_state (instance, segment, bytes) VALUES {} \
         ON CONFLICT (instance, segment) DO UPDATE SET bytes = excluded.bytes, saved_at_us = excluded.saved_at_us",
        tuples(segments.len(), &["{}"; 3])
    );
    let values: Vec<SqlValue<'_>> = segments
        .iter()
        .flat_map(|(number, bytes)| {
            [SqlValue::Text(instance), SqlValue::Int(Some((*number).into())), SqlValue::Bytes(Some(bytes))]
        })
        .collect();
    // `Access::Read` is enough: a single statement is a transaction by itself, and does no harm when it is done twice.
    store.with(within, Access::Read, &mut |session| session.query(&sql, &values).map(drop))
}

/// At most `count` segments of all instances, in order, beginning after `after`. Segments that can't be read are left out.
pub fn saved(
    store: &dyn Store,
    within: Duration,
    after: Option<(&str, u8)>,
    count: usize,
) -> Result<Vec<SavedSegment>, StoreError> {
    let page = |after: &(String, i64), count| {
        inside(store, within, Access::Read, |session| {
            let sql = format!(
                "SELECT instance, segment, bytes, {} - saved_at_us, saved_at_us FROM instance_state \
                 WHERE (instance, segment) > ($1, $2) ORDER BY instance, segment LIMIT $3",
                session.now_us()
            );
            session.query(
                &sql,
                &[SqlValue::Text(&after.0), SqlValue::Int(Some(after.1)), SqlValue::Int(Some(count))],
            )
        })
    };
    let place = |row: &[Cell]| match row {
        [Cell::Text(instance), Cell::Int(segment), ..] => Some((instance.clone(), *segment)),
        _ => None,
    };
    // No instance has an empty name.
    let after = after.map(|(instance, segment)| (instance.into(), segment.into())).unwrap_or_default();
    readable(count, after, page, place, row)
}

fn row(cells: Vec<Cell>) -> Option<SavedSegment> {
    let id = (first_text(&cells), cells.get(1).cloned());
    match <[Cell; 5]>::try_from(cells) {
        Ok(
            [
                Cell::Text(instance),
                Cell::Int(segment @ 0..=255),
                Cell::Bytes(bytes),
                Cell::Int(age_us),
                Cell::Int(saved_at_us),
            ],
        ) => {
            // When the clock was set back, the age is 0.
            let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
            Some(SavedSegment { instance, segment: segment as u8, bytes, age, saved_at_us })
        }
        _ => left_out("instance_state", id, "a column holds something else"),
    }
}

/// Clients whose buckets were filled since the oldest segment was saved, as the audit names them, and when that last
/// happened, in microseconds since 1970 on the database's clock.
pub fn resets(store: &dyn Store, within: Duration) -> Result<Vec<(String, i64)>, StoreError> {
    let rows = inside(store, within, Access::Read, |session| {
        let sql = "SELECT target, max(at_us) FROM audit WHERE action = 'reset' \
                   AND at_us >= (SELECT min(saved_at_us) FROM instance_state) GROUP BY target";
        session.query(sql, &[])
    })?;
    let named = |cells: Vec<Cell>| match <[Cell; 2]>::try_from(cells) {
        Ok([Cell::Text(target), Cell::Int(at_us)]) => {
            let target: serde_json::Value = serde_json::from_str(&target).ok()?;
            Some((target.get("client_id")?.as_str()?.to_owned(), at_us))
        }
        _ => None,
    };
    Ok(rows.into_iter().filter_map(named).collect())
}

/// Removes segments that were saved longer ago than that, whose instances are gone. A segment with a time in the future was
/// saved while the clock was ahead. It counts as saved now, because otherwise its age would be 0 at every start until that
/// time has come.
pub fn forget(store: &dyn Store, within: Duration, older_than: Duration) -> Result<(), StoreError> {
    let age_us = i64::try_from(older_than.as_micros()).ok();
    store.with(within, Access::Read, &mut |session| {
        let now = session.now_us();
        let sql = format!("UPDATE instance_state SET saved_at_us = {now} WHERE saved_at_us > {now}");
        session.query(&sql, &[])?;
        let sql = format!("DELETE FROM instance_state WHERE saved_at_us < {} - $1", session.now_us());
        session.query(&sql, &[SqlValue::Int(age_us)]).map(drop)
    })
}
