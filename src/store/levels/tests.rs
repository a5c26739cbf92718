//! What a tick saves and what a start puts back, step by step: the keeper without its thread.

use std::fs;

use super::*;
use crate::store::session::{Access, Cell, Session, inside};
use crate::store::tests::bench::WITHIN;
use crate::store::tests::{down, id, in_memory, limit, tester, until};
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::Saved;
use balancer_limiter::terms::BucketId;

const MIB: usize = 1024 * 1024;
/// Larger than a file that is written with each tick.
const LARGE: usize = 300 * 1024;

fn keeper(limits: &Arc<Limits>, folder: Option<&Path>) -> Keeper {
    let folder = folder.map_or_else(Folder::nowhere, Folder::open);
    Keeper::new(Arc::new(Limiter::new(1_000)), Arc::clone(limits), folder, Clock::manual())
}

fn client(n: u32) -> ClientKey {
    ClientKey::address(std::net::Ipv4Addr::from(n).into())
}

/// A bucket of 100 tokens into which one flows in a second.
fn saved(level_micro: i64) -> Saved {
    let limit = Limit { capacity: 100, rate: Rate::per_second(1_000_000) };
    Saved { id: BucketId(7), of_rule: false, limit, level_micro, reset: None }
}

fn spend(keeper: &Keeper, client: ClientKey, left_micro: i64) {
    assert!(keeper.limiter.restore(client, &saved(left_micro), 0, keeper.clock.moment()));
}

fn level(keeper: &Keeper, client: ClientKey) -> Option<i64> {
    let bucket = keeper.limiter.peek(client, BucketId(7), keeper.clock.moment());
    bucket.map(|bucket| bucket.level_micro())
}

fn by_hand(limits: &Limits, sql: impl Fn(&str) -> String) {
    let run = &mut |session: &mut dyn Session| session.batch(&sql(session.now_us()));
    limits.core.store.with(WITHIN, Access::Write, run).unwrap();
}

/// The levels in the database, in millionths, whatever the store thinks of it.
fn stored(limits: &Limits) -> Vec<i64> {
    let cells = inside(limits.core.store.as_ref(), WITHIN, Access::Read, |session| {
        session.query("SELECT bytes FROM instance_state", &[])
    });
    let mut levels = Vec::new();
    for row in cells.unwrap() {
        let [Cell::Bytes(piece)] = row.as_slice() else { panic!("{row:?}") };
        levels.extend(pack::read(piece).map(|(_, saved)| saved.level_micro));
    }
    levels
}

/// The pieces that are still to be written.
fn dirty(keeper: &Keeper) -> Vec<usize> {
    (0..PIECES).filter(|number| keeper.dirty[*number]).collect()
}

/// Ten pieces of one MiB each; the others are empty.
fn ten_large() -> Vec<Vec<u8>> {
    (0..PIECES).map(|number| vec![1; if number < 10 { MIB } else { 0 }]).collect()
}

#[test]
fn a_tick_saves_four_mib_and_the_next_one_goes_on_behind_them() {
    let limits = in_memory();
    let mut keeper = keeper(&limits, None);
    keeper.dirty[..10].fill(true);
    keeper.save(ten_large(), 4 * MIB);
    assert_eq!(dirty(&keeper), [4, 5, 6, 7, 8, 9]);
    // What changes again meanwhile waits for its turn.
    keeper.dirty[..4].fill(true);
    keeper.save(ten_large(), 4 * MIB);
    assert_eq!(dirty(&keeper), [0, 1, 2, 3, 8, 9]);
    keeper.save(ten_large(), 1);
    assert_eq!(dirty(&keeper), [0, 1, 2, 3, 9], "at least one piece");
    // The last tick saves all, 4 MiB at once.
    keeper.save(ten_large(), usize::MAX);
    assert!(dirty(&keeper).is_empty());
}

