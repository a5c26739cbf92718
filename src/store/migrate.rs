//! Brings a database to the schema that this program knows. Several instances may start at once, so each migration is
//! applied under a lock, in one transaction with the note that it was applied.

use std::time::Duration;

use super::session::{Access, Cell, Session, SqlValue, Store, inside};
use crate::store::{StoreError, StoreState};

/// How long migrations may take. Those of a large table take long, and only the thread that does them waits.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

/// Applies the migrations that are missing, then checks the schema. A database that lacks none is only read, which needs no
/// other right. `within` bounds everything except the migrations themselves.
pub fn migrate(store: &dyn Store, within: Duration) -> Result<(), StoreError> {
    let applied = inside(store, within, Access::Read, |session| last(session, store))?;
    if applied < known(store) {
        store.with(MIGRATION_TIMEOUT, Access::Migrate, &mut |session| apply(session, store))?;
    }
    check(store, within)
}

/// Checks whether the database answers and has the schema that this program knows.
pub fn check(store: &dyn Store, within: Duration) -> Result<(), StoreError> {
    store.with(within, Access::Read, &mut |session| {
        let applied = last(session, store)?;
        if applied < known(store) {
            return Err(StoreError::Schema(format!(
                "the {} database has lost its tables: migration {applied} of {} is its last",
                store.dialect().name,
                known(store)
            )));
        }
        let columns = session.query(store.dialect().columns, &[])?;
        let has = |name: &&str| {
            columns.iter().any(|row| matches!(row.first(), Some(Cell::Text(text)) if text == name))
        };
        match store.dialect().expected.iter().find(|name| !has(name)) {
            None => Ok(()),
            Some(name) => Err(StoreError::Schema(format!(
                "the {} database has a wrong schema: it lacks the column {name}",
                store.dialect().name
            ))),
        }
    })
}

fn known(store: &dyn Store) -> i64 {
    store.dialect().migrations.len() as i64
}

/// The number of the last migration that was applied, 0 for none. An error if it is one that this program does not know.
fn last(session: &mut dyn Session, store: &dyn Store) -> Result<i64, StoreError> {
    if session.query(store.dialect().find_migrations, &[])?.is_empty() {
        return Ok(0);
    }
    let rows = session.query("SELECT max(number) FROM balancer_migrations", &[])?;
    let last = match rows.first().and_then(|row| row.first()) {
        Some(Cell::Int(number)) => *number,
        _ => 0,
    };
    if last > known(store) {
        return Err(StoreError::Schema(format!(
            "the {} database is newer than this program: it is at migration {last}, this program knows {}; \
             start a newer balancer",
            store.dialect().name,
            known(store)
        )));
    }
    Ok(last)
}

/// Applies the migrations that are missing. The session holds the lock of migrations.
fn apply(session: &mut dyn Session, store: &dyn Store) -> Result<(), StoreError> {
    let dialect = store.dialect();
    // Another instance may have applied some while this one waited for the lock.
    let applied = last(session, store)?;
    let failed = |number: usize| {
        move |fault| match fault {
            StoreError::Schema(cause)
            | StoreError::Refused { state: StoreState::Up | StoreState::ReadOnly, cause } => {
                StoreError::Schema(format!(
                    "migration {number} can't be applied to the {} database: {cause}; \
                 give balancer a database of its own, and a user who may create tables in it",
                    dialect.name
                ))
            }
            other => other,
        }
    };
    if session.query(dialect.find_migrations, &[])?.is_empty() {
        session.batch(dialect.create_migrations).map_err(failed(1))?;
    }
    for (number, migration) in (1..).zip(dialect.migrations) {
        if i64::try_from(number).is_ok_and(|number| number > applied) {
            session.batch(migration).map_err(failed(number))?;
            let number = SqlValue::Int(i64::try_from(number).ok());
            session.query("INSERT INTO balancer_migrations (number) VALUES ($1)", &[number])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    const WITHIN: Duration = Duration::from_secs(10);

    fn batch(store: &Sqlite, access: Access, sql: &str) {
        store.with(WITHIN, access, &mut |session| session.batch(sql)).unwrap();
    }

    #[test]
    fn a_database_that_lost_its_notes_is_told_from_one_that_lacks_columns() {
        let store = Sqlite::in_memory(WITHIN);
        let lost = |last: i64| {
            let Err(StoreError::Schema(text)) = check(&store, WITHIN) else { panic!("it fits") };
            assert!(text.contains(&format!("has lost its tables: migration {last} of 7")), "{text}");
        };
        lost(0);
        migrate(&store, WITHIN).unwrap();
        check(&store, WITHIN).unwrap();
        batch(&store, Access::Write, "DELETE FROM balancer_migrations WHERE number = 7");
        lost(6);
    }

    #[test]
    fn a_database_that_lacks_nothing_is_only_read() {
        let store = Sqlite::in_memory(WITHIN);
        migrate(&store, WITHIN).unwrap();
        batch(&store, Access::Read, "PRAGMA query_only = ON");
        migrate(&store, WITHIN).unwrap();
        assert!(store.with(WITHIN, Access::Migrate, &mut |_| Ok(())).is_err(), "it takes no changes");
    }
}
