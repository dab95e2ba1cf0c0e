//! What no filesystem can show, and what would cost too much.

use celda_layerfs::Limits;
use celda_layerfs::tar::{Entry, EntryKind};
use celda_layerfs::tree::{Merger, Problem, TreeError};

use crate::entries::{device, directory, entry, file, hard_link, symlink, whiteout, xattr};
use crate::{merge, refused};

#[test]
fn what_is_no_file_is_refused() {
    refused(vec![vec![whiteout("d/.wh.")]], &Problem::EmptyWhiteout);
    for root in [file("", 1), symlink("", "a"), device("", 0, 0), entry("", EntryKind::Fifo)] {
        refused(vec![vec![root]], &Problem::RootKind);
    }
    refused(vec![vec![file("a", 1), hard_link("", "a")]], &Problem::RootKind);
    refused(vec![vec![file("a", 1), file("a/b", 1)]], &Problem::ParentKind("a".into()));
    refused(vec![vec![file("a", 1)], vec![directory("a/b/c")]], &Problem::ParentKind("a".into()));
    refused(vec![vec![file("a", 1), symlink("s", "a"), file("s/b", 1)]], &Problem::ParentKind("a".into()));
    for target in [String::new(), "t".repeat(4096), "t\0".into()] {
        refused(vec![vec![symlink("s", &target)]], &Problem::SymlinkTarget);
    }
    refused(vec![vec![device("c", 4096, 0)]], &Problem::Device(4096, 0));
    let block = EntryKind::BlockDevice { major: 0, minor: 1 << 20 };
    refused(vec![vec![entry("b", block)]], &Problem::Device(0, 1 << 20));
    let odd = Entry { xattrs: vec![xattr("system.posix_acl_access", b"?")], ..file("f", 1) };
    assert!(matches!(merge(vec![vec![odd]]), Err(TreeError::Entry { problem: Problem::Xattr(..), .. })));
}

#[test]
fn links_lead_to_no_name_that_is_none() {
    for target in [format!("/{}", "n".repeat(256)), format!("a/{}/..", "n".repeat(256))] {
        let merged = merge(vec![vec![symlink("s", &target), file("s/f", 1)]]);
        // A name that `..` takes away again is never made.
        assert_eq!(merged.is_ok(), target.ends_with(".."), "{merged:?}");
    }
}

#[test]
fn depth_is_bounded_with_and_without_links() {
    let path = |depth: usize| ["d"; 2049][..depth].join("/");
    // The deepest that PATH_MAX has room for.
    assert!(merge(vec![vec![file(&path(2048), 1)]]).is_ok());
    refused(vec![vec![file(&path(2049), 1)]], &Problem::Depth(2048));
    let deeper = vec![symlink("s", &path(2040)), file(&format!("s/{}/f", path(100)), 1)];
    refused(vec![deeper], &Problem::Depth(2048));
}

#[test]
fn following_links_is_bounded_over_a_layer() {
    let target = format!("{}x", "./".repeat(2000));
    let mut layer: Vec<Entry> =
        (0..39).map(|at| symlink(&format!("l{at}"), &format!("{target}/../l{}", at + 1))).collect();
    layer.push(directory("l39"));
    // A new parent path each time, so that none is known already.
    layer.extend((0..1000).map(|number| file(&format!("l0/d{number}/f"), 1)));
    refused(vec![layer], &Problem::Steps(64 << 20));
}

#[test]
fn layers_and_entries_are_counted() {
    let limits = Limits { layers_count: 2, entries_count: 2, ..Limits::default() };
    let mut merger = Merger::new(&limits);
    merger.add_layer(vec![file("a", 1), file("a", 1)]).unwrap();
    merger.add_layer(Vec::new()).unwrap();
    assert_eq!(merger.add_layer(Vec::new()), Err(TreeError::Layers { max: 2 }));
    let mut merger = Merger::new(&limits);
    merger.add_layer(vec![file("a", 1), file("b", 1)]).unwrap();
    let third = merger.add_layer(vec![file("c", 1)]);
    assert_eq!(third, Err(TreeError::Entries { layer: 1, count: 3, max: 2 }), "counted layer by layer");
    let three = Merger::new(&limits).add_layer(vec![file("a", 1), file("b", 1), file("c", 1)]);
    assert_eq!(three, Err(TreeError::Entries { layer: 0, count: 3, max: 2 }));
}

#[test]
fn attributes_of_all_layers_are_counted_together() {
    let limits = Limits { metadata_bytes: 100_000, ..Limits::default() };
    let value = vec![b'x'; 30_000];
    let layer = |name: &str| {
        let xattr = xattr("user.a", &value);
        vec![Entry { xattrs: vec![xattr], ..file(name, 1) }]
    };
    let mut merger = Merger::new(&limits);
    for name in ["a", "b", "c"] {
        merger.add_layer(layer(name)).unwrap();
    }
    assert_eq!(merger.add_layer(layer("d")), Err(TreeError::Metadata { layer: 3, max: 100_000 }));
}

#[test]
fn directories_without_entries_and_hard_links_are_counted() {
    let limits = Limits { metadata_bytes: 256 * 1000, ..Limits::default() };
    let way = vec!["d"; 400].join("/");
    let layer = (0..3).map(|number| file(&format!("{number}/{way}"), 0)).collect();
    let inodes = |result| matches!(result, Err(TreeError::Entry { problem: Problem::Inodes(1000), .. }));
    assert!(inodes(Merger::new(&limits).add_layer(layer)));
    let links = (0..1001).map(|number| hard_link(&format!("l{number}"), "a"));
    assert!(inodes(Merger::new(&limits).add_layer([file("a", 1)].into_iter().chain(links).collect())));
}

#[test]
fn an_error_names_layer_entry_and_offset() {
    let bad = Entry { header_offset: 1536, ..hard_link("some/where", "absent") };
    let error = merge(vec![Vec::new(), vec![file("some/x", 1), bad]]).unwrap_err();
    let text = error.to_string();
    for word in ["layer 1", "some/where", "1536", "absent"] {
        assert!(text.contains(word), "{text}");
    }
}
