//! What is held: how it is found, and what is told of it.

use super::*;

#[test]
fn a_key_is_found_by_the_hash_that_it_has_already() {
    let (cache, _) = cache(1);
    for client in ["1.2.3.4", "2001:db8::1"] {
        let key = cache.key(ClientKey::address(address(client)));
        assert_eq!(AsHashed::default().hash_one(key), key.hash, "{client}");
    }
}

#[test]
fn every_entry_that_is_held_is_told_once() {
    let (cache, _) = cache(1_000);
    cache.put(network("1.2.3.4/32"), vec![entry("1.2.3.4", 4), entry("1.2.3.4:7", 7)]);
    cache.put(network("1.2.3.5/32"), Vec::new());
    cache.put(CacheGroup::Id("tenant=a".into()), vec![entry("tenant=a", 1)]);
    let mut told = Vec::new();
    cache.each(|id, limit| told.push((id.to_owned(), limit.own.first().unwrap().capacity)));
    told.sort_unstable();
    assert_eq!(told, [("1.2.3.4", 4), ("1.2.3.4:7", 7), ("tenant=a", 1)].map(|(id, n)| (id.to_owned(), n)));
}

#[test]
fn a_peek_counts_nothing_and_loads_nothing() {
    let (cache, clock) = cache(2);
    let table = Table(|net: IpNet| vec![entry(&net.addr().to_string(), 1)]);
    let client = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(matches!(cache.peek(client("1.1.1.1"), None), Known::Unknown));
    for each in ["1.1.1.1", "1.1.1.2"] {
        assert_eq!(ask(&cache, &clock, each, 7, &table), Some(1));
    }
    let before = cache.counters();
    assert!(matches!(cache.peek(client("1.1.1.1"), None), Known::Entry(hit) if &*hit.id == "1.1.1.1"));
    assert!(matches!(cache.peek_id("nobody"), Known::Unknown));
    assert_eq!((cache.counters(), held(&cache)), (before, 2));
    // Nor is it kept longer for it: the first is still the one that was not asked for longest.
    ask(&cache, &clock, "1.1.1.3", 7, &table);
    assert!(matches!(cache.peek(client("1.1.1.1"), None), Known::Unknown));
}
