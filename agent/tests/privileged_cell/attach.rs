//! Attaching to instances: their terminals and standard files, from any number of clients, over agents.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::attach_request::Message as Asked;
use celda_api::cell::v1::attach_response::Message as Told;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::support::Cell;
use crate::witness::Witness;

const DEADLINE: Duration = Duration::from_secs(60);

struct Attached<'a> {
    cell: &'a Cell,
    sender: mpsc::Sender<v1::AttachRequest>,
    stream: Streaming<v1::AttachResponse>,
    says: v1::Attached,
    output: Vec<u8>,
    error: Vec<u8>,
}

fn attach<'a>(cell: &'a Cell, id: &str, size: Option<(u32, u32)>) -> Result<Attached<'a>, tonic::Status> {
    let (sender, receiver) = mpsc::channel(64);
    let terminal = size.map(|(rows, columns)| v1::TerminalSize { rows, columns });
    let start = Asked::Start(v1::AttachStart { id: id.to_owned(), terminal });
    sender.try_send(v1::AttachRequest { message: Some(start) }).unwrap();
    let next = |mut receiver: mpsc::Receiver<_>| async move { Some((receiver.recv().await?, receiver)) };
    let requests = futures_util::stream::unfold(receiver, next);
    let mut client = cell.client();
    let mut stream = cell.runtime.block_on(client.attach(requests))?.into_inner();
    let first = cell.runtime.block_on(stream.message())?.unwrap().message;
    let Some(Told::Attached(says)) = first else { panic!("{first:?}") };
    Ok(Attached { cell, sender, stream, says, output: Vec::new(), error: Vec::new() })
}

impl Attached<'_> {
    fn say(&self, message: Asked) {
        self.sender.try_send(v1::AttachRequest { message: Some(message) }).unwrap();
    }

    fn types(&self, text: &str) {
        self.say(Asked::Input(text.as_bytes().to_vec()));
    }

    /// The next message; nothing at the end.
    fn next(&mut self) -> Option<Told> {
        let next = async { tokio::time::timeout(DEADLINE, self.stream.message()).await };
        let message = self.cell.runtime.block_on(next);
        let message = message.unwrap_or_else(|_| panic!("nothing came after {:?}", self.text())).unwrap();
        let told = message?.message;
        match &told {
            Some(Told::Output(bytes)) => self.output.extend(bytes),
            Some(Told::Error(bytes)) => self.error.extend(bytes),
            _ => {}
        }
        told
    }

    /// What it ends with that is no end.
    fn refused(&mut self) -> tonic::Status {
        let all = async {
            while self.stream.message().await?.is_some() {}
            Ok(())
        };
        let ended = async { tokio::time::timeout(DEADLINE, all).await };
        let ended: Result<(), _> = self.cell.runtime.block_on(ended).unwrap_or_else(|_| panic!("it goes on"));
        ended.unwrap_err()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    fn reads(&mut self, word: &str) {
        while !self.text().contains(word) {
            assert!(self.next().is_some(), "it ended before {word:?}: {:?}", self.text());
        }
        self.output.clear();
    }

    fn exit(&mut self) -> u32 {
        loop {
            match self.next() {
                Some(Told::Exit(v1::ExecExit { status })) => {
                    assert_eq!(self.next(), None, "the exit is the last");
                    return status;
                }
                Some(_) => {}
                None => panic!("no exit came"),
            }
        }
    }
}

fn interactive(cell: &Cell, terminal: bool, script: &str) -> v1::Spec {
    let mut spec = cell.spec(script);
    let process = spec.process.as_mut().unwrap();
    (process.terminal, process.interactive) = (terminal, true);
    if script.is_empty() {
        process.command.truncate(1);
    }
    spec
}

#[test]
fn privileged_a_terminal_is_joined_left_and_outlives_the_agent() {
    let Some(mut cell) = Cell::up("a_terminal_is_joined") else { return };
    cell.started(&["sh"], interactive(&cell, true, ""));
    let before = cell.wait("sh", |one| one.status() == v1::Status::Running);
    {
        let mut first = attach(&cell, "sh", Some((30, 100))).unwrap();
        assert_eq!(first.says, v1::Attached { terminal: true, input: true });
        first.types("busybox stty size\r");
        first.reads("30 100");
        first.say(Asked::Resize(v1::TerminalSize { rows: 40, columns: 120 }));
        first.types("busybox stty size\r");
        first.reads("40 120");
        // A prompt has no end of line, and is there all the same.
        first.types("PS1=ready:; \r");
        first.reads("ready:");
        let mut second = attach(&cell, "sh", None).unwrap();
        second.types("echo wor''d\r");
        first.reads("word");
        second.reads("word");
    }
    cell.kill();
    cell.begin();
    {
        // Whoever takes nothing holds nobody up.
        let _stalled = attach(&cell, "sh", None).unwrap();
        let mut again = attach(&cell, "sh", None).unwrap();
        again.types("busybox seq 1 200000 | busybox tail -n 100000; echo d''one\r");
        again.reads("done\r\n");
        again.types("exit 7\r");
        assert_eq!(again.exit(), 7);
    }
    assert_eq!(cell.ended("sh").code, 7);
    let now = cell.wait("sh", |_| true);
    assert_eq!((now.attempt, before.attempt), (1, 1), "it is the same container");
    let said = cell.ok(&["logs", "sh"]);
    assert!(said.contains("word\r\n") && said.contains("done\r\n"), "its log has it");
    assert!(attach(&cell, "sh", None).is_err_and(|refused| refused.message().contains("it is exited")));
    cell.leaves_nothing("terminals");
}

