//! The same rules through libseccomp: both filters answer alike.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxSeccomp;

use super::super::arch::{Abi, Arch, Table};
use super::super::{BpfInstruction, compile, default_profile};
use super::interpreter::{Call, run};
use super::{VALUES, profile_of};
use crate::sandbox::caps::CapSet;

struct Oracle {
    _directory: tempfile::TempDir,
    program: PathBuf,
}

impl Oracle {
    /// `None`, with a note, where there is no compiler or no libseccomp.
    fn build() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("oracle");
        let source = directory.path().join("oracle.c");
        std::fs::write(&source, include_str!("oracle.c")).unwrap();
        let built = Command::new("gcc").arg("-o").arg(&program).arg(&source).arg("-lseccomp").output();
        if built.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self { _directory: directory, program });
        }
        // A guest has no compiler; what is compared is the same on the machine that built the tests.
        let is_guest = std::env::var_os("CELDA_TEST_GUEST").is_some();
        assert!(
            is_guest || std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none_or(|value| value != "1"),
            "gcc and libseccomp-dev are needed: {built:?}"
        );
        println!("skipped: needs gcc and libseccomp-dev");
        None
    }

    /// libseccomp's filter, and the names it does not know.
    fn filter(&self, profile: &LinuxSeccomp) -> (Vec<BpfInstruction>, HashSet<String>) {
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text(profile).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let unknown = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{}: {unknown}", output.status);
        let instruction = |bytes: &[u8]| BpfInstruction {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        };
        (
            output.stdout.chunks_exact(8).map(instruction).collect(),
            unknown.lines().map(str::to_owned).collect(),
        )
    }
}

fn text(profile: &LinuxSeccomp) -> String {
    let mut text = String::new();
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    writeln!(text, "default {default}").unwrap();
    for arch in profile.architectures().iter().flatten() {
        writeln!(text, "arch {}", *arch as u32).unwrap();
    }
    for rule in profile.syscalls().iter().flatten() {
        for name in rule.names() {
            let args = rule.args().as_deref().unwrap_or_default();
            let action = rule.action().as_u32(rule.errno_ret());
            write!(text, "rule {action} {name} {}", args.len()).unwrap();
            for arg in args {
                // Through i64: what scanf's %i takes.
                let (a, b) = (arg.value() as i64, arg.value_two().unwrap_or(0) as i64);
                write!(text, " {} {} {a} {b}", arg.index(), arg.op() as u32).unwrap();
            }
            text.push('\n');
        }
    }
    text
}

/// The first argument by which i386's socketcall makes a socket. libseccomp allows it for every rule that allows
/// `socket` under a condition, which it forgets there; here such a rule does not apply.
const SYS_SOCKET: u64 = 1;

/// Every known number of `abi`, but those whose names libseccomp does not know.
fn compare(oracle: &Oracle, profile: &LinuxSeccomp, abis: &[Abi]) -> usize {
    let table = Table::read();
    let ours = compile(profile, Arch::host()).unwrap();
    let (theirs, unknown) = oracle.filter(profile);
    let mut compared = 0;
    for &abi in abis {
        let skipped: HashSet<u32> = unknown.iter().filter_map(|name| table.number(name, abi)).collect();
        for number in (0..=table.newest(abi)).filter(|number| !skipped.contains(number)) {
            for (at, value) in VALUES.iter().enumerate() {
                let value = if abi.is_narrow() { value & 0xffff_ffff } else { *value };
                let other = VALUES[(at * 7 + 3) % VALUES.len()]
                    & if abi.is_narrow() { 0xffff_ffff } else { u64::MAX };
                let call = Call { number, arch: abi.audit(), args: [value, other, value, 0, 0, 0] };
                if abi == Abi::X86 && table.number("socketcall", abi) == Some(number) && value == SYS_SOCKET {
                    continue;
                }
                assert_eq!(run(&ours, &call), run(&theirs, &call), "{abi:?} {call:x?}");
                compared += 1;
            }
        }
    }
    compared
}

fn host_abis() -> [Abi; 2] {
    match Arch::host() {
        Arch::X86_64 => [Abi::X86_64, Abi::X86],
        Arch::Aarch64 => [Abi::Aarch64, Abi::Arm],
    }
}

#[test]
fn the_built_in_profile_is_what_libseccomp_makes_of_it() {
    let Some(oracle) = Oracle::build() else { return };
    for caps in [CapSet::EMPTY, CapSet::docker_default(), CapSet::ALL] {
        let compared = compare(&oracle, &default_profile(caps), &host_abis());
        assert!(compared > 10_000);
    }
}

#[test]
fn every_comparison_is_libseccomps() {
    let Some(oracle) = Oracle::build() else { return };
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    for default in ["ALLOW", "ERRNO"] {
        let other = if default == "ALLOW" { "KILL_PROCESS" } else { "LOG" };
        // One call for each operator and value, so that few filters hold all.
        let names =
            ["socket", "ioctl", "mmap", "prctl", "keyctl", "clone", "personality", "fcntl", "lseek", "read"];
        for operator in operators {
            let rules: Vec<String> = names
                .iter()
                .zip(VALUES)
                .map(|(name, value)| {
                    let two = value & 0xf0f0_f0f0_f0f0_f0f0;
                    format!(
                        r#"{{"names":["{name}"],"action":"SCMP_ACT_{other}","args":[
                            {{"index":0,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{operator}"}},
                            {{"index":1,"value":12,"op":"SCMP_CMP_GE"}}]}}"#
                    )
                })
                .collect();
            compare(&oracle, &profile_of(default, &[], &rules.join(",")), &host_abis()[..1]);
        }
    }
}

#[test]
fn a_rule_without_arguments_wins_as_in_libseccomp() {
    let Some(oracle) = Oracle::build() else { return };
    let plain = |action: &str| format!(r#"{{"names":["socket"],"action":"SCMP_ACT_{action}"}}"#);
    let narrow =
        r#"{"names":["socket"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}"#;
    for rules in [
        format!("{},{narrow}", plain("LOG")),
        format!("{narrow},{}", plain("LOG")),
        format!("{},{}", plain("LOG"), plain("TRAP")),
        narrow.to_string(),
    ] {
        compare(&oracle, &profile_of("ERRNO", &[], &rules), &host_abis()[..1]);
        compare(&oracle, &profile_of("ALLOW", &[], &rules), &host_abis()[..1]);
    }
}
