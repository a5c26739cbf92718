//! The statements, the same for both databases. Every value is a bound parameter.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Row;
use super::session::{Access, Cell, Cells, Fault, Session, Store, Value};
use crate::rules::identity::{ClientId, IdForm};
use crate::rules::limit::{Limit, Rate};
use crate::state::ranges;

/// Ranges stay in memory, in every instance.
const MAX_RANGES: i64 = ranges::MAX_RANGES as i64;
const _: () = assert!(MAX_RANGES == 100_000, "a message says so");
/// Ranges are read page by page, so that none takes longer than a call may.
const RANGES_PAGE: usize = 5_000;
/// Limits of one IPv4 address and its ports, or inside one IPv6 prefix: they are loaded together.
pub const MAX_GROUP: i64 = 4_096;
/// What a load brings at most: more than [`MAX_GROUP`], since `ipv6_prefix` may have been another one.
const MAX_LOADED: i64 = 4 * MAX_GROUP;
/// Changes that are kept for instances that follow. Whoever is further behind reads everything anew.
pub const KEPT_CHANGES: i64 = 100_000;
/// Old changes go when a number divides by this, so that most writes have nothing to prune.
const PRUNE_EVERY: i64 = 64;

const COLUMNS: &str = "client_id, capacity, rate_micro, CAST(rate_per_secs AS bigint), version";

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new row.
    Create(Limit),
    /// Other numbers for a row.
    Update(Limit),
    /// No more row.
    Delete,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The id as it is stored, or was.
    pub client_id: String,
    /// The number of this change.
    pub version: i64,
    /// Every row of the id's group, as the write left it; empty for ids that are in no group.
    pub group: Vec<Row>,
}

/// The row of an id of equal value.
pub fn get(store: &dyn Store, within: Duration, id: &ClientId) -> Result<Row, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM limits WHERE canonical = $1");
    let rows = read(store, within, &sql, &[Value::Text(&id.canonical())])?;
    rows.into_iter().next().ok_or(Fault::NotFound)
}

/// At most `count` rows behind `after`, in byte order of their ids.
pub fn list(store: &dyn Store, within: Duration, after: &str, count: usize) -> Result<Vec<Row>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM limits WHERE client_id > $1 ORDER BY client_id LIMIT $2");
    read(store, within, &sql, &[Value::Text(after), Value::Int(i64::try_from(count).ok())])
}

/// Every row for an address, or an address and port, inside the network.
pub fn load(store: &dyn Store, within: Duration, network: IpNet) -> Result<Vec<Row>, Fault> {
    load_with(store, within, Access::Read, network)
}

/// The same after every write that was under way has ended.
pub fn load_settled(store: &dyn Store, within: Duration, network: IpNet) -> Result<Vec<Row>, Fault> {
    load_with(store, within, Access::Write, network)
}

fn load_with(store: &dyn Store, within: Duration, access: Access, network: IpNet) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    store.with(within, access, &mut |session| {
        rows = group(session, network)?;
        Ok(())
    })?;
    Ok(rows)
}

/// Every range, unless nothing has changed since a mark; and the new mark.
pub fn ranges(
    store: &dyn Store,
    within: Duration,
    seen: Option<RangeMark>,
) -> Result<(RangeMark, Option<Vec<Row>>), Fault> {
    let mut mark = RangeMark::default();
    store.with(within, Access::Read, &mut |session| {
        // Before the rows: a change between the two is then read again, never missed.
        mark = range_mark(session)?;
        Ok(())
    })?;
    if seen.is_some_and(|seen| !mark.moved_since(seen)) {
        return Ok((mark, None));
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM limits WHERE kind = 3 AND canonical > $1 ORDER BY canonical LIMIT {RANGES_PAGE}"
    );
    let mut all: Vec<Row> = Vec::new();
    let mut after = String::new();
    loop {
        let page = read(store, within, &sql, &[Value::Text(&after)])?;
        let whole = page.len() == RANGES_PAGE;
        if let Some(row) = page.last() {
            let id = ClientId::parse(&row.client_id);
            after = id.map_or_else(|_| row.client_id.clone(), |id| id.canonical().into_owned());
        }
        all.extend(page);
        if !whole {
            return Ok((mark, Some(all)));
        }
        if all.len() > ranges::MAX_RANGES {
            log::error!("store: there are more than {MAX_RANGES} ranges; those beyond are not in force");
            all.truncate(ranges::MAX_RANGES);
            return Ok((mark, Some(all)));
        }
    }
}

