//! Lines of both streams, long ones, unfinished ones; followers from anywhere.

use std::io::Write as _;

use celda::cell::logs::{From, LINE_BYTES_MAX, LogsError, Stream};

use super::support::{SMALL, block_on, joined, logs, pipe, read_all, read_until, source};

#[test]
fn both_streams_arrive_whole_and_in_order() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let ((output, mut out), (error, mut err)) = (pipe(), pipe());
    let mut source = source("a", output);
    source.error = Some(error);
    let log = logs.attach(source).expect("attached");
    out.write_all(b"one\n\ntwo \xff\nthree").expect("written");
    err.write_all(b"oh\n").expect("written");
    drop((out, err));
    let (entries, missed) = read_all(&log);
    assert_eq!(missed, 0);
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(joined(&entries, Stream::Output), b"one\n\ntwo \xff\nthree");
    assert_eq!(joined(&entries, Stream::Error), b"oh\n");
    assert!(entries.is_sorted_by_key(|entry| entry.time_ns));
    let tally = log.tally();
    assert_eq!((tally.lines, tally.bytes, tally.dropped_lines, tally.is_stalled), (5, 19, 0, false));
}

#[test]
fn a_line_without_end_is_shown_after_a_while_and_goes_on() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    let log = logs.attach(source("prompt", output)).expect("attached");
    let mut follower = log.follower(From::Oldest).expect("a follower");
    out.write_all(b"Password: ").expect("written");
    let (entries, _) = read_until(&mut follower, &|entries| !entries.is_empty());
    assert_eq!((entries[0].payload.as_slice(), entries[0].is_partial), (&b"Password: "[..], true));
    out.write_all(b"secret\n").expect("written");
    let (entries, _) = read_until(&mut follower, &|entries| !entries.is_empty());
    assert_eq!((entries[0].payload.as_slice(), entries[0].is_partial), (&b"secret"[..], false));
}

#[test]
fn a_flood_without_a_newline_is_split_and_bounded() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    let mut source = source("flood", output);
    source.limits = SMALL;
    let log = logs.attach(source).expect("attached");
    let bytes = 16 << 20; // eight times what is kept
    let writer = std::thread::spawn(move || {
        let block = vec![b'x'; 1 << 16];
        for _ in 0..bytes / block.len() {
            out.write_all(&block).expect("written");
        }
    });
    writer.join().expect("no panic");
    block_on(log.ended());
    let files = std::fs::read_dir(log.directory()).expect("list");
    let kept: u64 = files.map(|file| file.expect("list").metadata().expect("stat").len()).sum();
    assert!(kept <= SMALL.segment_bytes * SMALL.segments_count as u64, "{kept} bytes are kept");
    assert_eq!(log.tally().bytes, bytes as u64);
    let (entries, missed) = read_until(&mut log.follower(From::Sequence(0)).expect("a follower"), &|_| false);
    assert!(entries.iter().all(|entry| entry.is_partial && entry.payload.len() == LINE_BYTES_MAX));
    assert_eq!(missed + entries.len() as u64, (bytes / LINE_BYTES_MAX) as u64, "no hole in silence");
    assert!(missed > 0);
}

/// An instance may make its own pipe smaller than a line.
#[test]
fn a_line_longer_than_its_pipe_goes_through() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    rustix::pipe::fcntl_setpipe_size(&out, 4096).expect("made smaller");
    let log = logs.attach(source("small", output)).expect("attached");
    let mut line = vec![b'y'; 100_000];
    line.push(b'\n');
    out.write_all(&line).expect("written");
    drop(out);
    assert_eq!(joined(&read_all(&log).0, Stream::Output), line);
}

