//! Statements that write limits: all wishes, with their changes and the audit row, in one transaction.

use std::time::Duration;

use ipnet::IpNet;

use super::super::json::text;
use super::super::session::{Access, Session, SqlValue, Store};
use super::super::v1::{BatchError, LimitRow};
use super::audit::{self, By};
use super::merge::{Change, Done, merge};
use super::{STATEMENT_ROWS, bounds, changes, list_of, plans, read, spans, texts, tuples};
use crate::store::StoreError;
use balancer_importance::Priority;
use balancer_limiter::document::BucketDocument;
use balancer_limiter::identity::{ClientId, IdForm};
use balancer_limiter::terms::{ClientLimit, PlanName};

/// The result of a write.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// What became of each id, in the order in which the ids first occur.
    pub done: Vec<Done>,
    /// All rows of groups that were asked for, after the write. Groups are missing where there are too many rows.
    pub groups: Vec<(IpNet, Vec<LimitRow>)>,
}

/// What a write needs besides its wishes.
#[derive(Clone, Copy)]
pub struct WriteTerms<'a> {
    /// Who writes.
    pub by: By<'a>,
    /// The audit has one row for the whole batch; else there is only one wish, and the row is about that.
    pub is_batch: bool,
    /// Groups whose rows are to be returned, as far as `read::groups` reads them.
    pub groups: &'a [IpNet],
    /// `rate_limit.ipv6_prefix`.
    pub ipv6_prefix: u8,
}

/// Does all wishes, or none.
pub fn write(
    store: &dyn Store,
    within: Duration,
    wishes: &[Change],
    terms: WriteTerms<'_>,
) -> Result<Written, BatchError> {
    let (mut written, mut failed_at) = (None, None);
    let result = store.with(within, Access::Write, &mut |session| {
        (written, failed_at) = (None, None);
        match transact(session, wishes, terms) {
            Ok(done) => {
                written = Some(done);
                Ok(())
            }
            Err(failed) => {
                failed_at = failed.index;
                Err(failed.error)
            }
        }
    });
    result.map_err(|error| BatchError { index: failed_at, error })?;
    written.ok_or_else(|| StoreError::down("the database was not asked").into())
}

fn transact(
    session: &mut dyn Session,
    wishes: &[Change],
    terms: WriteTerms<'_>,
) -> Result<Written, BatchError> {
    let mut canonicals: Vec<String> = wishes.iter().map(|wish| wish.id.canonical().into_owned()).collect();
    canonicals.sort_unstable();
    canonicals.dedup();
    let stored = read::of_canonicals(session, &canonicals)?;
    let plans = plans_of(session, wishes)?;
    let mut done = merge(stored, wishes, |name| plans.iter().any(|known| known == name.as_str()))?;
    let seqs = number(session, &mut done)?;
    for part in done.chunks(STATEMENT_ROWS) {
        remove(session, part)?;
        upsert(session, part)?;
    }
    let new: Vec<&Done> = done.iter().filter(|one| one.is_new()).collect();
    let ids: Vec<&ClientId> = new.iter().map(|one| &one.id).collect();
    bounds::check(session, &ids, terms.ipv6_prefix)
        .map_err(|(at, fault)| (new.get(at).map_or(0, |one| one.index), fault))?;
    let note = match done.first() {
        Some(one) if !terms.is_batch => audit::of_limit(one, terms.by.actor),
        _ => audit::of_batch(&done, wishes.len(), seqs, terms.by.actor),
    };
    let groups = read::groups(session, terms.groups)?;
    audit::finish(session, &note, terms.by)?;
    Ok(Written { done, groups: terms.groups.iter().copied().zip(groups).collect() })
}

/// Those plans named by the wishes that exist.
fn plans_of(session: &mut dyn Session, wishes: &[Change]) -> Result<Vec<String>, StoreError> {
    use super::merge::To;
    let plan = |wish: &Change| match &wish.to {
        To::New(limit) | To::Put(limit) => limit.plan.as_ref().map(PlanName::as_str).map(str::to_owned),
        To::Numbers(_) | To::Gone => None,
    };
    let mut names: Vec<String> = wishes.iter().filter_map(plan).collect();
    names.sort_unstable();
    names.dedup();
    plans::known(session, &names)
}

/// Appends a change for each, and gives each the number of its change. Returns the first and the last number.
fn number(session: &mut dyn Session, done: &mut [Done]) -> Result<(i64, i64), StoreError> {
    let list: Vec<(&str, &str)> = done.iter().map(|one| (kind_of_change(&one.id), one.id.text())).collect();
    let numbers = changes::record(session, if list.is_empty() { &[(changes::BATCH, "")] } else { &list })?;
    for (one, seq) in done.iter_mut().zip(&numbers) {
        one.version = *seq;
    }
    let bounds = (numbers.iter().min().copied(), numbers.iter().max().copied());
    bounds.0.zip(bounds.1).ok_or_else(|| StoreError::Schema("a change got no number".into()))
}

