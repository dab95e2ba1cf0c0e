//! Hard links, and parents that are reached through symbolic links.

use celda_layerfs::tree::Problem;

use crate::entries::{directory, file, hard_link, symlink, whiteout};
use crate::{merge, refused, shows};

fn missing(target: &str) -> Problem {
    Problem::LinkMissing(target.into())
}

#[test]
fn a_hard_link_to_a_lower_layer_shares_its_inode() {
    shows(
        vec![vec![file("d/a", 1)], vec![hard_link("b", "d/a")]],
        &["b file 0:1", "d directory 755", "d/a file 0:1 = b"],
    );
}

#[test]
fn a_hard_link_keeps_what_it_named_when_the_target_is_replaced_or_removed() {
    let lower = || vec![file("a", 1), hard_link("b", "a")];
    shows(vec![lower(), vec![file("a", 9)]], &["a file 1:9", "b file 0:1"]);
    shows(vec![lower(), vec![whiteout(".wh.a")]], &["b file 0:1"]);
    shows(vec![vec![file("a", 1), hard_link("b", "a"), file("a", 9)]], &["a file 0:9", "b file 0:1"]);
    // Of two entries of the target the one before the link counts.
    shows(
        vec![vec![file("a", 1)], vec![file("a", 2), hard_link("b", "a")]],
        &["a file 1:2", "b file 1:2 = a"],
    );
}

#[test]
fn a_hard_link_to_what_its_own_layer_whites_out_is_refused() {
    refused(vec![vec![file("a", 1)], vec![hard_link("b", "a"), whiteout(".wh.a")]], &missing("a"));
    refused(
        vec![vec![file("d/a", 1)], vec![whiteout("d/.wh..wh..opq"), hard_link("b", "d/a")]],
        &missing("d/a"),
    );
}

#[test]
fn a_hard_link_needs_its_target_first() {
    refused(vec![vec![hard_link("b", "a"), file("a", 1)]], &missing("a"));
    refused(vec![vec![hard_link("b", "no/such/a")]], &missing("no/such/a"));
}

#[test]
fn a_hard_link_to_a_directory_is_refused() {
    let problem = Problem::LinkDirectory("d".into());
    refused(vec![vec![directory("d"), hard_link("b", "d")]], &problem);
    refused(vec![vec![directory("d"), hard_link("d/loop", "d")]], &problem);
    refused(vec![vec![hard_link("b", "")]], &Problem::LinkDirectory("/".into()));
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_that_link() {
    shows(vec![vec![symlink("s", "a"), hard_link("t", "s")]], &["s link a", "t link a = s"]);
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    shows(vec![vec![file("a", 1), hard_link("a", "a")]], &["a file 0:1"]);
}

#[test]
fn a_hard_link_replaces_what_had_its_name() {
    shows(
        vec![vec![directory("d"), file("d/x", 1), file("a", 2), hard_link("d", "a")]],
        &["a file 0:2", "d file 0:2 = a"],
    );
}

#[test]
fn targets_are_found_through_links_on_the_way() {
    shows(
        vec![vec![file("real/a", 1), symlink("way", "real"), hard_link("b", "way/a")]],
        &["b file 0:1", "real directory 755", "real/a file 0:1 = b", "way link real"],
    );
}

#[test]
fn parents_lead_through_links_within_the_root() {
    for target in ["/real", "real", "../../../real", "./x/../real", "//real/.", "/../real"] {
        shows(
            vec![vec![directory("real"), symlink("way", target)], vec![file("way/f", 1)]],
            &["real directory 700", "real/f file 1:1", &format!("way link {target}")],
        );
    }
    shows(vec![vec![symlink("up", "..")], vec![file("up/f", 1)]], &["f file 1:1", "up link .."]);
}

#[test]
fn parents_lead_through_chains_and_make_what_is_missing() {
    let chain = vec![symlink("a", "b/c"), symlink("b", "/d"), symlink("d/c", "../e"), file("a/f", 1)];
    shows(
        vec![chain],
        &["a link b/c", "b link /d", "d directory 755", "d/c link ../e", "e directory 755", "e/f file 0:1"],
    );
}

#[test]
fn a_link_that_comes_later_turns_later_entries_only() {
    let layer = vec![symlink("way", "x/../b"), file("way/one", 1), symlink("x", "c/d"), file("way/two", 2)];
    shows(
        vec![layer],
        &[
            "b directory 755",
            "b/one file 0:1",
            "c directory 755",
            "c/b directory 755",
            "c/b/two file 0:2",
            "way link x/../b",
            "x link c/d",
        ],
    );
}

#[test]
fn a_link_at_the_end_is_replaced_not_followed() {
    shows(vec![vec![file("a", 1), symlink("s", "a")], vec![file("s", 2)]], &["a file 0:1", "s file 1:2"]);
}

#[test]
fn loops_of_links_are_refused_and_forty_links_are_not() {
    let problem = Problem::Symlinks(40);
    refused(vec![vec![symlink("a", "b"), symlink("b", "a"), file("a/f", 1)]], &problem);
    refused(vec![vec![symlink("self", "self/x"), file("self/f", 1)]], &problem);
    refused(vec![vec![symlink("a", "a")], vec![whiteout("a/.wh.f")]], &problem);
    let chain = |count: usize| {
        let mut layer: Vec<_> =
            (0..count).map(|at| symlink(&format!("l{at}"), &format!("l{}", at + 1))).collect();
        layer.extend([directory(&format!("l{count}")), file("l0/f", 1)]);
        layer
    };
    let tree = merge(vec![chain(40)]).unwrap();
    assert!(tree.lookup(b"l40/f").is_some());
    refused(vec![chain(41)], &problem);
}
