//! Both paths do the same; a ring that is refused is said to be.

use std::fs::File;
use std::io;
use std::sync::mpsc::sync_channel;

use crate::Digest;
use crate::io::{BUFFER_BYTES, BlobWriter, IoChoice, Workshop, likely_cause, probe_ring};
use crate::store::testing::{TestLayer, options, pull};
use crate::store::{NoHeal, Sink, Store};
use crate::sys::forbid::forbid_io_uring;

#[test]
fn both_paths_write_and_hash_the_same() {
    let place = tempfile::tempdir().expect("temporary directory");
    for choice in [IoChoice::Threads, IoChoice::Ring, IoChoice::Auto] {
        let workshop = Workshop::new(choice);
        for length in [0, 1, 511, BUFFER_BYTES, BUFFER_BYTES + 1, 9 * BUFFER_BYTES + 77] {
            let path = place.path().join(format!("{choice}-{length}"));
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let (returns, returned) = sync_channel(64);
            let mut writer = workshop.writer(File::create(&path).expect("create"), returns);
            for chunk in content.chunks(BUFFER_BYTES) {
                writer.write(chunk.to_vec()).expect("written");
            }
            assert_eq!(writer.finish().expect("finished"), length as u64);
            assert_eq!(returned.iter().count(), length.div_ceil(BUFFER_BYTES), "every buffer comes back");
            assert!(std::fs::read(&path).expect("read") == content, "{choice} {length}");
            let hashed = workshop.hash(File::open(&path).expect("open")).expect("hashed");
            assert_eq!(hashed, (Digest::of(&content), length as u64), "{choice} {length}");
        }
    }
}

#[test]
fn a_write_that_fails_is_told() {
    for choice in [IoChoice::Threads, IoChoice::Ring] {
        let workshop = Workshop::new(choice);
        let (returns, _returned) = sync_channel(64);
        let mut writer =
            workshop.writer(File::options().write(true).open("/dev/full").expect("open"), returns);
        let mut answer = Ok(());
        for _ in 0..20 {
            answer = writer.write(vec![1; BUFFER_BYTES]);
            if answer.is_err() {
                break;
            }
        }
        let error = answer.and_then(|()| writer.finish().map(drop)).expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{choice}: {error}");
    }
}

#[test]
fn many_files_at_once_share_one_ring() {
    let place = tempfile::tempdir().expect("temporary directory");
    let workshop = Workshop::new(IoChoice::Ring);
    std::thread::scope(|scope| {
        for seed in 0..6_u8 {
            let (workshop, place) = (&workshop, place.path());
            scope.spawn(move || {
                let path = place.join(seed.to_string());
                let content = vec![seed; 5 * BUFFER_BYTES + usize::from(seed)];
                std::fs::write(&path, &content).expect("write");
                let hashed = workshop.hash(File::open(&path).expect("open")).expect("hashed");
                assert_eq!(hashed.0, Digest::of(&content));
            });
        }
    });
}

#[test]
fn the_likely_cause_is_told() {
    let cause = |errno: rustix::io::Errno| likely_cause(&errno.into());
    assert!(cause(rustix::io::Errno::NOSYS).contains("no io_uring"));
    assert!(cause(rustix::io::Errno::NOMEM).contains("RLIMIT_MEMLOCK"));
}

#[test]
fn choices_are_read_as_they_are_written() {
    for choice in [IoChoice::Auto, IoChoice::Ring, IoChoice::Threads] {
        assert_eq!(choice.to_string().parse(), Ok(choice));
    }
    assert!("uring".parse::<IoChoice>().is_err());
}

#[test]
fn where_the_ring_is_forbidden_threads_do_its_work() {
    use rustix::io::Errno;
    for errno in [Errno::PERM, Errno::NOSYS, Errno::ACCESS, Errno::INVAL, Errno::NOMEM] {
        let thread = std::thread::spawn(move || {
            // For this thread and those it starts.
            forbid_io_uring(errno.raw_os_error()).expect("a filter");
            let probe = probe_ring();
            assert!(!probe.is_available && probe.reason.contains(": "), "{probe:?}");
            let place = tempfile::tempdir().expect("temporary directory");
            let (returns, _returned) = sync_channel(1);
            let file = File::create(place.path().join("file")).expect("create");
            assert!(matches!(Workshop::new(IoChoice::Ring).writer(file, returns), BlobWriter::Threads(_)));
            let store = Store::open(&place.path().join("store"), options(IoChoice::Ring, Sink::Index))
                .expect("opens");
            pull(&store, "a:1", &[TestLayer::new(1, 3_000_000)]).expect("pulled");
            assert!(store.verify(&NoHeal).expect("verified").is_good());
        });
        thread.join().expect("the test passes");
    }
}

#[test]
fn auto_says_what_it_does() {
    let does = |choice: IoChoice| (choice.writes_by_ring(), choice.reads_by_ring());
    assert_eq!(does(IoChoice::Auto), (false, true));
    assert_eq!(does(IoChoice::Ring), (true, true));
    assert_eq!(does(IoChoice::Threads), (false, false));
}
