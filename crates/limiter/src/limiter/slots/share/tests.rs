use super::*;
use crate::limiter::{Ask, Grant, MAX_ASKED};
use crate::terms::{ClientLimit, Terms};
use balancer_time::Moment;

const SEC: Nanos = 1_000_000_000;

/// 100 tokens, 50 a second.
const USUAL: Limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };

const LINK: PeerLinkState = PeerLinkState { members: 3, cut_off: false, returns: 0, returned_at: 0 };

const CUT_OFF: PeerLinkState = PeerLinkState { cut_off: true, ..LINK };

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
        let grant = Grant::of_default(Terms::of_numbers(limit));
        Self { slots: Slots::default(), hot: HotTable::default(), counts: HotCounts::default(), grant }
    }

    /// Whether a request is allowed, and what is said to be left; whether something is to be told soon.
    fn ask(&mut self, link: PeerLinkState, cost: u32, now: Nanos) -> (bool, u32, bool) {
        let client = ClientKey::digest(b"a");
        let mut sharing = Sharing::new(link, client, &mut self.hot, &self.counts);
        let unsaid = Slot::full(&self.grant.terms.buckets[0], false, at(now)).verdict(1, true, at(now));
        let mut verdicts = [unsaid; MAX_ASKED];
        let ask = Ask { cost, ..Ask::of(&self.grant) };
        let allowed = self.slots.acquire_shared(ask, at(now), &mut verdicts, &mut sharing);
        (allowed, verdicts[0].outcome.left, sharing.loud)
    }

    /// How many requests are allowed at once.
    fn burst(&mut self, link: PeerLinkState, now: Nanos) -> usize {
        (0..1000).take_while(|_| self.ask(link, 1, now).0).count()
    }

    fn hear(&mut self, fresh: u64, rate: u64, now: Nanos) -> Option<Heard> {
        let report = SpentReport {
            client: ClientKey::digest(b"a"),
            bucket: BucketId::of("default"),
            of_rule: false,
            limit: self.grant.terms.buckets[0].in_force(),
            reset: None,
            // A counter of its own for each.
            episode: (now / 1_000_000) as u32,
            spent: fresh,
            fresh,
            rate_micro: rate * 1_000_000,
        };
        let mut sharing = Sharing::new(LINK, report.client, &mut self.hot, &self.counts);
        let since = HearingSince { began: 0, is_new: false };
        self.slots.hear(1, &report, since, &mut sharing, at(now))
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
    assert_eq!(client.burst(CUT_OFF, 5 * SEC), 16);
    assert_eq!(client.hot(), 0);
    // Heard again at 6 s: by then 16.7 more have come, and from there on 50 a second.
    let back = PeerLinkState { returns: 1, returned_at: 6 * SEC, ..LINK };
    assert_eq!(client.burst(back, 7 * SEC), 17 + 50);
    // In the next silence the part is found anew, by what was told: only this instance did.
    client.ask(back, 0, 9 * SEC);
    let report = client.hot.places().next().unwrap();
    client.hot.get_mut(report).unwrap().report(9 * SEC, (USUAL, false, None));
    let again = PeerLinkState { cut_off: true, ..back };
    assert_eq!(client.burst(again, 9 * SEC), 100);
}

#[test]
fn a_part_has_room_for_one_request_however_much_it_costs() {
    let mut client = Client::new(Limit { capacity: 20, ..USUAL });
    assert!(client.ask(LINK, 20, SEC).0);
    // A third of 20 is 6, refilled at 16.7 a second.
    assert!(client.ask(CUT_OFF, 6, 2 * SEC).0);
    assert!(!client.ask(CUT_OFF, 1, 2 * SEC).0);
    assert!(!client.ask(CUT_OFF, 20, 3 * SEC).0);
    assert!(client.ask(CUT_OFF, 20, 4 * SEC).0);
    assert!(!client.ask(CUT_OFF, 21, 9 * SEC).0);
    let mut one = Client::new(Limit { capacity: 1, ..USUAL });
    assert_eq!((one.burst(CUT_OFF, SEC), one.burst(CUT_OFF, 2 * SEC)), (1, 1));
    let mut none = Client::new(Limit { capacity: 0, ..USUAL });
    assert_eq!(none.burst(CUT_OFF, SEC), 0);
}

#[test]
fn other_numbers_are_in_force_while_it_is_held_to_a_part() {
    let mut client = Client::new(USUAL);
    assert_eq!(client.burst(CUT_OFF, SEC), 33);
    client.grant =
        Grant::of_default(Terms::of_numbers(Limit { capacity: 300, rate: Rate::per_second(150_000_000) }));
    assert_eq!(client.burst(CUT_OFF, SEC), 0);
    assert_eq!(client.burst(CUT_OFF, 2 * SEC), 50);
    let back = PeerLinkState { returns: 1, returned_at: 2 * SEC, ..LINK };
    assert_eq!(client.burst(back, 3 * SEC), 150);
    assert!(!ClientLimit::of_numbers(USUAL).per_instance);
}

#[test]
fn a_part_of_a_number_is_rounded_down_and_all_of_it_is_all() {
    let rows = [
        (1.0, 1_000_000_000_000_000, 1_000_000_000_000_000),
        (0.5, 9, 4),
        (1.0 / 3.0, 100, 33),
        (0.0, 100, 0),
    ];
    for (part, whole, expected) in rows {
        let mark = Mark::parted(part, 7);
        assert_eq!(mark.of(whole), expected, "{part}");
        assert!(mark.is_parted() && mark.is_of(7) && !mark.is_of(8));
    }
    assert!(Mark::parted(0.5, u32::MAX).is_of(u32::MAX));
}
