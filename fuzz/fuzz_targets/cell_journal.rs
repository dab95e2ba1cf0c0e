//! Any bytes as a cell's journal.
//!
//! Invariants:
//! - never panics, and reads in time that the length bounds;
//! - what is taken is whole: the same bytes cut there, with any torn tail, are taken and say the same;
//! - what is taken says nothing that cannot be said again: written anew, it is read as the same.
#![no_main]

use celda::cell::journal::format::{HEADER, write};
use celda::cell::journal::record::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Past the checksum as well: the bytes as the payload of a frame.
    let mut framed = HEADER.to_vec();
    write(&mut framed, bytes, 0);
    check(&framed);
});

fn check(bytes: &[u8]) {
    let Ok((known, whole_bytes)) = parse(bytes) else { return };
    assert!(whole_bytes <= bytes.len());
    let whole = bytes.get(..whole_bytes).expect("within");
    assert_eq!(parse(whole), Ok((known.clone(), whole_bytes)));
    assert_eq!(parse(&[whole, b"torn"].concat()), Ok((known.clone(), whole_bytes)));
    let mut payload = Vec::new();
    for record in known.records() {
        serde_json::to_writer(&mut payload, &record).expect("encoded");
        payload.push(b'\n');
    }
    let mut anew = HEADER.to_vec();
    write(&mut anew, &payload, 0);
    let (again, _) = parse(&anew).expect("a journal");
    assert_eq!((again.instances, again.draining), (known.instances, known.draining));
}
