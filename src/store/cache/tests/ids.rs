//! Opaque ids, and changes by other instances.

use super::*;

/// Whether an opaque id has a limit; `None` when that is not known.
fn has(cache: &Arc<Cache>, clock: &Clock, id: &str, loader: &impl Awaited) -> Option<bool> {
    match loader.settled(cache.find_id(id, clock.now(), loader)) {
        Known::Entry(hit) => {
            assert_eq!(&*hit.id, id);
            Some(true)
        }
        Known::Absent => Some(false),
        Known::Unknown => None,
    }
}

#[test]
fn an_opaque_id_is_loaded_once_and_its_absence_is_remembered() {
    let (cache, clock) = cache(100);
    let desk = Desk::new();
    for id in ["tenant=a", "tenant=b"] {
        assert_eq!(has(&cache, &clock, id, &desk), None);
        assert_eq!(has(&cache, &clock, id, &desk), None, "one load is under way");
        let (ticket, urgency) = desk.tickets.lock().pop().unwrap();
        assert_eq!((ticket.place(), urgency), (&CacheGroup::Id(id.into()), Urgency::Unknown));
        ticket.finish(if id == "tenant=a" { vec![entry(id, 1)] } else { Vec::new() });
    }
    assert_eq!(has(&cache, &clock, "tenant=a", &desk), Some(true));
    assert_eq!(has(&cache, &clock, "tenant=b", &desk), Some(false));
    cache.put(CacheGroup::Id("tenant=b".into()), vec![entry("tenant=b", 1)]);
    assert_eq!(has(&cache, &clock, "tenant=b", &desk), Some(true));
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn ids_that_nobody_knows_drive_out_each_other_and_no_client() {
    let (cache, clock) = cache(64);
    let desk = Desk::new();
    for n in 0..63 {
        cache.put(network(&format!("10.0.0.{n}/32")), Vec::new());
    }
    for n in 0..10_000 {
        let made_up = format!("sha256:{n:032x}");
        assert_eq!(has(&cache, &clock, &made_up, &desk), None);
        desk.take().finish(Vec::new());
    }
    assert_eq!(held(&cache), 64);
    assert_eq!(has(&cache, &clock, &format!("sha256:{:032x}", 9_999), &desk), Some(false));
    for n in 0..63 {
        assert_eq!(ask(&cache, &clock, &format!("10.0.0.{n}"), 1, &desk), Some(0));
    }
    // An id that has a limit is kept like any other entry.
    cache.put(CacheGroup::Id("tenant=a".into()), vec![entry("tenant=a", 1)]);
    cache.put(network("10.0.1.1/32"), Vec::new());
    assert_eq!(has(&cache, &clock, "tenant=a", &desk), Some(true));
}

#[test]
fn what_others_changed_is_loaded_again_and_a_load_from_before_does_not_count() {
    let (cache, clock) = cache(100);
    let desk = Desk::new();
    let group = || CacheGroup::Group(network("1.2.3.4/32"));
    assert!(cache.renew(group()).is_none() && !cache.holds(&group()), "nothing is held");
    // A load that began before the change brings the old entry.
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), None);
    assert!(cache.holds(&group()), "it is being loaded");
    let before = desk.take();
    let after = cache.renew(group()).unwrap();
    before.finish(vec![entry("1.2.3.4", 1)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), None, "not kept");
    after.finish(vec![entry("1.2.3.4", 2)]);
    assert!(cache.holds(&group()));
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(2));
    // When the load fails, the entry stays in force and is loaded again; and a write by this process wins over a load.
    drop(cache.renew(group()).unwrap());
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(2));
    let late = cache.renew(group()).unwrap();
    cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 3)]);
    late.finish(vec![entry("1.2.3.4", 2)]);
    assert_eq!(ask(&cache, &clock, "1.2.3.4", 7, &desk), Some(3));
}

#[test]
fn when_nothing_can_be_trusted_everything_is_loaded_again_and_stays_in_force_until_then() {
    let (cache, clock) = cache(1_000);
    let desk = Desk::new();
    for n in 1..100 {
        cache.put(network(&format!("10.0.0.{n}/32")), vec![entry(&format!("10.0.0.{n}"), n)]);
    }
    cache.doubt_all();
    for n in 1..100 {
        assert_eq!(ask(&cache, &clock, &format!("10.0.0.{n}"), 7, &desk), Some(n));
    }
    assert_eq!(desk.waiting(), 99);
}
