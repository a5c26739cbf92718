//! Statements that read limits.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::super::session::{Access, Cell, Cells, Session, SqlValue, Store, inside};
use super::super::v1::{LimitFilter, LimitRow};
use super::bounds::MAX_LOADED;
use super::spans::{IN_SPAN, Spans};
use super::{STATEMENT_ROWS, first_text, left_out, list_of, readable, tuples};
use crate::store::StoreError;
use crate::store::cache::CacheGroup;
use balancer_limiter::document;
use balancer_limiter::identity::ClientId;
use balancer_limiter::importance::GivenImportance;
use balancer_limiter::ranges::MAX_RANGES;
use balancer_limiter::terms::{BucketSpec, ClientLimit, PlanName, Terms};

/// Rows of a page of ranges. They are read page by page, so that no call takes too long.
const RANGES_PAGE: usize = 5_000;

const COLUMNS: &str =
    "client_id, plan, buckets, max_in_flight, exempt, shared, per_instance, weight, priority, version";

/// The row of that id, or of an id of equal value.
pub fn get(store: &dyn Store, within: Duration, id: &ClientId) -> Result<LimitRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM limits WHERE canonical = $1");
    let rows = read(store, within, &sql, &[SqlValue::Text(&id.canonical())])?;
    rows.into_iter().find(|row| !row.limit.is_unreadable()).ok_or(StoreError::NotFound)
}

/// At most `count` rows after the id `after`, in byte order of their ids. Rows that can't be read are left out.
pub fn list(
    store: &dyn Store,
    within: Duration,
    filter: &LimitFilter,
    after: &str,
    count: usize,
) -> Result<Vec<LimitRow>, StoreError> {
    let page = |after: &String, count| page(store, within, filter, after, count);
    let mut reader = Reader::default();
    let read = |cells| reader.row(cells).filter(|row: &LimitRow| !row.limit.is_unreadable());
    readable(count, after.to_owned(), page, first_text, read)
}

fn page(
    store: &dyn Store,
    within: Duration,
    filter: &LimitFilter,
    after: &str,
    count: i64,
) -> Result<Cells, StoreError> {
    let prefix = filter.prefix.as_deref().unwrap_or_default();
    let high = behind(prefix);
    // Only the higher one of two lower bounds, so that the index is entered there.
    let low = if after >= prefix { (">", after) } else { (">=", prefix) };
    let (condition, mut values) = fitting(filter, low, high.as_deref());
    values.push(SqlValue::Int(Some(count)));
    let sql =
        format!("SELECT {COLUMNS} FROM limits WHERE {condition} ORDER BY client_id LIMIT ${}", values.len());
    inside(store, within, Access::Read, |session| session.query(&sql, &values))
}

/// How many rows fit a filter. The database has to look at each of them.
pub fn total(store: &dyn Store, within: Duration, filter: &LimitFilter) -> Result<i64, StoreError> {
    let prefix = filter.prefix.as_deref().unwrap_or_default();
    let high = behind(prefix);
    let (condition, values) = fitting(filter, (">=", prefix), high.as_deref());
    let sql = format!("SELECT count(*) FROM limits WHERE {condition}");
    let cells = inside(store, within, Access::Read, |session| session.query(&sql, &values))?;
    match cells.first().map(Vec::as_slice) {
        Some([Cell::Int(count)]) => Ok(*count),
        _ => Ok(0),
    }
}

/// The condition for rows that fit a filter, and its values. `low` and `high`: bounds of the id, of which `high` is excluded.
fn fitting<'a>(
    filter: &'a LimitFilter,
    (compare, low): (&str, &'a str),
    high: Option<&'a str>,
) -> (String, Vec<SqlValue<'a>>) {
    let mut condition = format!("client_id {compare} $1");
    let mut values = vec![SqlValue::Text(low)];
    let mut more = |text: &str, value| {
        values.push(SqlValue::Text(value));
        condition.push_str(&text.replace("{}", &format!("${}", values.len())));
    };
    if let Some(high) = high {
        more(" AND client_id < {}", high);
    }
    if let Some(plan) = &filter.plan {
        more(" AND plan = {}", plan.as_str());
    }
    if let Some(part) = &filter.contains {
        // Unlike `LIKE`, this needs no escapes, and it is the same in both databases.
        more(" AND replace(lower(client_id), lower({}), '') <> lower(client_id)", part);
    }
    (condition, values)
}

