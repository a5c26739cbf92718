use super::*;
use crate::limit::{Limit, Rate};
use crate::terms::{BucketName, BucketSpec};
use balancer_time::Moment;

const SEC: Nanos = 1_000_000_000;

const QUIET: PeerLinkState =
    PeerLinkState { members: 3, cut_off: false, unheard: false, returns: 0, returned_at: 0 };

const CUT_OFF: PeerLinkState = PeerLinkState { cut_off: true, ..QUIET };

/// Three tokens that never come back, of which a third can be given out.
fn slot() -> Slot {
    let limit = Limit { capacity: 3, rate: Rate::per_second(0) };
    let spec = BucketSpec::new(BucketName::default_bucket(), limit);
    let mut slot = Slot::full(&spec, false, Moment { now: SEC, wall_s: 0 });
    slot.hold_to(1.0 / 3.0, 0);
    slot
}

#[test]
fn it_owes_what_it_gives_out_beyond_its_part_and_not_the_last_of_it() {
    let mut slot = slot();
    slot.take(1);
    assert_eq!((slot.bucket.level_micro(), slot.mark.owes()), (0, false));
    slot.take(1);
    assert_eq!((slot.bucket.level_micro(), slot.mark.owes()), (-3 * MICRO, true));
    slot.take(0);
    assert!(slot.mark.owes());
}

#[test]
fn it_is_whole_again_after_its_silence_or_when_it_is_not_shared_and_owes_nothing_then() {
    let next = PeerLinkState { returns: 1, returned_at: 2 * SEC, ..QUIET };
    let rows = [
        ("the silence goes on", CUT_OFF, true, true),
        ("it is not shared any more", CUT_OFF, false, false),
        ("there is no silence", QUIET, true, false),
        ("it is over", next, true, false),
        ("another one has begun", PeerLinkState { cut_off: true, ..next }, true, false),
    ];
    for (what, link, is_shared, stays) in rows {
        let mut slot = slot();
        slot.take(1);
        slot.take(1);
        slot.rejoin(link, is_shared, 3 * SEC);
        assert_eq!(slot.is_parted(), stays, "{what}");
        assert_eq!(slot.bucket.level_micro(), if stays { -3 * MICRO } else { 0 }, "{what}");
    }
    // What is hidden stays hidden.
    let mut quiet = slot();
    quiet.mark = Mark::QUIET;
    quiet.mark.hide(1, quiet.bucket.limit(), 3);
    quiet.rejoin(QUIET, true, 3 * SEC);
    assert_eq!(quiet.mark.hidden(), 1);
}
