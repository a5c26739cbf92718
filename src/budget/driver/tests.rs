mod telling;

use super::super::bodies::read_reports;
use super::*;
use crate::store::Opened;
use balancer_limiter::budget::GAP;
use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::{Ask, Grant, Limiter};
use balancer_limiter::terms::Terms;

const MILLI: Nanos = 1_000_000;

fn key() -> BudgetKey {
    BudgetKey::new(&[1; BudgetKey::BYTES]).unwrap()
}

fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 1_800_000_000 }
}

/// When every test begins.
const START: Nanos = 3_600 * 1_000 * MILLI;

fn driver() -> Driver {
    driver_of(Arc::new(Limiter::new(1000)))
}

fn driver_of(limiter: Arc<Limiter>) -> Driver {
    let budget = Budget::new(limiter, InstanceId(7), START);
    let shown = Arc::new(SharedBudget::new(7, "0.0.0.0:8080".into()));
    let address = "0.0.0.0:8080".parse().unwrap();
    Driver::new(DriverParts { budget, shown, missed: Arc::default(), address }, at(START))
}

fn opened() -> Reply {
    Reply::Opened(Opened { key: key(), seen_from: Some("10.1.2.3".parse().unwrap()) })
}

/// Connected, and its first message told.
fn connected() -> (Driver, String) {
    connected_as(driver())
}

fn connected_as(mut driver: Driver) -> (Driver, String) {
    assert!(matches!(driver.step(at(START)), Some(Order::Open)));
    driver.replied(opened(), START);
    let text = told(&mut driver, START);
    (driver, text)
}

/// The one text that is to be told now; it is.
#[track_caller]
fn told(driver: &mut Driver, now: Nanos) -> String {
    let Some(Order::Tell(texts)) = driver.step(at(now)) else { panic!("nothing is told") };
    let [text] = &texts[..] else { panic!("{} texts", texts.len()) };
    driver.replied(Reply::Told, now);
    text.clone()
}

fn read(text: &str) -> BudgetMessage {
    BudgetMessage::from_text(text, &key()).unwrap()
}

fn of_another(sequence: u64) -> BudgetMessage {
    BudgetMessage {
        instance: 8,
        epoch: 1,
        sequence,
        lag_ms: 3,
        hot_clients: 2,
        cut_off: false,
        leaving: false,
        address: "10.1.2.4:8080".into(),
        heard: vec![7],
        reports: Vec::new(),
    }
}

#[test]
fn a_heartbeat_goes_out_at_once_and_then_each_second_and_says_who_it_is() {
    let (mut driver, first) = connected();
    let message = read(&first);
    assert_eq!((message.instance, message.sequence, message.address.as_str()), (7, 1, "10.1.2.3:8080"));
    assert_eq!((message.lag_ms, message.cut_off, message.reports.len()), (BudgetMessage::NO_LAG, false, 0));
    assert!(driver.step(at(START + HEARTBEAT - 1)).is_none());
    assert!(driver.wake_at() <= START + HEARTBEAT);
    assert_eq!(read(&told(&mut driver, START + HEARTBEAT)).sequence, 2);
    assert_eq!(driver.parts.shown.counts().sent, 2);
}

#[test]
fn while_the_sender_waits_for_the_database_it_is_given_nothing() {
    let (mut driver, _) = connected();
    let now = START + HEARTBEAT;
    assert!(driver.step(at(now)).is_some());
    assert!(driver.step(at(now + 10 * HEARTBEAT)).is_none());
    driver.replied(Reply::Failed("no answer".into()), now + 10 * HEARTBEAT);
    assert!(driver.step(at(now + 10 * HEARTBEAT)).is_none(), "it waits before it connects again");
    assert!(matches!(driver.step(at(now + 10 * HEARTBEAT + nanos(retry_after(0)))), Some(Order::Open)));
}

#[test]
fn its_own_messages_that_come_back_say_what_they_take() {
    let (mut driver, first) = connected();
    driver.heard(&first, at(START + 4 * MILLI));
    driver.step(at(START + 200 * MILLI));
    assert_eq!(driver.parts.shown.state().lag, Some(Duration::from_millis(4)));
    // When it comes a second time, somebody else sent it.
    driver.heard(&first, at(START + 300 * MILLI));
    assert_eq!(driver.parts.shown.counts().dropped, 1);
    let second = told(&mut driver, START + HEARTBEAT);
    assert_eq!(read(&second).lag_ms, 4);
    driver.step(at(START + HEARTBEAT + 700 * MILLI));
    let overdue = driver.parts.shown.state().lag;
    assert_eq!(overdue, Some(Duration::from_millis(700)), "one that is overdue counts");
}

