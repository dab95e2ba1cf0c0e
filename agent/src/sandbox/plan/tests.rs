//! Golden plans: the printed list of steps is the plan's contract. `CELDA_UPDATE_GOLDEN=1` writes the files anew.

use oci_spec::runtime::{PosixRlimitType, Spec};
use serde_json::{Value, json};

use super::super::inherited::Inherited;
use super::super::request::TerminalSize;
use super::super::seccomp::BpfInstruction;
use super::{Facts, draft};

const DEFAULT: &str = include_str!("golden/default.json");

fn spec(change: impl FnOnce(&mut Value)) -> Spec {
    let mut value = serde_json::from_str(DEFAULT).expect("valid JSON");
    change(&mut value);
    serde_json::from_value(value).expect("a valid spec")
}

fn check(name: &str, golden: &str, spec: &Spec, facts: Facts) {
    let printed = draft(spec, facts).expect("a plan").to_string();
    if std::env::var_os("CELDA_UPDATE_GOLDEN").is_some() {
        let path = format!("{}/src/sandbox/plan/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, &printed).expect("write the golden file");
    } else {
        assert_eq!(printed, golden, "{name} has changed; see the head of this file");
    }
}

fn filter() -> Option<Vec<BpfInstruction>> {
    Some(vec![BpfInstruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }])
}

#[test]
fn a_plan_as_docker_would_have_it() {
    let facts = Facts { seccomp: filter(), ..Facts::default() };
    check("default.txt", include_str!("golden/default.txt"), &spec(|_| {}), facts);
}

#[test]
fn a_plan_with_a_user_namespace_a_terminal_and_a_reaper() {
    let spec = spec(|value| {
        value["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
        let ranges = json!([{"containerID": 0, "hostID": 100_000, "size": 1000},
                            {"containerID": 1000, "hostID": 7, "size": 2}]);
        value["linux"]["uidMappings"] = ranges.clone();
        value["linux"]["gidMappings"] = ranges;
        value["process"]["noNewPrivileges"] = json!(false);
    });
    let terminal = Some(TerminalSize { rows: 25, columns: 80 });
    let inherited = Inherited {
        nice: 5,
        scheduler: true,
        io_priority: true,
        personality: true,
        oom_score: -500,
        ignored_signals: 1 << 63,
        limits: vec![(PosixRlimitType::RlimitNofile, 9, 9), (PosixRlimitType::RlimitCore, 0, u64::MAX)],
    };
    let facts = Facts { terminal, init: true, inherited, seccomp: filter(), ..Facts::default() };
    check("user_namespace.txt", include_str!("golden/user_namespace.txt"), &spec, facts);
}

/// Each: a pointer into the spec, the value put there, words of the error.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    let bind = |extra: Value| {
        let mut mount = json!({"destination": "/x", "source": "/y", "options": ["bind"]});
        mount.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        json!([mount])
    };
    vec![
        ("/process/args", json!([]), "no program to run"),
        ("/process/args", json!(["a\0b"]), "zero byte"),
        ("/process/cwd", json!("work"), "not an absolute path"),
        ("/process/cwd", json!("/a/../../b"), "`..`"),
        ("/process/oomScoreAdj", json!(1001), "oomScoreAdj"),
        ("/process/rlimits/0/soft", json!(5000), "above the hard limit"),
        ("/process/apparmorProfile", json!("docker-default"), "AppArmor is not on"),
        ("/process/selinuxLabel", json!("system_u:x"), "SELinux is not on"),
        ("/hostname", json!("h".repeat(65)), "longer than 64 bytes"),
        ("/mounts", bind(json!({"destination": "/"})), "would hide the root"),
        ("/mounts", bind(json!({"destination": "x"})), "not an absolute path"),
        ("/mounts", bind(json!({"source": "relative"})), "is not absolute"),
        ("/mounts", bind(json!({"options": ["bind", "tmpcopyup"]})), "tmpcopyup is not supported"),
        ("/mounts", json!(vec![json!({"destination": "/x", "type": "tmpfs"}); 4097]), "more than 4096"),
        ("/linux/namespaces", json!([{"type": "pid"}]), "needs a new mount namespace"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]), "named twice"),
        ("/linux/namespaces", json!([{"type": "mount"}]), "needs a uts namespace"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "uts"}, {"type": "user"}]),
            "the container's id 0",
        ),
        ("/linux/sysctl", json!({"kernel.panic": "1"}), "would change the whole host"),
        ("/linux/sysctl", json!({"net/../kernel/panic": "1"}), "not a sysctl's name"),
        ("/linux/maskedPaths", json!(["/"]), "names the root itself"),
        ("/linux/rootfsPropagation", json!("sideways"), "not a propagation"),
        ("/linux/devices/0/path", json!("/etc/tun"), "not below /dev"),
        ("/linux/devices/0/major", json!(-1), "out of range"),
        ("/linux/mountLabel", json!("x"), "linux.mountLabel"),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "needs a new time namespace"),
        ("/hooks", json!({"poststart": [{"path": "/bin/true"}]}), "hooks are not run"),
    ]
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    for (pointer, value, words) in refusals() {
        let spec = spec(|whole| {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            whole.pointer_mut(parent).expect("the parent is there")[key] = value;
        });
        let error = draft(&spec, Facts::default()).expect_err(words);
        assert!(error.to_string().contains(words), "{pointer}: {error}");
        assert_eq!(error.status(), 125);
    }
}

#[test]
fn a_terminal_needs_a_devpts() {
    let spec = spec(|value| value["mounts"] = json!([]));
    let facts = Facts { terminal: Some(TerminalSize::default()), ..Facts::default() };
    assert!(draft(&spec, facts).expect_err("no devpts").to_string().contains("needs a devpts"));
}
