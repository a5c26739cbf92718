//! Saves the levels of buckets in the background and puts them back at start, so that no client gets a full bucket by a
//! restart.
//!
//! Buckets that are more than 5 s from full are packed into 256 pieces, by client. A piece in which something has changed
//! is written again, to the database and to a file beside the configuration: each second at most 4 MiB, the rest in the
//! next seconds. At start the lowest level that any instance saved counts, refilled by its age on the database's clock.
//! While the database is down, the file is used instead. Requests never wait for any of this, and `kill -9` loses at most
//! what changed in the last second.

mod file;
mod pack;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

use crate::clock::Clock;
use crate::store::Limits;
use balancer_limiter::identity::ClientKey;
use balancer_limiter::limiter::Limiter;
use balancer_time::Nanos;
use balancer_time::nanos;
use file::Folder;

/// How often what has changed is saved.
const TICK: Duration = Duration::from_secs(1);

/// A bucket that is full again within this time is not saved.
const WORTH_SAVING: Nanos = 5_000_000_000;

/// Most bytes that are written to the database in one tick, and at most one piece more.
const TICK_BYTES: usize = 4 * 1024 * 1024;

/// How many pieces there are; the number of one is a byte.
const PIECES: usize = 256;

/// How many pieces are read with one question at start.
const PAGE: usize = 16;

/// Levels that were saved longer ago are removed: longer than any period of a bucket, so the bucket is full, or its
/// instance is gone.
const KEPT: Duration = Duration::from_secs(400 * 86_400);

/// A small file is written with each tick, a large one every so many ticks.
const SLOW_FILE_TICKS: u32 = 10;

/// The thread that saves. [`Levels::stop`] saves once more and ends it.
pub struct Levels {
    life: Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Levels {
    /// Puts back what was saved, waiting at most `database.timeout` for each page, and starts to save. `folder`: the folder
    /// of the file; `None`: no file is kept.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        limiter: Arc<Limiter>,
        limits: Arc<Limits>,
        folder: Option<&Path>,
        clock: Clock,
    ) -> io::Result<Self> {
        let folder = folder.map_or_else(Folder::nowhere, Folder::open);
        let mut keeper = Keeper::new(limiter, limits, folder, clock);
        if keeper.restore().is_none() {
            keeper.recall_limits();
            keeper.restore_from_file();
        }
        let (life, end) = bounded::<Infallible>(0);
        let thread = Builder::new().name("levels".into()).spawn(move || {
            while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                keeper.tick(TICK_BYTES, false);
            }
            keeper.tick(usize::MAX, true);
        })?;
        Ok(Self { life, thread })
    }

    /// Saves what is left to save. Waits at most `database.timeout` for each 4 MiB.
    pub fn stop(self) {
        drop(self.life);
        if self.thread.join().is_err() {
            log::error!("levels: the thread that saves them ended in a panic");
        }
    }
}

struct Keeper {
    limiter: Arc<Limiter>,
    limits: Arc<Limits>,
    folder: Folder,
    clock: Clock,
    /// Chooses the piece of a client: the same one after a restart of this instance, and one that no client can foresee.
    spread: SipHasher13,
    /// The number of the last change that the limiter has told us.
    seq: u32,
    /// How often buckets had been filled by hand then.
    fills: u64,
    /// Pieces that have changed since they were written to the database.
    dirty: [bool; PIECES],
    /// Something has changed since the file was written.
    file_is_old: bool,
    /// The piece with which the next tick begins, so that each piece has its turn; after the last one, the first.
    next: usize,
    /// The levels in the database were put back.
    restored: bool,
    /// That levels can't be saved was logged.
    said: bool,
    ticks: u32,
    /// [`Limits::memory_version`] of the limits in the file.
    known: u64,
}

/// What became of the levels of a piece.
#[derive(Debug, PartialEq, Eq)]
struct PutBack {
    /// Levels that count.
    count: usize,
    /// Those of them for which there is no room.
    left_out: usize,
    /// Records that can't be read.
    unreadable: usize,
}

