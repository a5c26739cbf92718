//! Which connections end at the bound, so that new ones find room: those that never said anything, then idle ones.

use std::sync::atomic::Ordering;

use super::conn::{Conn, Stage};
use super::counts::Kind;
use super::keys::ClientSlot;
use super::turn::Loop;
use balancer_time::Nanos;

/// A connection that has said nothing for less than this may be a client whose request is on its way.
const NEW: Nanos = 1_000_000_000;
/// New silent connections are spared while there are at most this many silent ones, or an eighth of all that there may
/// be. More are a flood.
const FEW: usize = 16;

impl Loop {
    /// The loop in which a connection is to end: the one that has the most silent ones, or else the most idle ones. A
    /// loop that is stuck, or has not decided yet about an arrival of this one, can't end any. `None`: there is nothing
    /// to end.
    pub(super) fn loop_to_evict_in(&self) -> Option<usize> {
        let (shared, own) = (&self.shared, self.number);
        let can_end = |n: &usize| {
            *n == own || !(shared.loops[*n].is_stuck.load(Ordering::Relaxed) || self.undecided.contains(n))
        };
        [Kind::Silent, Kind::IdleHttp2, Kind::Idle].into_iter().find_map(|kind| {
            let count = |n: usize| shared.counts.of_kind_in(n, kind);
            let most = (0..shared.loops.len()).filter(can_end).max_by_key(|n| (count(*n), *n == own))?;
            (count(most) > 0).then_some(most)
        })
    }

    /// Ends a connection of this loop, since another loop has asked for room.
    pub(super) fn evict_if_full(&mut self) {
        self.state().was_asked_for_room();
        if self.shared.counts.all() >= self.shared.counts.most() {
            self.evict();
        }
    }

    /// Ends one connection of this loop: a silent one, or else an idle one, the oldest first. New silent ones go last
    /// while they are few. False: there is none.
    pub(super) fn evict(&mut self) -> bool {
        let silent = self.shared.counts.of_kind(Kind::Silent);
        let are_few = silent <= FEW.max(self.shared.counts.most() / 8);
        let before = if are_few { self.now.saturating_sub(NEW) } else { self.now };
        self.evict_oldest(Kind::Silent, before)
            // Before those of HTTP/1.1: an idle one costs some 16 KiB.
            || self.evict_oldest(Kind::IdleHttp2, self.now)
            || self.evict_oldest(Kind::Idle, self.now)
            || self.evict_oldest(Kind::Silent, self.now)
    }

    /// Ends the oldest connection of that kind, if nothing happened on it since that moment.
    fn evict_oldest(&mut self, kind: Kind, before: Nanos) -> bool {
        while let Some((key, since)) = self.oldest(kind) {
            if since > before {
                self.candidates(kind).push((key, since));
                return false;
            }
            let is_same = |conn: &Conn| conn.counted.kind() == kind && conn.moved_at == since;
            let Some(Some(client)) = self.clients.get(key) else { continue };
            if matches!(client.stage, Stage::Busy(_) | Stage::Linger { .. }) || !is_same(&client.conn) {
                continue;
            }
            if let Some(Some(mut client)) = self.clients.remove(key) {
                self.say_goodbye(&mut client);
                self.end(&mut client);
                return true;
            }
        }
        false
    }

    fn candidates(&mut self, kind: Kind) -> &mut Vec<(ClientSlot, Nanos)> {
        match kind {
            Kind::Silent => &mut self.oldest_silent,
            Kind::IdleHttp2 => &mut self.oldest_idle_http2,
            _ => &mut self.oldest_idle,
        }
    }

    /// The next one to end. One walk over all clients finds many, so that a flood at the bound does not cost a walk for
    /// each.
    fn oldest(&mut self, kind: Kind) -> Option<(ClientSlot, Nanos)> {
        const CANDIDATES: usize = 64;
        if self.shared.counts.of_kind_in(self.number, kind) == 0 {
            return None;
        }
        if self.candidates(kind).is_empty() {
            let of_kind = self.clients.iter().filter_map(|(key, client)| {
                let conn = &client.as_ref()?.conn;
                (conn.counted.kind() == kind).then_some((key, conn.moved_at))
            });
            let mut found: Vec<_> = of_kind.collect();
            // Connections of one turn have the same time. Their slots were taken in order.
            found.sort_unstable_by_key(|(key, since)| std::cmp::Reverse((*since, *key)));
            let surplus = found.len().saturating_sub(CANDIDATES);
            *self.candidates(kind) = found.split_off(surplus);
        }
        self.candidates(kind).pop()
    }
}
