//! The bound of all connections, with several loops: it holds at every moment, also beside a loop that does not go on.

use super::*;

/// How many connections there may be.
const BOUND: usize = 6;

/// Two loops. A request for `/now/stuck` holds its loop until the lock is free.
fn two_loops(lock: &Arc<Mutex<()>>) -> Door {
    let bound = Frontend { max_connections: BOUND, workers: Some(2), ..config() };
    let lock = Arc::clone(lock);
    Door::open(&bound, move |asked| {
        if asked.head.target == "/now/stuck" {
            drop(lock.lock());
        }
        lane(asked)
    })
}

/// As many idle connections as there may be.
fn idle_ones(door: &Door) -> Vec<TcpStream> {
    let idle = |number| {
        let mut stream = door.send(&get(&format!("/now/{number}")));
        read_answer(&mut stream);
        stream
    };
    let all = (0..BOUND).map(idle).collect();
    door.until("all are idle", |stats| stats.idle == BOUND);
    all
}

/// Many clients that come at once and send the beginning of a head each: while they are in it, they can't make room.
fn crowd(door: &Door) -> Vec<TcpStream> {
    let begin = |_| {
        let mut stream = door.connect();
        // Fails where the engine has refused it already.
        let _ = stream.write_all(b"GET / HT");
        stream
    };
    (0..40).map(begin).collect()
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let peeked = stream.peek(&mut [0]);
    matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Waits until so many of the clients are left, and holds the engine to its bound meanwhile.
fn until_left(door: &Door, most: usize, clients: &[TcpStream]) {
    let counts = &door.running().shared.counts;
    until("the others are closed", || {
        assert!(counts.all() <= BOUND, "{} connections are counted", counts.all());
        clients.iter().filter(|stream| is_open(stream)).count() <= most
    });
}

#[test]
fn a_crowd_is_held_to_the_bound_whichever_loop_has_what_makes_room() {
    for _ in 0..4 {
        let door = two_loops(&Arc::default());
        let mut clients = idle_ones(&door);
        clients.extend(crowd(&door));
        until_left(&door, BOUND, &clients);
        assert_eq!(clients.iter().filter(|stream| is_open(stream)).count(), BOUND, "no place is lost");
        assert!(!clients[..BOUND].iter().all(is_open), "idle ones made room");
    }
}

#[test]
fn beside_a_stuck_loop_the_bound_holds_and_its_mail_does_not_grow() {
    for is_known in [true, false] {
        let lock = Arc::new(Mutex::new(()));
        let door = two_loops(&lock);
        let held = lock.lock();
        let mut clients = idle_ones(&door);
        clients[0].write_all(&get("/now/stuck")).expect("sent");
        until("its loop is stuck", || door.begun() == BOUND + 1);
        if is_known {
            door.until("the watchdog has seen it", |stats| stats.loops_stuck == 1);
        }
        clients.extend(crowd(&door));
        // One may have been handed to the stuck loop, before it was known to be stuck, and waits there for its place.
        let waiting = usize::from(!is_known);
        until_left(&door, BOUND + waiting, &clients);
        drop(held);
        until_left(&door, BOUND, &clients);
    }
}