#[test]
fn what_the_database_does_not_take_is_saved_later_and_what_comes_behind_it_too() {
    let limits = in_memory();
    let mut keeper = keeper(&limits, None);
    by_hand(&limits, |_| {
        "CREATE TRIGGER refuse BEFORE INSERT ON instance_state WHEN NEW.segment = 6 \
         BEGIN SELECT RAISE(ABORT, 'a test'); END"
            .into()
    });
    keeper.dirty[..10].fill(true);
    keeper.save(ten_large(), usize::MAX);
    assert_eq!(dirty(&keeper), [4, 5, 6, 7, 8, 9]);
    by_hand(&limits, |_| "DROP TRIGGER refuse".into());
    keeper.save(ten_large(), usize::MAX);
    assert!(dirty(&keeper).is_empty());
}

#[test]
fn a_bucket_is_saved_when_it_is_full_in_more_than_five_seconds() {
    let keeper = keeper(&in_memory(), None);
    for (n, level_micro) in [(1, 0), (2, 94_999_999), (3, 95_000_000), (4, 99_000_000)] {
        spend(&keeper, client(n), level_micro);
    }
    let mut levels: Vec<_> =
        pack::read(&pack::joined(&keeper.pack())).map(|(_, saved)| saved.level_micro).collect();
    levels.sort_unstable();
    assert_eq!(levels, [0, 94_999_999]);
}

#[test]
fn clients_are_spread_over_all_pieces_in_a_way_that_only_the_instance_knows() {
    let spread = |key: u64| {
        let spread = SipHasher13::new_with_keys(key, !key);
        (0..5_000).map(|n| piece_of(&spread, client(n))).collect::<Vec<_>>()
    };
    let pieces: std::collections::BTreeSet<_> = spread(1).into_iter().collect();
    assert!(pieces.len() > 250 && pieces.into_iter().all(|piece| piece < PIECES));
    assert_eq!(spread(1), spread(1));
    assert_ne!(spread(1), spread(2));
}

#[test]
fn all_that_was_saved_comes_back_however_many_pieces_it_is() {
    let (limits, clients) = (in_memory(), 200);
    let mut first = keeper(&limits, None);
    (0..clients).for_each(|n| spend(&first, client(n), i64::from(n)));
    first.tick(usize::MAX, true);
    assert!(limits.saved_levels(None, 1_000).unwrap().len() > 2 * PAGE);
    let mut second = keeper(&limits, None);
    assert_eq!(second.restore(), Some(200));
    assert!((0..clients).all(|n| level(&second, client(n)).is_some()));
    assert_eq!(keeper(&down(), None).restore(), None);
}

#[test]
fn what_of_a_piece_does_not_count_or_can_not_be_read_is_left_out() {
    let keeper = keeper(&in_memory(), None);
    let mut piece = pack::piece();
    for n in 1..=3 {
        pack::push(&mut piece, client(n), &saved(0));
    }
    piece.extend([0xff; pack::RECORD_BYTES]);
    let back = keeper.put_back(&piece, Duration::from_secs(10), |one| one != client(2));
    assert_eq!(back, PutBack { count: 2, left_out: 0, unreadable: 1 });
    let levels = [1, 2, 3].map(|n| level(&keeper, client(n)));
    assert_eq!(levels, [Some(10_000_000), None, Some(10_000_000)]);
}

#[test]
fn levels_are_forgotten_after_400_days() {
    let limits = in_memory();
    by_hand(&limits, |now_us| {
        let row = |days: u64| format!("('of {days} days', 0, x'01', {now_us} - {days} * 86400000000)");
        format!(
            "INSERT INTO instance_state (instance, segment, bytes, saved_at_us) VALUES {}, {}",
            row(399),
            row(401)
        )
    });
    assert_eq!(keeper(&limits, None).restore(), Some(0));
    let left = limits.saved_levels(None, 10).unwrap();
    assert_eq!(left.iter().map(|one| &*one.instance).collect::<Vec<_>>(), ["of 399 days"]);
}