/// How far the changes of ranges have been followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeMark {
    last_of_range: i64,
    last: i64,
}

impl RangeMark {
    fn moved_since(self, seen: Self) -> bool {
        // Beyond that, a range's change may have come and been pruned.
        self.last_of_range != seen.last_of_range || self.last >= seen.last.saturating_add(KEPT_CHANGES)
    }
}

fn range_mark(session: &mut dyn Session) -> Result<RangeMark, Fault> {
    let cells = session.query(
        "SELECT (SELECT max(seq) FROM changes WHERE kind = 'range'), (SELECT max(seq) FROM changes)",
        &[],
    )?;
    let number = |cell: Option<&Cell>| if let Some(Cell::Int(number)) = cell { *number } else { 0 };
    let row = cells.first();
    Ok(RangeMark {
        last_of_range: number(row.and_then(|row| row.first())),
        last: number(row.and_then(|row| row.get(1))),
    })
}

/// One write with its change in one transaction. `network` is the group of the id's address, where it has one.
pub fn write(
    store: &dyn Store,
    within: Duration,
    id: &ClientId,
    op: Op,
    network: Option<IpNet>,
) -> Result<Written, Fault> {
    let mut written = None;
    store.with(within, Access::Write, &mut |session| {
        if let Op::Create(_) = op {
            check_room(session, id, network)?;
        }
        let kind = if matches!(id.form(), IdForm::Range(_)) { "range" } else { "limit" };
        let seq = record(session, kind, id.text())?;
        let client_id = match op {
            Op::Create(limit) => insert(session, id, limit, seq)?,
            Op::Update(limit) => update(session, id, limit, seq)?,
            Op::Delete => delete(session, id)?,
        };
        let group = network.map_or(Ok(Vec::new()), |network| group(session, network))?;
        written = Some(Written { client_id, version: seq, group });
        Ok(())
    })?;
    written.ok_or_else(|| Fault::down("the database was not asked"))
}

/// Appends a change and prunes the oldest; gives its number. The writers' lock is held.
fn record(session: &mut dyn Session, kind: &str, id: &str) -> Result<i64, Fault> {
    let rows = session.query(
        "INSERT INTO changes (kind, id) VALUES ($1, $2) RETURNING seq",
        &[Value::Text(kind), Value::Text(id)],
    )?;
    let Some([Cell::Int(seq)]) = rows.first().map(Vec::as_slice) else {
        return Err(Fault::Schema("a change got no number".into()));
    };
    if seq % PRUNE_EVERY == 0 {
        session.query("DELETE FROM changes WHERE seq <= $1", &[Value::Int(Some(seq - KEPT_CHANGES))])?;
    }
    Ok(*seq)
}

fn check_room(session: &mut dyn Session, id: &ClientId, network: Option<IpNet>) -> Result<(), Fault> {
    let is_range = matches!(id.form(), IdForm::Range(_));
    if is_range && count(session.query("SELECT count(*) FROM limits WHERE kind = 3", &[])?) >= MAX_RANGES {
        return Err(Fault::Full("there are 100000 ranges already, the most that are kept"));
    }
    if let Some(network) = network {
        let span = Span::of(network);
        let sql = format!("SELECT count(*) FROM limits WHERE {IN_GROUP}");
        if count(session.query(&sql, &span.values())?) >= MAX_GROUP {
            return Err(Fault::Full(
                "there are 4096 limits for this address or IPv6 prefix already, the most that are kept",
            ));
        }
    }
    Ok(())
}

fn insert(session: &mut dyn Session, id: &ClientId, limit: Limit, seq: i64) -> Result<String, Fault> {
    let (kind, bytes, port) = match id.form() {
        IdForm::Opaque => (0, None, None),
        IdForm::Address(address) => (1, Some(octets(address)), None),
        IdForm::AddressPort(peer) => (2, Some(octets(peer.ip())), Some(i64::from(peer.port()))),
        IdForm::Range(range) => (3, Some(octets(range.network())), None),
    };
    let rows = session.query(
        "INSERT INTO limits (canonical, client_id, kind, address, port, capacity, rate_micro, rate_per_secs, version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING client_id",
        &[
            Value::Text(&id.canonical()),
            Value::Text(id.text()),
            Value::Int(Some(kind)),
            Value::Bytes(bytes.as_deref()),
            Value::Int(port),
            Value::Int(Some(limit.capacity.into())),
            Value::Int(i64::try_from(limit.rate.micro).ok()),
            Value::Int(Some(limit.rate.per_secs.into())),
            Value::Int(Some(seq)),
        ],
    )?;
    first_text(rows).ok_or(Fault::Exists)
}

