//! Everything that is refused, each named for what it would do.

use celda_layerfs::Limits;
use celda_layerfs::tar::TarReason;

use super::tar_builder::{Head, TarBuilder};
use super::{paths, read, read_within};

fn refusal(tar: TarBuilder) -> TarReason {
    read(&tar.end()).unwrap_err()
}

/// A tar inside a file: its headers must never be taken for the outer tar's.
fn nested() -> Vec<u8> {
    TarBuilder::new().file("smuggled", b"evil").end()
}

#[test]
fn cve_2025_62518_pax_size_with_a_header_size_of_zero() {
    let size = nested().len().to_string();
    let tar = TarBuilder::new()
        .pax(&[("size", size.as_bytes())])
        .head(Head::ustar(b'0', "carrier").size(0))
        .content(&nested())
        .file("next", b"");
    let nested_bytes = nested().len() as u64;
    assert_eq!(refusal(tar), TarReason::SizesDisagree { header_bytes: 0, pax_bytes: nested_bytes });
}

#[test]
fn cve_2026_33055_pax_size_beside_another_header_size() {
    let tar = TarBuilder::new()
        .pax(&[("size", b"512")])
        .head(Head::ustar(b'0', "carrier").size(2048))
        .content(&[b'x'; 512])
        .content(&nested());
    assert_eq!(refusal(tar), TarReason::SizesDisagree { header_bytes: 2048, pax_bytes: 512 });
}

#[test]
fn sizes_that_agree_skip_a_nested_tar() {
    let size = nested().len().to_string();
    let tar = TarBuilder::new()
        .pax(&[("size", size.as_bytes())])
        .entry(Head::ustar(b'0', "carrier"), &nested())
        .entry(Head::ustar(b'9', "unknown type"), &nested())
        .file("next", b"")
        .end();
    assert_eq!(paths(&read(&tar).unwrap()), ["carrier", "unknown type", "next"]);
}

#[test]
fn pax_size_is_for_the_entry_not_for_extension_headers() {
    let tar = TarBuilder::new()
        .pax(&[("size", b"600")])
        .long_name("renamed")
        .entry(Head::ustar(b'0', "carrier"), &[b'x'; 600])
        .file("next", b"")
        .end();
    assert_eq!(paths(&read(&tar).unwrap()), ["renamed", "next"]);
}

#[test]
fn sizes_where_no_content_can_be() {
    let with_size = |kind| {
        let pax = TarBuilder::new().pax(&[("size", b"1024")]);
        refusal(pax.head(Head::ustar(kind, "x").link("y").size(1024)).content(&nested()))
    };
    for kind in *b"23456" {
        assert_eq!(with_size(kind), TarReason::SizeWithoutContent(1024), "type {kind}");
    }
    assert_eq!(with_size(b'1'), TarReason::AmbiguousLinkContent);
    let twice = TarBuilder::new().pax(&[("size", b"1"), ("size", b"2")]).file("x", b"xy");
    assert!(matches!(refusal(twice), TarReason::Pax(_)));
    let global = TarBuilder::new().global(&[("size", b"2")]).file("x", b"xy");
    assert!(matches!(refusal(global), TarReason::GlobalRecord(_)));
}

#[test]
fn paths_that_leave_the_root() {
    for path in ["../x", "a/../../x", "/../x", ".."] {
        assert_eq!(refusal(TarBuilder::new().file(path, b"")), TarReason::ParentComponent, "{path}");
        let pax = TarBuilder::new().pax(&[("path", path.as_bytes())]).file("x", b"");
        assert_eq!(refusal(pax), TarReason::ParentComponent, "{path}");
        let long = TarBuilder::new().long_name(path).file("x", b"");
        assert_eq!(refusal(long), TarReason::ParentComponent, "{path}");
        let link = TarBuilder::new().head(Head::ustar(b'1', "x").link(path));
        assert_eq!(refusal(link), TarReason::ParentComponent, "{path}");
    }
}

#[test]
fn names_with_nul_and_without_anything() {
    assert_eq!(refusal(TarBuilder::new().pax(&[("path", b"a\0b")]).file("x", b"")), TarReason::Nul);
    assert_eq!(refusal(TarBuilder::new().pax(&[("linkpath", b"a\0b")]).file("x", b"")), TarReason::Nul);
    assert_eq!(refusal(TarBuilder::new().long_name("a\0b").file("x", b"")), TarReason::Nul);
    assert_eq!(refusal(TarBuilder::new().long_name("").file("x", b"")), TarReason::NoName);
    assert_eq!(refusal(TarBuilder::new().file("./", b"")), TarReason::NoName);
    assert_eq!(refusal(TarBuilder::new().head(Head::ustar(b'2', "x"))), TarReason::NoTarget);
    assert_eq!(refusal(TarBuilder::new().head(Head::ustar(b'1', "x").link("/"))), TarReason::NoTarget);
}

