//! Everything a layer may contain.

use celda_layerfs::Limits;
use celda_layerfs::tar::{EntryKind, Timestamp, Xattr};

use super::tar_builder::{Head, TarBuilder};
use super::{content, paths, read, read_within};

#[test]
fn kinds_of_entries() {
    let tar = TarBuilder::new()
        .directory("./")
        .directory("./etc/")
        .entry(Head::ustar(b'0', "./etc/hosts").mode(0o100_4755).ids(7, 8).mtime(1_700_000_000), b"localhost")
        .head(Head::ustar(b'2', "etc/link").link("../../anywhere"))
        .head(Head::ustar(b'1', "etc/hard").link("./etc/hosts"))
        .head(Head::ustar(b'3', "dev/null").device(1, 3))
        .head(Head::ustar(b'4', "dev/sda").device(8, 0xfffff))
        .head(Head::ustar(b'6', "run/pipe"))
        .file("empty", b"")
        .end();
    let entries = read(&tar).unwrap();
    let expected =
        ["", "etc", "etc/hosts", "etc/link", "etc/hard", "dev/null", "dev/sda", "run/pipe", "empty"];
    assert_eq!(paths(&entries), expected);
    let hosts = &entries[2];
    assert_eq!((hosts.mode, hosts.uid, hosts.gid, hosts.header_offset), (0o4755, 7, 8, 1024));
    assert_eq!(hosts.mtime, Timestamp { seconds: 1_700_000_000, nanoseconds: 0 });
    assert_eq!(content(&tar, hosts), b"localhost");
    assert_eq!(entries[3].kind, EntryKind::Symlink((*b"../../anywhere").into()));
    assert_eq!(entries[4].kind, EntryKind::HardLink((*b"etc/hosts").into()));
    assert_eq!(entries[5].kind, EntryKind::CharDevice { major: 1, minor: 3 });
    assert_eq!(entries[6].kind, EntryKind::BlockDevice { major: 8, minor: 0xfffff });
    assert_eq!(entries[7].kind, EntryKind::Fifo);
    assert_eq!(content(&tar, &entries[8]), b"");
}

#[test]
fn ustar_prefix() {
    let tar = TarBuilder::new().file("name", b"x");
    let head = Head::ustar(b'0', "tail").field(345, b"some/long/head");
    let entries = read(&tar.entry(head, b"y").end()).unwrap();
    assert_eq!(paths(&entries), ["name", "some/long/head/tail"]);
}

#[test]
fn gnu_times_are_no_prefix_but_text_is() {
    let times = Head::gnu(b'0', "a").octal(345, 12, 1_700_000_000).octal(357, 12, 1_700_000_000);
    let text = Head::gnu(b'0', "b").field(345, b"old/go/wrote/this");
    let tar = TarBuilder::new().head(times).head(text).end();
    assert_eq!(paths(&read(&tar).unwrap()), ["a", "old/go/wrote/this/b"]);
}

#[test]
fn v7_slash_means_directory() {
    let tar = TarBuilder::new()
        .head(Head::v7(0, "dir/"))
        .head(Head::v7(b'0', "dir2/"))
        .entry(Head::v7(0, "dir/file"), b"x")
        .entry(Head::ustar(b'7', "contiguous"), b"y")
        .end();
    let entries = read(&tar).unwrap();
    assert_eq!(entries[0].kind, EntryKind::Directory);
    assert_eq!(entries[1].kind, EntryKind::Directory);
    assert_eq!(content(&tar, &entries[2]), b"x");
    assert_eq!(content(&tar, &entries[3]), b"y");
}

