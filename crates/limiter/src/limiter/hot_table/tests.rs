use super::*;

fn client(number: u8) -> ClientKey {
    ClientKey::digest(&[number])
}

#[test]
fn each_bucket_keeps_its_place_and_a_free_one_is_used_again() {
    let (mut table, counts) = (HotTable::default(), HotCounts::default());
    let rows = [(1, 10), (1, 11), (2, 10)];
    let places: Vec<HotPlace> =
        rows.iter().map(|(who, id)| table.add(client(*who), BucketId(*id), &counts, 0).unwrap()).collect();
    assert_eq!((counts.hot(), counts.clients(), counts.next_episode()), (3, 2, 3));
    assert_eq!(table.places().collect::<Vec<_>>(), places);
    for (place, (who, id)) in places.iter().zip(rows) {
        let seen = table.get(*place).map(|hot| (hot.client, hot.id));
        assert_eq!(seen, Some((client(who), BucketId(id))));
        assert_eq!(table.get_mut(*place).map(|hot| (hot.client, hot.id)), seen);
    }
    table.remove(places[1], &counts);
    table.remove(places[1], &counts);
    assert_eq!((counts.hot(), counts.clients()), (2, 2));
    assert!(table.get(places[1]).is_none() && table.get_mut(places[1]).is_none());
    assert_eq!(table.places().collect::<Vec<_>>(), [places[0], places[2]]);
    let (buckets, free) = (table.buckets.capacity(), table.free.capacity());
    assert!(free > 0);
    assert_eq!(table.memory_bytes(), buckets * size_of::<Option<HotBucket>>() + free * size_of::<HotPlace>(),);
    assert_eq!(table.add(client(3), BucketId(12), &counts, 0), Some(places[1]));
    assert_eq!(table.get(places[1]).map(|hot| hot.client), Some(client(3)));
    assert_eq!((counts.hot(), counts.clients()), (3, 3));
    places.iter().for_each(|place| table.remove(*place, &counts));
    assert_eq!((counts.hot(), counts.clients(), table.memory_bytes()), (0, 0, 0));
}

#[test]
fn there_is_room_for_so_many_in_all_shards_and_no_more() {
    let (mut table, counts) = (HotTable::default(), HotCounts::default());
    counts.hot.store(MAX_HOT - 1, Ordering::Relaxed);
    assert!(table.add(client(1), BucketId(1), &counts, 0).is_some());
    assert!(table.add(client(1), BucketId(2), &counts, 0).is_none());
    assert_eq!((counts.hot(), table.places().count()), (MAX_HOT, 1));
}
