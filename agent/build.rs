//! Builds the reaper: a static ELF of its own, which the sandbox embeds.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let source = "init/main.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=build.rs");
    // A fixed address saves the command 22,000 relocations, half a millisecond of each start: docs/decisions.md.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let output = Path::new(&variable("OUT_DIR")).join("celda-init");
    let mut compiler = Command::new(variable("RUSTC"));
    compiler
        .args([
            "--edition=2024",
            "--crate-name=celda_init",
            "--crate-type=bin",
            "--target",
            &variable("TARGET"),
        ])
        .args(["-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols", "-Crelocation-model=static"])
        // Its own entry, no C library: the same two words work for gcc and clang as linkers, native or cross.
        .args(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-static"])
        .args(["-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,--build-id=none"])
        .arg("-o")
        .arg(&output)
        .arg(source);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    let status = compiler.status().unwrap_or_else(|error| panic!("run the compiler for {source}: {error}"));
    assert!(status.success(), "compile {source} with {compiler:?}: {status}");
}
