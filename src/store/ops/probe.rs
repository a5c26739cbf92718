//! Whether the database takes changes.

use std::time::Duration;

use super::super::session::{Access, SqlValue, Store, inside};
use crate::store::StoreError;

/// How many bytes the trial writes: about as much as a change of several limits.
const BYTES: usize = 16 * 1024;

/// Whether the database says that it takes no changes. False where only a write can tell.
pub fn read_only(store: &dyn Store, within: Duration) -> Result<bool, StoreError> {
    let Some(sql) = store.dialect().read_only else { return Ok(false) };
    inside(store, within, Access::Read, |session| Ok(!session.query(sql, &[])?.is_empty()))
}

/// Tries a change that leaves nothing behind: it writes levels of an instance that does not exist, and removes them in the same
/// transaction.
pub fn try_change(store: &dyn Store, within: Duration) -> Result<(), StoreError> {
    // Random bytes can't be compressed, so they need their full size on the disk.
    let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(BYTES).collect();
    store.with(within, Access::Write, &mut |session| {
        let nobody = SqlValue::Text("probe");
        let values = [nobody, SqlValue::Bytes(Some(&bytes))];
        session.query("INSERT INTO instance_state (instance, segment, bytes) VALUES ($1, 0, $2)", &values)?;
        session.query("DELETE FROM instance_state WHERE instance = $1", &[nobody]).map(drop)
    })
}
