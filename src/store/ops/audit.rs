//! The audit: who changed what. A row is written in the transaction of its change; rows are bounded by age and number.

use std::time::Duration;

use serde::Serialize;
use serde::de::IgnoredAny;
use serde::ser::SerializeMap;

use super::super::backends::BackendSettings;
use super::super::json::text;
use super::super::session::{Access, Cell, Session, SqlValue, Store, inside};
use super::super::v1::{Actor, AuditRow, LimitRow};
use super::changes::{self, passes};
use super::merge::Done;
use super::{announce, left_out, read, readable};
use crate::store::StoreError;
use balancer_limiter::document::{LimitDocument, PlanDocument};
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::Plan;
use balancer_pool::backends::Operator;

/// How much of the audit is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// `audit.keep`.
    pub age: Duration,
    /// `audit.max_rows`.
    pub rows: u64,
}

/// Who writes, and what else every write needs.
#[derive(Clone, Copy)]
pub struct By<'a> {
    /// Who writes, for the audit.
    pub actor: &'a Actor,
    /// How much of the audit is kept.
    pub keep: Keep,
    /// Called before the commit with the first and the last number of the changes.
    pub note: &'a dyn Fn((i64, i64)),
}

/// Most limits of a batch that its row shows.
const SHOWN_OF_BATCH: usize = 100;

/// A row of the audit that is to be written.
pub(super) struct Note<'a> {
    pub seqs: (i64, i64),
    pub actor: &'a Actor,
    pub action: &'static str,
    pub target: String,
    pub before: String,
    pub after: String,
}

/// A target as JSON text: `{"key":value}`.
pub(super) fn target(key: &'static str, value: impl Serialize) -> String {
    struct One<V>(&'static str, V);
    impl<V: Serialize> Serialize for One<V> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(self.0, &self.1)?;
            map.end()
        }
    }
    text(&One(key, value))
}

/// The row for a write of one limit.
pub(super) fn of_limit<'a>(one: &Done, actor: &'a Actor) -> Note<'a> {
    let action = action(one.before.is_some(), one.after.is_some());
    Note {
        seqs: (one.version, one.version),
        actor,
        action,
        target: target("client_id", one.id.text()),
        before: text(&before(one)),
        after: text(&after(one)),
    }
}

/// The row for a batch: how many operations it had, and the first limits that it changed.
pub(super) fn of_batch<'a>(done: &[Done], wishes: usize, seqs: (i64, i64), actor: &'a Actor) -> Note<'a> {
    let shown = &done[..done.len().min(SHOWN_OF_BATCH)];
    Note {
        seqs,
        actor,
        action: "batch",
        target: target("operations", wishes),
        before: text(&shown.iter().map(before).collect::<Vec<_>>()),
        after: text(&shown.iter().map(after).collect::<Vec<_>>()),
    }
}

fn before(one: &Done) -> Option<LimitDocument<'_>> {
    let readable = one.before.as_ref().filter(|row| !row.limit.is_unreadable());
    readable.map(|row| LimitDocument::new(&row.client_id, &row.limit))
}

fn after(one: &Done) -> Option<LimitDocument<'_>> {
    one.after.as_ref().map(|limit| LimitDocument::new(one.id.text(), limit))
}

/// The row for a write of a plan.
pub(super) fn of_plan<'a>(
    before: Option<&Plan>,
    after: Option<&Plan>,
    seq: i64,
    actor: &'a Actor,
) -> Note<'a> {
    let action = action(before.is_some(), after.is_some());
    let name = after.or(before).map(|plan| plan.name.as_str());
    Note {
        seqs: (seq, seq),
        actor,
        action,
        target: target("plan", name),
        before: text(&before.map(PlanDocument::new)),
        after: text(&after.map(PlanDocument::new)),
    }
}

/// The word for what was done: `before` and `after` say whether there was a row before, and is one now.
fn action(before: bool, after: bool) -> &'static str {
    match (before, after) {
        (false, _) => "create",
        (true, true) => "put",
        (true, false) => "delete",
    }
}

/// The end of every change: writes its row in the audit, and tells other instances of it.
pub(super) fn finish(session: &mut dyn Session, note: &Note<'_>, by: By<'_>) -> Result<(), StoreError> {
    write(session, note, by.keep)?;
    announce(session, note.seqs.1)?;
    (by.note)(note.seqs);
    Ok(())
}

/// The row for a change of a backend.
pub(super) fn of_backend<'a>(
    name: &str,
    before: Option<&BackendSettings>,
    after: Option<&BackendSettings>,
    seq: i64,
    actor: &'a Actor,
) -> Note<'a> {
    let action = turned(before, after)
        .unwrap_or_else(|| action(before.is_some() || !is_whole(after), after.is_some()));
    let target = match name.split_once('/') {
        Some((pool, name)) => serde_json::json!({ "pool": pool, "backend": name }).to_string(),
        None => target("backend", name),
    };
    Note { seqs: (seq, seq), actor, action, target, before: text(&before), after: text(&after) }
}

/// Whether these are the settings of a stored backend, and not changes to one of the configuration file.
fn is_whole(settings: Option<&BackendSettings>) -> bool {
    settings.is_some_and(|settings| settings.url.is_some())
}

