//! Statements for plans.

use std::time::Duration;

use super::super::Row;
use super::super::json::text;
use super::super::session::{Access, Cell, Session, SqlValue, Store, inside};
use super::super::v1::{Condition, LimitRow, PlanRow};
use super::audit::{self, By};
use super::{STATEMENT_ROWS, changes, first_text, left_out, list_of, number, read, readable, texts};
use crate::store::StoreError;
use balancer_importance::Priority;
use balancer_limiter::document::{self, BucketDocument};
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::{BucketSpec, ClientLimit, MAX_PLANS, Plan, PlanName, Terms};

const COLUMNS: &str = "name, buckets, max_in_flight, weight, priority, version";
const _: () = assert!(MAX_PLANS == 1_000, "a message says so");

/// The result of a write of a plan.
#[derive(Clone, Debug)]
pub struct PlanWritten {
    /// The plan now; `None` when it was removed.
    pub row: Option<PlanRow>,
    /// It did not exist before.
    pub created: bool,
}

/// One plan.
pub fn one(store: &dyn Store, within: Duration, name: &PlanName) -> Result<PlanRow, StoreError> {
    named(store, within, &[name.as_str().to_owned()])?.pop().ok_or(StoreError::NotFound)
}

/// At most `count` plans after the name `after`, in byte order of their names. Plans that can't be read are left out.
pub fn list(
    store: &dyn Store,
    within: Duration,
    after: &str,
    count: usize,
) -> Result<Vec<PlanRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM plans WHERE name > $1 ORDER BY name LIMIT $2");
    let page = |after: &String, count| {
        let values = [SqlValue::Text(after), SqlValue::Int(Some(count))];
        inside(store, within, Access::Read, |session| session.query(&sql, &values))
    };
    readable(count, after.to_owned(), page, first_text, row)
}

/// All plans.
pub fn all(store: &dyn Store, within: Duration) -> Result<Vec<PlanRow>, StoreError> {
    // Writes keep to the bound, so there are more only if rows were written by hand.
    list(store, within, "", MAX_PLANS)
}

/// The plans of these names that exist.
fn named(store: &dyn Store, within: Duration, names: &[String]) -> Result<Vec<PlanRow>, StoreError> {
    inside(store, within, Access::Read, |session| {
        let mut rows = Vec::new();
        for part in names.chunks(STATEMENT_ROWS) {
            rows.extend(of_names(session, part)?);
        }
        Ok(rows)
    })
}

fn of_names(session: &mut dyn Session, names: &[String]) -> Result<Vec<PlanRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM plans WHERE name IN ({})", list_of(names.len()));
    let cells = session.query(&sql, &names.iter().map(|name| SqlValue::Text(name)).collect::<Vec<_>>())?;
    Ok(cells.into_iter().filter_map(row).collect())
}

/// Those of these names for which there is a plan.
pub(super) fn known(session: &mut dyn Session, names: &[String]) -> Result<Vec<String>, StoreError> {
    let mut known = Vec::new();
    for part in names.chunks(STATEMENT_ROWS) {
        let sql = format!("SELECT name FROM plans WHERE name IN ({})", list_of(part.len()));
        known.extend(texts(
            session.query(&sql, &part.iter().map(|name| SqlValue::Text(name)).collect::<Vec<_>>())?,
        ));
    }
    Ok(known)
}

/// Adds or replaces a plan. `must_be_new`: an existing plan is an error.
pub fn put(
    store: &dyn Store,
    within: Duration,
    plan: &Plan,
    condition: &Condition,
    must_be_new: bool,
    by: By<'_>,
) -> Result<PlanWritten, StoreError> {
    inside(store, within, Access::Write, |session| {
        let before = find(session, &plan.name)?;
        check(before.as_ref(), condition)?;
        if must_be_new && before.is_some() {
            return Err(StoreError::Exists);
        }
        if before.is_none() && number(&session.query("SELECT count(*) FROM plans", &[])?) >= MAX_PLANS as i64
        {
            return Err(StoreError::Full("there are 1000 plans already, the most that are kept"));
        }
        let seq = changes::record(session, &[(changes::PLAN, plan.name.as_str())])?[0];
        let importance = plan.terms.importance;
        session.query(
            "INSERT INTO plans (name, buckets, max_in_flight, weight, priority, version) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (name) DO UPDATE SET buckets = excluded.buckets, \
             max_in_flight = excluded.max_in_flight, weight = excluded.weight, \
             priority = excluded.priority, version = excluded.version",
            &[
                SqlValue::Text(plan.name.as_str()),
                SqlValue::Text(&text(&BucketDocument::list(&plan.terms.buckets))),
                SqlValue::Int(plan.terms.max_in_flight.map(i64::from)),
                SqlValue::Int(importance.weight.map(i64::from)),
                SqlValue::OptionalText(importance.priority.map(Priority::name)),
                SqlValue::Int(Some(seq)),
            ],
        )?;
        let note = audit::of_plan(before.as_ref().map(|row| &row.plan), Some(plan), seq, by.actor);
        audit::finish(session, &note, by)?;
        let row = Some(PlanRow { plan: plan.clone(), version: seq });
        Ok(PlanWritten { row, created: before.is_none() })
    })
}

