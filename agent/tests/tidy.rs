//! The house rules that a machine can check, over every Rust file of the workspace.
//!
//! ```text
//! file -> blanked (comments, strings and test modules gone, lines kept) -> rules -> "path:line: what"
//! ```
//! A file under 500 lines, a function under 70, `unsafe` and `libc::` in `sys/` rooms only, a module head on each file,
//! nothing left undone, no path of somebody's machine.

#![allow(clippy::unwrap_used)]

#[path = "tidy/source.rs"]
mod source;

use source::Source;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Directories of the workspace that hold Rust of ours.
const ROOMS: [&str; 6] = ["agent", "api", "auction", "layerfs", "benches", "fuzz"];

#[test]
fn house_rules_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for room in ROOMS {
        collect(&root.join(room), &mut files);
    }
    assert!(files.len() > 10, "found only {} Rust files under {}", files.len(), root.display());
    let mut complaints = Vec::new();
    for file in &files {
        let name = file.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        check(&name, &std::fs::read_to_string(file).unwrap(), &mut complaints);
    }
    assert!(complaints.is_empty(), "{} house rules broken:\n{}", complaints.len(), complaints.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "corpus" | "artifacts") {
            collect(&path, files);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

fn check(name: &str, text: &str, complaints: &mut Vec<String>) {
    let is_test = name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("_tests.rs");
    // The reaper is a program without a standard library: nothing but system calls.
    let in_sys = name.contains("/src/sys/") || name.starts_with("agent/init/");
    let source = Source::blank(text);
    let mut complain = |line: usize, what: &str| complaints.push(format!("{name}:{line}: {what}"));

    if !is_test && source.code_lines_count() >= FILE_LINES_MAX {
        complain(
            1,
            &format!("{} lines without tests, {FILE_LINES_MAX} is too many", source.code_lines_count()),
        );
    }
    for function in source.functions() {
        if !is_test && !function.is_test && function.lines_count >= FUNCTION_LINES_MAX {
            complain(function.line, &format!("fn {} has {} lines", function.name, function.lines_count));
        }
    }
    if !is_test && !text.starts_with("//!") {
        complain(1, "no module head: say first what this file is for");
    }
    for (index, code) in source.lines().enumerate() {
        let line = index + 1;
        if !in_sys && (has_word(code, "unsafe") || code.contains("libc::")) {
            complain(line, "unsafe and libc:: live in src/sys/ only");
        }
        for left_undone in ["todo!", "unimplemented!", "#[ignore"] {
            if code.contains(left_undone) {
                complain(line, &format!("{left_undone} is left"));
            }
        }
    }
    // Taken apart so that this file does not complain about itself.
    for place in
        [concat!("/wo", "rk/wt"), concat!("/wo", "rk/main"), concat!("/ho", "me/"), concat!("/ro", "ot/.")]
    {
        if let Some(at) = text.find(place) {
            complain(text[..at].lines().count(), "a path of one machine");
        }
    }
}

/// Whether `code` has `word` as a word of its own: `unsafe_code` in an attribute is not `unsafe`.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    code.match_indices(word).any(|(at, _)| {
        let bytes = code.as_bytes();
        !is_part(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !is_part(bytes.get(at + word.len()))
    })
}

#[test]
fn rules_see_through_strings_and_comments() {
    let mut complaints = Vec::new();
    let body = "x();\n".repeat(FUNCTION_LINES_MAX);
    let text = format!(
        "//! head\n// todo!()\nconst A: &str = \"unsafe {{ \\\" todo!()\"; const B: char = '{{';\nfn long() {{\n{body}}}\n\
         fn short<'a>(x: &'a str) {{ let r = r#\"}} \" libc:: \"#; }}\n#[cfg(test)]\nmod tests {{ fn t() {{ unsafe {{}} }} }}\n"
    );
    check("layerfs/src/x.rs", &text, &mut complaints);
    assert_eq!(complaints, ["layerfs/src/x.rs:4: fn long has 72 lines"]);
    complaints.clear();
    check("layerfs/src/y.rs", "fn f() { unsafe { todo!() } }\n", &mut complaints);
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    complaints.clear();
    check("layerfs/src/sys/y.rs", "//! head\nfn f() { unsafe { g() } }\n", &mut complaints);
    assert!(complaints.is_empty(), "{complaints:?}");
}
