//! What a [`super::Queue`] keeps under its lock: the places of all requests, and whether there may be room without a
//! request that looks for it.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use super::members::{BusyClient, HeldPlace, LineMember, LineView, PlaceState, TurnCause};
use super::{LineStanding, Passage, QueueOrder, QueuePolicy, Waker};
use crate::fair::{FairLine, LinePolicy, LineRefusal, Turn, WaitingClient, Who};
use balancer_time::Nanos;

/// The state under the lock. After every call the caller has to collect refusals and wakers. A caller that does not
/// know the time gives 0: the fair line uses the latest time that it was given.
pub(super) struct LineState {
    fair: FairLine,
    policy: QueuePolicy,
    /// Counts changes of the order.
    era: u32,
    /// By the numbers of their tickets, and so in the order in which they joined.
    places: BTreeMap<u64, HeldPlace>,
    /// How many of these are asleep or trying.
    members: usize,
    /// How many leases ended while no request was asleep, and no request has found out since that there is no room.
    spare: usize,
    /// There may be room for several requests: each that finds room wakes the next.
    sweeping: bool,
    /// The number of the first request that has its turn because of [`TurnCause::Perhaps`].
    hopeful: Option<u64>,
    /// Counts events that may have made room.
    changes: u64,
    /// The last turn of a request that could not use the room that there is, after as many tries as are allowed.
    /// There may still be room, until a request that could use any finds none.
    unused: Option<Turn>,
    /// Wakers, to be called without the lock.
    woken: Vec<Waker>,
}

/// Most requests that a view looks at under [`QueueOrder::Fifo`].
const MOST_LOOKED_AT: usize = 256;

impl Default for LineState {
    fn default() -> Self {
        let policy = QueuePolicy::default();
        Self {
            fair: FairLine::new(of_fair(policy)),
            policy,
            era: 0,
            places: BTreeMap::new(),
            members: 0,
            spare: 0,
            sweeping: false,
            hopeful: None,
            changes: 0,
            unused: None,
            woken: Vec::new(),
        }
    }
}

fn of_fair(policy: QueuePolicy) -> LinePolicy {
    let QueuePolicy { order, size, target } = policy;
    LinePolicy { size, target: target.filter(|_| order == QueueOrder::Fair) }
}

/// The waker of a request that has not set one. It does nothing, since the request asks for its turn before it waits.
fn unnamed() -> Waker {
    Box::new(|| ())
}

impl LineState {
    pub fn members(&self) -> usize {
        self.members
    }

    pub fn clients(&self) -> usize {
        self.fair.clients()
    }

    pub fn take_woken(&mut self) -> Vec<Waker> {
        mem::take(&mut self.woken)
    }

    /// Wakes requests that were refused since the last call.
    pub fn collect_refusals(&mut self) {
        while let Some((ticket, why)) = self.fair.refused() {
            let Some(place) = self.places.get_mut(&ticket.number()) else { continue };
            if let PlaceState::Asleep(waker) = mem::replace(&mut place.state, PlaceState::Refused(why)) {
                self.woken.push(waker);
            }
            self.shrink();
        }
    }

    /// See [`super::Queue::configure`].
    pub fn configure(&mut self, policy: QueuePolicy, straight: impl Fn(Who) -> u32) {
        self.fair.configure(of_fair(policy));
        let before = mem::replace(&mut self.policy, policy);
        if before.order == policy.order {
            return;
        }
        self.era += 1;
        self.unused = None;
        self.fair = self.fair.renewed();
        for (number, place) in &mut self.places {
            match &mut place.state {
                PlaceState::Asleep(_) => {
                    let joining = place.member.joining(policy.order, &straight);
                    place.ticket = self.fair.seat(*number, &joining, place.since);
                }
                PlaceState::Trying(turn) => *turn = None,
                PlaceState::Refused(_) => {}
            }
        }
    }

    /// Adds a request, and returns the number of its place. See [`super::Queue::join`].
    pub fn join(
        &mut self,
        member: LineMember,
        straight: impl FnOnce(Who) -> u32,
        now: Nanos,
    ) -> Result<u64, LineRefusal> {
        // Requests that have their turn may come back to their places in line.
        let size = self.policy.size.saturating_sub(self.members - self.fair.len());
        self.fair.configure(LinePolicy { size, ..of_fair(self.policy) });
        let ticket = self.fair.join(&member.joining(self.policy.order, straight), now)?;
        let state = PlaceState::Asleep(unnamed());
        let place = HeldPlace { member, ticket, since: now, state, looked: 0, cause: TurnCause::Freed };
        self.places.insert(ticket.number(), place);
        // Otherwise requests that were refused for this one would count as trying.
        self.collect_refusals();
        // While there was no line, leases ended without waking a request.
        self.sweeping |= self.members == 0;
        self.members += 1;
        if self.spare > 0 {
            self.spare -= 1;
            self.wake_next(TurnCause::Freed, now);
        } else if !self.is_tried() {
            self.go_on(now);
        }
        Ok(ticket.number())
    }

