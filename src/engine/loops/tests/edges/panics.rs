//! What a panic inside of a loop leaves.

use super::*;

/// Otherwise no call would have its body read any more, once panics have taken 64 MiB.
#[test]
fn what_a_call_had_gathered_when_a_panic_took_it_is_forgotten() {
    let mut world = World::new(7);
    world.service.may_panic.store(true, Ordering::SeqCst);
    let call = || {
        let mut stream = TcpStream::connect(world.address).expect("a place in the queue");
        let part =
            [b"POST /lane HTTP/1.1\r\nHost: a\r\nContent-Length: 7000\r\n\r\n", &[b'x'; 5_000][..]].concat();
        stream.write_all(&part).expect("sent");
        stream
    };
    let clients = [call(), call()];
    until("both have gathered", || {
        world.hear();
        let batch = std::mem::take(&mut world.held);
        world.own.turn(&batch, &mut world.buffers);
        world.own.gathered == 10_000
    });
    let key = world.own.clients.keys().next().expect("a client");
    world.own.with_client(key, &mut world.buffers, |_, _, _| panic!("as the test wants it"));
    assert_eq!(world.own.gathered, 5_000);
    drop(clients);
    world.end();
    world.settled();
}
