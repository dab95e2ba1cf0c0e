//! What only tars made by hand have, and chains as long as they get.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use crate::image::{Mounted, is_root};
use crate::tar_builder::{Head, TarBuilder};

fn at(mounted: &Mounted, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{path}", mounted.root.as_fd().as_raw_fd()))
}

fn value(path: &PathBuf, name: &str) -> Vec<u8> {
    let mut value = vec![0; 1 << 16];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

#[test]
fn privileged_attributes_of_sixty_kilobytes_are_shown_of_one_and_of_many_inodes() {
    if !is_root() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let own = vec![b'o'; 60_000];
    let shared: Vec<u8> = (0..50_000u32).map(|at| (at % 253) as u8).collect();
    let names: Vec<String> = (0..256).map(|number| format!("SCHILY.xattr.user.number-{number}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let mut tar = TarBuilder::new().pax(&[("SCHILY.xattr.user.own", &own)]).file("own", b"1");
    for name in ["one", "two"] {
        tar =
            tar.pax(&[("SCHILY.xattr.user.shared", &shared), ("SCHILY.xattr.user.x", b"")]).file(name, b"2");
        // More shared ones than an inode can refer to.
        tar = tar.pax(&many).file(&format!("many-{name}"), b"3");
    }
    tar = tar.pax(&[("SCHILY.xattr.user.own", &own[1..])]).head(Head::ustar(b'5', "directory"));
    let target = "t".repeat(4095);
    tar = tar.pax(&[("SCHILY.xattr.trusted.own", &own[2..]), ("linkpath", target.as_bytes())]);
    tar = tar.head(Head::ustar(b'2', "link")).file("directory/in", b"4");
    let Some(mounted) = Mounted::new(store.path(), &[tar.end()]) else { return };
    mounted.fsck();
    assert_eq!(value(&at(&mounted, "own"), "user.own"), own);
    assert_eq!(value(&at(&mounted, "directory"), "user.own"), own[1..]);
    assert_eq!(value(&at(&mounted, "link"), "trusted.own"), own[2..]);
    assert_eq!(fs::read_link(at(&mounted, "link")).unwrap().as_os_str().len(), 4095);
    assert_eq!(fs::read_to_string(at(&mounted, "directory/in")).unwrap(), "4");
    for name in ["one", "two"] {
        assert_eq!(value(&at(&mounted, name), "user.shared"), shared);
        assert_eq!(value(&at(&mounted, name), "user.x"), b"");
        for number in [0, 1, 99, 253, 254, 255] {
            let named = format!("user.number-{number}");
            let path = at(&mounted, &format!("many-{name}"));
            assert_eq!(value(&path, &named), format!("SCHILY.xattr.{named}").as_bytes());
        }
    }
}

#[test]
fn privileged_chains_of_one_forty_and_three_hundred_layers_are_mounted() {
    if !is_root() {
        return;
    }
    for count in [1usize, 40, 300] {
        let store = tempfile::tempdir().unwrap();
        let tars: Vec<Vec<u8>> = (0..count)
            .map(|layer| {
                let text = format!("layer {layer}");
                TarBuilder::new()
                    .file(&format!("d/own-{layer}"), text.as_bytes())
                    .file("last", text.as_bytes())
                    .file(&format!("d/.wh.own-{}", layer.wrapping_sub(2)), b"")
                    .end()
            })
            .collect();
        let Some(mounted) = Mounted::new(store.path(), &tars) else { return };
        mounted.fsck();
        assert_eq!(fs::read_to_string(at(&mounted, "last")).unwrap(), format!("layer {}", count - 1));
        let names = fs::read_dir(at(&mounted, "d")).unwrap().count();
        assert_eq!(names, count.min(2));
        for layer in count.saturating_sub(2)..count {
            let text = fs::read_to_string(at(&mounted, &format!("d/own-{layer}"))).unwrap();
            assert_eq!(text, format!("layer {layer}"));
        }
    }
}

#[test]
fn privileged_unaligned_sparse_data_is_read_from_copies() {
    if !is_root() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    // The old GNU format: 700 bytes at 100, 5000 at 4096, 3 at the very end; one after the other in the tar.
    let data: Vec<u8> = (0..5703u32).map(|at| (at % 241) as u8 + 1).collect();
    let size = 20_000;
    let mut head = Head::gnu(b'S', "sparse").octal(483, 12, size);
    for (slot, (offset, length)) in [(100, 700), (4096, 5000), (size - 3, 3)].into_iter().enumerate() {
        head = head.octal(386 + slot * 24, 12, offset).octal(398 + slot * 24, 12, length);
    }
    // Without the blocks that end an archive, so that the last file ends where the tar does.
    let tar = TarBuilder::new().entry(head, &data).file("last", b"the end").bytes;
    let mut expected = vec![0; size as usize];
    expected[100..800].copy_from_slice(&data[..700]);
    expected[4096..9096].copy_from_slice(&data[700..5700]);
    expected[size as usize - 3..].copy_from_slice(&data[5700..]);
    let Some(mounted) = Mounted::new(store.path(), &[tar]) else { return };
    mounted.fsck();
    assert!(fs::read(at(&mounted, "sparse")).unwrap() == expected);
    assert_eq!(fs::read(at(&mounted, "last")).unwrap(), b"the end");
}
