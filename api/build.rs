//! Compiles the .proto files with protox, so that a build needs no protoc, and generates their messages and services.

use std::error::Error;

const FILES: [&str; 4] = [
    "proto/celda/auction/v1/auction.proto",
    "proto/celda/auction/v1/resources.proto",
    "proto/celda/cell/v1/cell.proto",
    "proto/celda/cell/v1/spec.proto",
];
const INCLUDES: [&str; 1] = ["proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, INCLUDES)?;
    // A spec's digest is of its bytes: maps are encoded in the order of their keys.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
