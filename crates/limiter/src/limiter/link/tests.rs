use super::*;
use std::sync::Arc;

#[test]
fn nothing_is_shared_until_there_was_another_and_a_missed_one_counts_if_there_is_no_other() {
    let link = PeerLink::alone();
    // Members and whether one is missed; what is seen of that in a silence: members, and whether this one is cut off.
    let rows = [
        (1, false, None),
        (1, true, None),
        (2, false, Some((2, true))),
        (1, false, Some((1, false))),
        (1, true, Some((2, false))),
        (2, true, Some((2, true))),
        (3, true, Some((3, true))),
        (3, false, Some((3, true))),
    ];
    for (members, misses_one, seen) in rows {
        link.set_members(members, misses_one);
        let state = link.at(1);
        assert_eq!(state.map(|state| (state.members, state.cut_off)), seen, "{members} {misses_one}");
    }
}

#[test]
fn a_silence_begins_after_the_instant_until_which_it_is_good() {
    let link = PeerLink::alone();
    link.set_members(2, false);
    link.heard(3, 10);
    link.heard_by_others_until(20);
    assert_eq!(link.heard_at(), 3);
    for (now, cut_off, unheard) in
        [(10, false, false), (11, true, false), (20, true, false), (21, true, true)]
    {
        let expected = PeerLinkState { members: 2, cut_off, unheard, returns: 0, returned_at: 0 };
        assert_eq!(link.at(now), Some(expected));
        assert_eq!((link.is_silent(now), link.is_unheard(now)), (cut_off, unheard));
    }
    link.returned(30);
    link.returned(40);
    assert_eq!(link.at(0).map(|state| (state.returns, state.returned_at)), Some((2, 40)));
}

#[test]
fn the_waker_is_called_once_until_what_was_asked_is_taken() {
    let link = PeerLink::alone();
    link.ask();
    assert!(link.take_asked());
    let woken = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&woken);
    link.wake_by(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let so_far = || woken.load(Ordering::Relaxed);
    assert!(!link.is_asked() && !link.take_asked());
    link.ask();
    link.ask();
    assert_eq!((so_far(), link.is_asked(), link.is_asked()), (1, true, true));
    assert!(link.take_asked() && !link.is_asked());
    link.ask();
    assert_eq!(so_far(), 2);
    assert!(link.take_asked());
    link.ask_again();
    assert!(link.is_asked());
    link.ask();
    assert_eq!(so_far(), 2, "whoever asks again is awake");
}

#[test]
fn each_shard_has_a_note_of_its_own() {
    let link = PeerLink::alone();
    let loud = || (0..SHARDS).filter(|shard| link.is_loud(*shard)).collect::<Vec<_>>();
    let noted = [0, 1, 63, 64, 65, 130, 255];
    noted.into_iter().for_each(|shard| link.set_loud(shard));
    assert_eq!(loud(), noted);
    [1, 64, 255].into_iter().for_each(|shard| link.take_loud(shard));
    assert_eq!(loud(), [0, 63, 65, 130]);
    link.take_loud(2);
    assert_eq!(loud(), [0, 63, 65, 130]);
}
