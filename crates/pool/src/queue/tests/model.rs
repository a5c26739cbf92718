//! Random events in random order. At each moment at least one request tries while there is a free place that a request
//! in line can use. Each request is woken once, and at the end all counts are zero.

use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

/// A request, and which of the two backends it can't use.
#[derive(Clone)]
struct Asks {
    member: LineMember,
    avoids: Option<usize>,
}

/// A request in line, and how often it was woken since it went to sleep.
struct Waits {
    place: QueuePlace,
    asks: Asks,
    woken: Arc<AtomicUsize>,
}

/// Two backends, and the requests that come to them.
struct Model {
    queue: Arc<Queue>,
    random: fastrand::Rng,
    now: Nanos,
    free: [usize; 2],
    waits: BTreeMap<u64, Waits>,
    next: u64,
    flying: Vec<Flies>,
    refused: usize,
    /// How many requests could not use a place that was free since the last moment when none was trying. After eight the
    /// line waits for another event.
    choosy: usize,
}

/// A request in flight: at which backend, and since when.
struct Flies {
    asks: Asks,
    passage: Passage,
    at: usize,
    began: Nanos,
    /// It ends only when the test does.
    streams: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let queue = queue(QueueOrder::Fair, 1);
        let free = [random.usize(1..3), random.usize(0..3)];
        let (waits, flying) = (BTreeMap::new(), Vec::new());
        let mut model = Self { queue, random, now: 0, free, waits, next: 0, flying, refused: 0, choosy: 0 };
        model.configure();
        model
    }

    fn configure(&mut self) {
        let order = if self.random.bool() { QueueOrder::Fair } else { QueueOrder::Fifo };
        let target = self.random.bool().then_some(500_000_000);
        self.queue.configure(QueuePolicy { order, size: self.random.usize(0..20), target });
        // A reload calls this, too.
        self.queue.changed();
    }

    fn find(&mut self, avoids: Option<usize>) -> Option<usize> {
        let at = (0..2).find(|at| self.free[*at] > 0 && avoids != Some(*at))?;
        self.free[at] -= 1;
        Some(at)
    }

    fn fly(&mut self, asks: Asks, passage: Passage, at: usize) {
        let streams = self.random.u8(0..20) == 0;
        self.flying.push(Flies { asks, passage, at, began: self.now, streams });
    }

    fn arrive(&mut self) {
        let mut member = member(self.random.u64(0..4) / 2, self.now);
        member.who.priority = Priority::ALL[self.random.usize(0..3)];
        member.weight = [1, 1, 7][self.random.usize(0..3)];
        let avoids = (self.random.u8(0..8) == 0).then(|| self.random.usize(0..2));
        self.seek(Asks { member, avoids });
    }

    /// A new request, or one that is sent again, looks for a place.
    fn seek(&mut self, asks: Asks) {
        if self.queue.is_empty()
            && let Some(at) = self.find(asks.avoids)
        {
            let passage = self.queue.went_straight(asks.member.who);
            return self.fly(asks, passage, at);
        }
        match self.queue.join(asks.member.clone(), self.now) {
            Ok(place) => {
                self.waits.insert(self.next, Waits { place, asks, woken: Arc::default() });
                self.step(self.next);
                self.next += 1;
            }
            Err(_) => self.refused += 1,
        }
    }

    /// A request that has joined or was woken looks at its turn, and goes, sleeps or is refused.
    fn step(&mut self, name: u64) {
        let Some(mut waits) = self.waits.remove(&name) else { return };
        loop {
            match waits.place.standing() {
                LineStanding::Refused(_) => {
                    self.refused += 1;
                    return;
                }
                LineStanding::Trying => {}
                LineStanding::Asleep => {
                    waits.woken = Arc::default();
                    let woken = Arc::clone(&waits.woken);
                    assert!(waits.place.on_turn(Box::new(move || {
                        woken.fetch_add(1, Ordering::SeqCst);
                    })));
                    self.waits.insert(name, waits);
                    return;
                }
            }
            if let Some(at) = self.find(waits.asks.avoids) {
                // A request can't know whether this is the place that it was woken for, so both answers are tried.
                let passage = waits.place.leave(self.random.bool());
                return self.fly(waits.asks, passage, at);
            }
            let choosy = waits.asks.avoids.is_some_and(|at| self.free[at] > 0);
            if self.random.u8(0..8) == 0 {
                // Between its look and its sleep.
                self.end(false);
            }
            self.choosy += usize::from(choosy);
            let _ = waits.place.sleep(choosy, self.now);
        }
    }

    /// A request that was woken goes on, or leaves instead.
    fn wake(&mut self) {
        let woken = self.woken();
        if let Some(name) = self.random.choice(&woken) {
            match self.random.u8(0..8) {
                0 => drop(self.waits.remove(name)),
                _ => self.step(*name),
            }
        }
    }

    fn woken(&self) -> Vec<u64> {
        let is_woken = |waits: &Waits| waits.woken.load(Ordering::SeqCst) > 0;
        self.waits.iter().filter(|(_, waits)| is_woken(waits)).map(|(name, _)| *name).collect()
    }

    fn leave(&mut self) {
        let names: Vec<_> = self.waits.keys().copied().collect();
        if let Some(name) = self.random.choice(&names) {
            self.waits.remove(name);
        }
    }

    /// A request ends. It may be sent again, to the other backend.
    fn end(&mut self, all: bool) {
        let ending: Vec<_> = (0..self.flying.len()).filter(|at| all || !self.flying[*at].streams).collect();
        let Some(which) = self.random.choice(&ending) else { return };
        let Flies { mut asks, passage, at, began, .. } = self.flying.swap_remove(*which);
        self.free[at] += 1;
        let known = self.random.u8(0..8) > 0;
        self.queue.ended(passage, known.then_some(self.now - began), known.then_some(self.now));
        if !all && asks.avoids.is_none() && self.random.u8(0..6) == 0 {
            asks.avoids = Some(at);
            self.seek(asks);
        }
    }

    /// What holds between any two events.
    fn check(&mut self) {
        let (mut members, mut trying, mut beside) = (0, 0, 0);
        for waits in self.waits.values() {
            let standing = waits.place.standing();
            let told = waits.woken.load(Ordering::SeqCst);
            assert_eq!(told, usize::from(standing != LineStanding::Asleep), "told once, when it was time");
            members += usize::from(!matches!(standing, LineStanding::Refused(_)));
            trying += usize::from(standing == LineStanding::Trying);
            let has_room = (0..2).any(|at| self.free[at] > 0 && waits.asks.avoids != Some(at));
            beside += usize::from(standing == LineStanding::Asleep && has_room);
        }
        assert_eq!(self.queue.len(), members);
        assert!(self.queue.clients() <= members);
        assert!(
            trying > 0 || beside == 0 || self.choosy >= 8,
            "{beside} sleep beside free places: {:?}",
            self.free
        );
    }

    fn finish(mut self) {
        while !self.flying.is_empty() || !self.waits.is_empty() {
            self.now += 1_000_000;
            while let Some(name) = self.woken().first() {
                self.step(*name);
            }
            self.check();
            if self.flying.is_empty() {
                // The requests that are left can use none of the free places.
                self.leave();
            }
            self.end(true);
        }
        assert_eq!((self.queue.len(), self.queue.clients()), (0, 0));
        assert_eq!(self.queue.view(8, self.now), LineView::default());
        for (client, priority) in (0..4).flat_map(|client| Priority::ALL.map(|priority| (client, priority))) {
            assert_eq!(self.queue.counted(Who { client, priority }), 0);
        }
    }
}

#[test]
fn nobody_sleeps_beside_a_free_place() {
    let mut refused = 0;
    for seed in 0..400 {
        let mut model = Model::new(seed);
        for _ in 0..300 {
            model.now += model.random.u64(0..60_000_000);
            match model.random.u8(0..20) {
                0..=4 => model.arrive(),
                5..=11 => model.wake(),
                12..=16 => model.end(false),
                17 => model.leave(),
                18 => model.queue.changed(),
                _ => model.configure(),
            }
            model.check();
        }
        refused += model.refused;
        model.finish();
    }
    assert!(refused > 1_000, "some were refused: {refused}");
}
