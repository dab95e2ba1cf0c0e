//! Layers on one another: a test for each rule, and random chains against a naive merger over whole paths.
#![allow(clippy::unwrap_used)]

#[path = "../support/entries.rs"]
mod entries;

mod links;
mod oracle;
mod refusals;
mod rules;

use celda_layerfs::Limits;
use celda_layerfs::tar::Entry;
use celda_layerfs::tree::{Merger, Problem, Tree, TreeError};

fn merge(layers: Vec<Vec<Entry>>) -> Result<Tree, TreeError> {
    let mut merger = Merger::new(&Limits::default());
    for layer in layers {
        merger.add_layer(layer)?;
    }
    Ok(merger.finish())
}

/// Merges and compares with lines of [`entries::show`].
#[track_caller]
fn shows(layers: Vec<Vec<Entry>>, lines: &[&str]) {
    assert_eq!(entries::show(&merge(layers).unwrap()), lines);
}

/// Merges and expects this problem.
#[track_caller]
fn refused(layers: Vec<Vec<Entry>>, expected: &Problem) {
    match merge(layers) {
        Err(TreeError::Entry { problem, .. }) => assert_eq!(problem, *expected),
        other => panic!("{other:?}"),
    }
}