fn update(session: &mut dyn Session, id: &ClientId, limit: Limit, seq: i64) -> Result<String, Fault> {
    let rows = session.query(
        "UPDATE limits SET capacity = $1, rate_micro = $2, rate_per_secs = $3, version = $4 WHERE canonical = $5 \
         RETURNING client_id",
        &[
            Value::Int(Some(limit.capacity.into())),
            Value::Int(i64::try_from(limit.rate.micro).ok()),
            Value::Int(Some(limit.rate.per_secs.into())),
            Value::Int(Some(seq)),
            Value::Text(&id.canonical()),
        ],
    )?;
    first_text(rows).ok_or(Fault::NotFound)
}

fn delete(session: &mut dyn Session, id: &ClientId) -> Result<String, Fault> {
    let rows = session.query(
        "DELETE FROM limits WHERE canonical = $1 RETURNING client_id",
        &[Value::Text(&id.canonical())],
    )?;
    first_text(rows).ok_or(Fault::NotFound)
}

/// The length keeps the families apart: an IPv4 address sorts among the IPv6 ones that begin with its bytes.
const IN_GROUP: &str = "kind IN (1, 2) AND address BETWEEN $1 AND $2 AND octet_length(address) = $3";

fn group(session: &mut dyn Session, network: IpNet) -> Result<Vec<Row>, Fault> {
    let span = Span::of(network);
    let sql = format!("SELECT {COLUMNS} FROM limits WHERE {IN_GROUP} LIMIT {MAX_LOADED}");
    let rows = rows(session.query(&sql, &span.values())?)?;
    if rows.len() as i64 >= MAX_LOADED {
        log::error!("store: {network} holds {MAX_LOADED} limits or more; those beyond are not in force");
    }
    Ok(rows)
}

/// A network's first and last address as they are stored.
struct Span {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Span {
    fn of(network: IpNet) -> Self {
        Self { first: octets(network.network()), last: octets(network.broadcast()) }
    }

    fn values(&self) -> [Value<'_>; 3] {
        [
            Value::Bytes(Some(&self.first)),
            Value::Bytes(Some(&self.last)),
            Value::Int(i64::try_from(self.first.len()).ok()),
        ]
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn read(store: &dyn Store, within: Duration, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Fault> {
    let mut found = Vec::new();
    store.with(within, Access::Read, &mut |session| {
        found = rows(session.query(sql, values)?)?;
        Ok(())
    })?;
    Ok(found)
}

fn rows(cells: Cells) -> Result<Vec<Row>, Fault> {
    cells.into_iter().map(row).collect()
}

fn row(cells: Vec<Cell>) -> Result<Row, Fault> {
    let strange = |what: &str| Fault::Schema(format!("the table limits holds a row with a strange {what}"));
    let Ok(
        [Cell::Text(client_id), Cell::Int(capacity), Cell::Int(micro), Cell::Int(secs), Cell::Int(version)],
    ) = <[Cell; 5]>::try_from(cells)
    else {
        return Err(strange("column"));
    };
    let capacity = u32::try_from(capacity).map_err(|_| strange("capacity"))?;
    let micro = u64::try_from(micro).map_err(|_| strange("rate_micro"))?;
    let per_secs = u32::try_from(secs).map_err(|_| strange("rate_per_secs"))?;
    Ok(Row { client_id, limit: Limit { capacity, rate: Rate { micro, per_secs } }, version })
}

fn count(cells: Cells) -> i64 {
    match cells.first().and_then(|row| row.first()) {
        Some(Cell::Int(number)) => *number,
        _ => 0,
    }
}

fn first_text(cells: Cells) -> Option<String> {
    match cells.into_iter().next()?.into_iter().next()? {
        Cell::Text(text) => Some(text),
        _ => None,
    }
}
