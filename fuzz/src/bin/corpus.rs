//! Writes the corpus that fuzzing starts from: small real tars of every kind, blobs of them, documents, messages.
//!
//! `cargo run --bin corpus` in `fuzz/` fills `corpus/TARGET/`, a file for each seed.

use celda_api::auction::v1;
use prost::Message;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

#[path = "../../../layerfs/tests/support/tar_builder.rs"]
mod tar_builder;

#[path = "../../../agent/src/cell/logs/record.rs"]
#[allow(dead_code, unreachable_pub)]
mod record;

use record::{Record, SegmentHeader, Stream};
use tar_builder::{Head, TarBuilder};

fn tars() -> Vec<(&'static str, Vec<u8>)> {
    let long = "directory/".repeat(30);
    let kinds = TarBuilder::new()
        .directory("./")
        .directory("etc/")
        .file("etc/hosts", b"localhost")
        .head(Head::ustar(b'2', "etc/link").link("../x"))
        .head(Head::ustar(b'1', "etc/hard").link("etc/hosts"))
        .head(Head::ustar(b'3', "dev/null").device(1, 3))
        .head(Head::ustar(b'4', "dev/sda").device(8, 0))
        .head(Head::ustar(b'6', "pipe"))
        .file("etc/.wh.gone", b"")
        .file("etc/.wh..wh..opq", b"");
    let pax = TarBuilder::new()
        .global(&[("comment", b"0123"), ("uid", b"5")])
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"-1.25"),
            ("size", b"1"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("LIBARCHIVE.xattr.user.a%20b", b"aGVsbG8"),
        ])
        .file("short", b"1")
        .pax(&[("linkpath", long.as_bytes()), ("gid", b"70000")])
        .head(Head::ustar(b'2', "sym").link("x"));
    let gnu = TarBuilder::new()
        .long_link(&long)
        .long_name(&long)
        .head(Head::gnu(b'1', "cut").link("cut"))
        .head(Head::gnu(b'0', "times").base_256(136, 12, -1).base_256(108, 8, 1 << 31))
        .entry(Head::gnu(b'V', "label"), b"")
        .entry(Head::gnu(b'D', "dump"), b"Yfile\0\0");
    let links = TarBuilder::new()
        .entry(Head::ustar(b'1', "with").link("x"), b"hello")
        .head(Head::v7(b'1', "v7").link("x").size(5))
        .head(Head::v7(0, "dir/"));
    vec![
        ("kinds", kinds.end()),
        ("pax", pax.end()),
        ("gnu", gnu.end()),
        ("links", links.end()),
        ("sparse", sparse()),
        ("empty", TarBuilder::new().end()),
    ]
}