#[test]
fn pax_records_win_over_the_header() {
    let tar = TarBuilder::new()
        .pax(&[
            ("path", "pax/päth".as_bytes()),
            ("uid", b"4000000000"),
            ("gid", b"70000"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02=\n"),
            ("SCHILY.xattr.user.empty", b""),
            ("LIBARCHIVE.xattr.user.a%20b", b"aGVsbG8"),
            ("comment", b"ignored"),
        ])
        // The id fields are not looked at once pax gave the ids.
        .entry(Head::ustar(b'0', "header").field(108, b"junk"), b"1")
        .pax(&[("linkpath", b"a/very/long/target")])
        .head(Head::ustar(b'2', "sym").link("short"))
        .file("plain", b"2")
        .end();
    let entries = read(&tar).unwrap();
    assert_eq!(paths(&entries), ["pax/päth", "sym", "plain"]);
    assert_eq!((entries[0].uid, entries[0].gid), (4_000_000_000, 70_000));
    assert_eq!(entries[0].mtime, Timestamp { seconds: -2, nanoseconds: 750_000_000 });
    let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.into(), value: value.into() };
    let expected = [
        xattr(b"security.capability", b"\x01\0\0\x02=\n"),
        xattr(b"user.empty", b""),
        xattr(b"user.a b", b"hello"),
    ];
    assert_eq!(entries[0].xattrs, expected);
    assert_eq!(entries[1].kind, EntryKind::Symlink((*b"a/very/long/target").into()));
    assert_eq!(entries[2].xattrs, []);
}

#[test]
fn global_records_hold_until_overridden() {
    let tar = TarBuilder::new()
        .global(&[("uid", b"5"), ("mtime", b"9.5"), ("comment", b"0123abcd")])
        .file("a", b"")
        .pax(&[("uid", b"6"), ("mtime", b"")])
        .file("b", b"")
        .file("c", b"")
        .global(&[("uid", b"")])
        .file("d", b"")
        .end();
    let entries = read(&tar).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.uid).collect::<Vec<_>>(), [5, 6, 5, 0]);
    let seconds = entries.iter().map(|entry| entry.mtime.seconds).collect::<Vec<_>>();
    assert_eq!(seconds, [9, 0, 9, 9]);
}

#[test]
fn gnu_long_names() {
    let name = format!("{}end", "directory/".repeat(30));
    let tar = TarBuilder::new()
        .long_link(&name)
        .long_name(&name)
        .head(Head::gnu(b'1', "cut").link("cut"))
        .file("next", b"")
        .end();
    let entries = read(&tar).unwrap();
    assert_eq!(paths(&entries), [name.as_str(), "next"]);
    assert_eq!(entries[0].kind, EntryKind::HardLink(name.as_bytes().into()));
}

#[test]
fn base_256_numbers() {
    let head = Head::gnu(b'0', "f").base_256(108, 8, 4_000_000_000).base_256(136, 12, -86_400);
    let entries = read(&TarBuilder::new().head(head).end()).unwrap();
    assert_eq!(entries[0].uid, 4_000_000_000);
    assert_eq!(entries[0].mtime, Timestamp { seconds: -86_400, nanoseconds: 0 });
}