fn kind_of_change(id: &ClientId) -> &'static str {
    if matches!(id.form(), IdForm::Range(_)) { changes::RANGE } else { changes::LIMIT }
}

fn remove(session: &mut dyn Session, done: &[Done]) -> Result<(), StoreError> {
    let gone: Vec<_> = done.iter().filter(|one| one.after.is_none()).map(|one| one.id.canonical()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let sql = format!("DELETE FROM limits WHERE canonical IN ({})", list_of(gone.len()));
    session.query(&sql, &gone.iter().map(|id| SqlValue::Text(id)).collect::<Vec<_>>())?;
    Ok(())
}

/// The columns of a row, and below them how each of its parameters is written in a statement.
const COLUMNS: &str = "canonical, client_id, kind, address, port, plan, buckets, max_in_flight, exempt, shared, per_instance, \
    weight, priority, version";
const SHAPE: [&str; 14] =
    ["{}", "{}", "{}", "{}", "{}", "{}", "{}", "{}", "({} <> 0)", "({} <> 0)", "({} <> 0)", "{}", "{}", "{}"];

/// The end of a statement, for rows whose id exists already.
const REPLACE: &str = "ON CONFLICT (canonical) DO UPDATE SET client_id = excluded.client_id, \
    plan = excluded.plan, buckets = excluded.buckets, max_in_flight = excluded.max_in_flight, \
    exempt = excluded.exempt, shared = excluded.shared, per_instance = excluded.per_instance, \
    weight = excluded.weight, priority = excluded.priority, version = excluded.version";

fn upsert(session: &mut dyn Session, done: &[Done]) -> Result<(), StoreError> {
    let rows: Vec<Columns> =
        done.iter().filter_map(|one| Some(Columns::of(&one.id, one.after.as_ref()?, one.version))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO limits ({COLUMNS}) VALUES {} {REPLACE} RETURNING client_id",
        tuples(rows.len(), &SHAPE)
    );
    let values: Vec<_> = rows.iter().flat_map(Columns::values).collect();
    let written = texts(session.query(&sql, &values)?).count();
    if written != rows.len() {
        return Err(StoreError::Schema(format!("{written} of {} rows were written", rows.len())));
    }
    Ok(())
}

/// The values of a row, by columns.
pub(super) struct Columns {
    pub(super) canonical: String,
    client_id: String,
    kind: i64,
    address: Option<Vec<u8>>,
    port: Option<i64>,
    plan: Option<String>,
    buckets: String,
    max_in_flight: Option<i64>,
    exempt: bool,
    shared: bool,
    per_instance: bool,
    weight: Option<i64>,
    priority: Option<&'static str>,
    version: i64,
}

impl Columns {
    pub(super) fn of(id: &ClientId, limit: &ClientLimit, version: i64) -> Self {
        let (kind, address, port) = match id.form() {
            IdForm::Opaque => (0, None, None),
            IdForm::Address(address) => (1, Some(spans::octets(address)), None),
            IdForm::AddressPort(peer) => (2, Some(spans::octets(peer.ip())), Some(i64::from(peer.port()))),
            IdForm::Range(range) => (3, Some(spans::octets(range.network())), None),
        };
        Self {
            canonical: id.canonical().into_owned(),
            client_id: id.text().to_owned(),
            kind,
            address,
            port,
            plan: limit.plan.as_ref().map(|plan| plan.as_str().to_owned()),
            buckets: text(&BucketDocument::list(&limit.own.buckets)),
            max_in_flight: limit.own.max_in_flight.map(i64::from),
            exempt: limit.exempt,
            shared: limit.shared,
            per_instance: limit.per_instance,
            weight: limit.own.importance.weight.map(i64::from),
            priority: limit.own.importance.priority.map(Priority::name),
            version,
        }
    }

    pub(super) fn values(&self) -> [SqlValue<'_>; SHAPE.len()] {
        [
            SqlValue::Text(&self.canonical),
            SqlValue::Text(&self.client_id),
            SqlValue::Int(Some(self.kind)),
            SqlValue::Bytes(self.address.as_deref()),
            SqlValue::Int(self.port),
            SqlValue::OptionalText(self.plan.as_deref()),
            SqlValue::Text(&self.buckets),
            SqlValue::Int(self.max_in_flight),
            SqlValue::Int(Some(self.exempt.into())),
            SqlValue::Int(Some(self.shared.into())),
            SqlValue::Int(Some(self.per_instance.into())),
            SqlValue::Int(self.weight),
            SqlValue::OptionalText(self.priority),
            SqlValue::Int(Some(self.version)),
        ]
    }
}
