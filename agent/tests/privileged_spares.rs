//! Roots and networks that one `celda run` leaves to the next: used again, and never with anything of the last in them.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;

use common::{Celda, describe};

/// A store with the image, on a kernel where roots are used again.
fn with_spares(test: &str) -> Option<Celda> {
    Celda::with_image(test).filter(|celda| celda.takes_detached(test))
}

/// Inodes of the writable layers that are there.
fn layers(celda: &Celda) -> Vec<u64> {
    let containers = fs::read_dir(celda.root().join("containers")).into_iter().flatten().flatten();
    let mut layers: Vec<u64> =
        containers.map(|one| fs::metadata(one.path().join("upper")).expect("a layer").ino()).collect();
    layers.sort_unstable();
    layers
}

/// Spare roots on offer.
fn tokens(celda: &Celda) -> usize {
    let chains = fs::read_dir(celda.directory().join("run/spares")).into_iter().flatten().flatten();
    chains.map(|chain| fs::read_dir(chain.path()).into_iter().flatten().count()).sum()
}

/// Pinned things below RUN whose name starts so.
fn pins(celda: &Celda, kind: &str) -> usize {
    let pins = fs::read_dir(celda.directory().join("run/mounts")).into_iter().flatten().flatten();
    pins.filter(|pin| pin.file_name().to_string_lossy().starts_with(kind)).count()
}

/// Everything that a container can see of its root, with types, modes, owners and sizes.
const LOOK: &str = "busybox find / -xdev -exec busybox stat -c '%n %F %a %u:%g %s' {} + | busybox sort; \
                    cat /etc/hosts /etc/hostname; busybox ls -A /dev /dev/shm /tmp";

#[test]
fn privileged_a_container_uses_the_place_of_the_one_before() {
    let Some(celda) = with_spares("spares_used_again") else { return };
    let before = celda.leftovers();
    celda.shell(&[], "true");
    let first = layers(&celda);
    assert_eq!((first.len(), tokens(&celda), pins(&celda, "root-"), pins(&celda, "net-")), (1, 1, 1, 1));
    for _ in 0..3 {
        assert_eq!(
            celda.shell(&["--hostname", "other"], "busybox hostname; cat /etc/hostname"),
            "other\nother\n"
        );
        assert_eq!(layers(&celda), first);
    }
    assert_eq!((tokens(&celda), pins(&celda, "root-"), pins(&celda, "net-")), (1, 1, 1));
    celda.shell(&["--name", "ended"], "true");
    let unknown = celda.fails(125, &["inspect", "ended"]);
    assert!(unknown.contains("ended"), "{unknown}");
    celda.ok(&["gc"]);
    assert_eq!((layers(&celda).len(), tokens(&celda)), (0, 0));
    before.assert_unchanged(celda.directory(), "gc");
}

