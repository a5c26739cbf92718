mod calendar;
mod looks;

use super::super::super::others::{Heard, HearingSince};
use super::*;
use crate::limit::Rate;
use crate::limiter::{Ask, Grant, MAX_ASKED};
use crate::reports::SpentReport;
use crate::reset::Reset;
use crate::terms::{BucketName, ClientLimit, Terms};
use balancer_time::Moment;
use proptest::prelude::*;

const SEC: Nanos = 1_000_000_000;

/// 100 tokens, 50 a second.
const USUAL: Limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };

const LINK: PeerLinkState =
    PeerLinkState { members: 3, cut_off: false, unheard: false, returns: 0, returned_at: 0 };

const CUT_OFF: PeerLinkState = PeerLinkState { cut_off: true, ..LINK };

/// There is no other instance.
const ALONE: PeerLinkState = PeerLinkState { members: 1, ..LINK };

fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 0 }
}

/// One client's buckets, and what its shard keeps.
struct Client {
    slots: Slots,
    hot: HotTable,
    counts: HotCounts,
    grant: Grant,
}

impl Client {
    fn new(limit: Limit) -> Self {
        Self::of(Terms::of_numbers(limit))
    }

    /// 1,000 a day of the calendar.
    fn daily() -> Self {
        let limit = Limit { capacity: 1_000, rate: Rate { micro: 1_000_000_000, per_secs: 86_400 } };
        let spec = BucketSpec::new(BucketName::default_bucket(), limit);
        let spec = BucketSpec { reset: Some(Reset::Day), ..spec };
        Self::of(Terms { buckets: [spec].into(), ..Terms::default() })
    }

    fn of(terms: Terms) -> Self {
        let grant = Grant::of_default(terms);
        Self { slots: Slots::default(), hot: HotTable::default(), counts: HotCounts::default(), grant }
    }

    /// Whether a request is allowed, the tokens left that it is told, and whether something has to be reported soon.
    fn ask(&mut self, link: PeerLinkState, cost: u32, now: Nanos) -> (bool, u32, bool) {
        self.ask_at(link, cost, at(now))
    }

    fn ask_at(&mut self, link: PeerLinkState, cost: u32, when: Moment) -> (bool, u32, bool) {
        let client = ClientKey::digest(b"a");
        let mut sharing = Sharing::new(link, client, &mut self.hot, &self.counts);
        let unsaid = Slot::full(&self.grant.terms.buckets[0], false, when).verdict(1, true, when);
        let mut verdicts = [unsaid; MAX_ASKED];
        let ask = Ask { cost, ..Ask::of(&self.grant) };
        let allowed = self.slots.acquire_shared(ask, when, &mut verdicts, &mut sharing);
        (allowed, verdicts[0].outcome.left, sharing.loud)
    }

    /// How many requests are allowed at once.
    fn burst(&mut self, link: PeerLinkState, now: Nanos) -> usize {
        (0..1000).take_while(|_| self.ask(link, 1, now).0).count()
    }

    fn hear(&mut self, fresh: u64, rate: u64, now: Nanos) -> Option<Heard> {
        self.hear_while(LINK, fresh, rate, now)
    }

    fn report(&self, spent: u64, fresh: u64, rate: u64) -> SpentReport {
        SpentReport {
            client: ClientKey::digest(b"a"),
            bucket: BucketId::of("default"),
            of_rule: false,
            has_own_row: false,
            limit: self.grant.terms.buckets[0].in_force(),
            reset: None,
            episode: 0,
            spent,
            fresh,
            rate_micro: rate * 1_000_000,
        }
    }

    fn hear_while(&mut self, link: PeerLinkState, fresh: u64, rate: u64, now: Nanos) -> Option<Heard> {
        // Another episode for each report.
        let report = SpentReport { episode: (now / 1_000_000) as u32, ..self.report(fresh, fresh, rate) };
        let mut sharing = Sharing::new(link, report.client, &mut self.hot, &self.counts);
        let since = HearingSince { began: 0, is_new: false, is_silent: link.cut_off, last: 0 };
        self.slots.hear(1, &report, since, &mut sharing, at(now))
    }

    fn elsewhere(&self) -> u64 {
        self.slots.spent_elsewhere(BucketId::of("default"), &self.hot)
    }

    fn level(&self) -> i64 {
        self.slots.iter().next().unwrap().bucket().level_micro() / 1_000
    }

    fn hot(&self) -> usize {
        self.counts.hot()
    }
}

