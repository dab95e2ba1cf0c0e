//! Hundreds at once, while somebody stalls.

use celda_api::cell::v1;

use crate::support::{Cell, FOR_EVER};

#[test]
fn privileged_three_hundred_in_one_call_and_none_left_after_a_drain() {
    let Some(cell) = Cell::up("three_hundred") else { return };
    // A watcher that never reads costs nobody anything.
    let mut stalled = cell.client();
    let _stream = cell.runtime.block_on(stalled.watch(v1::WatchRequest::default())).unwrap();
    let said = cell.run(&["--count", "300", "--app", "many"], FOR_EVER);
    assert_eq!(said.lines().count(), 300);
    let instances = cell.list().0;
    assert_eq!(instances.iter().filter(|one| one.status() == v1::Status::Running).count(), 300);
    let mut indexes: Vec<u32> = instances.iter().map(|one| one.index).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, (0..300).collect::<Vec<_>>());
    let said = cell.fails(125, &["run", "-d", "--count", "200", &cell.image(), "/bin/sh", "-c", "exit 0"]);
    assert_eq!(said.matches("too little is free of containers").count(), 100, "100 fit: {said}");
    let said = cell.ok(&["drain", "-t", "0"]);
    assert_eq!(said.lines().last(), Some("0 left"), "{said}");
    let said = cell.fails(125, &["run", "-d", &cell.image(), "true"]);
    assert!(said.contains("the cell drains"), "{said}");
    cell.ok(&["drain", "--cancel"]);
    cell.run(&["--name", "last"], FOR_EVER);
    cell.ok(&["rm", "-f", "last"]);
    cell.leaves_nothing("three hundred instances");
}

#[test]
fn privileged_requests_over_a_limit_are_refused() {
    let Some(cell) = Cell::up("requests_over_a_limit") else { return };
    let mut client = cell.client();
    let mut start = |group: v1::StartGroup| {
        let request = v1::StartRequest { groups: vec![group] };
        cell.runtime.block_on(client.start(request)).expect_err("refused")
    };
    let spec = v1::Spec { image: cell.image(), ..v1::Spec::default() };
    let many = (0..1025).map(|index| format!("i{index}")).collect();
    let status = start(v1::StartGroup { spec: Some(spec.clone()), ids: many, ..v1::StartGroup::default() });
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    let status = start(v1::StartGroup { ids: vec!["a".into()], ..v1::StartGroup::default() });
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    let huge = v1::Spec { hostname: "x".repeat(2 << 20), ..spec };
    let status =
        start(v1::StartGroup { spec: Some(huge), ids: vec!["a".into()], ..v1::StartGroup::default() });
    assert_eq!(status.code(), tonic::Code::OutOfRange, "a message over its limit: {status}");
    assert_eq!(cell.list().0.len(), 0);
    cell.leaves_nothing("requests over a limit");
}
