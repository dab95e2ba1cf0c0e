//! Specs that are valid and meant to hurt: by the words that an agent must keep about them, and by their number.

use celda_api::cell::v1;
use celda_api::cell::v1::check::Probe;
use celda_api::cell::v1::outcome::Result as Outcome;

use crate::support::{Cell, FOR_EVER};
use crate::witness::Witness;

/// Six bytes in JSON.
const CONTROL: &str = "\u{1}";
/// As much as is kept of words, and some of the agent's own.
const WORDS_BYTES_MAX: usize = 600;

#[test]
fn privileged_words_of_any_bytes_and_length_end_nobody() {
    let Some(mut cell) = Cell::up("hostile_words") else { return };
    let witness = Witness::start(&cell);
    let long = |bytes| format!("/{}", CONTROL.repeat(bytes));
    let process = |process| v1::Spec { process: Some(process), ..cell.spec("exit 0") };
    let command = |command: String| process(v1::Process { command: vec![command], ..v1::Process::default() });
    let user = v1::Process { user: long(100_000), command: vec!["/bin/sh".into()], ..v1::Process::default() };
    let probe = Probe::Exec(v1::ExecProbe { command: vec![long(100_000)] });
    let check = v1::Check { probe: Some(probe), ..v1::Check::default() };
    let health = v1::Health { liveness: Some(check), startup_timeout_ms: 2000, ..v1::Health::default() };
    let checked = v1::Spec { health: Some(health), ..cell.spec(FOR_EVER) };
    let specs = [command(long(1500)), command(long(100_000)), process(user), checked];
    for (number, spec) in specs.into_iter().enumerate() {
        let id = format!("words-{number}");
        match cell.start(&[&id], spec) {
            Err(status) => assert_eq!(status.code(), tonic::Code::InvalidArgument, "{number}: {status}"),
            Ok(_) => {
                let end = cell.ended(&id);
                let words = end.detail.len().max(end.stopped_by.len());
                assert!((1..WORDS_BYTES_MAX).contains(&words), "{number}: {words} bytes");
            }
        }
    }
    witness.noticed_nothing(&cell);
    cell.kill();
    cell.begin(); // what was written down can be read
    cell.leaves_nothing("hostile words");
}

/// A spec that no other number has, as large as may be: 64 MiB of them are fewer than 300.
fn large(cell: &Cell, number: usize) -> v1::Spec {
    cell.spec(&format!("exit 3 # {number} {}", "x".repeat(255_000)))
}

#[test]
fn privileged_specs_are_taken_as_long_as_all_of_them_can_be_kept() {
    let Some(mut cell) = Cell::up("many_specs") else { return };
    let witness = Witness::start(&cell);
    let outcomes =
        (0..300).map(|number| cell.start(&[&format!("large-{number}")], large(&cell, number)).unwrap());
    let (taken, refused): (Vec<_>, Vec<_>) =
        outcomes.flatten().partition(|outcome| outcome.result() == Outcome::Done);
    assert!(taken.len() > 250 && !refused.is_empty(), "{} were taken", taken.len());
    assert!(refused.iter().all(|one| one.result() == Outcome::Short && one.detail.contains("one spec")));
    // A spec may have many instances, and then all of them with it are larger than an answer may be.
    let twins: Vec<String> = (0..8).map(|number| format!("twin-{number}")).collect();
    cell.started(&twins.iter().map(String::as_str).collect::<Vec<_>>(), large(&cell, 7));
    let mut client = cell.client();
    let list = v1::ListRequest { with_specs: true, ..v1::ListRequest::default() };
    let listed = cell.runtime.block_on(client.list(list.clone())).unwrap_err();
    assert_eq!(listed.code(), tonic::Code::ResourceExhausted, "{listed}");
    let one = v1::ListRequest { ids: vec!["large-7".into()], ..list };
    assert_eq!(cell.runtime.block_on(client.list(one)).unwrap().into_inner().instances.len(), 1);
    witness.noticed_nothing(&cell);
    // The next agent knows them all, and has room again when some of them are gone.
    cell.kill();
    cell.begin();
    assert_eq!(cell.list().0.iter().filter(|one| one.id.starts_with("large-")).count(), taken.len());
    cell.ok(&["rm", "-f", "large-0"]);
    let again = || cell.start(&["another"], large(&cell, 1000)).unwrap()[0].result() == Outcome::Done;
    crate::common::wait_until(again, "there is room for another spec");
    cell.leaves_nothing("many specs");
}