#[test]
fn a_client_that_spends_less_than_its_part_of_the_rate_stays_quiet() {
    let mut client = Client::new(USUAL);
    // A third of 50 a second is one each 60 ms.
    for step in 0..1_000 {
        assert_eq!(client.ask(LINK, 1, SEC + step * 61_000_000), (true, 99, false));
    }
    assert_eq!(client.hot(), 0);
    let faster = (0..1_000).position(|step| client.ask(LINK, 1, 100 * SEC + step * 30_000_000).2);
    // Half of it leaks; 8.3 may be hidden.
    assert_eq!((faster, client.hot()), (Some(15), 1));
}

#[test]
fn a_burst_is_told_when_a_quarter_of_an_even_part_is_hidden() {
    let mut client = Client::new(USUAL);
    let loud: Vec<usize> = (1..=30).filter(|_| client.ask(LINK, 1, SEC).2).collect();
    assert_eq!(loud, [9]);
    assert_eq!(client.burst(LINK, SEC), 70);
    // A request that costs more than that is told at once.
    assert!(Client::new(USUAL).ask(LINK, 20, SEC).2);
    // Alone, and where the limit says so, nothing is ever told.
    let mut alone = Client::new(USUAL);
    assert_eq!((alone.burst(PeerLinkState { members: 1, ..LINK }, SEC), alone.hot()), (100, 0));
    let mut apart = Client::new(USUAL);
    apart.grant.per_instance = true;
    assert_eq!((apart.burst(LINK, SEC), apart.burst(CUT_OFF, SEC + SEC), apart.hot()), (100, 50, 0));
}

#[test]
fn what_others_spent_is_owed_and_no_more_than_they_could_have() {
    let mut client = Client::new(USUAL);
    assert_eq!(client.hear(30, 0, SEC), Some(Heard::New(30)));
    assert_eq!((client.ask(LINK, 1, SEC), client.hot()), ((true, 69, false), 1));
    client.hear(1_000, 0, SEC + 1_000_000);
    assert_eq!(client.level(), -200_000);
    client.hear(1_000, 0, SEC + 2_000_000);
    assert!(client.level() <= -199_900);
    // 50 a second: the debt is paid after 4 s.
    assert!(!client.ask(LINK, 1, 5 * SEC).0);
    assert!(client.ask(LINK, 1, SEC + 4 * SEC + SEC / 10).0);
}

#[test]
fn others_are_taken_to_go_on() {
    let mut client = Client::new(USUAL);
    client.hear(30, 20, SEC);
    // 30 are gone; after half a second 25 have come, and 10 more are taken to be spent.
    assert_eq!(client.ask(LINK, 85, SEC + SEC / 2), (true, 0, true));
    assert_eq!(client.level(), 10_000);
    assert!(!client.ask(LINK, 1, SEC + SEC / 2).0);
}

#[test]
fn what_is_not_charged_was_not_spent_elsewhere() {
    let mut client = Client::new(USUAL);
    client.hear(30, 0, SEC);
    assert_eq!(client.elsewhere(), 30);
    // In a silence that is not over, and in a bucket that is held to its part.
    client.hear_while(CUT_OFF, 20, 0, 2 * SEC);
    client.ask(CUT_OFF, 1, 3 * SEC);
    client.hear_while(CUT_OFF, 20, 0, 4 * SEC);
    assert_eq!(client.elsewhere(), 30);
    client.hear_while(back(1, 5 * SEC), 5, 0, 5 * SEC);
    assert_eq!(client.elsewhere(), 35);
}

#[test]
fn hot_clients_are_counted_once_however_many_buckets_are_hot() {
    let names = ["a", "b", "c"].map(|name| BucketSpec::new(BucketName::parse(name).unwrap(), USUAL));
    let mut client = Client::of(Terms { buckets: names.into(), ..Terms::default() });
    client.ask(LINK, 50, SEC);
    assert_eq!((client.counts.hot(), client.counts.clients()), (3, 1));
    let places: Vec<HotPlace> = client.hot.places().collect();
    for (place, left) in places.into_iter().zip([1, 1, 0]) {
        client.hot.remove(place, &client.counts);
        assert_eq!(client.counts.clients(), left);
    }
}

#[test]
fn nobody_is_taken_to_go_on_who_is_gone() {
    let mut client = Client::new(USUAL);
    client.hear(30, 20, SEC);
    // Of 95, one is taken and 10 are expected to be spent elsewhere.
    assert_eq!(client.ask(LINK, 1, SEC + SEC / 2), (true, 84, false));
    let alone = PeerLinkState { members: 1, ..LINK };
    assert_eq!(client.ask(alone, 1, SEC + SEC / 2), (true, 93, false));
}

