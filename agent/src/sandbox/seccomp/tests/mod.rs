//! Filters against a plain reading of their profiles, and against libseccomp.

mod interpreter;
mod naive;
mod oracle;

use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;

use super::arch::{Abi, Table, X32_BIT};
use super::file::{Facts, profile_from_text};
use super::*;
use interpreter::{Call, run};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// Where comparisons of 64 bits by halves go wrong.
const VALUES: [u64; 16] = [
    0,
    1,
    8,
    11,
    12,
    40,
    0x7e02_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_000b,
    0x1_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

const FACTS: Facts =
    Facts { arch: Arch::X86_64, caps: CapSet::EMPTY, kernel: Kernel { major: 6, minor: 18 } };

fn json(default: &str, architectures: &[&str], rules: &str) -> String {
    let architectures: Vec<String> =
        architectures.iter().map(|name| format!("\"SCMP_ARCH_{name}\"")).collect();
    let architectures = architectures.join(",");
    format!(
        r#"{{"defaultAction":"SCMP_ACT_{default}","architectures":[{architectures}],"syscalls":[{rules}]}}"#
    )
}

fn profile_of(default: &str, architectures: &[&str], rules: &str) -> LinuxSeccomp {
    profile_from_text(&json(default, architectures, rules), FACTS).unwrap()
}

fn refused(default: &str, rules: &str) -> String {
    let profile = profile_from_text(&json(default, &[], rules), FACTS);
    profile.and_then(|profile| compile(&profile, Arch::X86_64)).unwrap_err().to_string()
}

fn call(abi: Abi, number: u32, first: u64) -> Call {
    Call { number, arch: abi.audit(), args: [first, 0, 0, 0, 0, 0] }
}

/// What the built-in filter for `caps` answers to a call by name.
fn built_in(arch: Arch, abi: Abi, caps: CapSet, name: &str, first: u64) -> u32 {
    let program = default_program(arch, caps).unwrap();
    run(&program, &call(abi, Table::read().number(name, abi).unwrap(), first))
}

#[test]
fn the_built_in_profile_on_both_machines() {
    let plain = CapSet::docker_default();
    let admin = CapSet::from_names(&["SYS_ADMIN"]).unwrap();
    for (arch, abi) in [
        (Arch::X86_64, Abi::X86_64),
        (Arch::X86_64, Abi::X86),
        (Arch::Aarch64, Abi::Aarch64),
        (Arch::Aarch64, Abi::Arm),
    ] {
        let ask = |caps, name, first| built_in(arch, abi, caps, name, first);
        assert_eq!(ask(plain, "read", 0), ALLOW);
        for name in
            ["io_uring_setup", "io_uring_enter", "io_uring_register", "mount", "keyctl", "bpf", "unshare"]
        {
            assert_eq!(ask(plain, name, 0), EPERM, "{name}");
        }
        assert_eq!((ask(plain, "clone3", 0), ask(admin, "clone3", 0)), (ENOSYS, ALLOW));
        assert_eq!((ask(plain, "mount", 0), ask(admin, "mount", 0)), (EPERM, ALLOW));
        assert_eq!((ask(plain, "chroot", 0), ask(CapSet::EMPTY, "chroot", 0)), (ALLOW, EPERM));
        // A thread; a new user namespace; the same for who may.
        let (thread, new_user) = (0x003d_0f00, 0x1000_0011);
        assert_eq!((ask(plain, "clone", thread), ask(plain, "clone", new_user)), (ALLOW, EPERM));
        assert_eq!(ask(admin, "clone", new_user), ALLOW);
        // AF_INET, AF_NETLINK; AF_ALG, AF_VSOCK, and one that is none.
        assert_eq!([2, 16].map(|family| ask(plain, "socket", family)), [ALLOW; 2]);
        assert_eq!([38, 40, 46].map(|family| ask(plain, "socket", family)), [EPERM; 3]);
        assert_eq!([0, 8, 0x2_0008, 0xffff_ffff].map(|kind| ask(plain, "personality", kind)), [ALLOW; 4]);
        assert_eq!(ask(plain, "personality", 0x40000), EPERM, "ADDR_NO_RANDOMIZE");
    }
}

/// The address family is behind a pointer there, so that no AF_ALG or AF_VSOCK socket can be told from others.
#[test]
fn old_i386_programs_make_no_socket_past_the_families() {
    let (socket, connect, sendmsg, socketpair) = (1, 3, 16, 8);
    let caps = CapSet::docker_default();
    let ask = |first| built_in(Arch::X86_64, Abi::X86, caps, "socketcall", first);
    assert_eq!(ask(socket), EPERM);
    assert_eq!([connect, sendmsg, socketpair].map(ask), [ALLOW; 3]);
    assert_eq!(ask(21), EPERM, "none of them");
}

#[test]
fn foreign_calls_and_unknown_ones() {
    let program = default_program(Arch::X86_64, CapSet::ALL).unwrap();
    assert_eq!(run(&program, &call(Abi::Aarch64, 63, 0)), KILL);
    assert_eq!(run(&program, &call(Abi::X86_64, X32_BIT, 0)), ENOSYS);
    assert_eq!(run(&program, &call(Abi::X86_64, 470, 0)), ENOSYS);
    assert_eq!(run(&program, &call(Abi::X86_64, u32::MAX, 0)), ENOSYS);
    assert_eq!(run(&program, &call(Abi::X86_64, 335, 0)), ALLOW, "uretprobe");
    assert_eq!(run(&program, &call(Abi::X86_64, 336, 0)), EPERM, "a gap in the numbers");
    let program = compile(&profile_of("ALLOW", &[], ""), Arch::X86_64).unwrap();
    assert_eq!(run(&program, &call(Abi::X86_64, 10_000, 0)), ALLOW);
    assert_eq!(run(&program, &call(Abi::X86, 3, 0)), KILL, "not listed: would pass by what is denied");
}

#[test]
fn the_written_profile_is_the_built_in_filter() {
    for caps in [CapSet::EMPTY, CapSet::docker_default(), CapSet::ALL] {
        let profile = default_profile(caps);
        let text = serde_json::to_string(&profile).unwrap();
        let read: LinuxSeccomp = serde_json::from_str(&text).unwrap();
        let arch = Arch::host();
        assert_eq!(compile(&read, arch).unwrap(), default_program(arch, caps).unwrap());
        assert_eq!(profile_from_text(&text, FACTS).unwrap(), profile);
        assert!(default_program(arch, caps).unwrap().len() < 1000);
    }
    let table = Table::read();
    for number in 0..41 {
        let policy = builtin::policy(Arch::X86_64, CapSet::EMPTY.with(number));
        assert!(policy.rules.iter().flat_map(|rule| &rule.names).all(|name| table.row(name).is_some()));
    }
}

#[test]
fn the_table_is_sorted_and_complete() {
    let table = Table::read();
    assert!(table.names().is_sorted_by(|left, right| left < right), "each name once");
    assert!(table.names().count() <= 512, "half of the slots");
    assert!(table.names().all(|name| table.row(name).is_some()));
    for (abi, name, number) in [
        (Abi::X86_64, "execve", 59),
        (Abi::X86, "execve", 11),
        (Abi::X32, "execve", X32_BIT | 520),
        (Abi::Aarch64, "execve", 221),
        (Abi::Arm, "set_tls", 983_045),
    ] {
        assert_eq!(table.number(name, abi), Some(number));
    }
    assert_eq!((table.number("open", Abi::Aarch64), table.newest(Abi::X86_64)), (None, 469));
    assert!(["", "-", "zzz"].iter().all(|name| table.row(name).is_none()));
}

#[test]
fn old_i386_programs_meet_the_same_rules() {
    let rule = r#"{"names":["bind","shmat"],"action":"SCMP_ACT_KILL_PROCESS"}"#;
    let program = compile(&profile_of("ALLOW", &["X86"], rule), Arch::X86_64).unwrap();
    let (socketcall, ipc) = (102, 117);
    assert_eq!(run(&program, &call(Abi::X86, socketcall, 2)), KILL);
    assert_eq!(run(&program, &call(Abi::X86, socketcall, 1)), ALLOW);
    assert_eq!(run(&program, &call(Abi::X86, ipc, 21)), KILL);
    assert_eq!(run(&program, &call(Abi::X86, 361, 0)), KILL);
}

#[test]
fn far_jumps_and_the_kernels_bound() {
    // Neighbours differ, or they would share one leaf.
    let rule = |(at, name): (usize, &str)| {
        format!(
            r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":{at},"op":"SCMP_CMP_GT"}}]}}"#
        )
    };
    let all: Vec<String> = Table::read().names().enumerate().map(rule).collect();
    let profile = profile_of("ERRNO", &[], &all.join(","));
    let program = compile(&profile, Arch::X86_64).unwrap();
    assert!(program.len() > 1500);
    agree(&profile, &program);
    let many: Vec<String> = (0..2000).map(|at| rule((at, "read"))).collect();
    let error = refused("ERRNO", &many.join(","));
    assert!(error.contains("the kernel loads at most 4096"), "{error}");
}

#[test]
fn what_has_no_meaning_is_refused_by_its_place() {
    let rule = |rest: &str| format!(r#"{{"names":["read"],{rest}}}"#);
    let args = |args: &str| rule(&format!(r#""action":"SCMP_ACT_ALLOW","args":[{args}]"#));
    for (rules, expected) in [
        (rule(r#""action":"SCMP_ACT_NOTIFY""#), "syscalls[0] (read): SCMP_ACT_NOTIFY needs a supervisor"),
        (rule(r#""action":"SCMP_ACT_ERRNO","errnoRet":5000"#), "error number 5000 is above 4095"),
        (rule(r#""action":"SCMP_ACT_ALLOW","errnoRet":1"#), "only SCMP_ACT_ERRNO and SCMP_ACT_TRACE"),
        (rule(r#""action":"SCMP_ACT_TRACE","errnoRet":70000"#), "trace number 70000"),
        (args(r#"{"index":6,"value":0,"op":"SCMP_CMP_EQ"}"#), "index 6 is above 5"),
        (
            args(r#"{"index":1,"value":0,"op":"SCMP_CMP_GE"},{"index":1,"value":9,"op":"SCMP_CMP_LE"}"#),
            "two conditions on argument 1",
        ),
        (r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#.into(), "\"names\" is empty"),
        (r#"{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}"#.into(), "either \"name\" or \"names\""),
        (rule(r#""action":"SCMP_ACT_ALOW""#), "line 1"),
        (rule(r#""action":"SCMP_ACT_ALLOW","arg":[]"#), "unknown field `arg`"),
        (
            rule(r#""action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}"#),
            "minKernel \"new\" is not of the form",
        ),
        (rule(r#""action":"SCMP_ACT_ERRNO","errno":"EACCES""#), "give the error's number too"),
    ] {
        let error = refused("ERRNO", &rules);
        assert!(error.contains(expected), "{error}");
    }
    let unknown = r#"{"names":["reed"],"action":"SCMP_ACT_ERRNO"}"#;
    assert!(refused("ALLOW", unknown).contains("\"reed\": no such system call"));
    assert!(compile(&profile_of("KILL", &[], unknown), Arch::X86_64).is_ok());
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#;
    assert!(profile_from_text(text, FACTS).unwrap_err().to_string().contains("use the action SCMP_ACT_LOG"));
}

#[test]
fn dockers_conditions_on_container_and_machine() {
    let stands = |condition: &str, facts: Facts| {
        let rule = format!(r#"{{"names":["reboot"],"action":"SCMP_ACT_ALLOW",{condition}}}"#);
        let profile = profile_from_text(&json("ERRNO", &[], &rule), facts).unwrap();
        !profile.syscalls().as_ref().unwrap().is_empty()
    };
    let boot = Facts { caps: CapSet::from_names(&["SYS_BOOT"]).unwrap(), ..FACTS };
    for (condition, without, with) in [
        (r#""includes":{"caps":["CAP_SYS_BOOT"]}"#, false, true),
        (r#""excludes":{"caps":["CAP_SYS_BOOT"]}"#, true, false),
        (r#""includes":{"arches":["amd64","x32"]}"#, true, true),
        (r#""includes":{"arches":["arm64"]},"excludes":{}"#, false, false),
        (r#""excludes":{"arches":["amd64"]}"#, false, false),
        (r#""includes":{"minKernel":"6.18"},"comment":"c""#, true, true),
        (r#""includes":{"minKernel":"6.19"}"#, false, false),
        (r#""excludes":{"minKernel":"4.8"}"#, false, false),
        (r#""includes":null,"excludes":null,"args":null"#, true, true),
    ] {
        assert_eq!((stands(condition, FACTS), stands(condition, boot)), (without, with), "{condition}");
    }
    let map = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[
        {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":["SCMP_ARCH_ARM"]},
        {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_OF_TOMORROW"]}]}"#;
    let profile = profile_from_text(map, FACTS).unwrap();
    assert_eq!(
        serde_json::to_value(profile.architectures()).unwrap(),
        serde_json::json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    );
}

#[test]
fn files_are_bounded_and_errors_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    let read = || profile_from_file(&path, CapSet::EMPTY, FACTS.kernel).map_err(|error| error.to_string());
    assert!(read().unwrap_err().contains("profile.json: No such file"));
    std::fs::write(&path, "{").unwrap();
    assert!(read().unwrap_err().contains("profile.json: EOF while parsing an object at line 1 column 1"));
    std::fs::write(&path, "[".repeat(1 << 19)).unwrap();
    assert!(read().is_err());
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(read().unwrap_err().contains("larger than 1048576 bytes"));
    std::fs::write(&path, serde_json::to_string(&default_profile(CapSet::ALL)).unwrap()).unwrap();
    assert_eq!(read().unwrap(), default_profile(CapSet::ALL));
    let error = profile_from_file(directory.path(), CapSet::EMPTY, FACTS.kernel).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn kernel_releases() {
    for (text, expected) in
        [("6.18.5-generic", Some((6, 18))), ("4.8", Some((4, 8))), ("6", None), ("x.y", None)]
    {
        assert_eq!(Kernel::parse(text).map(|kernel| (kernel.major, kernel.minor)), expected);
    }
    assert!(Kernel::running() >= Kernel { major: 4, minor: 0 });
}

/// Both readings of `profile` for every number, four architectures, and a few arguments.
fn agree(profile: &LinuxSeccomp, program: &[BpfInstruction]) {
    let table = Table::read();
    for abi in [Abi::X86_64, Abi::X32, Abi::X86, Abi::Arm] {
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        for number in (0..=600).chain([u32::MAX >> 2]) {
            for at in [0, 7, 11].map(|at| (at + number as usize) % VALUES.len()) {
                let args = [VALUES[at], VALUES[(at + 5) % 16], VALUES[(at * 3) % 16], 0, 0, 0];
                let call = Call { number: number | bit, arch: abi.audit(), args };
                let expected = naive::decide(profile, Arch::X86_64, &table, &call);
                assert_eq!(run(program, &call), expected, "{abi:?} {call:x?}");
            }
        }
    }
}

fn any_rule() -> impl Strategy<Value = String> {
    let names = prop::sample::subsequence(
        vec![
            "read",
            "socket",
            "accept",
            "shmat",
            "ipc",
            "socketcall",
            "clone",
            "ioctl",
            "set_tls",
            "execve",
            "open",
        ],
        1..4,
    );
    let actions = prop::sample::select(vec![
        "ALLOW",
        "ERRNO",
        "KILL",
        "KILL_PROCESS",
        "KILL_THREAD",
        "TRAP",
        "LOG",
        "TRACE",
    ]);
    let operators = prop::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    let condition = (operators, prop::sample::select(&VALUES[..]), prop::sample::select(&VALUES[..]));
    let conditions = prop::collection::vec(condition, 0..3);
    (names, actions, conditions).prop_map(|(names, action, conditions)| {
        let args: Vec<String> = conditions
            .iter()
            .enumerate()
            .map(|(index, (operator, value, two))| {
                format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{operator}"}}"#)
            })
            .collect();
        format!(r#"{{"names":{names:?},"action":"SCMP_ACT_{action}","args":[{}]}}"#, args.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_filter_says_what_its_profile_says(
        default in prop::sample::select(vec!["ALLOW", "ERRNO", "KILL_PROCESS", "LOG"]),
        architectures in prop::sample::subsequence(vec!["X86", "X32", "ARM", "MIPS"], 0..4),
        rules in prop::collection::vec(any_rule(), 0..12),
    ) {
        let profile = profile_of(default, &architectures, &rules.join(","));
        agree(&profile, &compile(&profile, Arch::X86_64).unwrap());
    }

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}", rules in "[\\[\\]{}:,\"a-z0-9]{0,80}") {
        let _ = profile_from_text(&text, FACTS);
        let _ = profile_from_text(&json("ALLOW", &[], &rules), FACTS);
    }
}
