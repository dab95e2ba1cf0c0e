//! What a cell does with a journal that is not as it left it.

use std::fs;

use celda_api::cell::v1;

use crate::support::{Cell, FOR_EVER};

#[test]
fn privileged_a_torn_journal_is_cut_and_a_damaged_one_refused() {
    let Some(mut cell) = Cell::up("a_torn_journal") else { return };
    cell.run(&["--name", "stays", "--count", "3"], FOR_EVER);
    let path = cell.root().join("cell/journal");
    cell.kill();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..], &[0; 1000]].concat()).unwrap();
    cell.begin();
    assert_eq!(cell.list().0.iter().filter(|one| one.status() == v1::Status::Running).count(), 3);

    // The last word of the last turn is lost: what runs is known to the holder.
    cell.run(&["--name", "later"], FOR_EVER);
    cell.kill();
    let whole = fs::read(&path).unwrap();
    let last = whole.windows(4).rposition(|four| four == 0xce1d_a10b_u32.to_le_bytes()).unwrap();
    fs::write(&path, &whole[..last + 25]).unwrap();
    cell.begin();
    cell.wait("later", |one| one.status() == v1::Status::Running);

    cell.kill();
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[30] ^= 0x40;
    fs::write(&path, &damaged).unwrap();
    let said = cell.fails_to_begin();
    assert!(said.contains("is damaged") && said.contains("move it away"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), damaged, "it is left as it is");

    // Moved away: an empty cell, and what still ran is ended.
    fs::remove_file(&path).unwrap();
    cell.begin();
    assert_eq!(cell.list().0.len(), 0);
    cell.leaves_nothing("a damaged journal");
}

#[test]
fn privileged_a_spec_with_many_labels_survives_two_restarts() {
    let Some(mut cell) = Cell::up("many_labels") else { return };
    let flags: Vec<String> = (0..5).flat_map(|n| ["--label".to_owned(), format!("l{n}=v{n}")]).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--name", "labelled"]).collect();
    cell.run(&flags, FOR_EVER);
    for _ in 0..2 {
        cell.kill();
        cell.begin();
        let one = cell.wait("labelled", |one| one.status() == v1::Status::Running);
        assert_eq!(one.attempt, 1);
    }
    let image = cell.image();
    let args = [&["run", "-d"], &flags[..], &[&image, "/bin/sh", "-c", FOR_EVER]].concat();
    let said = cell.fails(125, &args);
    assert!(said.contains("it is there already"), "it is taken for another: {said}");
    cell.leaves_nothing("labels");
}
