//! A cell's client, for commands: each call on a small runtime of its own, and how instances look in tables and JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use celda_api::cell::v1;
use celda_api::cell::v1::cell_client::CellClient;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::cell_args::CellArgs;
use super::context::Context;
use super::dial::Place;
use super::output;
use crate::cell::CellError;
use crate::cell::service::{ANSWER_BYTES_MAX, CALL_DEADLINE, REQUEST_BYTES_MAX};
use crate::{Error, Result};

/// What a call's own deadline is below its client's.
const DEADLINE: Duration = Duration::from_secs(CALL_DEADLINE.as_secs() + 5);

/// The fewest bytes of an id that are taken for it.
const PREFIX_BYTES_MIN: usize = 4;

/// A connection to a cell.
pub(super) struct Client {
    runtime: Runtime,
    client: CellClient<Channel>,
}

impl Client {
    /// Connects to the cell of the flags.
    ///
    /// # Errors
    /// [`CellError::Call`] when there is none, [`Error::Argument`] for flags that say nothing.
    pub(super) fn connect(context: &Context, args: &CellArgs) -> Result<Self> {
        Self::to(&Place::of(context, args)?)
    }

    /// As [`connect`](Self::connect), if there is a socket at all or another machine is meant.
    pub(super) fn connect_if_up(context: &Context, args: &CellArgs) -> Result<Option<Self>> {
        let place = Place::of(context, args)?;
        if place.may_be_up() { Self::to(&place).map(Some) } else { Ok(None) }
    }

