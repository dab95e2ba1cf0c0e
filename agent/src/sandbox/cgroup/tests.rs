//! Limits without a kernel: what would be written, and a hierarchy of plain files.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use proptest::prelude::*;

use super::limits::settings;
use super::locate::{Location, locate};
use super::{CgroupError, Hierarchy};

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn written(json: &str) -> Vec<String> {
    let settings = settings(&resources(json)).unwrap_or_else(|error| panic!("{json}: {error}"));
    settings.into_iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
}

fn refused(json: &str) -> String {
    settings(&resources(json)).expect_err(json).to_string()
}

#[test]
fn limits_as_version_2_writes_them() {
    for (json, expected) in [
        (r#"{"cpu":{"shares":1024,"quota":50000}}"#, vec!["cpu.weight=100", "cpu.max=50000 100000"]),
        (r#"{"cpu":{"shares":2,"quota":-1,"period":50000}}"#, vec!["cpu.weight=1"]),
        (
            r#"{"cpu":{"shares":262144,"burst":10000,"idle":1}}"#,
            vec!["cpu.idle=1", "cpu.weight=10000", "cpu.max.burst=10000"],
        ),
        (r#"{"cpu":{"cpus":"0-3,5","mems":"0"}}"#, vec!["cpuset.cpus=0-3,5", "cpuset.mems=0"]),
        (
            r#"{"memory":{"limit":1048576,"reservation":4096,"swap":2097152}}"#,
            vec!["memory.max=1048576", "memory.low=4096", "memory.swap.max=1048576"],
        ),
        (r#"{"memory":{"limit":1048576,"swap":1048576}}"#, vec!["memory.max=1048576", "memory.swap.max=0"]),
        (r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1}}"#, vec![]),
        (r#"{"pids":{"limit":64}}"#, vec!["pids.max=64"]),
        (
            r#"{"blockIO":{"weight":1000,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":5}]}}"#,
            vec!["io.weight=default 10000", "io.max=8:0 rbps=1000", "io.max=8:0 wiops=5"],
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"1GB","limit":-1}]}"#,
            vec!["hugetlb.2MB.max=0"],
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10}}}"#,
            vec!["rdma.max=mlx5_1 hca_handle=3 hca_object=10"],
        ),
        (
            r#"{"unified":{"memory.high":"1048576","io.latency":"8:0 target=100"}}"#,
            vec!["io.latency=8:0 target=100", "memory.high=1048576"],
        ),
        (r#"{"devices":[{"allow":false,"access":"rwm"}],"network":{}}"#, vec![]),
    ] {
        assert_eq!(written(json), expected, "{json}");
    }
}