#[test]
fn a_follower_begins_where_it_is_told_and_hears_what_it_missed() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    let mut source = source("old", output);
    source.limits = SMALL;
    let log = logs.attach(source).expect("attached");
    let mut slow = log.follower(From::Oldest).expect("a follower");
    out.write_all(b"first\n").expect("written");
    let (first, _) = read_until(&mut slow, &|entries| !entries.is_empty());
    let count = 40_000_u64;
    for number in 1..count {
        // In one write: a pause between a line and its end makes two records.
        out.write_all(format!("{number:0100}\n").as_bytes()).expect("written");
    }
    drop(out);
    block_on(log.ended());
    let number =
        |entry: &celda::cell::logs::Entry| String::from_utf8_lossy(&entry.payload).parse::<u64>().ok();
    let (rest, missed) = read_until(&mut slow, &|_| false);
    assert_eq!(first.len() as u64 + missed + rest.len() as u64, count);
    assert!(missed > 10_000 && rest.iter().all(|entry| number(entry) == Some(entry.sequence)));
    assert!(rest.is_sorted_by(|one, other| one.sequence < other.sequence));
    // The slow one had the oldest segment open. Another finds only what is there.
    let (rest, missed) = read_until(&mut log.follower(From::Sequence(0)).expect("a follower"), &|_| false);
    assert_eq!(rest.first().map(|entry| entry.sequence), Some(missed));
    let of = |from| {
        let (entries, missed) = read_until(&mut log.follower(from).expect("a follower"), &|_| false);
        assert_eq!(missed, 0);
        entries
    };
    assert_eq!(
        of(From::Tail(5)).iter().filter_map(number).collect::<Vec<_>>(),
        (count - 5..count).collect::<Vec<_>>()
    );
    assert_eq!(of(From::Tail(u64::MAX)).len(), rest.len());
    assert_eq!(of(From::Sequence(count - 2)).len(), 2);
    assert!(of(From::Sequence(count + 7)).is_empty());
    let middle = rest[rest.len() / 2].time_ns;
    let since = of(From::Time(middle));
    assert_eq!(since.len(), rest.iter().filter(|entry| entry.time_ns >= middle).count());
    assert!(of(From::Time(u64::MAX)).is_empty());
}

#[test]
fn names_and_limits_are_checked_and_a_log_has_one_writer() {
    let root = tempfile::tempdir().expect("a directory");
    let first = logs(root.path());
    for name in ["", ".", "..", "a/b", ".x", "a\0", &"n".repeat(65)] {
        assert!(matches!(first.attach(source(name, pipe().0)), Err(LogsError::Name { .. })), "{name:?}");
        assert!(matches!(first.remove(name), Err(LogsError::Name { .. })));
    }
    for (segment_bytes, segments_count) in [(0, 4), (u64::MAX, 4), (1 << 20, 1), (1 << 20, 1001)] {
        let mut source = source("x", pipe().0);
        source.limits = celda::cell::logs::Limits { segment_bytes, segments_count };
        assert!(matches!(first.attach(source), Err(LogsError::Limit { .. })));
    }
    let file = std::fs::File::open("/dev/null").expect("open");
    assert!(matches!(first.attach(source("null", file.into())), Err(LogsError::Kernel { .. })));
    let (output, out) = pipe();
    let log = first.attach(source("x", output)).expect("attached");
    assert!(matches!(first.attach(source("x", pipe().0)), Err(LogsError::Attached { .. })));
    assert!(matches!(first.remove("x"), Err(LogsError::Attached { .. })));
    let options =
        celda::cell::logs::LogsOptions { root: root.path().to_owned(), run: root.path().join("run") };
    assert!(matches!(celda::cell::logs::Logs::start(options), Err(LogsError::Held { .. })));
    drop(out);
    block_on(log.ended());
    first.remove("x").expect("removed");
    first.remove("x").expect("not there is no error");
    assert!(!log.directory().exists());
}