#[test]
fn garbage_in_numbers_names_the_field() {
    let cases = [("mode", 100), ("uid", 108), ("gid", 116), ("size", 124), ("mtime", 136), ("devmajor", 329)];
    for (name, start) in cases {
        let tar = TarBuilder::new().head(Head::ustar(b'3', "x").device(1, 2).field(start, b"12z"));
        match refusal(tar) {
            TarReason::Number { field, .. } => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let over = Head::gnu(b'0', "x").base_256(108, 8, 1 << 32);
    assert!(matches!(refusal(TarBuilder::new().head(over)), TarReason::Number { field: "uid", .. }));
    let negative = Head::gnu(b'0', "x").base_256(124, 12, -1);
    assert!(matches!(refusal(TarBuilder::new().head(negative)), TarReason::Number { field: "size", .. }));
    let device = Head::ustar(b'4', "x").device(4096, 0);
    assert!(matches!(refusal(TarBuilder::new().head(device)), TarReason::Number { field: "devmajor", .. }));
    let pax = TarBuilder::new().pax(&[("uid", b"4294967296")]).file("x", b"");
    assert!(matches!(refusal(pax), TarReason::PaxValue { .. }));
}

#[test]
fn malformed_pax() {
    let cases: [&[u8]; 9] = [
        b"no length",
        b"5 a=b\n",
        b"99 a=b\n",
        b"6 a=bc",
        b"5 ab\n",
        b"5 =b\n",
        b"x a=b\n",
        b"0 a=b\n",
        b"99999999999999999999 a=b\n",
    ];
    for records in cases {
        let tar = TarBuilder::new().entry(Head::ustar(b'x', "pax"), records).file("x", b"");
        assert!(matches!(refusal(tar), TarReason::Pax(_)), "{records:?}");
    }
}

#[test]
fn extensions_twice_or_for_nothing() {
    let pax = || TarBuilder::new().pax(&[("uid", b"1")]);
    assert_eq!(refusal(pax().pax(&[]).file("x", b"")), TarReason::RepeatedExtension("pax"));
    let names = TarBuilder::new().long_name("a").long_name("b").file("x", b"");
    assert_eq!(refusal(names), TarReason::RepeatedExtension("GNU long name"));
    assert_eq!(refusal(pax()), TarReason::DanglingExtension);
    assert_eq!(read(&pax().bytes).unwrap_err(), TarReason::DanglingExtension);
}

#[test]
fn corruption() {
    let mut tar = TarBuilder::new().file("a", b"1").file("b", b"2").end();
    tar[1024] ^= 1;
    assert_eq!(read(&tar).unwrap_err(), TarReason::Checksum);
    assert_eq!(read(&[b'x'; 512]).unwrap_err(), TarReason::Checksum);
    let mut lone = TarBuilder::new().content(&[0]).bytes;
    lone.extend(TarBuilder::new().file("a", b"").bytes);
    assert_eq!(read(&lone).unwrap_err(), TarReason::LoneZeroBlock);
}

#[test]
fn torn_anywhere() {
    let tar = TarBuilder::new().pax(&[("uid", b"1")]).file("a", b"12").bytes;
    for length in 1..tar.len() {
        let reason = read(&tar[..length]).unwrap_err();
        let at_header = length == 1024;
        let expected = match reason {
            TarReason::DanglingExtension => at_header,
            TarReason::Torn { missing_bytes, .. } => missing_bytes > 0 && !at_header,
            _ => false,
        };
        assert!(expected, "cut at {length}: {reason:?}");
    }
    assert!(read(&tar).is_ok());
}

#[test]
fn unsupported_types() {
    for head in [Head::gnu(b'M', "x"), Head::gnu(b'N', "x"), Head::ustar(b'S', "x")] {
        assert!(matches!(refusal(TarBuilder::new().head(head)), TarReason::Unsupported(_)));
    }
}

#[test]
fn bombs() {
    let limit = |tar: TarBuilder, limits: &Limits| match read_within(&tar.end(), limits) {
        Err(TarReason::Limit { limit, .. }) => limit,
        Err(other) => panic!("{other:?}"),
        Ok(entries) => panic!("{} entries were read", entries.len()),
    };
    let base = Limits::default;
    let two = || TarBuilder::new().file("a", b"").file("b", b"");
    assert_eq!(limit(two(), &Limits { entries_count: 1, ..base() }), "entries_count");
    assert_eq!(limit(two(), &Limits { metadata_bytes: 200, ..base() }), "metadata_bytes");
    assert_eq!(limit(two(), &Limits { layer_bytes: 600, ..base() }), "layer_bytes");
    let file = |size| TarBuilder::new().head(Head::ustar(b'0', "x").size(size));
    assert_eq!(limit(file(4096), &Limits { layer_bytes: 4096, ..base() }), "layer_bytes");
    assert_eq!(limit(file(4097), &Limits { file_bytes: 4096, ..base() }), "file_bytes");
    let huge = Head::gnu(b'0', "x").base_256(124, 12, i64::MAX);
    assert_eq!(
        limit(TarBuilder::new().head(huge), &Limits { file_bytes: u64::MAX, ..base() }),
        "layer_bytes"
    );
    let pax = || TarBuilder::new().pax(&[("comment", &[b'x'; 2000])]);
    assert_eq!(limit(pax(), &Limits { pax_bytes: 1999, ..base() }), "pax_bytes");
    let huge_pax = TarBuilder::new().head(Head::gnu(b'x', "x").base_256(124, 12, i64::MAX));
    assert_eq!(limit(huge_pax, &base()), "pax_bytes");
    let xattr = || TarBuilder::new().pax(&[("SCHILY.xattr.user.x", &[b'x'; 2000])]).file("x", b"");
    assert_eq!(limit(xattr(), &Limits { xattrs_bytes: 1999, ..base() }), "xattrs_bytes");
    assert_eq!(limit(TarBuilder::new().long_name(&"n".repeat(256)).file("x", b""), &base()), "name_bytes");
    let deep = "d/".repeat(2049);
    assert_eq!(limit(TarBuilder::new().long_name(&deep).file("x", b""), &base()), "path_bytes");
    let target = TarBuilder::new().long_link(&deep).head(Head::gnu(b'2', "x").link("y"));
    assert_eq!(limit(target, &base()), "path_bytes");
}

#[test]
fn many_xattrs_cost_bounded_time() {
    let names: Vec<String> = (0..257).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(matches!(refusal(TarBuilder::new().pax(&records).file("x", b"")), TarReason::Pax(_)));
    assert!(read(&TarBuilder::new().pax(&records[..256]).file("x", b"").end()).is_ok());
}
