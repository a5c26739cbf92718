//! Imports many limits at once. They are copied into a table that only this transaction sees, and merged from there by a few
//! statements, however many rows there are.

use std::collections::HashMap;
use std::time::Duration;

use super::super::session::{Access, Session, SqlValue, Store};
use super::super::v1::{BatchError, Imported, LimitRow};
use super::audit::{self, By, Note};
use super::changes::{self, KEPT_CHANGES};
use super::write::Columns;
use super::{bounds, plans, read, texts};
use crate::store::StoreError;
use crate::store::json::text;
use balancer_limiter::document::LimitDocument;
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::ClientLimit;

/// The columns that are copied: those of a limit without its version. Truth values are 0 and 1.
const COPIED: &[&str] = &[
    "canonical",
    "client_id",
    "kind",
    "address",
    "port",
    "plan",
    "buckets",
    "max_in_flight",
    "exempt",
    "shared",
    "per_instance",
    "weight",
    "priority",
];

/// Rows that are stored just like that already need no write.
const DROP_UNCHANGED: &str = "DELETE FROM incoming WHERE EXISTS (SELECT 1 FROM limits l \
    WHERE l.canonical = incoming.canonical AND l.plan IS NOT DISTINCT FROM incoming.plan \
    AND l.buckets = incoming.buckets AND l.max_in_flight IS NOT DISTINCT FROM incoming.max_in_flight \
    AND l.exempt = (incoming.exempt <> 0) AND l.shared = (incoming.shared <> 0) \
    AND l.per_instance = (incoming.per_instance <> 0) AND l.weight IS NOT DISTINCT FROM incoming.weight \
    AND l.priority IS NOT DISTINCT FROM incoming.priority)";
const NEW: &str = "SELECT i.client_id FROM incoming i \
    WHERE NOT EXISTS (SELECT 1 FROM limits l WHERE l.canonical = i.canonical)";
const NUMBER: &str = "INSERT INTO changes (kind, id) \
    SELECT CASE kind WHEN 3 THEN 'range' ELSE 'limit' END, client_id FROM incoming ORDER BY canonical";
/// The writers' lock is held, so every number after the last one belongs to these rows. The `WHERE` also keeps SQLite from
/// reading `ON CONFLICT` as a part of the join.
const MERGE: &str = "INSERT INTO limits (canonical, client_id, kind, address, port, plan, buckets, max_in_flight, \
    exempt, shared, per_instance, weight, priority, version) \
    SELECT i.canonical, i.client_id, i.kind, i.address, i.port, i.plan, i.buckets, i.max_in_flight, \
    (i.exempt <> 0), (i.shared <> 0), (i.per_instance <> 0), i.weight, i.priority, c.seq \
    FROM changes c JOIN incoming i ON i.client_id = c.id \
    WHERE c.seq > $1 \
    ON CONFLICT (canonical) DO UPDATE SET plan = excluded.plan, buckets = excluded.buckets, \
    max_in_flight = excluded.max_in_flight, exempt = excluded.exempt, shared = excluded.shared, \
    per_instance = excluded.per_instance, weight = excluded.weight, priority = excluded.priority, \
    version = excluded.version";

/// Most limits of a chunk that the audit shows.
const SHOWN: i64 = 100;

/// Adds or replaces these limits, all or none. If several are for one id, the last counts.
pub fn import(
    store: &dyn Store,
    within: Duration,
    rows: &[(ClientId, ClientLimit)],
    ipv6_prefix: u8,
    by: By<'_>,
) -> Result<Imported, BatchError> {
    let (mut imported, mut failed_at) = (Imported::default(), None);
    let result = store.with(within, Access::Write, &mut |session| {
        failed_at = None;
        imported = transact(session, rows, ipv6_prefix, by).map_err(|failed| {
            failed_at = failed.index;
            failed.error
        })?;
        Ok(())
    });
    result.map_err(|error| BatchError { index: failed_at, error })?;
    Ok(imported)
}

