//! Which reports are told, which are told again, and what is counted as dropped.

use super::*;

#[test]
fn a_message_of_another_key_has_the_key_read_anew_once_a_minute() {
    let (mut driver, first) = connected();
    driver.heard(&first, at(START));
    let replaced = BudgetKey::new(&[2; BudgetKey::BYTES]).unwrap();
    let foreign = of_another(1).to_text(&replaced);
    driver.heard(&foreign, at(START + MILLI));
    // The key is read on the open connection: a stranger must not be able to make us close it.
    assert!(matches!(driver.step(at(START + MILLI)), Some(Order::ReadKey)));
    driver.replied(Reply::Opened(Opened { key: replaced, seen_from: None }), START + MILLI);
    driver.heard(&foreign, at(START + MILLI));
    assert_eq!(driver.parts.shown.counts().received, 1, "by the new key");
    // A message with the old key that was under way meanwhile.
    driver.heard(&of_another(2).to_text(&key()), at(START + MILLI));
    let again = START + MILLI + DOUBTED_AGAIN;
    for now in [START + MILLI, again - MILLI] {
        assert!(matches!(driver.step(at(now)), Some(Order::Tell(_))));
        driver.replied(Reply::Told, now);
    }
    assert!(matches!(driver.step(at(again)), Some(Order::ReadKey)));
}

#[test]
fn a_refusal_that_lasts_is_asked_about_less_and_less_often() {
    let mut driver = driver();
    let mut now = START;
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert!(matches!(driver.step(at(now)), Some(Order::Open)));
        driver.replied(Reply::Refused("permission denied".into()), now);
        let SenderState::Closed(next) = driver.sender else { panic!("{:?}", driver.sender) };
        waits.push((next - now) / MILLI);
        now = next;
    }
    assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    // Another refusal, and a server that does not answer, begin the waits again.
    for (reply, wait) in [(Reply::Refused("no database".into()), 250), (Reply::Failed("down".into()), 250)] {
        assert!(matches!(driver.step(at(now)), Some(Order::Open)));
        driver.replied(reply, now);
        assert!(matches!(driver.sender, SenderState::Closed(next) if next == now + wait * MILLI));
        now += wait * MILLI;
    }
}

#[test]
fn what_the_database_does_not_take_in_time_is_told_again() {
    let limiter = Arc::new(Limiter::new(1000));
    let (mut driver, first) = connected_as(driver_of(Arc::clone(&limiter)));
    driver.heard(&first, at(START));
    driver.heard(&of_another(1).to_text(&key()), at(START));
    let (grant, client) = (slow(), ClientKey::digest(b"somebody"));
    for _ in 0..50 {
        assert!(limiter.acquire(client, Ask::of(&grant), at(START)).allowed);
    }
    let now = START + 100 * MILLI;
    driver.woken(now);
    assert_eq!(spent(driver.step(at(now))), 50);
    assert!(driver.step(at(now + OVERDUE - 1)).is_none());
    assert!(!driver.reports.is_empty());
    assert!(driver.step(at(now + OVERDUE)).is_none());
    assert!(driver.reports.is_empty(), "they are taken back before it is cut off");
    let later = now + OVERDUE + MILLI;
    driver.heard(&of_another(2).to_text(&key()), at(later));
    driver.replied(Reply::Told, later);
    driver.woken(later);
    assert_eq!(spent(driver.step(at(later))), 50);
}

/// The database takes it and does not say so.
#[test]
fn what_comes_back_is_not_told_again_though_nobody_said_that_it_was_told() {
    let limiter = Arc::new(Limiter::new(1000));
    let (mut driver, first) = connected_as(driver_of(Arc::clone(&limiter)));
    driver.heard(&first, at(START));
    driver.heard(&of_another(1).to_text(&key()), at(START));
    let (grant, client) = (slow(), ClientKey::digest(b"somebody"));
    for _ in 0..50 {
        assert!(limiter.acquire(client, Ask::of(&grant), at(START)).allowed);
    }
    let now = START + 100 * MILLI;
    driver.woken(now);
    let Some(Order::Tell(texts)) = driver.step(at(now)) else { panic!("nothing is told") };
    texts.iter().for_each(|text| driver.heard(text, at(now + MILLI)));
    driver.replied(Reply::Failed("no answer".into()), now + OVERDUE / 2);
    let later = now + 2 * OVERDUE;
    assert!(matches!(driver.step(at(later)), Some(Order::Open)));
    driver.replied(opened(), later);
    driver.heard(&of_another(2).to_text(&key()), at(later));
    driver.woken(later);
    let Some(Order::Tell(texts)) = driver.step(at(later)) else { panic!("nothing is told") };
    let reports: Vec<_> = texts.iter().flat_map(|text| read_reports(&read(text).reports).unwrap()).collect();
    assert!(reports.iter().all(|report| report.fresh == 0), "{reports:?}");
}