#[test]
fn privileged_nothing_that_one_wrote_is_seen_by_the_next() {
    let Some(celda) = with_spares("spares_are_clean") else { return };
    let fresh = celda.shell(&["--hostname", "box"], LOOK);
    for script in [
        "echo x > /new",
        "echo evil >> /etc/hosts",
        "busybox chmod 600 /etc/hosts",
        "busybox rm /etc/hosts",
        "busybox mkdir -p /a/b && busybox rmdir /a/b /a && busybox mkdir /etc/x",
        "busybox rm /bin/busybox",
        "busybox touch -d @1 /etc/hostname",
        "busybox chown 5:5 /etc",
        "busybox mknod /etc/null c 1 3",
        "busybox ln -s /x /etc/link",
        "echo same > /dev/shm/x; echo same > /tmp/x; echo x > /dev/new",
    ] {
        let output = celda.output(
            &celda.shell_args(&["--hostname", "box"], script).iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert!(output.status.success(), "{script}: {}", describe(&output));
        assert_eq!(celda.shell(&["--hostname", "box"], LOOK), fresh, "after {script}");
    }
    for flags in [["--tmpfs", "/data"], ["-w", "/work"], ["--add-host", "other:10.0.0.1"], ["-u", "1:1"]] {
        celda.shell(&flags, "true");
        assert_eq!(celda.shell(&["--hostname", "box"], LOOK), fresh, "after {flags:?}");
    }
}

#[test]
fn privileged_a_container_that_could_pass_something_on_leaves_no_spare() {
    let Some(celda) = with_spares("spares_are_sealed") else { return };
    let files = celda.files();
    let bind = format!("{}:/data", files.display());
    let cases: [&[&str]; 7] = [
        &["-v", &bind],
        &["-v", "named:/data"],
        &["--network", "host"],
        &["--cap-add", "NET_ADMIN"],
        &["--privileged"],
        &["--security-opt", "seccomp=unconfined"],
        &["--sysctl", "net.ipv4.ip_forward=1"],
    ];
    for flags in cases {
        celda.shell(flags, "true");
        assert_eq!((layers(&celda).len(), tokens(&celda)), (0, 0), "{flags:?}");
    }
    let kept = ["run", &celda.image(), "/bin/sh", "-c", "true"];
    celda.ok(&kept);
    assert_eq!(
        (layers(&celda).len(), tokens(&celda)),
        (1, 0),
        "without --rm the layer is kept, not given on"
    );
}

#[test]
fn privileged_a_network_that_carried_something_is_not_used_again() {
    let Some(celda) = with_spares("spares_network") else { return };
    celda.shell(&[], "true");
    assert_eq!(pins(&celda, "net-"), 1);
    celda.shell(&[], "busybox ping -c 1 127.0.0.1 >/dev/null");
    assert_eq!((pins(&celda, "net-"), tokens(&celda)), (0, 1));
    // The next has a new one, up and unused.
    let counters = celda.shell(&[], "busybox grep lo: /proc/net/dev");
    assert!(counters.split_whitespace().skip(1).all(|counter| counter == "0"), "{counters}");
    assert_eq!(pins(&celda, "net-"), 1);
}

#[test]
fn privileged_many_at_once_never_share_a_place() {
    let Some(celda) = with_spares("spares_at_once") else { return };
    // Half of them write a mark that none may see; a root with a mark must not come back.
    let script = "test ! -e /mark || exit 9; test $0 = quiet || echo > /mark; cat /etc/hostname";
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let celda = &celda;
            scope.spawn(move || {
                for round in 0..12 {
                    let name = format!("w{worker}r{round}");
                    let kind = if round % 2 == 0 { "quiet" } else { "loud" };
                    let mut args = celda.shell_args(&["--hostname", &name], script);
                    args.push(kind.to_owned());
                    let output = celda.output(&args.iter().map(String::as_str).collect::<Vec<_>>());
                    assert_eq!(output.stdout, format!("{name}\n").as_bytes(), "{}", describe(&output));
                }
            });
        }
    });
    // Whoever wrote last took the spares along; a layer that is there is on offer.
    assert!(tokens(&celda) <= 8, "{} spares", tokens(&celda));
    assert_eq!(layers(&celda).len(), tokens(&celda));
}

/// sendfile(2), which busybox's cat copies with, puts pages of the file itself into a pipe: what is not read yet must not
/// change when the root's next container has its own files written.
#[test]
fn privileged_what_one_has_sent_stays_when_the_next_starts() {
    let Some(celda) = with_spares("spares_sent") else { return };
    let script = "cat /etc/hostname /etc/hosts";
    let args = celda.shell_args(&["--hostname", "first"], script);
    let mut command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut first = command.stdout(std::process::Stdio::piped()).spawn().expect("celda starts");
    assert!(first.wait().expect("waited").success());
    let before = layers(&celda);
    let second = celda.shell(&["--hostname", "other"], script);
    assert_eq!(layers(&celda), before, "the second had the root of the first");
    let mut sent = String::new();
    std::io::Read::read_to_string(first.stdout.as_mut().expect("a pipe"), &mut sent).expect("read");
    assert_eq!(sent, second.replace("other", "first"));
}

#[test]
fn privileged_what_a_killed_celda_had_is_never_given_on() {
    let Some(celda) = with_spares("spares_killed") else { return };
    celda.shell(&[], "true");
    let first = layers(&celda);
    let args = celda.shell_args(&[], "echo > /mark; echo up; busybox sleep 600");
    let mut command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut running = command.stdout(std::process::Stdio::piped()).spawn().expect("celda starts");
    let mut up = [0; 3];
    std::io::Read::read_exact(running.stdout.as_mut().expect("a pipe"), &mut up).expect("it is up");
    assert_eq!(tokens(&celda), 0, "the spare is in use");
    running.kill().expect("killed");
    assert_eq!(running.wait().expect("waited").signal(), Some(9));
    assert_eq!(celda.shell(&[], "test -e /mark || echo clean"), "clean\n");
    celda.ok(&["gc"]);
    assert_eq!((layers(&celda).len(), tokens(&celda), first.len()), (0, 0, 1));
}
