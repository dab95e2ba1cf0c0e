use std::fs::File;
use std::io::Write as _;

use rustix::pipe::{PipeFlags, pipe_with};

use super::super::Limits;
use super::*;

/// The longest that a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(60);
const SMALL: Limits = Limits { segment_bytes: 1 << 20, segments_count: 2 };
/// The first log's standard output.
const KEY: u64 = 0;
const LINE_BYTES: usize = 1 << 10;

/// A thread's own without its thread, and one log of it.
struct One {
    pump: Pump,
    shared: Arc<Shared>,
    directory: PathBuf,
    out: File,
    _root: tempfile::TempDir,
}

impl One {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("log");
        let (mark, _) = Mark::open(root.path()).expect("a mark");
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
        let inbox = Arc::new(Inbox { queue: Mutex::default(), wake: event(), hurry: event() });
        let mut pump = Pump::new(inbox, mark).expect("a pump");
        let (files, tail) = Files::open(&directory, SMALL, now_ns()).expect("files");
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&write, 1 << 20).expect("a large one");
        let writer = Writer::new("log".into(), "app".into(), files, tail, [Some(read), None], Arc::default());
        let shared = Arc::clone(&writer.shared);
        pump.add(writer, None);
        Self { pump, shared, directory, out: write.into(), _root: root }
    }

    fn say(&mut self, lines_count: usize) {
        let mut line = vec![b'x'; LINE_BYTES];
        line[LINE_BYTES - 1] = b'\n';
        self.out.write_all(&line.repeat(lines_count)).expect("written");
    }

    fn is_heard(&mut self) {
        self.pump.news(KEY, EventFlags::IN);
    }

    fn next_sequence(&self) -> u64 {
        self.shared.progress.borrow().next_sequence
    }
}

/// As on a full disk, each event of which cost another try of all that were on the list already.
#[test]
fn a_stalled_stream_is_tried_again_once_and_at_no_news() {
    let mut one = One::new();
    // What is open is written to; the next segment cannot be begun.
    std::fs::remove_dir_all(&one.directory).expect("removed");
    for _ in 0..=SMALL.segment_bytes as usize / (32 * LINE_BYTES) {
        one.say(32);
        one.is_heard();
    }
    assert!(one.pump.stalled.has(KEY), "it has no segment to go on in");
    std::fs::create_dir(&one.directory).expect("made");
    let before = one.next_sequence();
    for _ in 0..100 {
        one.is_heard();
    }
    assert_eq!(one.next_sequence(), before, "it has its time still to wait");
    let at = Instant::now();
    assert_eq!(one.pump.stalled.take_due(at + RETRY_WAIT), [KEY], "one try, however often it was heard of");
    one.pump.stalled.push(KEY, at);
    while one.next_sequence() == before {
        assert!(at.elapsed() < DEADLINE, "it is tried again");
        one.pump.due();
    }
    assert!(!one.pump.stalled.has(KEY));
    one.say(1);
    let before = one.next_sequence();
    one.is_heard();
    assert!(one.next_sequence() > before, "news are news again");
}

#[test]
fn a_stream_with_more_in_it_has_one_turn_however_often_it_is_heard_of() {
    let mut one = One::new();
    one.say(1 << 10);
    one.is_heard();
    one.is_heard();
    one.pump.due();
    assert_eq!(one.pump.again, [KEY]);
}
