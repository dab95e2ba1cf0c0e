//! Whiteouts, replacements, directories without an entry, and what is dropped.

use celda_layerfs::Limits;
use celda_layerfs::tar::{Entry, Timestamp};
use celda_layerfs::tree::{Merger, Tree};

use crate::entries::{device, directory, file, hard_link, show, symlink, whiteout, xattr};
use crate::{merge, shows};

fn below() -> Vec<Entry> {
    vec![directory("d"), file("d/old", 1), directory("d/sub"), file("d/sub/deep", 2), file("top", 3)]
}

#[test]
fn an_opaque_directory_hides_the_layers_below_wherever_in_the_archive_it_stands() {
    let expected = ["d directory 700", "d/new file 1:9", "top file 0:3"];
    let orders = [
        vec![whiteout("d/.wh..wh..opq"), directory("d"), file("d/new", 9)],
        vec![directory("d"), whiteout("d/.wh..wh..opq"), file("d/new", 9)],
        vec![directory("d"), file("d/new", 9), whiteout("d/.wh..wh..opq")],
        vec![file("d/new", 9), whiteout("d/.wh..wh..opq")],
    ];
    for layer in orders {
        shows(vec![below(), layer], &expected);
    }
}

#[test]
fn an_opaque_root_hides_everything_below() {
    shows(vec![below(), vec![file("only", 4), whiteout(".wh..wh..opq")]], &["only file 1:4"]);
}

#[test]
fn a_whiteout_takes_a_subtree_and_nothing_of_its_own_layer() {
    let left = ["d directory 700", "d/old file 0:1", "top file 0:3"];
    shows(vec![below(), vec![whiteout("d/.wh.sub")]], &left);
    let readded =
        ["d directory 700", "d/old file 1:7", "d/sub directory 755", "d/sub/x file 1:8", "top file 0:3"];
    let layer = vec![file("d/old", 7), file("d/sub/x", 8), whiteout("d/.wh.sub"), whiteout("d/.wh.old")];
    shows(vec![below(), layer.clone()], &readded);
    shows(vec![below(), layer.into_iter().rev().collect()], &readded);
}

#[test]
fn a_whiteout_of_nothing_is_nothing() {
    let merged = merge(vec![
        below(),
        vec![
            whiteout(".wh.absent"),
            whiteout("absent/.wh.x"),
            whiteout("absent/.wh..wh..opq"),
            whiteout("top/.wh.x"),
            whiteout("top/.wh..wh..opq"),
        ],
    ]);
    assert_eq!(show(&merged.unwrap()), show(&merge(vec![below()]).unwrap()));
}

#[test]
fn a_whiteout_reaches_only_layers_below_and_later_layers_may_add_again() {
    let layers = vec![below(), vec![whiteout(".wh.d")], vec![file("d/again", 5)]];
    shows(layers, &["d directory 755", "d/again file 2:5", "top file 0:3"]);
}

#[test]
fn a_whiteout_goes_through_links_of_lower_layers_but_not_through_what_its_layer_makes_a_directory() {
    let linked = || vec![directory("real"), file("real/a", 1), file("real/b", 2), symlink("way", "/real")];
    shows(
        vec![linked(), vec![whiteout("way/.wh.a")]],
        &["real directory 700", "real/b file 0:2", "way link /real"],
    );
    for opaque in ["way/.wh..wh..opq", "way/.wh.a"] {
        shows(
            vec![linked(), vec![whiteout(opaque), directory("way"), file("way/c", 3)]],
            &[
                "real directory 700",
                "real/a file 0:1",
                "real/b file 0:2",
                "way directory 700",
                "way/c file 1:3",
            ],
        );
    }
}

