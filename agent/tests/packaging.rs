//! The systemd unit: the directives without which containers would not outlive the agent, or would have no limits.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Section and directive, with the value.
fn unit() -> BTreeMap<(String, String), String> {
    let text = std::fs::read_to_string(path()).unwrap();
    let (mut section, mut directives) = (String::new(), BTreeMap::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line} is no directive"));
        assert!(
            directives.insert((section.clone(), name.to_owned()), value.to_owned()).is_none(),
            "twice: {line}"
        );
    }
    directives
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/celda.service")
}

#[test]
fn containers_outlive_the_agent_and_have_limits() {
    let unit = unit();
    for (name, value) in [
        ("KillMode", "process"),
        ("Delegate", "yes"),
        // The group that the agent looks for its own group above of.
        ("DelegateSubgroup", "celda-agent"),
        ("OOMPolicy", "continue"),
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("Restart", "always"),
        ("TasksMax", "infinity"),
    ] {
        let found = unit.get(&("Service".to_owned(), name.to_owned()));
        assert_eq!(found.map(String::as_str), Some(value), "{name}");
    }
    let start = &unit[&("Service".to_owned(), "ExecStart".to_owned())];
    assert!(start.ends_with("celda agent --config /etc/celda/agent.toml"), "{start}");
}

#[test]
fn nothing_makes_a_mount_namespace_or_is_inherited_by_containers() {
    for (section, name) in unit().into_keys() {
        let is_harmful = ["Private", "Protect", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Temporary"]
            .iter()
            .chain(&[
                "SystemCall",
                "Restrict",
                "NoNewPrivileges",
                "MemoryDeny",
                "LockPersonality",
                "Capability",
            ])
            .chain(&["Device", "IPAddress", "RootDirectory", "RootImage", "User", "DynamicUser", "Ambient"])
            .any(|beginning| name.starts_with(beginning));
        assert!(!is_harmful, "[{section}] {name}: containers would have it too, or the next agent no mounts");
    }
}

#[test]
fn systemd_takes_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("celda.service");
    let text = std::fs::read_to_string(path()).unwrap();
    std::fs::write(&copy, text.replace("/usr/local/bin/celda", env!("CARGO_BIN_EXE_celda"))).unwrap();
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output();
    let Ok(output) = verified else {
        println!("systemd_takes_the_unit skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // One before 254 does not know this one, and goes on without it.
    let of_ours =
        said.lines().filter(|line| line.contains("celda.service") && !line.contains("'DelegateSubgroup'"));
    assert_eq!(of_ours.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
}