#[test]
fn messages_of_another_version_are_counted_apart() {
    let (mut driver, _) = connected();
    // In Base64, of versions 1 and 3.
    for text in ["AQAA", "AwAA", "nonsense!"] {
        driver.heard(text, at(START));
    }
    let counts = driver.parts.shown.counts();
    assert_eq!((counts.dropped, counts.other_versions), (3, 2));
}

/// Two instances send nothing but heartbeats, and the database stops for half a second, at any moment of theirs.
#[test]
fn a_short_stall_does_not_cut_off_two_quiet_instances() {
    const STEP: Nanos = 5 * MILLI;
    for offset in 0..40 {
        let stall = START + 6_000 * MILLI + offset * 25 * MILLI;
        let arrives =
            |now: Nanos| if (stall..stall + 500 * MILLI).contains(&now) { stall + 500 * MILLI } else { now };
        let mut both = [7, 8].map(|own| {
            let budget = Budget::new(Arc::new(Limiter::new(10)), InstanceId(own), START);
            let shown = Arc::new(SharedBudget::new(own, "0.0.0.0:8080".into()));
            let address = "0.0.0.0:8080".parse().unwrap();
            Driver::new(DriverParts { budget, shown, missed: Arc::default(), address }, at(START))
        });
        let mut under_way: Vec<(Nanos, String)> = Vec::new();
        let mut replies = [None, None];
        let mut texts = 0;
        for now in (START..stall + 2_000 * MILLI).step_by(STEP as usize) {
            let (here, later): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(then, _)| *then <= now);
            under_way = later;
            for (number, driver) in both.iter_mut().enumerate() {
                here.iter().for_each(|(_, text)| driver.heard(text, at(now)));
                if replies[number].is_some_and(|then| then <= now) {
                    replies[number] = None;
                    driver.replied(if driver.key.is_some() { Reply::Told } else { opened() }, now);
                }
                // Their heartbeats begin at different moments.
                if now < START + number as Nanos * 350 * MILLI {
                    continue;
                }
                match driver.step(at(now)) {
                    Some(Order::Tell(told)) => {
                        replies[number] = Some(arrives(now + STEP));
                        texts += told.len() as u64;
                        under_way.extend(told.into_iter().map(|text| (arrives(now + 2 * STEP), text)));
                    }
                    Some(_) => replies[number] = Some(now),
                    None => {}
                }
                if now > START + 5_000 * MILLI {
                    let (state, stats) = (driver.parts.shown.state(), driver.parts.budget.stats(now));
                    let well = state.peers == 1 && !state.cut_off && !stats.cut_off && !stats.unheard;
                    assert!(well, "{offset}: {} at {} ms", number, (now - stall) as i64 / MILLI as i64);
                }
            }
        }
        assert!(texts <= 2 * 2 * 10, "{texts}");
    }
}

#[test]
fn texts_that_found_no_room_are_counted_as_dropped() {
    let (mut driver, _) = connected();
    driver.parts.missed.fetch_add(3, Ordering::Relaxed);
    driver.step(at(START + SHOW_EVERY));
    driver.step(at(START + 2 * SHOW_EVERY));
    assert_eq!(driver.parts.shown.counts().dropped, 3);
}

#[test]
fn what_is_told_to_nobody_because_too_much_is_hot_is_counted_as_dropped() {
    let limiter = Arc::new(Limiter::new(20_000));
    let (mut driver, first) = connected_as(driver_of(Arc::clone(&limiter)));
    driver.heard(&first, at(START));
    driver.heard(&of_another(1).to_text(&key()), at(START));
    // Each bucket is hot with its first token, and there is room for 16,384 hot buckets.
    let limit = Limit { capacity: 1, rate: Rate::per_second(0) };
    let grant = Grant::of_default(Terms::of_numbers(limit));
    for number in 0..16_387u32 {
        let client = ClientKey::digest(&number.to_be_bytes());
        assert!(limiter.acquire(client, Ask::of(&grant), at(START)).allowed);
    }
    driver.step(at(START + SHOW_EVERY));
    assert_eq!(driver.parts.shown.counts().dropped, 3);
}
