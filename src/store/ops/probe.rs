//! Whether the database takes changes.

use std::time::Duration;

use super::super::session::{Access, SqlValue, Store, inside};
use crate::store::StoreError;

/// About as much as a change of several limits with its notes needs.
const BYTES: usize = 16 * 1024;

/// Whether it says itself that it takes none. False where only a change tells.
pub fn read_only(store: &dyn Store, within: Duration) -> Result<bool, StoreError> {
    let Some(sql) = store.dialect().read_only else { return Ok(false) };
    inside(store, within, Access::Read, |session| Ok(!session.query(sql, &[])?.is_empty()))
}

/// A change that leaves nothing behind: a piece of levels of an instance that is none comes and goes in one transaction.
pub fn try_change(store: &dyn Store, within: Duration) -> Result<(), StoreError> {
    // What can't be compressed takes its room.
    let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(BYTES).collect();
    store.with(within, Access::Write, &mut |session| {
        let nobody = SqlValue::Text("probe");
        let values = [nobody, SqlValue::Bytes(Some(&bytes))];
        session.query("INSERT INTO instance_state (instance, segment, bytes) VALUES ($1, 0, $2)", &values)?;
        session.query("DELETE FROM instance_state WHERE instance = $1", &[nobody]).map(drop)
    })
}