/// The word for a change of state; `None` when the state stays the same, or the backend is new.
fn turned(before: Option<&BackendSettings>, after: Option<&BackendSettings>) -> Option<&'static str> {
    let after = after?;
    if before.is_none() && after.url.is_some() {
        return None;
    }
    let state = |settings: &BackendSettings| settings.state.unwrap_or(Operator::Up);
    match (before.map_or(Operator::Up, state), state(after)) {
        (Operator::Drain, Operator::Up) => Some("undrain"),
        (Operator::Down, Operator::Up) => Some("up"),
        (Operator::Up | Operator::Down, Operator::Drain) => Some("drain"),
        (Operator::Up | Operator::Drain, Operator::Down) => Some("down"),
        (Operator::Up, Operator::Up)
        | (Operator::Drain, Operator::Drain)
        | (Operator::Down, Operator::Down) => None,
    }
}

/// Writes a row. Once in a while, also removes rows that are too old or too many. The writers' lock is held.
fn write(session: &mut dyn Session, note: &Note<'_>, keep: Keep) -> Result<(), StoreError> {
    let (first, seq) = note.seqs;
    session.query(
        "INSERT INTO audit (seq, actor, action, target, before, after) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            SqlValue::Int(Some(seq)),
            SqlValue::Text(&note.actor.0),
            SqlValue::Text(note.action),
            SqlValue::Text(&note.target),
            SqlValue::Text(&note.before),
            SqlValue::Text(&note.after),
        ],
    )?;
    if passes(first, seq) {
        let age_us = i64::try_from(keep.age.as_micros()).ok();
        session.query(
            "DELETE FROM audit WHERE at_us < (SELECT at_us FROM audit WHERE seq = $1) - $2",
            &[SqlValue::Int(Some(seq)), SqlValue::Int(age_us)],
        )?;
        let rows = i64::try_from(keep.rows).ok();
        session.query(
            "DELETE FROM audit WHERE seq <= (SELECT seq FROM audit ORDER BY seq DESC LIMIT 1 OFFSET $1)",
            &[SqlValue::Int(rows)],
        )?;
    }
    Ok(())
}

/// Notes that a client's buckets were filled. Returns its limit.
pub fn note_reset(
    store: &dyn Store,
    within: Duration,
    id: &ClientId,
    by: By<'_>,
) -> Result<LimitRow, StoreError> {
    inside(store, within, Access::Write, |session| {
        let mut rows = read::of_canonicals(session, &[id.canonical().into_owned()])?;
        let row = rows.pop().filter(|row| !row.limit.is_unreadable()).ok_or(StoreError::NotFound)?;
        let seq = changes::record(session, &[(changes::RESET, &row.client_id)])?[0];
        let shown = text(&LimitDocument::new(&row.client_id, &row.limit));
        let note = Note {
            seqs: (seq, seq),
            actor: by.actor,
            action: "reset",
            target: target("client_id", &row.client_id),
            before: shown.clone(),
            after: shown,
        };
        finish(session, &note, by)?;
        Ok(row)
    })
}

/// At most `count` rows with numbers below `before`, newest first. Rows that can't be read are left out.
pub fn audit(
    store: &dyn Store,
    within: Duration,
    before: Option<i64>,
    count: usize,
) -> Result<Vec<AuditRow>, StoreError> {
    let page = |before: &i64, count| {
        inside(store, within, Access::Read, |session| {
            session.query(
                "SELECT seq, at_us, actor, action, target, before, after FROM audit WHERE seq < $1 \
                 ORDER BY seq DESC LIMIT $2",
                &[SqlValue::Int(Some(*before)), SqlValue::Int(Some(count))],
            )
        })
    };
    let place = |row: &[Cell]| match row.first() {
        Some(Cell::Int(seq)) => Some(*seq),
        _ => None,
    };
    readable(count, before.unwrap_or(i64::MAX), page, place, row)
}

fn row(cells: Vec<Cell>) -> Option<AuditRow> {
    let seq = cells.first().cloned();
    let Ok(
        [
            Cell::Int(seq),
            Cell::Int(at_us),
            Cell::Text(actor),
            Cell::Text(action),
            Cell::Text(target),
            Cell::Text(before),
            Cell::Text(after),
        ],
    ) = <[Cell; 7]>::try_from(cells)
    else {
        return left_out("audit", seq, "a column holds something else");
    };
    let row = AuditRow { seq, at_us, actor, action, target, before, after };
    let texts = [&row.target, &row.before, &row.after];
    let is_json = texts.into_iter().all(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    if !is_json || jiff::Timestamp::from_microsecond(at_us).is_err() {
        return left_out("audit", seq, "it holds no JSON, or no time");
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{WITHIN, batch, empty};
    use super::*;

    #[test]
    fn a_row_without_json_or_without_a_time_is_left_out_alone() {
        let store = empty();
        let columns = "seq, at_us, actor, action, target, before, after";
        let rows = "(1, 1, 't', 'put', '{}', 'null', 'null'), (2, 2, 't', 'put', 'x', 'null', 'null'), \
            (3, 3, 't', 'put', '{}', '', 'null'), (4, 4, 't', 'put', '{}', 'null', '{'), \
            (5, 9000000000000000000, 't', 'put', '{}', 'null', 'null'), (6, 6, 't', 'put', '{}', '{}', '[]')";
        batch(&store, &format!("INSERT INTO audit ({columns}) VALUES {rows}"));
        let seqs =
            |count| audit(&store, WITHIN, None, count).unwrap().iter().map(|row| row.seq).collect::<Vec<_>>();
        assert_eq!((seqs(10), seqs(2)), (vec![6, 1], vec![6, 1]));
    }
}
