//! A look says what a request would find.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Ask(u32),
    Hear(u64, u64),
    CutOff,
    Return,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..40).prop_map(Step::Ask),
        3 => (0u64..30, 0u64..60).prop_map(|(fresh, rate)| Step::Hear(fresh, rate)),
        1 => Just(Step::CutOff),
        1 => Just(Step::Return),
    ]
}

proptest! {
    #[test]
    fn a_look_says_what_the_next_request_is_told(
        is_daily in any::<bool>(),
        members in 1u32..4,
        steps in prop::collection::vec((any_step(), 0..SEC), 1..40),
    ) {
        let mut client = if is_daily { Client::daily() } else { Client::new(USUAL) };
        let (mut link, mut now) = (PeerLinkState { members, ..LINK }, SEC);
        for (step, wait) in steps {
            now += wait;
            match step {
                Step::Ask(cost) => { client.ask(link, cost, now); }
                Step::Hear(fresh, rate) => { client.hear_while(link, fresh, rate, now); }
                Step::CutOff => link.cut_off = members > 1,
                Step::Return if link.cut_off => {
                    link = PeerLinkState { returns: link.returns + 1, returned_at: now, cut_off: false, ..link };
                }
                Step::Return => {}
            }
            let looked = client.slots.clone().foreseen(Ask::of(&client.grant), &client.hot, Some(link), at(now));
            let slot = looked.get(BucketId::of("default"), at(now)).expect("it was made");
            let seen = slot.verdict(0, true, at(now)).outcome.left;
            let (_, told, _) = client.ask(link, 0, now);
            prop_assert_eq!(seen, told, "{:?}", step);
        }
    }
}