#[test]
fn privileged_standard_files_are_joined_and_stay_open() {
    let Some(cell) = Cell::up("standard_files_are_joined") else { return };
    let witness = Witness::start(&cell);
    cell.started(&["echo"], interactive(&cell, false, "while read x; do echo out $x; echo err $x >&2; done"));
    cell.wait("echo", |one| one.status() == v1::Status::Running);
    for word in ["one", "two"] {
        let mut attached = attach(&cell, "echo", None).unwrap();
        assert_eq!(attached.says, v1::Attached { terminal: false, input: true });
        attached.types(&format!("{word}\n"));
        while attached.error.is_empty() || attached.output.is_empty() {
            assert!(attached.next().is_some());
        }
        assert_eq!(attached.text(), format!("out {word}\n"));
        assert_eq!(String::from_utf8_lossy(&attached.error), format!("err {word}\n"));
        attached.say(Asked::EndOfInput(true));
    }
    // One that is sent more than it reads goes on, and so do the others.
    let mut deaf = attach(&cell, "witness", None).unwrap();
    assert!(!deaf.says.input);
    deaf.types("words");
    assert_eq!(deaf.refused().code(), tonic::Code::FailedPrecondition);
    let mut loud = attach(&cell, "echo", None).unwrap();
    loud.types(&"x".repeat((64 << 10) + 1));
    assert_eq!(loud.refused().code(), tonic::Code::InvalidArgument);
    let mut last = attach(&cell, "echo", None).unwrap();
    last.say(Asked::Signal(9));
    assert_eq!(last.exit(), 137);
    assert_eq!(cell.ended("echo").code, 9);
    assert!(
        attach(&cell, "nobody", None).is_err_and(|refused| refused.message().contains("no such instance"))
    );
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("standard files");
}

#[test]
fn privileged_attach_is_a_command_that_dockers_keys_leave() {
    let Some(cell) = Cell::up("attach_is_a_command") else { return };
    cell.ok(&["run", "-d", "-i", "-t", "--name", "sh", &cell.image(), "/bin/sh"]);
    cell.ok(&["run", "-d", "-i", "--name", "cat", &cell.image(), "/bin/sh", "-c", "read x; echo $x; exit 5"]);
    let mut child =
        cell.command(&["attach", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");

    let volume = format!("{}:/files", cell.files().display());
    cell.run(
        &["-v", &volume, "--name", "waits"],
        "while [ ! -e /files/go ]; do echo waits; busybox sleep 0.1; done; exit 6",
    );
    let mut child = cell.command(&["attach", "--no-stdin", "waits"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert_eq!(line, "waits\n");
    std::fs::write(cell.files().join("go"), "").unwrap();
    std::io::Read::read_to_string(&mut reader, &mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));

    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let open = || {
        let slave = rustix::fs::open(
            &name,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
            rustix::fs::Mode::empty(),
        );
        Stdio::from(slave.unwrap())
    };
    let mut child = cell.command(&["attach", "sh"]).stdin(open()).stdout(open()).spawn().unwrap();
    // What is typed before the terminal is raw is this terminal's line discipline's.
    let is_raw = || {
        let modes = rustix::termios::tcgetattr(&master).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    };
    crate::common::wait_until(is_raw, "it is attached");
    let mut master = std::fs::File::from(master);
    let mut reader = std::io::BufReader::new(master.try_clone().unwrap());
    master.write_all(b"echo wor''d\r").unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("word\r\n") {
        assert!(std::io::BufRead::read_until(&mut reader, b'\n', &mut said).unwrap() > 0);
    }
    master.write_all(b"\x10\x11").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "it was left");
    let sh = cell.wait("sh", |one| one.status() == v1::Status::Running);
    assert_eq!(sh.attempt, 1, "and goes on");
    assert!(cell.fails(125, &["attach", "cat"]).contains("it is exited"));
    cell.leaves_nothing("the attach command");
}