#[test]
fn signed_checksums() {
    let mut block = Head::ustar(b'0', "sm\u{f6}rg\u{e5}s").sealed();
    block[148..156].fill(b' ');
    let sum: i32 = block.iter().map(|&byte| i32::from(byte as i8)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(paths(&read(&block).unwrap()), ["smörgås"]);
}

#[test]
fn duplicates_and_whiteouts_pass_through() {
    let tar =
        TarBuilder::new().file("a", b"1").file("a", b"2").file("d/.wh..wh..opq", b"").file(".wh.a", b"");
    assert_eq!(paths(&read(&tar.end()).unwrap()), ["a", "a", "d/.wh..wh..opq", ".wh.a"]);
}

#[test]
fn every_way_to_end() {
    let tar = TarBuilder::new().file("a", b"1");
    let zeros = |count: usize| [tar.bytes.as_slice(), &vec![0; count * 512]].concat();
    for ending in [zeros(0), zeros(1), zeros(2), zeros(20), [zeros(2).as_slice(), b"trailing junk"].concat()]
    {
        assert_eq!(paths(&read(&ending).unwrap()), ["a"]);
    }
    assert_eq!(read(b"").unwrap(), []);
}

#[test]
fn hard_links_with_and_without_content() {
    let tar = TarBuilder::new()
        .file("target", b"hello")
        // POSIX: the content comes again.
        .entry(Head::ustar(b'1', "with").link("target"), b"hello")
        // v7 and GNU: the size is the target's and nothing follows.
        .head(Head::v7(b'1', "v7").link("target").size(5))
        .head(Head::gnu(b'1', "gnu").link("target").size(5))
        .head(Head::ustar(b'1', "without").link("target"))
        .file("next", b"x")
        .end();
    let entries = read(&tar).unwrap();
    assert_eq!(paths(&entries), ["target", "with", "v7", "gnu", "without", "next"]);
    assert!(entries[1..5].iter().all(|entry| entry.kind == EntryKind::HardLink((*b"target").into())));
}

#[test]
fn sizes_of_types_without_content_mean_nothing() {
    let tar = TarBuilder::new()
        .head(Head::ustar(b'5', "dir").size(4096))
        .head(Head::ustar(b'2', "sym").link("x").size(1))
        .file("next", b"x")
        .end();
    assert_eq!(paths(&read(&tar).unwrap()), ["dir", "sym", "next"]);
}

#[test]
fn vendor_types() {
    let tar = TarBuilder::new()
        .entry(Head::gnu(b'V', "label"), b"")
        .entry(Head::gnu(b'D', "dump"), b"Yfile\0\0")
        .entry(Head::ustar(b'A', "acl"), b"user::rw-")
        .entry(Head::ustar(b'?', "unknown"), b"content")
        .end();
    let entries = read(&tar).unwrap();
    assert_eq!(paths(&entries), ["dump", "unknown"]);
    assert_eq!(entries[0].kind, EntryKind::Directory);
    assert_eq!(content(&tar, &entries[1]), b"content");
}

/// Feeds the headers of a file that is too large to build, and jumps over its content.
fn large(head: &TarBuilder, size: u64) {
    let mut entries = Vec::new();
    let mut reader = celda_layerfs::tar::TarReader::new(&Limits::default());
    let mut take = |entry| {
        entries.push(entry);
        Ok(())
    };
    reader.feed(&head.bytes, &mut take).unwrap();
    let zeros = vec![0; 64 << 20];
    let mut left = size.next_multiple_of(512);
    while left > 0 {
        let chunk = left.min(zeros.len() as u64);
        reader.feed(&zeros[..chunk as usize], &mut take).unwrap();
        left -= chunk;
    }
    reader.feed(&TarBuilder::new().file("next", b"").end(), &mut take).unwrap();
    reader.finish().unwrap();
    assert_eq!(paths(&entries), ["large", "next"]);
    let EntryKind::File(data) = &entries[0].kind else { panic!("{entries:?}") };
    assert_eq!((data.size_bytes, data.segments[0].length_bytes), (size, size));
}

#[test]
fn files_of_many_gigabytes() {
    let gib = 1u64 << 30;
    large(&TarBuilder::new().head(Head::ustar(b'0', "large").size(5 * gib)), 5 * gib);
    let size = 9 * gib + 1;
    large(&TarBuilder::new().head(Head::gnu(b'0', "large").base_256(124, 12, size as i64)), size);
    let pax = || TarBuilder::new().pax(&[("size", size.to_string().as_bytes())]);
    large(&pax().head(Head::ustar(b'0', "large")), size);
    large(&pax().head(Head::ustar(b'0', "large").size(size % (8 * gib))), size);
}

#[test]
fn errors_name_the_entry_and_the_place() {
    let tar = TarBuilder::new().file("first", b"x").file("../\x1b[2Jevil", b"").end();
    let error = celda_layerfs::tar::read_all(&tar, &Limits::default()).unwrap_err();
    assert_eq!(error.header_offset, 1024);
    let text = error.to_string();
    assert!(text.contains(r#""../\u{1b}[2Jevil""#) && text.contains("byte 1024"), "{text}");
}

#[test]
fn limits_count_over_all_entries() {
    let tar = TarBuilder::new().file("a", b"").file("b", b"").file("c", b"").end();
    let allowed = Limits { entries_count: 3, ..Limits::default() };
    assert_eq!(read_within(&tar, &allowed).unwrap().len(), 3);
}
