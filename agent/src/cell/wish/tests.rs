use super::*;

fn spec() -> v1::Spec {
    v1::Spec { image: "web:1".into(), ..v1::Spec::default() }
}

fn read(message: v1::Spec) -> Result<Wish, String> {
    Wish::read(message, &Defaults::default())
}

#[test]
fn the_least_spec_is_an_image() {
    let wish = read(spec()).expect("a wish");
    assert_eq!(wish.resources.containers, 1);
    assert_eq!((wish.policy, wish.result_ttl_ms), (Policy::default(), None));
    let task = read(v1::Spec { task: true, ..spec() }).expect("a wish");
    assert_eq!(task.result_ttl_ms, Some(3_600_000));
}

#[test]
fn a_spec_with_many_labels_is_the_same_spec_however_often_it_is_kept() {
    let labels = |names: &[&str]| names.iter().map(|name| ((*name).into(), "x".into())).collect();
    let message = v1::Spec { labels: labels(&["a", "b", "c", "d", "e"]), ..spec() };
    let first = read(message.clone()).expect("a wish");
    let other = v1::Spec { labels: labels(&["e", "c", "a", "d", "b"]), ..spec() };
    assert_eq!(read(other).expect("a wish").digest, first.digest);
    let kept = |wish: &Wish| Wish::kept(wish.bytes.clone(), &Defaults::default()).expect("a wish");
    let again = kept(&kept(&first));
    assert_eq!((&again.digest, &again.bytes, &again.message), (&first.digest, &first.bytes, &message));
}

#[test]
fn the_bytes_that_were_kept_are_what_a_digest_is_of() {
    let mut bytes = read(spec()).expect("a wish").bytes;
    bytes.extend([0xfa, 0x3f, 1, b'x']); // field 1023, of a version to come
    let wish = Wish::kept(bytes.clone(), &Defaults::default()).expect("a wish");
    assert_eq!((wish.digest, wish.bytes), (Digest::of(&bytes).hex(), bytes));
    assert!(Wish::kept(vec![0xff], &Defaults::default()).is_err());
}

#[test]
fn absurd_specs_are_refused_by_field() {
    let process = |process| v1::Spec { process: Some(process), ..spec() };
    let many = vec!["A=1".to_owned(); LIST_COUNT_MAX + 1];
    let restart = v1::Restart { crashes_max: Some(0), ..v1::Restart::default() };
    let always = v1::Restart { policy: v1::restart::Policy::Always.into(), ..v1::Restart::default() };
    let huge = celda_api::auction::v1::Resources { cpu_milli: u32::MAX, ..Default::default() };
    let stop = v1::Stop { grace_ms: Some(u32::MAX), ..v1::Stop::default() };
    let cases = [
        (v1::Spec::default(), "image"),
        (process(v1::Process { env: many, ..v1::Process::default() }), "process.env"),
        (process(v1::Process { command: vec!["a\0".into()], ..v1::Process::default() }), "NUL"),
        (process(v1::Process { user: "x".repeat(SPEC_BYTES_MAX), ..v1::Process::default() }), "bytes"),
        (v1::Spec { restart: Some(restart), ..spec() }, "restart.crashes_max"),
        (v1::Spec { task: true, restart: Some(always), ..spec() }, "a task runs once"),
        (v1::Spec { resources: Some(huge), ..spec() }, "resources"),
        (v1::Spec { stop: Some(stop), ..spec() }, "grace_ms"),
        (v1::Spec { ports: vec![port(65_536, 80)], ..spec() }, "host_port 65536"),
        (v1::Spec { ports: vec![port(80, 0)], ..spec() }, "1 to 65535"),
        (v1::Spec { ports: vec![port(0, 80); 10_000], ..spec() }, "10000 ports"),
        (v1::Spec { ports: vec![port(80, 80), port(80, 81)], ..spec() }, "twice"),
        (v1::Spec { ports: vec![port(80, 80)], network: v1::Network::Host.into(), ..spec() }, "ports"),
        (
            v1::Spec {
                network: v1::Network::Cell.into(),
                security: Some(v1::Security { userns: "map:0:100000:65536".into(), ..Default::default() }),
                ..spec()
            },
            "user namespace",
        ),
        (
            v1::Spec {
                files: Some(v1::Files { volumes: vec![":".into()], ..v1::Files::default() }),
                ..spec()
            },
            "files.volumes",
        ),
    ];
    for (message, named) in cases {
        let error = read(message).expect_err(named);
        assert!(error.contains(named), "{error}");
    }
}