#[test]
fn the_bookkeeping_of_aufs_is_left_out() {
    let layer =
        vec![directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", 1), file(".wh..wh.aufs", 1), file("a", 1)];
    shows(vec![layer], &["a file 0:1"]);
}

#[test]
fn a_file_replaces_a_directory_and_the_reverse() {
    shows(vec![below(), vec![file("d", 9)]], &["d file 1:9", "top file 0:3"]);
    let layer = vec![directory("top"), file("top/in", 9)];
    let expected = [
        "d directory 700",
        "d/old file 0:1",
        "d/sub directory 700",
        "d/sub/deep file 0:2",
        "top directory 700",
        "top/in file 1:9",
    ];
    shows(vec![below(), layer], &expected);
    shows(
        vec![vec![symlink("s", "elsewhere")], vec![directory("s"), file("s/in", 1)]],
        &["s directory 700", "s/in file 1:1"],
    );
    // Within one archive, too: what was beneath the first is gone.
    shows(
        vec![vec![directory("x"), file("x/y", 1), file("x", 2), directory("x"), file("x/z", 3)]],
        &["x directory 700", "x/z file 0:3"],
    );
}

#[test]
fn the_last_of_a_path_wins_and_a_directory_keeps_its_names() {
    shows(vec![vec![file("a", 1), file("a", 2)]], &["a file 0:2"]);
    let late = Entry { mode: 0o751, uid: 7, ..directory("d") };
    let tree = merge(vec![below(), vec![file("d/new", 1), late]]).unwrap();
    let d = tree.inode(tree.lookup(b"d").unwrap());
    assert_eq!((d.mode, d.uid, d.links), (0o751, 7, 3));
    assert!(tree.lookup(b"d/new").is_some() && tree.lookup(b"d/sub/deep").is_some());
}

#[test]
fn attributes_of_a_directory_are_replaced_not_added() {
    let lower = Entry { xattrs: vec![xattr("user.a", b"1")], ..directory("d") };
    let upper = Entry { xattrs: vec![xattr("user.b", b"2")], ..directory("d") };
    let tree = merge(vec![vec![lower], vec![upper]]).unwrap();
    assert_eq!(tree.inode(tree.lookup(b"d").unwrap()).xattrs, [xattr("user.b", b"2")]);
}

#[test]
fn missing_parents_are_made_and_described_when_their_entry_comes() {
    shows(vec![vec![file("a/b/c", 1)]], &["a directory 755", "a/b directory 755", "a/b/c file 0:1"]);
    shows(
        vec![vec![file("a/b/c", 1), directory("a/b")]],
        &["a directory 755", "a/b directory 700", "a/b/c file 0:1"],
    );
}

#[test]
fn the_root_has_the_last_entry_of_it_or_0755() {
    let tree = merge(vec![vec![file("a", 1)]]).unwrap();
    let root = tree.inode(Tree::ROOT);
    assert_eq!((root.mode, root.uid, root.mtime, root.links), (0o755, 0, Timestamp::default(), 2));
    let mtime = Timestamp { seconds: -5, nanoseconds: 7 };
    let entry =
        Entry { mode: 0o100_750, uid: 70_000, mtime, xattrs: vec![xattr("user.r", b"")], ..directory("") };
    let tree = merge(vec![vec![directory("")], vec![entry]]).unwrap();
    let root = tree.inode(Tree::ROOT);
    assert_eq!((root.mode, root.uid, root.mtime, root.xattrs.len()), (0o750, 70_000, mtime, 1));
}

#[test]
fn a_character_device_0_0_is_no_whiteout_and_not_there() {
    shows(
        vec![vec![file("a", 1)], vec![device("a", 0, 0), device("b", 0, 0), device("c", 0, 1)]],
        &["a file 0:1", "c char 0:1"],
    );
}

#[test]
fn attributes_of_the_overlay_are_dropped() {
    let xattrs =
        vec![xattr("trusted.overlay.opaque", b"y"), xattr("user.a", b"1"), xattr("user.overlay.x", b"")];
    let tree = merge(vec![vec![Entry { xattrs, ..directory("d") }]]).unwrap();
    assert_eq!(tree.inode(tree.lookup(b"d").unwrap()).xattrs, [xattr("user.a", b"1")]);
}

#[test]
fn links_are_counted_over_names_that_are_left() {
    let tree = merge(vec![
        vec![
            directory("d"),
            directory("d/e"),
            file("d/a", 1),
            hard_link("b", "d/a"),
            hard_link("d/e/c", "b"),
        ],
        vec![whiteout("d/.wh.a"), whiteout("d/.wh.e")],
    ])
    .unwrap();
    let links = |path: &[u8]| tree.inode(tree.lookup(path).unwrap()).links;
    assert_eq!((links(b""), links(b"d"), links(b"b")), (3, 2, 1));
    assert!(tree.inodes.iter().any(|inode| inode.links == 0), "what lost its names is marked");
}

#[test]
fn a_chain_without_layers_is_an_empty_root() {
    let tree = Merger::new(&Limits::default()).finish();
    assert_eq!((tree.inodes.len(), tree.inode(Tree::ROOT).links), (1, 2));
}