fn transact(
    session: &mut dyn Session,
    rows: &[(ClientId, ClientLimit)],
    ipv6_prefix: u8,
    by: By<'_>,
) -> Result<Imported, BatchError> {
    check_plans(session, rows)?;
    let places: HashMap<&ClientId, usize> = rows.iter().map(|(id, _)| id).zip(0..).collect();
    let last_of = rows.iter().enumerate().filter(|(at, (id, _))| places.get(id) == Some(at));
    let mut staged: Vec<Columns> = last_of.map(|(_, (id, limit))| Columns::of(id, limit, 0)).collect();
    // Sorted, so that rows which are close together in the index are looked up one after the other.
    staged.sort_unstable_by(|one, other| one.canonical.cmp(&other.canonical));
    session.batch(session.stage())?;
    let values: Vec<SqlValue<'_>> =
        staged.iter().flat_map(|row| row.values().into_iter().take(COPIED.len())).collect();
    session.copy("incoming", COPIED, &values)?;
    session.query(DROP_UNCHANGED, &[])?;
    let new: Vec<ClientId> =
        texts(session.query(NEW, &[])?).filter_map(|text| ClientId::parse(&text).ok()).collect();
    let changed = super::number(&session.query("SELECT count(*) FROM incoming", &[])?).unsigned_abs();
    if changed > 0 {
        let shown = shown(session)?;
        let before = read::of_canonicals(session, &shown)?;
        let seqs = merge(session)?;
        let ids: Vec<&ClientId> = new.iter().collect();
        let index = |at: usize| new.get(at).and_then(|id| places.get(id)).copied().unwrap_or(0);
        bounds::check(session, &ids, ipv6_prefix).map_err(|(at, fault)| (index(at), fault))?;
        let after = read::of_canonicals(session, &shown)?;
        let note = Note {
            seqs,
            actor: by.actor,
            action: "batch",
            target: audit::target("operations", changed),
            before: as_text(&before),
            after: as_text(&after),
        };
        audit::finish(session, &note, by)?;
    }
    session.batch("DROP TABLE incoming")?;
    let created = new.len() as u64;
    let unchanged = (staged.len() as u64).saturating_sub(changed);
    Ok(Imported { created, replaced: changed.saturating_sub(created), unchanged })
}

fn check_plans(session: &mut dyn Session, rows: &[(ClientId, ClientLimit)]) -> Result<(), BatchError> {
    let plan = |limit: &ClientLimit| limit.plan.as_ref().map(|plan| plan.as_str().to_owned());
    let mut names: Vec<String> = rows.iter().filter_map(|(_, limit)| plan(limit)).collect();
    names.sort_unstable();
    names.dedup();
    let known = plans::known(session, &names)?;
    let unknown = rows.iter().position(|(_, limit)| plan(limit).is_some_and(|name| !known.contains(&name)));
    match unknown {
        Some(index) => Err((index, StoreError::NoPlan).into()),
        None => Ok(()),
    }
}

fn shown(session: &mut dyn Session) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT canonical FROM incoming ORDER BY canonical LIMIT $1";
    Ok(texts(session.query(sql, &[SqlValue::Int(Some(SHOWN))])?).collect())
}

/// Gives each row a number and writes all rows. Returns the first and the last number.
fn merge(session: &mut dyn Session) -> Result<(i64, i64), StoreError> {
    let before = changes::last_in(session)?;
    session.query(NUMBER, &[])?;
    session.query(MERGE, &[SqlValue::Int(Some(before))])?;
    let last = changes::last_in(session)?;
    session.query("DELETE FROM changes WHERE seq <= $1", &[SqlValue::Int(Some(last - KEPT_CHANGES))])?;
    Ok((before + 1, last))
}

fn as_text(rows: &[LimitRow]) -> String {
    text(&rows.iter().map(|row| LimitDocument::new(&row.client_id, &row.limit)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::tests::{WITHIN, batch, empty};
    use super::*;
    use crate::store::ops::Keep;
    use crate::store::session::inside;
    use crate::store::v1::Actor;
    use balancer_limiter::limit::{Limit, Rate};

    #[test]
    fn an_import_notes_its_numbers_and_keeps_the_list_of_changes_bounded() {
        let store = empty();
        let before = "(1, 'limit', 'x'), (6000000, 'limit', 'x'), (6400000, 'limit', 'x')";
        batch(&store, &format!("INSERT INTO changes (seq, kind, id) VALUES {before}"));
        let limit = ClientLimit::of_numbers(Limit { capacity: 1, rate: Rate::per_second(1) });
        let rows = ["a", "b", "c"].map(|id| (ClientId::parse(id).unwrap(), limit.clone()));
        let (actor, noted) = (Actor("tester".into()), Cell::new(None));
        let by =
            By { actor: &actor, keep: Keep { age: WITHIN, rows: 10 }, note: &|seqs| noted.set(Some(seqs)) };
        assert_eq!(import(&store, WITHIN, &rows, 64, by).unwrap().created, 3);
        assert_eq!(noted.get(), Some((6_400_001, 6_400_003)));
        let kept = inside(&store, WITHIN, Access::Read, |session| {
            Ok(texts(session.query("SELECT CAST(seq AS TEXT) FROM changes ORDER BY seq", &[])?)
                .collect::<Vec<_>>())
        });
        assert_eq!(kept.unwrap(), ["6400000", "6400001", "6400002", "6400003"]);
    }
}