/// The first text in byte order that comes after all texts with that prefix: the prefix with its last character raised by
/// one. That is right since UTF-8 sorts like its code points. `None` when there is no such text.
fn behind(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Skips the surrogates, which are not characters.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// Every row of a place. With [`Access::Write`], they are read after all writes that were under way have ended.
pub fn load(
    store: &dyn Store,
    within: Duration,
    access: Access,
    place: &CacheGroup,
) -> Result<Vec<LimitRow>, StoreError> {
    let mut rows = Vec::new();
    store.with(within, access, &mut |session| {
        rows = match place {
            CacheGroup::Group(network) => groups(session, &[*network])?.pop().unwrap_or_default(),
            CacheGroup::Id(id) => of_canonicals(session, &[id.to_string()])?,
        };
        Ok(())
    })?;
    Ok(rows)
}

/// Every row of each of the first of these groups, in their order. There may be more groups than are read at once, but at
/// least one is read.
pub fn load_all(
    store: &dyn Store,
    within: Duration,
    networks: &[IpNet],
) -> Result<Vec<Vec<LimitRow>>, StoreError> {
    inside(store, within, Access::Read, |session| groups(session, networks))
}

/// The rows of these ids, in any order; an id without one is left out.
pub fn named(
    store: &dyn Store,
    within: Duration,
    canonicals: &[String],
) -> Result<Vec<LimitRow>, StoreError> {
    inside(store, within, Access::Read, |session| of_canonicals(session, canonicals))
}

pub(super) fn of_canonicals(
    session: &mut dyn Session,
    canonicals: &[String],
) -> Result<Vec<LimitRow>, StoreError> {
    let mut all = Vec::with_capacity(canonicals.len());
    for part in canonicals.chunks(STATEMENT_ROWS) {
        let sql = format!("SELECT {COLUMNS} FROM limits WHERE canonical IN ({})", list_of(part.len()));
        let values: Vec<_> = part.iter().map(|text| SqlValue::Text(text)).collect();
        all.extend(rows(session.query(&sql, &values)?));
    }
    Ok(all)
}

/// Every range.
pub fn ranges(store: &dyn Store, within: Duration) -> Result<Vec<LimitRow>, StoreError> {
    ranges_by(store, within, RANGES_PAGE, MAX_RANGES)
}

/// At most `most` ranges, read in pages of so many rows.
fn ranges_by(
    store: &dyn Store,
    within: Duration,
    page_rows: usize,
    most: usize,
) -> Result<Vec<LimitRow>, StoreError> {
    let sql = format!(
        "SELECT canonical, {COLUMNS} FROM limits WHERE kind = 3 AND canonical > $1 ORDER BY canonical LIMIT $2"
    );
    let page = |after: &String, count| {
        let values = [SqlValue::Text(after), SqlValue::Int(Some(count))];
        inside(store, within, Access::Read, |session| session.query(&sql, &values))
    };
    let (mut all, mut reader, mut after) = (Vec::new(), Reader::default(), String::new());
    loop {
        let read = |mut cells: Vec<Cell>| Some((first_text(&cells)?, reader.row(cells.split_off(1))?));
        let (places, rows): (Vec<String>, Vec<LimitRow>) =
            readable(page_rows, after, page, first_text, read)?.into_iter().unzip();
        all.extend(rows);
        if all.len() > most {
            log::error!("store: there are more than {most} ranges; those beyond are not in force");
            all.truncate(most);
            return Ok(all);
        }
        match places.into_iter().nth(page_rows - 1) {
            Some(last) => after = last,
            None => return Ok(all),
        }
    }
}

/// As [`load_all`]. It ends at the group with which a statement would return more than [`MAX_LOADED`] rows.
pub(super) fn groups(
    session: &mut dyn Session,
    networks: &[IpNet],
) -> Result<Vec<Vec<LimitRow>>, StoreError> {
    groups_by(session, networks, MAX_LOADED)
}

/// The same, where a statement returns at most so many rows.
fn groups_by(
    session: &mut dyn Session,
    networks: &[IpNet],
    most: i64,
) -> Result<Vec<Vec<LimitRow>>, StoreError> {
    let mut all = Vec::with_capacity(networks.len());
    for part in networks.chunks(STATEMENT_ROWS) {
        let spans = Spans::of(part);
        let sql = format!(
            "WITH v (number, low, high, length) AS (VALUES {}) SELECT v.number, {COLUMNS} FROM v, limits \
             WHERE {IN_SPAN} ORDER BY v.number LIMIT {most}",
            tuples(part.len(), &["{}"; 4])
        );
        let cells = session.query(&sql, &spans.values())?;
        let cut_off = cells.len() as i64 >= most;
        let start = all.len();
        all.resize_with(start + part.len(), Vec::new);
        let mut reader = Reader::default();
        let mut last = 0;
        for mut cells in cells {
            let Cell::Int(number) = cells.remove(0) else { continue };
            // The number is one of those that are in the statement.
            let Ok(number) = usize::try_from(number) else { continue };
            last = number;
            if let (Some(group), Some(row)) = (all.get_mut(start + number), reader.row(cells)) {
                group.push(row);
            }
        }
        if cut_off {
            if last == 0 {
                log::error!("store: {} holds {most} limits or more; those beyond are not in force", part[0]);
            }
            // Rows of the last group may be missing.
            all.truncate(start + last.max(1));
            break;
        }
    }
    Ok(all)
}

fn read(
    store: &dyn Store,
    within: Duration,
    sql: &str,
    values: &[SqlValue<'_>],
) -> Result<Vec<LimitRow>, StoreError> {
    inside(store, within, Access::Read, |session| Ok(rows(session.query(sql, values)?)))
}

fn rows(cells: Cells) -> Vec<LimitRow> {
    let mut reader = Reader::default();
    cells.into_iter().filter_map(|cells| reader.row(cells)).collect()
}

/// Reads rows one after the other. Neighbours that have the same buckets share them in memory.
#[derive(Default)]
struct Reader {
    /// The buckets of the last row, as text and read.
    last: Option<(String, Arc<[BucketSpec]>)>,
}

impl Reader {
    /// Reads a row. If only its id can be read, the row still counts for its client, for which the default then decides.
    /// What can't be read is logged.
    fn row(&mut self, cells: Vec<Cell>) -> Option<LimitRow> {
        let client_id = first_text(&cells);
        let version = match cells.last() {
            Some(Cell::Int(version)) => *version,
            _ => 0,
        };
        let Some(client_id) = client_id else {
            return left_out("limits", version, "its id is no text");
        };
        let limit = self.limit(cells).unwrap_or_else(|why| {
            log::error!("store: the limit of {client_id:?} can't be read, and the default decides: {why}");
            ClientLimit::unreadable()
        });
        Some(LimitRow { client_id, limit, version })
    }

    fn limit(&mut self, cells: Vec<Cell>) -> Result<ClientLimit, String> {
        let Ok(
            [
                _,
                plan,
                Cell::Text(text),
                bound,
                Cell::Int(exempt),
                Cell::Int(shared),
                Cell::Int(per_instance),
                weight,
                priority,
                Cell::Int(_),
            ],
        ) = <[Cell; 10]>::try_from(cells)
        else {
            return Err("a column holds something else".into());
        };
        let plan = match plan {
            Cell::Null => None,
            Cell::Text(name) => {
                Some(PlanName::parse(&name).map_err(|fault| format!("its plan's name {fault}"))?)
            }
            _ => return Err("its plan's name is no text".into()),
        };
        let buckets = match &self.last {
            Some((last, buckets)) if *last == text => Arc::clone(buckets),
            _ => {
                let buckets = document::buckets(&text)?;
                self.last = Some((text, Arc::clone(&buckets)));
                buckets
            }
        };
        let importance = importance(&weight, &priority)?;
        let own = Terms { buckets, max_in_flight: whole(&bound, "max_in_flight")?, importance };
        let (exempt, shared, per_instance) = (exempt != 0, shared != 0, per_instance != 0);
        let limit = ClientLimit { plan, own, exempt, shared, per_instance };
        if limit.is_unreadable() { Err("it has neither buckets nor a plan".into()) } else { Ok(limit) }
    }
}

/// Weight and priority of a client, from their columns.
pub(super) fn importance(weight: &Cell, priority: &Cell) -> Result<GivenImportance, String> {
    let weight = whole(weight, "weight")?;
    let priority = match priority {
        Cell::Null => None,
        Cell::Text(text) => Some(text.as_str()),
        _ => return Err("its priority is no text".into()),
    };
    let mut fault = None;
    let given = document::importance(weight, priority, &mut |column, text| {
        fault = Some(format!("its {column} {text}"));
    });
    fault.map_or(Ok(given), Err)
}

/// A column that holds a whole number, or NULL.
pub(super) fn whole(cell: &Cell, column: &str) -> Result<Option<u32>, String> {
    let strange = || format!("{column} is none");
    match cell {
        Cell::Null => Ok(None),
        Cell::Int(number) => u32::try_from(*number).map(Some).map_err(|_| strange()),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests;
