use super::*;
use std::io::Read;
use std::sync::Barrier;

/// A pipe of the smallest size, so that a stuck reader is felt soon.
fn pipe() -> (File, File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    (File::from(reader), File::from(writer))
}

fn start(output: Output, report: LogReport) -> LogLines {
    LogLines::start("test log", output, report, Clock::real()).unwrap()
}

fn line(number: usize) -> Vec<u8> {
    format!("line {number:06} {}\n", "x".repeat(number % 90)).into_bytes()
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let clock = Clock::real();
    let deadline = clock.now() + 10_000_000_000;
    while !holds() {
        assert!(clock.now() < deadline, "waited 10 s in vain");
        std::thread::yield_now();
    }
}

#[test]
fn every_line_of_every_thread_arrives_whole_and_in_its_threads_order() {
    const THREADS: usize = 8;
    const EACH: usize = 1_000;
    let (mut reader, writer) = pipe();
    let lines = start(Output::Pipe(writer), LogReport::ErrorLog);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (barrier, lines) = (&barrier, &lines);
            scope.spawn(move || {
                barrier.wait();
                (0..EACH).for_each(|number| lines.push(line(thread * EACH + number)));
            });
        }
    });
    lines.stop(Duration::from_secs(10));
    drop(lines);
    let text = reading.join().unwrap();
    let mut next: Vec<usize> = (0..THREADS).map(|thread| thread * EACH).collect();
    for read in text.lines() {
        let number: usize = read[5..11].parse().unwrap();
        assert_eq!(format!("{read}\n").into_bytes(), line(number));
        assert_eq!(std::mem::replace(&mut next[number / EACH], number + 1), number, "its thread's next");
    }
    assert_eq!(text.lines().count(), THREADS * EACH);
}

#[test]
fn a_stuck_reader_slows_nobody_and_what_is_dropped_is_counted() {
    let (mut reader, writer) = pipe();
    let lines = start(Output::Pipe(writer), LogReport::ErrorLog);
    let pushed = QUEUE_LINES * 3;
    // Nobody reads: if a push could wait, this would never end.
    (0..pushed).for_each(|number| lines.push(line(number)));
    assert!(lines.dropped() >= (pushed - QUEUE_LINES) as u64 / 2, "{}", lines.dropped());
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text).unwrap()
    });
    lines.stop(Duration::from_secs(10));
    let dropped = lines.dropped();
    drop(lines);
    let text = reading.join().unwrap();
    assert_eq!(text.lines().count() as u64 + dropped, pushed as u64, "read or dropped, and nothing twice");
    for read in text.lines() {
        assert_eq!(format!("{read}\n").into_bytes(), line(read[5..11].parse().unwrap()));
    }
}

#[test]
fn long_lines_are_bounded_by_their_bytes() {
    let (_reader, writer) = pipe();
    let lines = start(Output::Pipe(writer), LogReport::ErrorLog);
    for _ in 0..100 {
        lines.push(vec![b'x'; QUEUE_BYTES / 10]);
    }
    assert!(lines.dropped() >= 80, "{}", lines.dropped());
    assert!(lines.shared.queued_bytes.load(Ordering::Relaxed) <= QUEUE_BYTES);
    lines.stop(Duration::ZERO);
}

#[test]
fn a_stuck_reader_cannot_hold_the_end_up() {
    let (reader, writer) = pipe();
    let lines = start(Output::Pipe(writer), LogReport::ErrorLog);
    (0..QUEUE_LINES).for_each(|number| lines.push(line(number)));
    let clock = Clock::real();
    let before = clock.now();
    lines.stop(Duration::from_millis(50));
    assert!(clock.now() - before < 5_000_000_000, "the end waits for its time-out and no longer");
    // Every line that no reader will see was counted once the thread is gone.
    wait_until(|| matches!(lines.ended.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected)));
    let dropped = lines.dropped();
    drop(lines);
    let mut text = Vec::new();
    (&reader).read_to_end(&mut text).unwrap();
    let whole = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(whole + dropped, QUEUE_LINES as u64);
}

#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let path = PathBuf::from("/dev/full");
    let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let lines = start(Output::File { path, file }, LogReport::ErrorLog);
    (0..100).for_each(|number| lines.push(line(number)));
    lines.stop(Duration::from_secs(10));
    assert_eq!(lines.dropped(), 100);
    lines.push(line(0));
    assert_eq!(lines.dropped(), 101, "nor is what comes after the end forgotten");
}

#[test]
fn a_reader_that_left_is_no_reason_to_die() {
    let (reader, writer) = pipe();
    let lines = start(Output::Pipe(writer), LogReport::ErrorLog);
    drop(reader);
    lines.push(line(1));
    wait_until(|| lines.dropped() == 1);
    lines.push(line(2));
    wait_until(|| lines.dropped() == 2);
    lines.stop(Duration::from_secs(10));
}

#[test]
fn the_error_log_says_among_its_own_lines_what_it_dropped() {
    let (mut reader, writer) = pipe();
    let lines = start(Output::Pipe(writer), LogReport::InBand);
    (0..QUEUE_LINES * 2).for_each(|number| lines.push(line(number)));
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text).unwrap()
    });
    lines.stop(Duration::from_secs(10));
    let dropped = lines.dropped();
    drop(lines);
    let text = reading.join().unwrap();
    let told: u64 = text
        .lines()
        .filter_map(|line| {
            line.split_once("Z [ERROR] test log: lines dropped: ")?.1.split_once(';')?.0.parse::<u64>().ok()
        })
        .sum();
    assert!(dropped > 0);
    assert_eq!(told, dropped);
}

#[test]
fn after_a_line_that_broke_off_the_next_begins_on_its_own() {
    let (mut reader, writer) = pipe();
    let (_orders, ordered) = bounded(1);
    let (sender, incoming) = bounded(8);
    let mut writer = Writer {
        name: "test log",
        output: Output::Pipe(writer),
        report: LogReport::ErrorLog,
        clock: Clock::real(),
        incoming,
        ordered,
        shared: Arc::default(),
        batch: Vec::new(),
        batch_lines: 0,
        reported: 0,
        quiet_until: 0,
        give_up_at: Some(0),
        broken_line: false,
        failing: false,
    };
    // Nobody reads, and it gives up at once: a piece of the long line fits into the pipe.
    for line in [vec![b'a'; 3_000], vec![b'b'; 3_000], vec![b'c'; 3_000]] {
        writer.shared.queued_bytes.fetch_add(line.len() + 1, Ordering::Relaxed);
        sender.send([line, vec![b'\n']].concat()).unwrap();
    }
    writer.drain();
    assert!(writer.broken_line);
    assert_eq!(writer.shared.dropped.load(Ordering::Relaxed), 2);
    let mut piece = vec![0; 4_096];
    reader.read_exact(&mut piece).unwrap();
    writer.take(b"next\n".to_vec());
    writer.write();
    drop(writer);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\nnext\n");
}