    /// What a request may do. If it may try, it looks for room after this call.
    pub fn standing(&mut self, number: u64) -> LineStanding {
        let place = self.places.get_mut(&number).expect("its holder gives it up");
        place.looked = self.changes;
        match place.state {
            PlaceState::Asleep(_) => LineStanding::Asleep,
            PlaceState::Trying(_) => LineStanding::Trying,
            PlaceState::Refused(why) => LineStanding::Refused(why),
        }
    }

    pub fn set_waker(&mut self, number: u64, waker: Waker) -> bool {
        match self.places.get_mut(&number) {
            Some(HeldPlace { state: PlaceState::Asleep(old), .. }) => {
                *old = waker;
                true
            }
            _ => false,
        }
    }

    /// A request tried in vain. False: it has to try again.
    pub fn sleep(&mut self, number: u64, choosy: bool, straight: impl Fn(Who) -> u32, now: Nanos) -> bool {
        let Some(place) = self.places.get_mut(&number) else { return true };
        let PlaceState::Trying(turn) = place.state else { return true };
        if place.looked < self.changes {
            return false;
        }
        let (who, cause) = (place.member.who, place.cause);
        place.state = PlaceState::Asleep(unnamed());
        self.hopeful.take_if(|hopeful| *hopeful == number);
        match turn {
            None => {
                let joining = place.member.joining(self.policy.order, &straight);
                place.ticket = self.fair.seat(number, &joining, place.since);
                if choosy {
                    self.wake_next(cause, now);
                }
            }
            Some(turn) if choosy => {
                let next = self.fair.pass(turn, now);
                if !self.wake(next, cause) {
                    (self.sweeping, self.unused) = (false, Some(turn));
                }
            }
            Some(turn) => {
                self.fair.put_back(turn, now);
                (self.spare, self.sweeping, self.unused) = (0, false, None);
            }
        }
        // A straight request that ended while the first one joined saw no line, so the fair line does not know of its
        // end.
        self.fair.straight_ended(who, straight(who), None, now);
        true
    }

    /// A request found room on its turn. `elsewhere`: perhaps other room than it was woken for.
    pub fn found(&mut self, number: u64, elsewhere: bool) -> Passage {
        let Some(place) = self.remove(number) else { return Passage::Uncounted };
        self.shrink();
        self.sweeping |= elsewhere;
        match place.cause {
            TurnCause::FreedToo => self.give(TurnCause::Perhaps, 0),
            TurnCause::Freed | TurnCause::Perhaps => self.go_on(0),
        }
        match place.state {
            PlaceState::Trying(Some(turn)) => Passage::Waited { who: turn.ticket.who, era: self.era },
            _ => Passage::Uncounted,
        }
    }

    /// A request gives up its place without having found room.
    pub fn given_up(&mut self, number: u64) {
        let Some(place) = self.remove(number) else { return };
        match place.state {
            PlaceState::Refused(_) => {}
            PlaceState::Asleep(_) => {
                self.fair.leave(place.ticket, 0);
                self.shrink();
            }
            PlaceState::Trying(turn) => {
                if let Some(turn) = turn {
                    self.fair.end(turn.ticket.who, None, 0);
                }
                self.shrink();
                // Its turn was not used, so the next request gets one; a sweep goes on.
                self.freed(0);
                if place.cause == TurnCause::FreedToo {
                    self.give(TurnCause::Perhaps, 0);
                }
            }
        }
    }

    /// A request that had waited has ended.
    pub fn ended(&mut self, who: Who, era: u32, held: Option<Nanos>, now: Nanos) {
        if era == self.era {
            self.fair.end(who, held, now);
        }
    }

    /// A request that had not waited has ended. `straight`: how many such requests of its client are still in flight.
    pub fn straight_ended(&mut self, who: Who, straight: u32, held: Option<Nanos>, now: Nanos) {
        self.fair.straight_ended(who, straight, held, now);
    }

    /// There is room for one request. One that is trying already, because there may be room, looks again and takes it:
    /// if another one were woken, that could be quicker and take the place of the one before it.
    pub fn freed(&mut self, now: Nanos) {
        // Whoever is trying looks again before it sleeps: the request that is woken may take another place than this one.
        self.changes += 1;
        let hopeful = self.hopeful.take().and_then(|number| self.places.get_mut(&number));
        if let Some(place) = hopeful {
            place.cause = TurnCause::FreedToo;
        } else {
            self.give(TurnCause::Freed, now);
        }
    }