fn port(host_port: u32, port: u32) -> v1::Port {
    v1::Port { host_port, port, ..v1::Port::default() }
}

#[test]
fn published_ports_are_taken_of_the_ledger() {
    let wish = read(v1::Spec { ports: vec![port(0, 80), port(8080, 80)], ..spec() }).expect("a wish");
    assert_eq!((wish.ports.len(), wish.resources.ports, wish.network), (2, 2, None));
}

#[test]
fn a_program_that_can_never_be_run_is_no_check() {
    let probe = |probe| v1::Health {
        liveness: Some(v1::Check { probe: Some(probe), ..v1::Check::default() }),
        ..v1::Health::default()
    };
    let program = || probe(v1::check::Probe::Exec(v1::ExecProbe { command: vec!["true".into()] }));
    let with = |health, security| v1::Spec { health: Some(health), security: Some(security), ..spec() };
    let add = |name: &str| v1::Security { cap_add: vec![name.into()], ..v1::Security::default() };
    let privileged = || v1::Security { privileged: true, ..v1::Security::default() };
    for security in [add("SYS_PTRACE"), add("cap_sys_ptrace"), add("ALL"), privileged()] {
        let message = with(program(), security);
        let error = read(message.clone()).expect_err("refused");
        assert!(error.contains("SYS_PTRACE") && error.contains("userns"), "{error}");
        let kept = Wish::kept(message.encode_to_vec(), &Defaults::default());
        assert!(kept.is_ok(), "what an older version took is no damage");
    }
    let own_users = v1::Security { userns: "map:0:100000:65536".into(), ..privileged() };
    let tcp = probe(v1::check::Probe::Tcp(v1::TcpProbe { port: 80 }));
    let dropped = v1::Security { cap_drop: vec!["SYS_PTRACE".into()], ..add("ALL") };
    for message in [
        with(program(), own_users),
        with(program(), add("NET_ADMIN")),
        with(tcp, privileged()),
        with(program(), dropped),
    ] {
        read(message).expect("a wish");
    }
}

#[test]
fn the_agents_environment_stays_its_own() {
    let process = v1::Process { env: vec!["PATH".into(), "A=1".into()], ..v1::Process::default() };
    let wish = read(v1::Spec { process: Some(process), ..spec() }).expect("a wish");
    assert_eq!(wish.flags.env, ["A=1"]);
}

#[test]
fn a_limit_of_the_disk_is_taken_off_the_ledger() {
    let disk = |disk_bytes, disk_mib| {
        let limits = Some(v1::Limits { disk_bytes, ..v1::Limits::default() });
        let resources = Some(celda_api::auction::v1::Resources { disk_mib, ..Default::default() });
        read(v1::Spec { limits, resources, ..spec() })
    };
    let taken = |disk_bytes, disk_mib| disk(disk_bytes, disk_mib).expect("a wish").resources.disk_mib;
    assert_eq!(taken(0, 5), 5);
    assert_eq!(taken((64 << 20) + 1, 5), 65);
    assert_eq!(taken(64 << 20, 100), 100, "the spec says more");
    assert_eq!(disk(64 << 20, 0).expect("a wish").disk_bytes, Some(64 << 20));
    let error = disk(1, 0).expect_err("too small");
    assert!(error.contains("limits.disk_bytes"), "{error}");
}

#[test]
fn ids_are_plain_names() {
    assert!(check_id("web-1.2_x").is_ok());
    for id in ["", "-a", "../a", "a/b", "a b", "ü", &"a".repeat(49)] {
        assert!(check_id(id).is_err(), "{id}");
    }
}