#[test]
fn it_is_cut_off_when_it_hears_nobody_and_says_so_to_the_others() {
    let (mut driver, first) = connected();
    driver.heard(&first, at(START));
    told(&mut driver, START + SILENT_AFTER);
    assert!(!driver.parts.shown.state().cut_off);
    let told_then = read(&told(&mut driver, START + SILENT_AFTER + HEARTBEAT));
    assert!(told_then.cut_off && driver.parts.shown.state().cut_off);
    let text = told(&mut driver, START + SILENT_AFTER + 2 * HEARTBEAT);
    driver.heard(&text, at(START + SILENT_AFTER + 2 * HEARTBEAT));
    driver.step(at(START + SILENT_AFTER + 2 * HEARTBEAT + MILLI));
    assert!(!driver.parts.shown.state().cut_off);
}

/// While it is cut off it sends heartbeats more often; and one at once when it is heard again.
#[test]
fn whoever_was_cut_off_is_back_soon_after_the_database_is() {
    let (mut driver, _) = connected();
    let silent = START + SILENT_AFTER + MILLI;
    told(&mut driver, silent);
    assert!(driver.step(at(silent + HEARTBEAT / 4 - MILLI)).is_none());
    let back = silent + HEARTBEAT / 4;
    let text = told(&mut driver, back);
    assert!(read(&text).cut_off && driver.wake_at() <= back + HEARTBEAT / 4);
    driver.heard(&text, at(back + MILLI));
    assert!(!read(&told(&mut driver, back + MILLI)).cut_off);
    assert!(driver.step(at(back + HEARTBEAT)).is_none());
}

/// It hears the others, but they do not hear it.
#[test]
fn it_is_cut_off_when_its_own_messages_do_not_come_back() {
    let (mut driver, first) = connected();
    driver.heard(&first, at(START));
    let mut now = START;
    for sequence in 1..=6 {
        now += DEAD_AFTER / 6;
        driver.heard(&of_another(sequence).to_text(&key()), at(now));
        driver.step(at(now));
        driver.replied(Reply::Told, now);
        assert!(!driver.parts.shown.state().cut_off, "{sequence}");
    }
    driver.heard(&of_another(7).to_text(&key()), at(now + MILLI));
    driver.step(at(now + MILLI));
    assert!(driver.parts.shown.state().cut_off);
}

/// A process that was stopped for a while finds its own old messages among those that it missed.
#[test]
fn an_own_message_that_took_too_long_does_not_end_being_cut_off() {
    let (mut driver, first) = connected();
    let now = START + 10 * HEARTBEAT;
    driver.step(at(now));
    assert!(driver.parts.shown.state().cut_off);
    driver.replied(Reply::Told, now);
    driver.heard(&of_another(1).to_text(&key()), at(now));
    driver.heard(&first, at(now));
    driver.step(at(now + MILLI));
    assert!(driver.parts.shown.state().cut_off && driver.parts.budget.stats(now + MILLI).cut_off);
    assert_eq!(driver.parts.shown.counts().dropped, 0);
    let fresh = told(&mut driver, now + HEARTBEAT);
    driver.heard(&fresh, at(now + HEARTBEAT + DEAD_AFTER));
    driver.step(at(now + HEARTBEAT + DEAD_AFTER));
    assert!(!driver.parts.shown.state().cut_off);
}

#[test]
fn others_are_shown_while_they_are_heard_and_garbage_is_counted() {
    let (mut driver, _) = connected();
    driver.heard(&of_another(1).to_text(&key()), at(START));
    let other_key = BudgetKey::new(&[2; BudgetKey::BYTES]).unwrap();
    let garbled = BudgetMessage { reports: vec![1, 2, 3], ..of_another(2) };
    for text in ["", "nonsense", &of_another(2).to_text(&other_key), &garbled.to_text(&key())] {
        driver.heard(text, at(START));
    }
    // The same message again.
    driver.heard(&of_another(1).to_text(&key()), at(START));
    driver.step(at(START + SHOW_EVERY));
    let (state, counts) = (driver.parts.shown.state(), driver.parts.shown.counts());
    assert_eq!((counts.received, counts.dropped), (1, 5));
    let ids: Vec<_> = state.instances.iter().map(|one| (one.id.as_str(), one.address.as_str())).collect();
    let expected = [("0000000000000007", "10.1.2.3:8080"), ("0000000000000008", "10.1.2.4:8080")];
    assert_eq!((ids.as_slice(), state.peers), (expected.as_slice(), 1));
    assert_eq!((state.instances[1].age, state.instances[1].lag), (0.2, Some(0.003)));
    assert_eq!(driver.parts.budget.stats(START).members, 2);
    // The garbage did not use up the number 2.
    driver.heard(&of_another(2).to_text(&key()), at(START + MILLI));
    assert_eq!(driver.parts.shown.counts().received, 2);
    driver.step(at(START + MILLI + DEAD_AFTER + MILLI));
    assert_eq!(driver.parts.shown.state().peers, 0);
}

