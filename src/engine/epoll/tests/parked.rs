//! Requests that their service parks: no worker is held, and whoever waits is woken, given up in time, or gone.

use super::*;
use crate::proxy::exchange::{Delivery, Parked, Ticket};
use balancer_pool::queue::Waker;

/// A gate that a test opens: requests park before it.
#[derive(Default)]
struct Barrier {
    open: Mutex<bool>,
    waiting: Mutex<Vec<Waker>>,
    resumed: AtomicUsize,
    gone: AtomicUsize,
}

impl Barrier {
    fn open(&self) {
        *self.open.lock() = true;
        let woken = std::mem::take(&mut *self.waiting.lock());
        woken.into_iter().for_each(|waker| waker());
    }

    /// Wakes everybody for nothing.
    fn wake(&self) {
        let woken = std::mem::take(&mut *self.waiting.lock());
        woken.into_iter().for_each(|waker| waker());
    }
}

struct AtBarrier {
    barrier: Arc<Barrier>,
    until: Nanos,
}

struct Left(Arc<Barrier>);

impl Ticket for Left {
    fn settle(self: Box<Self>, _body_bytes: u64, delivery: Delivery) {
        assert_eq!(delivery, Delivery::ClientGone);
        self.0.gone.fetch_add(1, Ordering::SeqCst);
    }
}

impl Parked for AtBarrier {
    fn until(&self) -> Nanos {
        self.until
    }

    fn on_wake(&mut self, waker: Waker) -> bool {
        let open = self.barrier.open.lock();
        if !*open {
            self.barrier.waiting.lock().push(waker);
        }
        !*open
    }

    fn resume(self: Box<Self>, exchange: Exchange<'_>) -> Served {
        self.barrier.resumed.fetch_add(1, Ordering::SeqCst);
        if *self.barrier.open.lock() { echo(exchange).into() } else { Served::Parked(self) }
    }

    fn give_up(self: Box<Self>, head: &RequestHead, client_gone: bool) -> Answer {
        let mut answer = Answer::new(503, format!("too late for {}", head.target).into_bytes());
        if client_gone {
            answer.ticket = Some(Box::new(Left(Arc::clone(&self.barrier))));
        }
        answer
    }
}

fn door(config: &Frontend, patience: Duration) -> (Door, Arc<Barrier>) {
    let barrier = Arc::<Barrier>::default();
    let (theirs, clock) = (Arc::clone(&barrier), Clock::real());
    let door = Door::open_parking(config, move |exchange| {
        if exchange.head.target == "/now" {
            return echo(exchange).into();
        }
        assert!(exchange.may_park);
        let until = clock.now() + balancer_time::nanos(patience);
        Served::Parked(Box::new(AtBarrier { barrier: Arc::clone(&theirs), until }))
    });
    (door, barrier)
}

const LARGE: usize = 300_000;

/// One of each kind of body, and one with the next request behind it.
fn requests() -> Vec<(Vec<u8>, Vec<String>)> {
    let large = "x".repeat(LARGE);
    vec![
        (get("/a"), vec!["GET /a ".into()]),
        (b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".into(), vec!["POST /b body".into()]),
        (
            b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n".into(),
            vec!["POST /c body".into()],
        ),
        (
            format!("POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n{large}").into_bytes(),
            vec![format!("POST /d {large}")],
        ),
        ([get("/e"), get("/f")].concat(), vec!["GET /e ".into(), "GET /f ".into()]),
    ]
}

#[test]
fn parked_requests_hold_no_worker_and_go_on_as_they_came() {
    let (door, barrier) = door(&config(), PATIENCE * 3);
    let asked: Vec<_> = (0..20).flat_map(|_| requests()).collect();
    // Two places for uploads with eight workers: more of them could not all park.
    let mut uploads = 0;
    let clients: Vec<_> = asked
        .iter()
        .filter(|(bytes, _)| {
            uploads += usize::from(bytes.len() > LARGE);
            bytes.len() < LARGE || uploads <= 2
        })
        .map(|(bytes, answers)| {
            let mut stream = door.connect();
            let (mut sender, bytes) = (stream.try_clone().expect("a clone"), bytes.clone());
            let sender = thread::spawn(move || sender.write_all(&bytes).expect("the engine reads"));
            let answers = answers.clone();
            move || {
                for answer in &answers {
                    assert_eq!(read_answer(&mut stream).1, *answer);
                }
                sender.join().expect("all was taken");
                stream
            }
        })
        .collect();
    let count = clients.len();
    assert_eq!(count, 82);
    door.until("all parked", |stats| stats.parked == count && stats.workers_busy == 0);
    assert!(door.ask(b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ends_with("GET /now "));
    // Woken for nothing, they park again.
    barrier.wake();
    until("all have looked", || barrier.resumed.load(Ordering::SeqCst) >= count);
    door.until("all parked again", |stats| stats.parked == count);
    barrier.open();
    let kept: Vec<_> = clients.into_iter().map(|reader| reader()).collect();
    door.until("all kept", |stats| stats.idle == count && stats.parked == 0);
    drop(kept);
}

#[test]
fn who_waits_too_long_is_answered_and_kept() {
    let (door, _barrier) = door(&config(), Duration::from_millis(200));
    let mut stream = door.connect();
    stream.write_all(&get("/a")).expect("sent");
    for path in ["/a", "/b"] {
        let (head, body) = read_answer(&mut stream);
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, format!("too late for {path}"));
        stream.write_all(&get("/b")).expect("kept");
    }
}

#[test]
fn a_client_that_resets_while_its_request_is_parked_leaves_at_once() {
    let (door, barrier) = door(&config(), PATIENCE * 3);
    let mut stream = door.connect();
    stream.write_all(&get("/a")).expect("sent");
    door.until("parked", |stats| stats.parked == 1);
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
    until("it left", || barrier.gone.load(Ordering::SeqCst) == 1);
    door.until("closed", |stats| *stats == Stats::default());
    barrier.open();
    assert_eq!(barrier.resumed.load(Ordering::SeqCst), 0);
}

#[test]
fn a_half_closed_client_waits_on_unless_the_configuration_says_otherwise() {
    for abort_on_close in [false, true] {
        let (door, barrier) = door(&Frontend { abort_on_close, ..config() }, PATIENCE * 3);
        let mut stream = door.connect();
        stream.write_all(&get("/a")).expect("sent");
        door.until("parked", |stats| stats.parked == 1);
        half_close(&stream);
        if abort_on_close {
            until("it left", || barrier.gone.load(Ordering::SeqCst) == 1);
        } else {
            barrier.open();
            assert_eq!(read_answer(&mut stream).1, "GET /a ");
        }
    }
}

#[test]
fn stopping_ends_what_is_parked() {
    let (door, barrier) = door(&config(), PATIENCE * 3);
    let mut stream = door.connect();
    stream.write_all(&get("/a")).expect("sent");
    door.until("parked", |stats| stats.parked == 1);
    drop(door);
    assert_eq!(barrier.gone.load(Ordering::SeqCst), 1);
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
}