    /// Gives a request a turn, or remembers that there is room for one.
    fn give(&mut self, cause: TurnCause, now: Nanos) {
        if self.wake_next(cause, now) {
            return;
        }
        if self.spare < self.members {
            self.spare += 1;
        } else {
            // There is more room than the requests that are trying can take, so one that joins must not wait.
            self.sweeping = true;
        }
    }

    /// There may be room for several requests.
    pub fn sweep(&mut self) {
        self.changes += 1;
        self.sweeping = true;
        // A request that is trying looks again before it sleeps.
        if !self.is_tried() {
            self.try_unused(0);
            self.wake_next(TurnCause::Perhaps, 0);
        }
    }

    pub fn view(&self, most_clients: usize, now: Nanos) -> LineView {
        let mut in_line = self.places.values().filter(|place| !matches!(place.state, PlaceState::Refused(_)));
        let oldest = in_line.next().map(|place| now.saturating_sub(place.since));
        let busiest = match self.policy.order {
            QueueOrder::Fair => self.fair.busiest(most_clients).map(|client| self.busy(client)).collect(),
            QueueOrder::Fifo => self.first(most_clients),
        };
        LineView { waiting: self.members, clients: self.fair.clients(), oldest, busiest }
    }

    fn busy(&self, client: WaitingClient) -> BusyClient {
        let WaitingClient { first, in_flight, waiting } = client;
        let member = &self.places[&first.number()].member;
        let name = Arc::clone(&member.name);
        BusyClient { name, priority: member.who.priority, in_flight: Some(in_flight), waiting }
    }

    /// Under [`QueueOrder::Fifo`] clients are not counted: shows those of the first requests in line, by how many of
    /// these they have.
    fn first(&self, most_clients: usize) -> Vec<BusyClient> {
        let mut clients = HashMap::new();
        let asleep = |place: &&HeldPlace| matches!(place.state, PlaceState::Asleep(_));
        for HeldPlace { member, .. } in self.places.values().filter(asleep).take(MOST_LOOKED_AT) {
            let client = clients.entry(member.who).or_insert_with(|| BusyClient {
                name: Arc::clone(&member.name),
                priority: member.who.priority,
                in_flight: None,
                waiting: 0,
            });
            client.waiting += 1;
        }
        let mut busiest: Vec<_> = clients.into_values().collect();
        busiest.sort_unstable_by(|a, b| (b.waiting, &a.name).cmp(&(a.waiting, &b.name)));
        busiest.truncate(most_clients);
        busiest
    }

    #[cfg(test)]
    pub fn in_flight(&self, who: Who) -> u32 {
        self.fair.in_flight(who)
    }

    fn wake_next(&mut self, cause: TurnCause, now: Nanos) -> bool {
        let next = self.fair.next(now);
        self.wake(next, cause)
    }

    fn remove(&mut self, number: u64) -> Option<HeldPlace> {
        self.hopeful.take_if(|hopeful| *hopeful == number);
        self.places.remove(&number)
    }

    /// Whether a request is trying. It will find out whether there is more room.
    fn is_tried(&self) -> bool {
        self.members > self.fair.len()
    }

    /// There may be more room: gives the next request a turn, if so.
    fn go_on(&mut self, now: Nanos) {
        if self.sweeping {
            self.wake_next(TurnCause::Perhaps, now);
        } else {
            self.try_unused(now);
        }
    }

    /// Gives a turn to a request that has not yet tried the room that others could not use.
    fn try_unused(&mut self, now: Nanos) {
        if let Some(last) = self.unused {
            let next = self.fair.pass_on(&last, now);
            // That room is not for every request, so whoever tries it does not answer for a place that is freed.
            self.wake(next, TurnCause::Freed);
        }
    }

    /// Gives a request its turn. False: there is none.
    fn wake(&mut self, turn: Option<Turn>, cause: TurnCause) -> bool {
        let Some(turn) = turn else { return false };
        let number = turn.ticket.number();
        let place = self.places.get_mut(&number).expect("who waits has a place");
        (place.cause, place.looked) = (cause, self.changes);
        if cause == TurnCause::Perhaps {
            self.hopeful.get_or_insert(number);
        }
        if let PlaceState::Asleep(waker) = mem::replace(&mut place.state, PlaceState::Trying(Some(turn))) {
            self.woken.push(waker);
        }
        true
    }

    /// One request less is in line.
    fn shrink(&mut self) {
        self.members -= 1;
        if self.members == 0 {
            (self.spare, self.sweeping, self.unused) = (0, false, None);
        }
    }
}
