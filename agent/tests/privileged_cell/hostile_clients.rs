//! Clients that misbehave.

use celda_api::cell::v1;
use celda_api::cell::v1::exec_request::Message as Asked;
use celda_api::cell::v1::exec_response::Message as Told;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::support::{Cell, FOR_EVER};
use crate::witness::Witness;

type Requests = mpsc::Sender<v1::ExecRequest>;

/// A program in an instance, whose stream nobody reads yet.
fn exec(
    cell: &Cell,
    id: &str,
    script: &str,
) -> Result<(Requests, Streaming<v1::ExecResponse>), tonic::Status> {
    let (sender, receiver) = mpsc::channel(64);
    let start = v1::ExecStart {
        id: id.to_owned(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..v1::ExecStart::default()
    };
    sender.try_send(v1::ExecRequest { message: Some(Asked::Start(start)) }).unwrap();
    let next = |mut receiver: mpsc::Receiver<_>| async move { Some((receiver.recv().await?, receiver)) };
    let requests = futures_util::stream::unfold(receiver, next);
    let mut client = cell.client();
    let stream = cell.runtime.block_on(client.exec(requests))?.into_inner();
    Ok((sender, stream))
}

fn processes(cell: &Cell, id: &str) -> usize {
    let one = cell.wait(id, |one| one.id == id);
    std::fs::read_to_string(format!("{}/cgroup.procs", one.cgroup)).map_or(0, |pids| pids.lines().count())
}

fn threads(cell: &Cell) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", cell.agent_pid())).unwrap().count()
}

#[test]
fn privileged_clients_that_stall_hold_their_places_and_nothing_else() {
    let Some(cell) = Cell::up_within("clients_that_stall", "streams_max = 6") else { return };
    let witness = Witness::start(&cell);
    cell.started(&["web"], cell.spec(FOR_EVER));
    cell.started(&["flood"], cell.spec("while :; do echo 0123456789012345678901234567890123456789; done"));
    cell.wait("web", |one| one.status() == v1::Status::Running);
    let before = threads(&cell);
    // Programs that write without end, and one that reads nothing of what it is sent.
    let mut stalled: Vec<_> =
        (0..3).map(|_| exec(&cell, "web", "while :; do echo 0123456789; done").unwrap()).collect();
    let deaf = exec(&cell, "web", "busybox sleep 1000").unwrap();
    for _ in 0..32 {
        let _ = deaf.0.try_send(v1::ExecRequest { message: Some(Asked::Input(vec![b'x'; 60_000])) });
    }
    stalled.push(deaf);
    let mut client = cell.client();
    let request = v1::LogsRequest { ids: vec!["flood".into()], follow: true, ..v1::LogsRequest::default() };
    let logs = cell.runtime.block_on(client.logs(request)).unwrap();
    witness.noticed_nothing(&cell);
    let watch = cell.runtime.block_on(client.watch(v1::WatchRequest::default())).unwrap();
    let refused = exec(&cell, "web", "true").unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("streams_max"), "{refused}");
    assert!(processes(&cell, "web") >= 4);
    // They vanish: their programs, places and threads are free again.
    drop((stalled, logs, watch));
    cell.runtime.block_on(async { tokio::task::yield_now().await });
    crate::common::wait_until(|| exec(&cell, "web", "true").is_ok(), "their places are free");
    crate::common::wait_until(|| processes(&cell, "web") <= 2, "their programs are gone");
    crate::common::wait_until(|| threads(&cell) <= before + 4, "their threads are gone");
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("clients that stall");
}

#[test]
fn privileged_the_exit_is_the_last_message_whatever_a_program_leaves_behind() {
    let Some(cell) = Cell::up("the_exit_is_the_last") else { return };
    cell.started(&["web"], cell.spec(FOR_EVER));
    cell.wait("web", |one| one.status() == v1::Status::Running);
    for (script, least) in [
        ("(while :; do echo more; busybox sleep 0.01; done) & echo said; exit 3", "said\n"),
        ("busybox head -c 300000 /dev/zero | busybox tr '\\0' x; exit 3", "xxxx"),
        ("(busybox sleep 1000) & echo said; exit 3", "said\n"),
    ] {
        let (_requests, mut stream) = exec(&cell, "web", script).unwrap();
        let messages = cell.runtime.block_on(async {
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await.unwrap() {
                messages.extend(message.message);
            }
            messages
        });
        let exits = messages.iter().filter(|message| matches!(message, Told::Exit(_))).count();
        assert_eq!(exits, 1, "{script}");
        assert!(matches!(messages.last(), Some(Told::Exit(v1::ExecExit { status: 3 }))), "{script}");
        let output: Vec<u8> = messages
            .iter()
            .filter_map(|message| if let Told::Output(bytes) = message { Some(bytes.clone()) } else { None })
            .flatten()
            .collect();
        let output = String::from_utf8_lossy(&output);
        assert!(output.contains(least), "{script}: {} bytes", output.len());
        if script.contains("300000") {
            assert_eq!(output.len(), 300_000);
        }
    }
    cell.leaves_nothing("programs that leave something behind");
}

#[test]
fn privileged_too_much_input_at_once_ends_the_stream_and_its_program() {
    let Some(cell) = Cell::up("too_much_input") else { return };
    let witness = Witness::start(&cell);
    cell.started(&["web"], cell.spec(FOR_EVER));
    cell.wait("web", |one| one.status() == v1::Status::Running);
    // More than an input has, and more than any message.
    for bytes in [(64 << 10) + 1, 2 << 20] {
        let (requests, mut stream) = exec(&cell, "web", "read x; busybox sleep 1000").unwrap();
        requests.try_send(v1::ExecRequest { message: Some(Asked::Input(vec![b'x'; bytes])) }).unwrap();
        let all = async {
            while stream.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        };
        let ended = async { tokio::time::timeout(std::time::Duration::from_secs(60), all).await };
        let refused = cell.runtime.block_on(ended).expect("it ends").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{bytes}: {refused}");
        crate::common::wait_until(|| processes(&cell, "web") <= 2, "its program is gone");
    }
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("too much input");
}

#[test]
fn privileged_a_client_without_permission_is_told_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    const STRANGER: u32 = 64_123;
    let Some(cell) = Cell::up_within("a_client_without_permission", "[socket]\nusers = [64124]") else {
        return;
    };
    let witness = Witness::start(&cell);
    let socket = cell.directory().join("run/agent.sock");
    for directory in [cell.directory().to_owned(), cell.directory().join("run")] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ask = move |uid: u32| {
        let socket = format!("unix://{}", socket.display());
        // Users are a thread's own, and a socket has those of the thread that connects it.
        std::thread::spawn(move || {
            let uid = rustix::thread::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let endpoint = tonic::transport::Endpoint::from_shared(socket).unwrap();
                let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
                let mut client = v1::cell_client::CellClient::new(channel);
                let listed = client.list(v1::ListRequest::default()).await;
                listed
                    .map(|listed| listed.into_inner().instances.len())
                    .map_err(|status| format!("{status:?}"))
            })
        })
        .join()
        .unwrap()
    };
    assert!(ask(STRANGER).is_err(), "a stranger was answered");
    assert_eq!(ask(64_124), Ok(1), "a configured user is answered");
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("a client without permission");
}