/// The process that holds the other end may be no child of the instance's.
#[test]
fn a_finished_log_takes_what_is_there_and_lets_go() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    let held = output.try_clone().expect("another descriptor, as a holder has it");
    let log = logs.attach(source("held", output)).expect("attached");
    out.write_all(b"last\nwords").expect("written");
    logs.finish(&log).expect("asked");
    assert_eq!(joined(&read_all(&log).0, Stream::Output), b"last\nwords");
    // What comes later stays in the pipe, for whoever takes the log up again.
    out.write_all(b" more\n").expect("written");
    let again = logs.attach(source("held", held)).expect("attached");
    // A late word about the one before is none about this one.
    logs.finish(&log).expect("asked");
    let mut follower = again.follower(From::Oldest).expect("a follower");
    let is_there =
        |entries: &[celda::cell::logs::Entry]| entries.iter().any(|entry| entry.payload == b" more");
    read_until(&mut follower, &is_there);
    out.write_all(b"and more\n").expect("it has its pipe still");
    drop(out);
    assert_eq!(joined(&read_all(&again).0, Stream::Output), b"last\nwords more\nand more\n");
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    for damage in ["cut", "zeros", "rubbish", "header"] {
        let root = tempfile::tempdir().expect("a directory");
        let logs = logs(root.path());
        let write = |text: &str| {
            let (output, mut out) = pipe();
            let log = logs.attach(source("torn", output)).expect("attached");
            out.write_all(text.as_bytes()).expect("written");
            drop(out);
            read_all(&log).0
        };
        write("one\ntwo\n");
        let segment = root.path().join("torn").join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&segment).expect("read");
        match damage {
            "cut" => bytes.truncate(bytes.len() - 1),
            "zeros" => bytes.extend_from_slice(&[0; 1000]),
            "rubbish" => bytes.extend_from_slice(&[0xa5; 1000]),
            _ => bytes.truncate(20),
        }
        std::fs::write(&segment, bytes).expect("written");
        let texts: Vec<String> = write("three\n")
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.payload).into_owned())
            .collect();
        let expected: &[&str] = match damage {
            "cut" => &["one", "three"],
            "header" => &["three"],
            _ => &["one", "two", "three"],
        };
        assert_eq!(texts, expected, "{damage}");
    }
}

#[test]
fn a_reader_of_what_was_there_ends_although_more_is_written() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    let log = logs.attach(source("busy", output)).expect("attached");
    let mut all = log.follower(From::Oldest).expect("a follower");
    out.write_all(b"one\ntwo\n").expect("written");
    read_until(&mut all, &|entries| entries.len() == 2);
    let mut last = log.follower(From::Tail(1)).expect("a follower");
    last.only_what_was_there();
    out.write_all(b"three\n").expect("written");
    read_until(&mut all, &|entries| !entries.is_empty());
    let chunk = last.read(1 << 10).expect("read");
    assert_eq!(chunk.entries.iter().map(|entry| entry.payload.as_slice()).collect::<Vec<_>>(), [b"two"]);
    assert!(last.read(1 << 10).expect("read").entries.is_empty());
}

#[test]
fn a_reader_that_lets_go_reads_on_where_it_was_and_counts_what_was_removed() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let (output, mut out) = pipe();
    let mut source = source("many", output);
    source.limits = SMALL;
    let log = logs.attach(source).expect("attached");
    let mut write = |numbers: std::ops::Range<u64>| {
        for number in numbers.clone() {
            // From the shortest to the longest line that there is.
            let text = "x".repeat(number as usize * 97 % (LINE_BYTES_MAX + 1));
            out.write_all(format!("{text}\n").as_bytes()).expect("written");
        }
        let deadline = std::time::Instant::now() + super::support::DEADLINE;
        while log.next_sequence() < numbers.end {
            assert!(std::time::Instant::now() < deadline, "never written");
            std::thread::yield_now();
        }
    };
    write(0..100);
    let whole = log.follower(From::Oldest).expect("a follower").read(1 << 30).expect("read").entries;
    assert_eq!(whole.len(), 100);
    let mut reader = log.follower(From::Oldest).expect("a follower");
    let mut entries = Vec::new();
    while entries.len() < whole.len() {
        let chunk = reader.read(100).expect("read");
        assert!((1..=5).contains(&chunk.entries.len()) && chunk.missed_count == 0, "as much as is wanted");
        entries.extend(chunk.entries);
        reader.let_go();
    }
    assert!(entries == whole);
    // Several times what is kept: what it had open is gone.
    let mut late = log.follower(From::Sequence(50)).expect("a follower");
    assert_eq!(late.read(1).expect("read").entries, whole[50..51]);
    late.let_go();
    write(100..1000);
    let chunk = late.read(1 << 30).expect("read");
    let first = chunk.entries.first().expect("what is kept").sequence;
    assert!(chunk.missed_count > 0 && first == 51 + chunk.missed_count, "{first}");
    assert_eq!(chunk.entries.last().expect("what is kept").sequence, 999);
}