/// Removes a plan, if no limit names it.
pub fn remove(
    store: &dyn Store,
    within: Duration,
    name: &PlanName,
    condition: &Condition,
    by: By<'_>,
) -> Result<PlanWritten, StoreError> {
    inside(store, within, Access::Write, |session| {
        let before = find(session, name)?;
        check(before.as_ref(), condition)?;
        let before = before.ok_or(StoreError::NotFound)?;
        let users = number(
            &session
                .query("SELECT count(*) FROM limits WHERE plan = $1", &[SqlValue::Text(name.as_str())])?,
        );
        if users > 0 {
            return Err(StoreError::InUse(users.unsigned_abs()));
        }
        let seq = changes::record(session, &[(changes::PLAN, name.as_str())])?[0];
        session.query("DELETE FROM plans WHERE name = $1", &[SqlValue::Text(name.as_str())])?;
        audit::finish(session, &audit::of_plan(Some(&before.plan), None, seq, by.actor), by)?;
        Ok(PlanWritten { row: None, created: false })
    })
}

fn find(session: &mut dyn Session, name: &PlanName) -> Result<Option<PlanRow>, StoreError> {
    Ok(of_names(session, &[name.as_str().to_owned()])?.pop())
}

fn check(row: Option<&PlanRow>, condition: &Condition) -> Result<(), StoreError> {
    let holds = match condition {
        Condition::None => true,
        Condition::Exists => row.is_some(),
        Condition::Absent => row.is_none(),
        Condition::Version(versions) => row.is_some_and(|row| versions.contains(&row.version)),
    };
    if holds { Ok(()) } else { Err(StoreError::Precondition) }
}

/// A plan; `None`, and logged, when it can't be read. Its clients then get the default.
fn row(cells: Vec<Cell>) -> Option<PlanRow> {
    let name = first_text(&cells);
    read_row(cells).map_or_else(|why| left_out("plans", name, &why), Some)
}

fn read_row(cells: Vec<Cell>) -> Result<PlanRow, String> {
    let Ok([Cell::Text(name), Cell::Text(buckets), bound, weight, priority, Cell::Int(version)]) =
        <[Cell; 6]>::try_from(cells)
    else {
        return Err("a column holds something else".into());
    };
    let terms = Terms {
        buckets: document::buckets(&buckets)?,
        max_in_flight: read::whole(&bound, "max_in_flight")?,
        importance: read::importance(&weight, &priority)?,
    };
    if terms.buckets.is_empty() {
        return Err("it has no buckets".into());
    }
    let name = PlanName::parse(&name).map_err(|fault| format!("its name {fault}"))?;
    Ok(PlanRow { plan: Plan { name, terms }, version })
}

/// Limits as the calls under `/limits` show them: by their first bucket, or that of their plan.
pub fn numbers(store: &dyn Store, within: Duration, rows: Vec<LimitRow>) -> Result<Vec<Row>, StoreError> {
    let mut names: Vec<String> =
        rows.iter().filter_map(|row| Some(row.limit.plan.as_ref()?.as_str().to_owned())).collect();
    names.sort_unstable();
    names.dedup();
    let plans = if names.is_empty() { Vec::new() } else { named(store, within, &names)? };
    let first = |limit: &ClientLimit| {
        let of_plan = || plans.iter().find(|row| Some(&row.plan.name) == limit.plan.as_ref());
        let buckets = limit.own.buckets.first().cloned();
        buckets.or_else(|| of_plan()?.plan.terms.buckets.first().cloned())
    };
    let row = |row: LimitRow| Row {
        limit: first(&row.limit).map_or(NEVER_REFUSED, |bucket: BucketSpec| bucket.limit),
        client_id: row.client_id,
        version: row.version,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The numbers that are shown for a client that is exempt and has no buckets, to callers that know only numbers.
const NEVER_REFUSED: Limit = Limit { capacity: Limit::MAX_CAPACITY, rate: Rate::per_second(Rate::MAX_MICRO) };