#[test]
fn what_version_2_can_not_keep_is_refused() {
    for (json, expected) in [
        (r#"{"memory":{"swappiness":0}}"#, "memory.swappiness: cgroup v2 has nothing like it"),
        (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
        (r#"{"memory":{"limit":-2}}"#, "memory.limit: -2 is neither positive nor -1"),
        (r#"{"memory":{"swap":100}}"#, "needs memory.limit"),
        (r#"{"memory":{"limit":200,"swap":100}}"#, "100 is below memory.limit"),
        (r#"{"memory":{"limit":200,"reservation":300}}"#, "300 is above memory.limit"),
        (r#"{"cpu":{"realtimeRuntime":5}}"#, "cpu.realtimeRuntime"),
        (r#"{"cpu":{"shares":1}}"#, "1 is not in 2..=262144"),
        (r#"{"cpu":{"quota":10}}"#, "10 us is neither -1 nor at least 1000"),
        (r#"{"cpu":{"quota":5000,"period":7}}"#, "7 us is not in"),
        (r#"{"cpu":{"idle":7}}"#, "7 is neither 0 nor 1"),
        (r#"{"cpu":{"cpus":"0-3;reboot"}}"#, "is no list as 0-3,5"),
        (r#"{"cpu":{"cpus":"3-0"}}"#, "is no list as 0-3,5"),
        (r#"{"cpu":{"mems":"0\n1"}}"#, "is no list as 0-3,5"),
        (r#"{"pids":{"limit":-5}}"#, "-5 is neither positive nor -1"),
        (r#"{"blockIO":{"weight":5}}"#, "5 is not in 10..=1000"),
        (r#"{"blockIO":{"leafWeight":5}}"#, "blockIO.leafWeight"),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-8,"minor":0,"rate":1}]}}"#,
            "-8:0 is no device number",
        ),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "is not of the form 2MB"),
        (r#"{"rdma":{"a b":{"hcaHandles":3}}}"#, "is no device's name"),
        (r#"{"network":{"classID":5}}"#, "network"),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "files of the group itself"),
        (r#"{"unified":{"../memory.max":"1"}}"#, "not of the form CONTROLLER.FILE"),
        (r#"{"unified":{"memory":"1"}}"#, "not of the form CONTROLLER.FILE"),
        (r#"{"unified":{"..":"1"}}"#, "not of the form CONTROLLER.FILE"),
        (r#"{"unified":{"memory.max":"1\u0000"}}"#, "is no text of at most"),
    ] {
        let error = refused(json);
        assert!(error.contains(expected), "{json}: {error}");
    }
}

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn the_hierarchy_is_found_alone_or_beside_version_1() {
    let found = locate(HYBRID, "7:blkio:/x\n4:memory:/y\n0::/a/b\n").unwrap();
    assert_eq!(found.mount, Path::new("/sys/fs/cgroup/uni fied"));
    assert_eq!(found.own, Path::new("/sys/fs/cgroup/uni fied/a/b"));
    let at = |path: &str| Some(PathBuf::from(path));
    let expected = [
        ("memory".to_string(), at("/sys/fs/cgroup/memory")),
        ("cpu".to_string(), at("/sys/fs/cgroup/cpu,cpuacct")),
        ("cpuacct".to_string(), at("/sys/fs/cgroup/cpu,cpuacct")),
        ("blkio".to_string(), None),
    ];
    assert_eq!(found.version_1, expected);

    let alone = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    let own = |text: &str| locate(alone, text).unwrap().own;
    assert_eq!(own("0::/user.slice/celda-agent\n"), Path::new("/sys/fs/cgroup/user.slice"));
    assert_eq!(own("0::/../../outside\n"), Path::new("/sys/fs/cgroup"));
    assert_eq!(own(""), Path::new("/sys/fs/cgroup"));
    let part = "30 23 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
    assert_eq!(locate(part, "0::/docker/1/x\n").unwrap().own, Path::new("/sys/fs/cgroup/x"));
    assert_eq!(locate("", "0::/\n"), None);
}

/// A hierarchy of plain files that offers `controllers`; those of `celda/` are enabled as `enabled`.
fn fake(controllers: &str, enabled: &str) -> (tempfile::TempDir, Hierarchy) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_path_buf();
    fs::create_dir(root.join("celda")).unwrap();
    fs::write(root.join("cgroup.controllers"), controllers).unwrap();
    fs::write(root.join("cgroup.subtree_control"), enabled).unwrap();
    fs::write(root.join("celda/cgroup.subtree_control"), enabled).unwrap();
    let version_1 = vec![("memory".to_string(), Some(PathBuf::from("/sys/fs/cgroup/memory")))];
    let location = Location { mount: root.clone(), own: root, version_1 };
    (directory, Hierarchy::at(location))
}

#[test]
fn a_limit_without_its_controller_is_refused_and_nothing_made() {
    let (directory, hierarchy) = fake("pids\n", "");
    let error = hierarchy.create("one", &resources(r#"{"memory":{"limit":4096}}"#)).unwrap_err().to_string();
    for part in
        ["memory.max needs", "\"memory\"", "cgroup v1 has it (/sys/fs/cgroup/memory)", "cgroup_no_v1=memory"]
    {
        assert!(error.contains(part), "{error}");
    }
    let error =
        hierarchy.create("one", &resources(r#"{"unified":{"mem.max":"1"}}"#)).unwrap_err().to_string();
    assert!(error.contains("there is no controller of that name"), "{error}");
    let error = hierarchy.create("one", &resources(r#"{"cpu":{"shares":9}}"#)).unwrap_err().to_string();
    assert!(error.contains("this kernel does not have it"), "{error}");
    assert!(!directory.path().join("celda/one").exists());
    let missing = |controllers: Vec<super::Controller>| -> Vec<&str> {
        controllers.into_iter().filter(|one| one.missing.is_some()).map(|one| one.name).collect()
    };
    assert_eq!(
        missing(hierarchy.controllers().unwrap()),
        ["cpu", "cpuset", "hugetlb", "io", "memory", "rdma"]
    );
}

#[test]
fn controllers_are_enabled_where_they_are_not() {
    let (directory, hierarchy) = fake("cpu memory pids\n", "cpu\n");
    let root = directory.path();
    // The file of the limit is not there: in a hierarchy of plain files nobody makes it.
    let error =
        hierarchy.create("one", &resources(r#"{"pids":{"limit":5},"cpu":{"shares":9}}"#)).unwrap_err();
    assert!(
        matches!(&error, CgroupError::Io { path, .. } if path.ends_with("celda/one/cpu.weight")),
        "{error}"
    );
    assert!(!root.join("celda/one").exists(), "removed after the error");
    for file in ["cgroup.subtree_control", "celda/cgroup.subtree_control"] {
        assert!(fs::read_to_string(root.join(file)).unwrap().starts_with("+pids"), "{file}");
    }
}

#[test]
fn groups_without_limits_and_left_over_ones() {
    let (directory, hierarchy) = fake("", "");
    fs::remove_dir_all(directory.path().join("celda")).unwrap();
    let none = LinuxResources::default();
    let group = hierarchy.create("one", &none).unwrap();
    assert_eq!(group.path(), directory.path().join("celda/one"));
    assert!(!group.is_limited());
    drop(group);
    let again = hierarchy.create("one", &none).unwrap();
    again.remove().unwrap();
    assert!(!directory.path().join("celda/one").exists());
    fs::create_dir_all(directory.path().join("celda/two/below")).unwrap();
    assert!(matches!(hierarchy.create("two", &none), Err(CgroupError::Exists { .. })));
}

#[test]
fn ids_are_one_name() {
    let (_directory, hierarchy) = fake("", "");
    let long = "a".repeat(256);
    for id in ["", ".", "..", "a/b", "-a", "a b", "a\n", "\u{e9}", "cgroup.procs", "memory.max", &long] {
        let error = hierarchy.create(id, &LinuxResources::default()).expect_err(id);
        assert!(matches!(error, CgroupError::BadId { .. }), "{error}");
        assert!(error.to_string().len() < 300);
    }
}

proptest! {
    #[test]
    fn any_table_is_read(mounts in "\\PC{0,120}", own in "[0-9a-z:,/.\\\\\n]{0,80}") {
        let _ = locate(&mounts, &own);
        if let Some(found) = locate(HYBRID, &own) {
            prop_assert!(found.own.starts_with(&found.mount));
            prop_assert!(!found.own.components().any(|part| part == std::path::Component::ParentDir));
        }
    }
}