#[test]
fn cut_off_a_bucket_is_held_to_a_part_and_then_is_whole_again() {
    let mut client = Client::new(USUAL);
    client.ask(LINK, 1, SEC);
    // Nobody told anything: an even part, of which 16.7 come each second.
    assert_eq!(client.burst(CUT_OFF, 4 * SEC), 33);
    assert_eq!(client.burst(CUT_OFF, 5 * SEC), 17);
    assert_eq!(client.hot(), 0);
    // Heard again at 6 s. At 7 s the whole is full again.
    let back = PeerLinkState { returns: 1, returned_at: 6 * SEC, ..LINK };
    assert_eq!(client.burst(back, 7 * SEC), 100);
    // In the next silence the part is found anew, by what was told: only this instance did.
    client.ask(back, 0, 9 * SEC);
    let report = client.hot.places().next().unwrap();
    let told = client.slots.iter().next().unwrap().told(false);
    client.hot.get_mut(report).unwrap().report(9 * SEC, told);
    let again = PeerLinkState { cut_off: true, ..back };
    assert_eq!(client.burst(again, 9 * SEC), 100);
}

/// The state after a silence that ended at `now`; `returns` silences have ended.
fn back(returns: u32, now: Nanos) -> PeerLinkState {
    PeerLinkState { returns, returned_at: now, ..LINK }
}

#[test]
fn a_silence_costs_a_slow_bucket_no_more_than_what_is_spent_in_it() {
    let slow = Limit { capacity: 1_000, rate: Rate { micro: 1_000_000_000, per_secs: 86_400 } };
    for mut client in [Client::daily(), Client::new(slow)] {
        assert_eq!(client.ask(LINK, 1, SEC), (true, 999, false));
        // This instance gives out a third of that, and each token costs three of the level.
        assert_eq!(client.ask(CUT_OFF, 1, 4 * SEC), (true, 332, false));
        assert_eq!(client.ask(back(1, 5 * SEC), 0, 6 * SEC), (true, 996, false));
        for flap in 1..=10 {
            let now = (4 + 2 * u64::from(flap)) * SEC;
            client.ask(PeerLinkState { cut_off: true, ..back(flap, now) }, 0, now);
            client.ask(back(flap + 1, now + SEC), 0, now + SEC);
        }
        assert_eq!(client.ask(back(11, 25 * SEC), 0, 25 * SEC), (true, 996, false));
    }
}

#[test]
fn three_that_are_cut_off_admit_together_what_one_would() {
    // 200 of 1,000 are spent, and all of them know it.
    let mut instances: Vec<Client> = (0..3).map(|_| Client::daily()).collect();
    for client in &mut instances {
        assert!(client.ask(ALONE, 200, SEC).0);
    }
    let admitted: usize = instances.iter_mut().map(|client| client.burst(CUT_OFF, 4 * SEC)).sum();
    assert!((797..=800).contains(&admitted), "{admitted}");
    let after: usize = instances.iter_mut().map(|client| client.burst(back(1, 5 * SEC), 5 * SEC)).sum();
    assert!(after <= 6, "{after}");
}

#[test]
fn a_part_gives_out_one_request_however_much_it_costs_and_then_as_much_less() {
    let mut client = Client::new(Limit { capacity: 20, ..USUAL });
    assert!(client.ask(ALONE, 20, SEC).0);
    // A third of 20 is 6, refilled at 16.7 a second.
    assert!(client.ask(CUT_OFF, 6, 2 * SEC).0);
    assert!(!client.ask(CUT_OFF, 1, 2 * SEC).0);
    // 20 are 1.2 s of that.
    assert_eq!(client.ask(CUT_OFF, 20, 3 * SEC), (true, 0, false));
    assert!(!client.ask(CUT_OFF, 1, 3 * SEC + 8 * SEC / 10).0);
    let at_once = (0..120).filter(|step| client.ask(CUT_OFF, 20, 4 * SEC + step * SEC / 20).0).count();
    assert!((4..=6).contains(&at_once), "{at_once} x 20 in 6 s of 16.7 a second");
    assert!(!client.ask(CUT_OFF, 21, 60 * SEC).0);
    let mut one = Client::new(Limit { capacity: 1, ..USUAL });
    assert_eq!((one.burst(CUT_OFF, SEC), one.burst(CUT_OFF, 2 * SEC)), (1, 1));
    let mut none = Client::new(Limit { capacity: 0, ..USUAL });
    assert_eq!(none.burst(CUT_OFF, SEC), 0);
}