/// Messages that somebody recorded before this process began, and sends again: their instance may be long gone.
#[test]
fn what_was_signed_before_it_began_counts_for_nothing() {
    let (mut driver, _) = connected();
    let recorded = BudgetMessage { heard: vec![5, 6], ..of_another(1) };
    driver.heard(&recorded.to_text(&key()), at(START + MILLI));
    driver.heard(&BudgetMessage { sequence: 2, ..recorded.clone() }.to_text(&key()), at(START + MILLI));
    let stats = driver.parts.budget.stats(START + MILLI);
    let counts = driver.parts.shown.counts();
    assert_eq!((stats.members, counts.received, counts.dropped), (1, 0, 0));
    // The sender may be a new instance: it is soon told that it was heard, and then shows that it hears this one.
    assert_eq!(read(&told(&mut driver, START + GAP)).heard, [8]);
    driver.heard(&of_another(3).to_text(&key()), at(START + GAP));
    assert_eq!(driver.parts.budget.stats(START + GAP).members, 2);
    driver.heard(&BudgetMessage { heard: vec![], ..of_another(4) }.to_text(&key()), at(START + GAP));
    driver.heard(&recorded.to_text(&key()), at(START + GAP));
    let counts = driver.parts.shown.counts();
    assert_eq!((counts.received, counts.dropped), (2, 1));
}

#[test]
fn one_that_leaves_says_so_and_is_gone_at_once() {
    let (mut driver, _) = connected();
    driver.heard(&of_another(1).to_text(&key()), at(START));
    let leaving = BudgetMessage { leaving: true, ..of_another(2) };
    driver.heard(&leaving.to_text(&key()), at(START));
    // Its first message is answered.
    told(&mut driver, START + SHOW_EVERY);
    assert_eq!((driver.parts.shown.state().peers, driver.parts.budget.stats(START).members), (0, 1));
    let Some(Order::Tell(texts)) = driver.leave(at(START)) else { panic!("nothing is told") };
    assert!(read(&texts[0]).leaving);
    assert!(driver.leave(at(START)).is_none() && driver.step(at(START + HEARTBEAT)).is_none());
}

#[test]
fn the_last_that_one_tells_who_leaves_is_what_it_had_not_told_yet() {
    let limiter = Arc::new(Limiter::new(1000));
    let (mut driver, first) = connected_as(driver_of(Arc::clone(&limiter)));
    driver.heard(&first, at(START));
    driver.heard(&of_another(1).to_text(&key()), at(START));
    let grant = slow();
    let spend = |tokens| {
        let take = || limiter.acquire(ClientKey::digest(b"somebody"), Ask::of(&grant), at(START)).allowed;
        assert!((0..tokens).all(|_| take()));
    };
    spend(50);
    driver.woken(START);
    assert_eq!(spent(driver.step(at(START + 100 * MILLI))), 50);
    driver.replied(Reply::Told, START + 100 * MILLI);
    spend(3);
    let Some(Order::Tell(texts)) = driver.leave(at(START + 101 * MILLI)) else { panic!("nothing is told") };
    let [last, goodbye] = &texts[..] else { panic!("{} texts", texts.len()) };
    assert_eq!((spent_of(last), read(last).leaving), (53, false));
    assert!(read(goodbye).leaving && read(goodbye).reports.is_empty());
}

/// The tokens that the order tells of the one bucket that was spent.
#[track_caller]
fn spent(order: Option<Order>) -> u64 {
    let Some(Order::Tell(texts)) = order else { panic!("nothing is told") };
    // A heartbeat may go with it.
    assert!(texts.len() == 1 || texts.len() == 2 && read(&texts[1]).reports.is_empty());
    spent_of(&texts[0])
}

#[track_caller]
fn spent_of(text: &str) -> u64 {
    let reports = read_reports(&read(text).reports).unwrap();
    assert_eq!(reports.len(), 1);
    reports[0].spent
}

/// 100 tokens, one a second.
fn slow() -> Grant {
    Grant::of_default(Terms::of_numbers(Limit { capacity: 100, rate: Rate::per_second(1_000_000) }))
}