    fn to(place: &Place) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start a runtime to talk to", place.to_string()))?;
        let channel = runtime.block_on(place.connect())?;
        let client = CellClient::new(channel)
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { runtime, client })
    }

    pub(super) fn start(&self, request: v1::StartRequest) -> Result<v1::StartResponse> {
        self.call("start", self.client.clone().start(within(request)))
    }

    pub(super) fn stop(&self, request: v1::StopRequest) -> Result<v1::StopResponse> {
        self.call("stop", self.client.clone().stop(within(request)))
    }

    pub(super) fn remove(&self, request: v1::RemoveRequest) -> Result<v1::RemoveResponse> {
        self.call("remove", self.client.clone().remove(within(request)))
    }

    pub(super) fn list(&self, request: v1::ListRequest) -> Result<v1::ListResponse> {
        self.call("list", self.client.clone().list(within(request)))
    }

    /// The ids that are meant: an id, or the beginning of one, of at least [`PREFIX_BYTES_MIN`]. The API takes whole ids
    /// only. What is none stays as it is, for the cell to say so.
    ///
    /// # Errors
    /// [`CellError::Call`] when several begin so.
    pub(super) fn resolve(&self, given: &[String]) -> Result<Vec<String>> {
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let ids = |request| -> Result<Vec<String>> {
            Ok(self.list(request)?.instances.into_iter().map(|instance| instance.id).collect())
        };
        let mut known = ids(v1::ListRequest { ids: given.to_vec(), ..v1::ListRequest::default() })?;
        if given.iter().any(|given| !known.contains(given)) {
            known = ids(v1::ListRequest::default())?;
        }
        given.iter().map(|given| resolve(given, &known)).collect()
    }

    pub(super) fn stats(&self, ids: Vec<String>) -> Result<v1::StatsResponse> {
        self.call("read the use of", self.client.clone().stats(within(v1::StatsRequest { ids })))
    }

    pub(super) fn describe(&self) -> Result<v1::DescribeResponse> {
        self.call("describe", self.client.clone().describe(within(v1::DescribeRequest {})))
    }

    pub(super) fn metrics(&self) -> Result<v1::MetricsResponse> {
        self.call("read the metrics of", self.client.clone().metrics(within(v1::MetricsRequest {})))
    }

    /// Calls `each` with every message until it says false or the stream ends.
    pub(super) fn watch(
        &self,
        request: v1::WatchRequest,
        each: impl FnMut(v1::WatchResponse) -> bool,
    ) -> Result<()> {
        let opened = self.call("watch", self.client.clone().watch(Request::new(request)))?;
        self.read("watch", opened, each)
    }

    /// Calls `each` with every message until it says false or the stream ends.
    pub(super) fn logs(
        &self,
        request: v1::LogsRequest,
        each: impl FnMut(v1::LogsResponse) -> bool,
    ) -> Result<()> {
        let opened = self.call("read the logs", self.client.clone().logs(Request::new(request)))?;
        self.read("read the logs", opened, each)
    }

    /// Runs a program with what comes of `requests`, and calls `each` with every answer. The status of a refusal is the
    /// caller's to read.
    pub(super) fn exec(
        &self,
        requests: mpsc::Receiver<v1::ExecRequest>,
        mut each: impl FnMut(v1::ExecResponse),
    ) -> std::result::Result<(), Status> {
        let next = |mut requests: mpsc::Receiver<_>| async move { Some((requests.recv().await?, requests)) };
        let requests = futures_util::stream::unfold(requests, next);
        self.runtime.block_on(async {
            let mut answers = self.client.clone().exec(Request::new(requests)).await?.into_inner();
            while let Some(answer) = answers.message().await? {
                each(answer);
            }
            Ok(())
        })
    }

    /// Attaches with what comes of `requests`, and calls `each` with every answer; true when `left` ended it. The status of
    /// a refusal is the caller's to read.
    pub(super) fn attach(
        &self,
        requests: mpsc::Receiver<v1::AttachRequest>,
        left: oneshot::Receiver<()>,
        mut each: impl FnMut(v1::AttachResponse),
    ) -> std::result::Result<bool, Status> {
        let next = |mut requests: mpsc::Receiver<_>| async move { Some((requests.recv().await?, requests)) };
        let requests = futures_util::stream::unfold(requests, next);
        // One that is dropped, as of a caller who cannot leave, is nobody's wish.
        let left = async {
            if left.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let mut left = Box::pin(left);
        self.runtime.block_on(async {
            let mut answers = self.client.clone().attach(Request::new(requests)).await?.into_inner();
            loop {
                tokio::select! {
                    answer = answers.message() => match answer? {
                        Some(answer) => each(answer),
                        None => return Ok(false),
                    },
                    () = &mut left => return Ok(true),
                }
            }
        })
    }

    /// The runtime, for what waits beside a call.
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Calls `each` with how many are left.
    pub(super) fn drain(&self, request: v1::DrainRequest, mut each: impl FnMut(u32)) -> Result<()> {
        let opened = self.call("drain", self.client.clone().drain(Request::new(request)))?;
        self.read("drain", opened, |message| {
            each(message.left);
            true
        })
    }

    fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
    ) -> Result<T> {
        let answered = self.runtime.block_on(call);
        answered.map(tonic::Response::into_inner).map_err(|status| refused(what, &status))
    }

    fn read<T>(&self, what: &str, mut stream: Streaming<T>, mut each: impl FnMut(T) -> bool) -> Result<()> {
        while let Some(message) =
            self.runtime.block_on(stream.message()).map_err(|status| refused(what, &status))?
        {
            if !each(message) {
                break;
            }
        }
        Ok(())
    }
}

fn resolve(given: &str, known: &[String]) -> Result<String> {
    if given.len() < PREFIX_BYTES_MIN || known.iter().any(|id| id == given) {
        return Ok(given.to_owned());
    }
    let mut found = known.iter().filter(|id| id.starts_with(given));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            let why = "several instances begin so: give more of the id".into();
            Err(CellError::Call { what: format!("find {given}"), why }.into())
        }
        (found, _) => Ok(found.map_or(given, String::as_str).to_owned()),
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn refused(what: &str, status: &Status) -> Error {
    let why = match std::error::Error::source(status) {
        // A certificate is looked at after the client's side of the handshake is done, so that a refusal is seen here.
        Some(source) => {
            let why = chain(source);
            format!("{why}; did the agent end, or does it not take this certificate?")
        }
        None => status.message().to_owned(),
    };
    CellError::Call { what: format!("{what} on the cell"), why }.into()
}