#[test]
fn what_the_instance_saved_before_is_put_back_before_it_is_overwritten() {
    let (limits, home) = (in_memory(), tempfile::tempdir().unwrap());
    let mut before = keeper(&limits, Some(home.path()));
    spend(&before, client(1), 30_000_000);
    before.tick(usize::MAX, true);
    assert_eq!(stored(&limits), [30_000_000]);
    drop(before);

    // It starts while the database can't be read, and the client spends something.
    by_hand(&limits, |_| "ALTER TABLE audit RENAME TO elsewhere".into());
    let mut after = keeper(&limits, Some(home.path()));
    spend(&after, client(1), 60_000_000);
    after.tick(usize::MAX, false);
    assert_eq!((level(&after, client(1)), stored(&limits)), (Some(60_000_000), vec![30_000_000]));

    by_hand(&limits, |_| "ALTER TABLE elsewhere RENAME TO audit".into());
    until("the database can be read again", || {
        after.tick(usize::MAX, false);
        after.restored.then_some(())
    });
    // Some seconds may have passed on the database's clock.
    let back = level(&after, client(1)).unwrap();
    assert!((30_000_000..60_000_000).contains(&back), "{back}");
    assert_eq!(stored(&limits), [back]);
}

#[test]
fn the_file_of_levels_is_written_when_they_changed_and_a_large_one_in_each_tenth_tick() {
    let (limits, home) = (in_memory(), tempfile::tempdir().unwrap());
    let mut with_file = keeper(&limits, Some(home.path()));
    for (is_old, bytes, ticks, all, due) in [
        (true, 0, 1, false, true),
        (false, 0, 10, true, false),
        (true, LARGE, 9, false, false),
        (true, LARGE, 10, false, true),
        (true, LARGE, 9, true, true),
        (false, LARGE, 10, true, false),
    ] {
        with_file.folder.levels.write(&vec![0; bytes], with_file.clock.wall());
        (with_file.file_is_old, with_file.ticks) = (is_old, ticks);
        assert_eq!(with_file.is_file_due(all), due, "{is_old} {bytes} {ticks} {all}");
    }
    let mut without = keeper(&limits, None);
    without.file_is_old = true;
    assert!(!without.is_file_due(true));
}

#[test]
fn the_file_of_limits_is_written_when_they_changed_and_a_large_one_in_each_tenth_tick() {
    let (limits, home) = (in_memory(), tempfile::tempdir().unwrap());
    let mut keeper = keeper(&limits, Some(home.path()));
    let path = home.path().join("limits.snapshot");
    // Whether the file is written, which holds so much before.
    let mut writes = |bytes: usize, ticks: u32, all: bool| {
        keeper.folder.limits.write(&vec![0; bytes], keeper.clock.wall());
        let before = fs::read(&path).unwrap();
        keeper.ticks = ticks;
        keeper.write_limits(all);
        fs::read(&path).unwrap() != before
    };
    limits.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
    assert!(writes(0, 1, false));
    assert!(!writes(0, 10, true), "nothing changed");
    limits.create(&id("11.0.0.0/8"), limit(1), &tester()).unwrap();
    assert!(!writes(LARGE, 9, false));
    assert!(writes(LARGE, 10, false));
    limits.create(&id("12.0.0.0/8"), limit(1), &tester()).unwrap();
    assert!(writes(LARGE, 9, true));
    let (text, _) = keeper.folder.limits.read(keeper.clock.wall()).unwrap();
    assert_eq!(String::from_utf8(text), Ok(limits.remembered()));
}

#[test]
fn limits_of_the_last_process_are_in_force_while_the_database_is_down_and_are_not_written_again() {
    let (limits, home) = (in_memory(), tempfile::tempdir().unwrap());
    limits.create(&id("10.0.0.0/8"), limit(1), &tester()).unwrap();
    let mut last = keeper(&limits, Some(home.path()));
    last.write_limits(true);
    let known = limits.remembered();
    drop(last);

    let limits = down();
    let mut now = keeper(&limits, Some(home.path()));
    now.recall_limits();
    assert_eq!(limits.remembered(), known);
    // Memory knows nothing that the file does not have.
    fs::remove_file(home.path().join("limits.snapshot")).unwrap();
    now.write_limits(true);
    assert!(!home.path().join("limits.snapshot").exists());
}
