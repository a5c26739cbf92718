//! Buckets that the calendar fills, in instances whose clocks differ.

use super::*;

/// 1,000 tokens a day. An instance whose clock is ahead spends of the next day; one whose clock is behind, of the last
/// one.
#[test]
fn what_others_spend_of_a_period_that_has_not_begun_here_is_missing_when_it_begins() {
    const DAY: u64 = 86_400;
    let when = |wall_s: u64| Moment { now: SEC * (1 + wall_s), wall_s };
    let mut client = Client::daily();
    let mut episode = 0;
    let mut hear = |client: &mut Client, turn: u32, spent, wall_s| {
        episode += 1;
        let report =
            SpentReport { reset: Some((Reset::Day, turn)), episode, ..client.report(spent, spent, 9) };
        let mut sharing = Sharing::new(LINK, report.client, &mut client.hot, &client.counts);
        client.slots.hear(
            1,
            &report,
            HearingSince { began: 0, is_new: false, is_silent: false, last: 0 },
            &mut sharing,
            when(wall_s),
        )
    };
    let left = |client: &mut Client, wall_s| {
        let id = ClientKey::digest(b"a");
        let ask = Ask::of(&client.grant);
        let said = client.slots.clone().foreseen(ask, &client.hot, Some(LINK), when(wall_s));
        let said = said.levels(client.grant.terms.buckets.iter(), when(wall_s));
        let mut sharing = Sharing::new(LINK, id, &mut client.hot, &client.counts);
        let unsaid =
            Slot::full(&client.grant.terms.buckets[0], false, when(wall_s)).verdict(0, true, when(wall_s));
        let mut verdicts = [unsaid; MAX_ASKED];
        let ask = Ask { cost: 0, ..ask };
        client.slots.acquire_shared(ask, when(wall_s), &mut verdicts, &mut sharing);
        let left = verdicts.map(|verdict| verdict.outcome.left)[0];
        assert_eq!(said, [left], "a look says the same");
        left
    };
    hear(&mut client, 0, 50, DAY - 60);
    assert_eq!(left(&mut client, DAY - 60), 950);
    hear(&mut client, 1, 300, DAY - 40);
    hear(&mut client, 1, 100, DAY - 30);
    // None of that is charged today, and the sender is not assumed to go on today.
    assert_eq!(left(&mut client, DAY - 29), 950);
    let place = client.hot.places().next().unwrap();
    assert!(!client.hot.get(place).unwrap().is_over(Some(LINK), when(DAY - 1).now), "it is kept until then");
    assert_eq!(left(&mut client, DAY + 1), 600);
    assert_eq!(client.elsewhere(), 450);
    // An instance whose clock is behind.
    hear(&mut client, 0, 200, DAY + 2);
    assert_eq!(left(&mut client, DAY + 3), 600);
    // Tokens of the fifth day are charged on that day alone.
    hear(&mut client, 5, 200, DAY + 4);
    assert_eq!((left(&mut client, 2 * DAY), left(&mut client, 5 * DAY)), (1_000, 800));
}

#[test]
fn what_was_hidden_before_a_turn_does_not_count_after_it_and_a_part_stays_a_part() {
    let mut client = Client::daily();
    // Of 1,000 tokens 83.3 may be hidden from two others.
    assert_eq!(client.ask_at(LINK, 80, at(SEC)), (true, 920, false));
    let next = Moment { now: 2 * SEC, wall_s: 86_400 };
    assert_eq!(client.ask_at(LINK, 80, next), (true, 920, false));
    assert_eq!(client.ask_at(LINK, 4, next), (true, 916, true));
    let mut parted = Client::daily();
    assert_eq!(parted.ask_at(CUT_OFF, 300, at(SEC)), (true, 33, false));
    parted.slots.0[0].settle(next);
    assert!(parted.slots.0[0].is_parted());
    assert_eq!(parted.ask_at(CUT_OFF, 1, next), (true, 332, false));
}