/// An error with its reasons: tonic's own words end at "transport error".
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Prints the ids that something was done to, complains about the others, and says whether there were none.
pub(super) fn report(outcomes: &[v1::Outcome]) -> bool {
    use v1::outcome::Result::{Already, Done};
    let mut is_good = true;
    for outcome in outcomes {
        if matches!(outcome.result(), Done | Already) {
            output::line(&outcome.id);
        } else {
            is_good = false;
            output::complain(&format_args!("{}: {}", outcome.id, outcome.detail));
        }
    }
    is_good
}

/// The name of a status in tables: `running`.
pub(super) fn status_name(status: v1::Status) -> String {
    status.as_str_name().trim_start_matches("STATUS_").to_ascii_lowercase()
}

/// What an end was, in words.
pub(super) fn end_words(end: &v1::End) -> String {
    let by =
        if end.stopped_by.is_empty() { String::new() } else { format!(", stopped by {}", end.stopped_by) };
    let gave_up = if end.gave_up { ", given up" } else { "" };
    format!("{}{by}{gave_up}", end.detail)
}

/// A published port as `-p` takes it.
pub(super) fn port_words(port: &v1::Port) -> String {
    let protocol = if port.protocol() == v1::port::Protocol::Udp { "udp" } else { "tcp" };
    format!("{}:{}/{protocol}", port.host_port, port.port)
}

/// An instance as JSON.
pub(super) fn instance_value(instance: &v1::Instance) -> serde_json::Value {
    let end = instance.end.as_ref().map(|end| {
        serde_json::json!({
            "cause": end.cause().as_str_name().trim_start_matches("CAUSE_").to_ascii_lowercase(),
            "code": end.code,
            "detail": end.detail,
            "stoppedBy": end.stopped_by,
            "atMs": end.at_ms,
            "ownLimit": end.own_limit,
            "gaveUp": end.gave_up,
        })
    });
    let mut value = serde_json::json!({
        "id": instance.id,
        "app": instance.app,
        "index": instance.index,
        "image": instance.image,
        "task": instance.task,
        "status": status_name(instance.status()),
        "attempt": instance.attempt,
        "crashes": instance.crashes,
        "pid": instance.pid,
        "reservation": instance.reservation,
        "createdMs": instance.created_ms,
        "changedMs": instance.changed_ms,
        "nextStartMs": instance.next_start_ms,
        "cgroup": instance.cgroup,
        "address": instance.address,
        "ports": instance.ports.iter().map(port_words).collect::<Vec<_>>(),
        "health": instance.health().as_str_name().trim_start_matches("HEALTH_").to_ascii_lowercase(),
        "healthDetail": instance.health_detail,
        "notice": instance.notice,
        "end": end,
    });
    if let Some(spec) = &instance.spec {
        let process = spec.process.clone().unwrap_or_default();
        value["labels"] = serde_json::json!(spec.labels);
        value["command"] = serde_json::json!(process.command);
        value["env"] = serde_json::json!(process.env);
    }
    value
}

/// How long ago a time in milliseconds since 1970 was, in words: `3 min`.
pub(super) fn age(at_ms: u64) -> String {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let seconds = now_ms.saturating_sub(at_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_one_id_is_that_id() {
        let known = ["web-1", "web-12", "other"].map(str::to_owned);
        for (given, id) in [("web-1", "web-1"), ("othe", "other"), ("oth", "oth"), ("none", "none")] {
            assert_eq!(resolve(given, &known).expect("one"), id);
        }
        assert!(resolve("web-", &known).expect_err("two").to_string().contains("several"));
    }
}