impl PutBack {
    /// Logs what is wrong with the piece.
    fn log(&self, name: impl Fn() -> String) {
        let Self { count, left_out, unreadable } = self;
        if *unreadable > 0 {
            log::error!("levels: {}: {unreadable} records can't be read; those buckets start full", name());
        }
        if *left_out > 0 {
            log::warn!("levels: {}: there is no room for {left_out} of {count} buckets", name());
        }
    }
}

impl Keeper {
    fn new(limiter: Arc<Limiter>, limits: Arc<Limits>, folder: Folder, clock: Clock) -> Self {
        let key = folder.instance_number();
        limiter.spread_by(key);
        Self {
            limiter,
            limits,
            spread: SipHasher13::new_with_keys(key, !key),
            folder,
            known: 0,
            clock,
            seq: 0,
            fills: 0,
            dirty: [false; PIECES],
            file_is_old: false,
            next: 0,
            restored: false,
            said: false,
            ticks: 0,
        }
    }

    /// Puts back what all instances saved. Returns how many levels; `None` when the database can't be asked now.
    fn restore(&mut self) -> Option<usize> {
        // Resets are read first. Buckets that are filled by hand from now on are filled in memory, too.
        let resets = match self.limits.resets() {
            Ok(resets) => resets,
            Err(error) => {
                log::debug!("levels: not read yet: {error}");
                return None;
            }
        };
        let mut after = None;
        let mut count = 0_usize;
        loop {
            let page = match self.limits.saved_levels(after.take(), PAGE) {
                Ok(page) => page,
                Err(error) => {
                    log::debug!("levels: not read yet: {error}");
                    return None;
                }
            };
            for segment in &page {
                let counts = |client| !resets.undo(client, segment.saved_at_us);
                let back = self.put_back(&segment.bytes, segment.age, counts);
                back.log(|| format!("piece {} of instance {}", segment.segment, segment.instance));
                count += back.count;
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some((last.instance.clone(), last.segment)),
                _ => break,
            }
        }
        if count > 0 {
            log::info!("levels: {count} were put back");
        }
        if let Err(error) = self.limits.forget_levels(KEPT) {
            log::debug!("levels: old ones are not forgotten: {error}");
        }
        self.restored = true;
        Some(count)
    }

    fn restore_from_file(&self) {
        let Some((bytes, age)) = self.folder.levels.read(self.clock.wall()) else { return };
        let back = self.put_back(&bytes, age, |_| true);
        back.log(|| self.folder.levels.shown());
        log::warn!(
            "levels: the database is down; {} were put back from {}",
            back.count,
            self.folder.levels.shown()
        );
    }

    /// Puts back the levels of a piece that was saved so long ago, of those clients for which `counts` is true.
    fn put_back(&self, piece: &[u8], age: Duration, counts: impl Fn(ClientKey) -> bool) -> PutBack {
        let when = self.clock.moment();
        let mut back = PutBack { count: 0, left_out: 0, unreadable: pack::unreadable(piece) };
        for (client, saved) in pack::read(piece).filter(|(client, _)| counts(*client)) {
            back.count += 1;
            back.left_out += usize::from(!self.limiter.restore(client, &saved, nanos(age), when));
        }
        back
    }

    /// Saves what has changed, up to `most_bytes`. `all`: writes the files also when they are large.
    fn tick(&mut self, most_bytes: usize, all: bool) {
        self.ticks = self.ticks.wrapping_add(1);
        self.write_limits(all);
        self.note_changes();
        // What this instance saved before has to be put back before it is overwritten.
        let ready = self.limits.up() && (self.restored || self.restore().is_some());
        let saves = ready && self.dirty.contains(&true);
        let writes = self.is_file_due(all);
        if !(saves || writes) {
            return;
        }
        let pieces = self.pack();
        let file = writes.then(|| pack::joined(&pieces));
        if saves {
            self.save(pieces, most_bytes);
        }
        if let Some(bytes) = file {
            self.file_is_old = false;
            self.folder.levels.write(&bytes, self.clock.wall());
        }
    }

