//! Loops compare how much of a processor they used lately. A loop that used much more than the least busy one gives it
//! some connections that are between two requests.

use std::sync::atomic::Ordering;

use rustix::event::epoll;
use rustix::time::{ClockId, clock_gettime};

use super::conn::Stage;
use super::keys::ClientSlot;
use super::state::{Letter, LoopState, Newcomer};
use super::turn::Loop;
use balancer_time::Nanos;

/// How often loops compare.
const WINDOW: Nanos = 200_000_000;
/// A loop that uses less of a processor than this, in thousandths, keeps its connections.
const BUSY: u64 = 300;

impl Loop {
    /// Compares, when it is time for that.
    pub(super) fn balance(&mut self) {
        let span = self.now.saturating_sub(self.share.looked_at);
        if span < WINDOW || self.shared.loops.len() == 1 {
            return;
        }
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let used = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
        let share = used.saturating_sub(self.share.used) * 1000 / span;
        (self.share.used, self.share.looked_at) = (used, self.now);
        let loops = &self.shared.loops;
        loops[self.number].busy.store(share, Ordering::Relaxed);
        let busy = |one: &LoopState| one.busy.load(Ordering::Relaxed);
        let usable = (0..loops.len()).filter(|n| !loops[*n].is_stuck.load(Ordering::Relaxed));
        let least = usable.min_by_key(|n| busy(&loops[*n])).unwrap_or(self.number);
        let other = busy(&loops[least]);
        self.share.to_move = 0;
        if least != self.number && share > BUSY && share > other + other / 4 + 50 {
            // A quarter of the difference, since other loops may give to the same one at the same time.
            let part = (share - other) as usize * 1000 / share as usize;
            self.share.to = least;
            self.share.to_move = self.shared.counts.of_loop(self.number) * part / 4000;
        }
    }

    /// Gives a client away if one is to go and this one is between two requests. True: it is gone.
    pub(super) fn give_away(&mut self, key: ClientSlot) -> bool {
        if self.share.to_move == 0 || self.draining_since.is_some() {
            return false;
        }
        let Some(Some(client)) = self.clients.get(key) else { return false };
        let conn = &client.conn;
        let is_free = matches!(client.stage, Stage::Head)
            && conn.inbox.is_empty()
            && conn.is_flushed()
            && !(conn.readable || conn.ended || conn.broken || conn.expects_proxy || conn.pinned.is_some());
        if !is_free {
            return false;
        }
        self.share.to_move -= 1;
        let Some(Some(client)) = self.clients.remove(key) else { return false };
        let mut conn = client.conn;
        let _ = epoll::delete(&self.epoll, &conn.socket);
        conn.counted.move_to(self.share.to);
        let newcomer = Newcomer {
            socket: conn.socket,
            transport: conn.transport,
            secured: conn.secured,
            counted: conn.counted,
            peer: conn.peer,
            is_proxied: conn.is_proxied,
            expects_proxy: false,
            fresh: conn.fresh,
        };
        self.shared.loops[self.share.to].post(Letter::Welcome(newcomer));
        true
    }
}