proptest! {
    #[test]
    fn a_silence_admits_a_part_of_the_whole_and_one_request(
        capacity in 1u32..50, steps in prop::collection::vec((0u32..60, 0..2 * SEC), 1..100),
    ) {
        let mut client = Client::new(Limit { capacity, ..USUAL });
        let (mut now, mut admitted) = (SEC, 0);
        for (cost, idle) in steps {
            now += idle;
            admitted += u64::from(cost) * u64::from(client.ask(CUT_OFF, cost, now).0);
            let of_whole = u64::from(capacity) * SEC + 50 * (now - SEC);
            prop_assert!(admitted.saturating_sub(u64::from(capacity)) * 3 * SEC <= of_whole);
        }
    }
}

#[test]
fn what_a_part_gave_out_beyond_itself_is_owed_to_nobody_afterwards() {
    let slow = Limit { capacity: 20, rate: Rate { micro: 20_000_000, per_secs: 86_400 } };
    let mut client = Client::new(slow);
    assert_eq!(client.ask(CUT_OFF, 20, SEC), (true, 0, false));
    assert!(client.level() < 0);
    assert_eq!(client.slots.iter().next().unwrap().saved(2 * SEC).level_micro, 0);
    client.ask(back(1, 2 * SEC), 0, 2 * SEC);
    assert_eq!(client.level(), 0);
    // A debt to others is not forgiven.
    client.hear(30, 0, 3 * SEC);
    client.ask(PeerLinkState { cut_off: true, ..back(1, 2 * SEC) }, 1, 4 * SEC);
    client.ask(back(2, 5 * SEC), 1, 5 * SEC);
    assert!(client.level() < -29_000, "{}", client.level());
}

#[test]
fn what_a_part_has_left_is_said_and_when_there_is_more() {
    let mut client = Client::new(USUAL);
    let said = |client: &Client, cost, allowed| {
        client.slots.iter().next().unwrap().verdict(cost, allowed, at(SEC)).outcome
    };
    assert_eq!(client.ask(CUT_OFF, 30, SEC), (true, 3, false));
    // 6.7 more are 400 ms of its 16.7 a second.
    let outcome = said(&client, 10, false);
    assert_eq!((outcome.left, outcome.wait_ns.map(|wait| wait / 1_000_000)), (3, Some(400)));
    // It never holds 50: they come when the whole is full.
    assert_eq!(said(&client, 50, false).wait_ns.map(|wait| wait / 1_000_000), Some(1_800));
    assert_eq!(said(&client, 101, false).wait_ns, None);
}

#[test]
fn a_bucket_that_is_held_to_a_part_is_forgotten_and_saved_as_the_whole_that_it_is() {
    let slow = Limit { rate: Rate::per_second(1_000_000), ..USUAL };
    let mut client = Client::new(slow);
    assert_eq!(client.burst(CUT_OFF, SEC), 33);
    let saved = client.slots.iter().next().unwrap().saved(SEC);
    assert_eq!((saved.limit, saved.level_micro / MICRO), (slow, 1));
    assert_eq!(client.slots.iter().next().unwrap().until_full(at(SEC)), Some(99 * SEC));
    // Its part has refilled with the whole, and no sooner.
    client.slots.trim(at(50 * SEC));
    assert_eq!(client.slots.iter().count(), 1);
    assert!(!client.slots.are_full(at(99 * SEC)) && client.slots.are_full(at(100 * SEC)));
    assert_eq!(client.burst(back(1, 40 * SEC), 50 * SEC), 50);
}

#[test]
fn other_numbers_are_in_force_while_it_is_held_to_a_part() {
    let mut client = Client::new(USUAL);
    assert_eq!(client.burst(CUT_OFF, SEC), 33);
    client.grant =
        Grant::of_default(Terms::of_numbers(Limit { capacity: 300, rate: Rate::per_second(150_000_000) }));
    // As with the whole: the level moves by as much as the capacity.
    assert_eq!(client.burst(CUT_OFF, SEC), 67);
    assert_eq!(client.burst(CUT_OFF, 2 * SEC), 50);
    assert_eq!(client.burst(back(1, 2 * SEC), 3 * SEC), 150);
    assert!(!ClientLimit::of_numbers(USUAL).per_instance);
}