    fn note_changes(&mut self) {
        let fills = self.limiter.fills();
        if fills != self.fills {
            // The limiter does not tell which buckets were filled, so every piece counts as changed.
            (self.fills, self.dirty, self.file_is_old) = (fills, [true; PIECES], true);
        }
        let (spread, dirty, file_is_old) = (&self.spread, &mut self.dirty, &mut self.file_is_old);
        self.seq = self.limiter.changed_since(self.seq, |client, _| {
            dirty[piece_of(spread, client)] = true;
            *file_is_old = true;
        });
    }

    fn is_file_due(&self, all: bool) -> bool {
        let kept = &self.folder.levels;
        let is_time = all || kept.is_small() || self.ticks.is_multiple_of(SLOW_FILE_TICKS);
        self.file_is_old && is_time && kept.is_kept()
    }

    fn save(&mut self, mut pieces: Vec<Vec<u8>>, most_bytes: usize) {
        let order = (0..PIECES).map(|offset| (self.next + offset) % PIECES);
        let order: Vec<usize> = order.filter(|number| self.dirty[*number]).collect();
        let (mut batch, mut bytes, mut left) = (Vec::new(), 0, most_bytes);
        let mut done = Vec::new();
        for number in order {
            let piece = std::mem::take(&mut pieces[number]);
            left = left.saturating_sub(piece.len());
            bytes += piece.len();
            batch.push((number as u8, piece));
            done.push(number);
            if bytes >= TICK_BYTES && !self.send(&mut batch, &mut done, &mut bytes) || left == 0 {
                break;
            }
        }
        self.send(&mut batch, &mut done, &mut bytes);
    }

    /// Writes a batch of pieces, which are then no longer dirty. False when the database does not take them.
    fn send(&mut self, batch: &mut Vec<(u8, Vec<u8>)>, done: &mut Vec<usize>, bytes: &mut usize) -> bool {
        if batch.is_empty() {
            return true;
        }
        *bytes = 0;
        match self.limits.save_levels(self.folder.instance(), std::mem::take(batch)) {
            Ok(()) => {
                for number in done.drain(..) {
                    self.dirty[number] = false;
                    self.next = number + 1;
                }
                self.said = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    log::warn!("levels: they are not saved, and will be when the database is back: {error}");
                }
                done.clear();
                false
            }
        }
    }

    /// Every level that is worth saving, by piece.
    fn pack(&self) -> Vec<Vec<u8>> {
        let when = self.clock.moment();
        let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| pack::piece()).collect();
        self.limiter.changed_since(0, |client, slot| {
            if slot.until_full(when).is_none_or(|until| until > WORTH_SAVING) {
                pack::push(&mut pieces[piece_of(&self.spread, client)], client, &slot.saved(when.now));
            }
        });
        pieces
    }
}

impl Keeper {
    /// Writes the limits that this process knows to their file, if they have changed.
    fn write_limits(&mut self, all: bool) {
        let (kept, version) = (&self.folder.limits, self.limits.memory_version());
        let is_time = all || kept.is_small() || self.ticks.is_multiple_of(SLOW_FILE_TICKS);
        // While the database is down, memory knows nothing that the file does not have.
        if kept.is_kept() && is_time && version != self.known && self.limits.up() {
            self.known = version;
            let text = self.limits.remembered();
            self.folder.limits.write(text.as_bytes(), self.clock.wall());
        }
    }

    /// Puts the limits in force that the last process knew, while the database is down.
    fn recall_limits(&self) {
        let Some((text, _)) = self.folder.limits.read(self.clock.wall()) else { return };
        let count = self.limits.recall(&String::from_utf8_lossy(&text));
        log::warn!(
            "limits: the database is down; {count} limits and plans are in force from {}",
            self.folder.limits.shown()
        );
    }
}

fn piece_of(spread: &SipHasher13, client: ClientKey) -> usize {
    let mut hasher = *spread;
    hasher.write(&client.to_bytes());
    hasher.finish() as usize % PIECES
}

#[cfg(test)]
mod tests;
