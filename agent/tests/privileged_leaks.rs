//! What a container leaves on the machine: nothing. Alone in its binary, as it looks at the whole machine.

mod common;

use std::fs;
use std::io::BufRead as _;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{Celda, Leftovers};

/// One test at a time: each looks at what the whole machine has.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn privileged_nothing_is_left_behind() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(celda) = Celda::with_image("nothing_left") else { return };
    celda.shell(&[], "true");
    let before = Leftovers::now();
    for _ in 0..20 {
        celda.shell(&[], "busybox sleep 1000 & exit 0");
        let image = celda.image();
        celda.fails(127, &["run", "--rm", &image, "missing"]);
    }
    assert_eq!(Leftovers::now(), before);
    let containers = fs::read_dir(celda.root().join("containers")).expect("a directory").count();
    assert_eq!(containers, 0);
}

#[test]
fn privileged_a_killed_celda_takes_its_container_with_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for flags in [&[][..], &["--userns", "map:0:100000:65536"]] {
        let Some(celda) = Celda::with_image("killed_celda") else { return };
        let args = celda.shell_args(flags, "echo ready; while :; do busybox sleep 0.1; done");
        let mut command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        let containers = celda.root().join("containers");
        let id = fs::read_dir(&containers).expect("listed").flatten().next().expect("one").file_name();
        child.kill().expect("sent");
        child.wait().expect("ended");
        celda.ok(&["gc"]);
        assert_eq!(fs::read_dir(&containers).expect("listed").count(), 0, "{flags:?}");
        let cgroup = std::path::Path::new("/sys/fs/cgroup/unified/celda").join(&id);
        assert!(!cgroup.exists() && !std::path::Path::new("/sys/fs/cgroup/celda").join(&id).exists());
        // Every process of the container held the pipe: its end says that all are gone.
        let deadline = Instant::now() + Duration::from_secs(10);
        line.clear();
        while out.read_line(&mut line).expect("read") > 0 {
            assert!(Instant::now() < deadline, "the container goes on");
        }
    }
}