/// All four sparse formats in one tar.
fn sparse() -> Vec<u8> {
    let old = Head::gnu(b'S', "old").octal(483, 12, 8192);
    let old = old.octal(386, 12, 0).octal(398, 12, 512).octal(410, 12, 4096).octal(422, 12, 100);
    let mut extension = Head { block: [0; 512] };
    extension = extension.octal(0, 12, 5000).octal(12, 12, 1);
    let data = [b'd'; 612];
    let one = [b"2\n0\n512\n4096\n100\n".as_slice(), &[0; 495], &data].concat();
    TarBuilder::new()
        .entry(old.clone(), &data)
        .head(old.field(482, &[1]).size(613))
        .content(&extension.block)
        .content(&[b'd'; 613])
        .pax(&[
            ("GNU.sparse.size", b"8192"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"512"),
            ("GNU.sparse.offset", b"4096"),
            ("GNU.sparse.numbytes", b"100"),
        ])
        .file("zero", &data)
        .pax(&[
            ("GNU.sparse.size", b"8192"),
            ("GNU.sparse.map", b"0,512,4096,100"),
            ("GNU.sparse.name", b"n"),
        ])
        .file("zero-one", &data)
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"8192")])
        .file("one", &one)
        .end()
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::GzBuilder::new()
        .filename("layer.tar")
        .comment("c")
        .write(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn save(target: &str, name: &str, prefix: &[u8], bytes: &[u8]) -> io::Result<()> {
    let directory = Path::new("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), [prefix, bytes].concat())
}

const NAMES: [&str; 9] = [
    "nginx",
    "user/app:1.2-rc_3",
    "localhost:5000/a/b__c:v1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "[::1]:5000/app",
    "docker://GHCR.example/x",
    "oci:dir/layout:tag",
    "oci-archive:/tmp/image.tar",
    "docker-archive:saved.tar:nginx:latest",
    "linux/arm/v7",
];

/// An index, a manifest with its config, and what a registry of 2015 gives.
fn documents() -> [String; 3] {
    let oci = "application/vnd.oci.image";
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let entry = |os: &str, variant: &str| {
        format!(
            r#"{{"mediaType":"{oci}.manifest.v1+json","digest":"{}","size":9,"platform":{{"os":"{os}","architecture":"arm","variant":"{variant}"}},"annotations":{{"vnd.docker.reference.type":"x"}}}}"#,
            digest("a")
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{oci}.index.v1+json","manifests":[{},{}]}}"#,
        entry("linux", "v7"),
        entry("unknown", "v6")
    );
    let layer = format!(r#"{{"mediaType":"{oci}.layer.v1.tar+gzip","digest":"{}","size":7}}"#, digest("b"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{oci}.config.v1+json","digest":"{}","size":2}},"layers":[{layer},{layer}]}}"#,
        digest("c")
    );
    let config = format!(
        r#"{{"os":"linux","architecture":"arm","variant":"v7","rootfs":{{"type":"layers","diff_ids":["{0}","{0}"]}}}}"#,
        digest("d")
    );
    [index, format!("{manifest}\0{config}"), r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}"#.into()]
}

/// A message of each call, and one of each answer.
fn auction_messages() -> [Vec<u8>; 2] {
    let resources = v1::Resources { cpu_milli: 100, memory_mib: 100, disk_mib: 100, containers: 1, ports: 1 };
    let requirements =
        v1::Requirements { stack: "jammy".into(), tags: vec!["ssd".into()], ..Default::default() };
    let demand = v1::Demand {
        app: 7,
        resources: Some(resources),
        strategy: v1::Strategy::Spread.into(),
        requirements: Some(requirements),
    };
    let reserve =
        v1::ReserveRequest { demand: Some(demand.clone()), epoch: 1, first_id: 9, count: 4, ttl_us: 1000 };
    let calls = [
        v1::call::Call::Bid(v1::BidRequest { demand: Some(demand), count: 4 }),
        v1::call::Call::Reserve(reserve),
        v1::call::Call::Settle(v1::SettleRequest { first_id: 9, count: 4, action: 2 }),
    ];
    let bid = v1::BidResponse { epoch: 1, room: 0, first: 5, step: 6, used: 7, short: 3, free: Some(resources) };
    let answers = [
        v1::answer::Answer::Bid(bid),
        v1::answer::Answer::Reserve(v1::ReserveResponse { held: 2, refused: 1, short: 4, epoch: 0 }),
        v1::answer::Answer::Settle(v1::SettleResponse { done: 2, unknown: 2, busy: 1 }),
        v1::answer::Answer::Failure(v1::Failure { reason: 1, detail: "no".into() }),
    ];
    let calls = calls.map(|call| v1::Call { correlation: 1, call: Some(call) }).to_vec();
    let answers = answers.map(|answer| v1::Answer { correlation: 1, answer: Some(answer) }).to_vec();
    [v1::AuctionRequest { calls }.encode_to_vec(), v1::AuctionResponse { answers }.encode_to_vec()]
}

/// A segment with a record of each stream.
fn log_segment() -> Vec<u8> {
    let mut bytes = SegmentHeader { first_sequence: 5, made_at_ns: 1 }.encode().to_vec();
    for (sequence, stream) in (5..).zip([Stream::Output, Stream::Error, Stream::Notice]) {
        let (is_partial, is_dropping) = (sequence == 5, sequence == 7);
        Record { sequence, time_ns: 9, stream, is_partial, is_dropping, payload: b"a line" }
            .encode(&mut bytes);
    }
    bytes
}

/// A cell's journal with a spec, two instances and the end of one.
fn journal() -> Vec<u8> {
    use celda::cell::instance::{Machine, Policy};
    use celda::cell::journal::format::{HEADER, write};
    use celda::cell::journal::{Kept, Message, Record};
    use celda::cell::network::{Attached, Grant, Protocol};
    let ports = vec![Grant { protocol: Protocol::Tcp, host_port: 61001, container_port: 80 }];
    let kept = |id: &str| {
        Record::Instance(Box::new(Kept {
            id: id.into(),
            app: "app".into(),
            index: 1,
            spec: "d".into(),
            reservation: 7,
            created_ms: 9,
            removing: false,
            was_up: true,
            ports: ports.clone(),
            attached: Some(Attached { address: [10, 254, 0, 2].into(), ports: ports.clone() }),
            machine: Machine::new(Policy::default(), 9),
        }))
    };
    let spec = Record::Spec { digest: "d".into(), message: Message(vec![1, 2, 3]) };
    let mut journal = HEADER.to_vec();
    for records in
        [vec![spec, kept("a")], vec![kept("b"), Record::Gone { id: "a".into() }, Record::Draining(true)]]
    {
        let lines: Vec<String> =
            records.iter().map(|one| serde_json::to_string(one).expect("encoded")).collect();
        let synced_bytes = journal.len() as u64;
        write(&mut journal, (lines.join("\n") + "\n").as_bytes(), synced_bytes);
    }
    journal
}

fn main() -> io::Result<()> {
    save("cell_journal", "whole", &[], &journal())?;
    for (name, tar) in tars() {
        save("tar", name, &[100, 7], &tar)?;
        save("tar", &format!("{name}.repaired"), &[101, 7], &tar)?;
        save("layer_to_index", name, &[129], &[tar.as_slice(), &tar].concat())?;
        let blob = gzip(&tar)?;
        save("gzip_frames", &format!("{name}.gz"), &[20], &blob)?;
        let two = [blob.as_slice(), &gzip(b"")?, &blob, &[0; 20]].concat();
        save("gzip_frames", &format!("{name}.two.gz"), &[99], &two)?;
        let frame = zstd::encode_all(tar.as_slice(), 3)?;
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
        let frames = [&skippable[..], &frame, &skippable, &frame].concat();
        save("gzip_frames", &format!("{name}.zst"), &[0x80 | 20], &frames)?;
    }
    for (number, document) in documents().iter().enumerate() {
        save("manifest", &number.to_string(), &[], document.as_bytes())?;
    }
    for (number, name) in NAMES.iter().enumerate() {
        save("reference", &number.to_string(), &[], name.as_bytes())?;
    }
    save("log_records", "three", &[0], &log_segment())?;
    save("log_records", "three.mended", &[255], &log_segment())?;
    for (number, message) in auction_messages().iter().enumerate() {
        save("auction_wire", &number.to_string(), &[4], message)?;
    }
    Ok(())
}
