//! The cell's API over gRPC: `celda.cell.v1.Cell`, beside the auction's own service, on one unix socket.
//!
//! ```text
//! message ── checked here ──> Call ──> core ──> answer
//!                              Watch, Drain: streams that read the ring of events, each with a place among streams_max
//! ```
//! A stream's messages are made as its peer takes them: one that stalls costs its place and two messages. One of Logs costs
//! besides what it has read ahead, a MiB or, of more than a thousand logs, a KiB of each, and the last line of each; and 16
//! open files. One of Exec or Attach has 256 KiB of input that waits, and one message more.

mod attach;
mod check;
mod exec;
mod fds;
mod feed;
mod logs;
mod streams;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::cell_server::{Cell, CellServer};
use celda_auction::wire::resources_message;
use celda_layerfs::mount::DiskLimits;
use crossbeam_channel::Sender;
use tokio::sync::{Semaphore, oneshot, watch};
use tonic::{Request, Response, Status, Streaming};

use super::books::Books;
use super::config::Config;
use super::core::{Call, Input, Look, Parts, ToList};
use super::events::Events;
use super::logs::Logs;
use super::metrics::{Kernel, Metrics, Now};
use super::network::Offer;
use super::place::Ground;
use super::work::Workers;
pub use streams::Stream;

/// Bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer, see `List` in cell.proto.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a unary call may take.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// What the service works with. Clones are the same service.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    ground: Arc<Ground>,
    books: Books,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    logs: Arc<Logs>,
    workers: Workers,
    core: Sender<Input>,
    streams: Arc<Semaphore>,
    /// True when the agent ends: open streams are cut off.
    closing: watch::Sender<bool>,
}

impl Service {
    /// A service of a core with these parts.
    pub fn new(parts: &Parts) -> Self {
        Self(Arc::new(Inner {
            config: parts.config.clone(),
            ground: Arc::clone(&parts.ground),
            books: parts.books.clone(),
            events: Arc::clone(&parts.events),
            metrics: Arc::clone(&parts.metrics),
            logs: Arc::clone(&parts.logs),
            workers: parts.workers.clone(),
            core: parts.sender.clone(),
            streams: Arc::new(Semaphore::new(parts.config.limits.streams_max as usize)),
            closing: watch::Sender::new(false),
        }))
    }

    /// With its limits on messages.
    pub fn server(self) -> CellServer<Self> {
        let server = CellServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX);
        server.max_encoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Cuts the open streams off.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
        self.0.books.service().close();
    }

    /// Has the core do something and waits for its answer.
    async fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        let ends = || Status::unavailable("the agent ends: try again when it is back");
        self.0.core.send(Input::Call(call(answer))).map_err(|_| ends())?;
        tokio::time::timeout(CALL_DEADLINE, answered)
            .await
            .map_err(|_| Status::deadline_exceeded("the cell is busy: try again"))?
            .map_err(|_| ends())
    }

    async fn look(&self) -> Result<Look, Status> {
        self.ask(Call::Look).await
    }

    /// What the cell counts and times, for Prometheus.
    ///
    /// # Errors
    /// `UNAVAILABLE`, `DEADLINE_EXCEEDED`.
    pub async fn metrics_text(&self) -> Result<String, Status> {
        let look = self.look().await?;
        let Inner { metrics, books, workers, logs, ground, .. } = &*self.0;
        let (jobs_count, logs) = (workers.waiting_count(), logs.totals());
        // A few small files of the kernel's, which keeps them in memory.
        let kernel = Kernel::read(&ground.hierarchy.parent());
        Ok(metrics.text(&Now { look: &look, books, jobs_count, logs, kernel }))
    }
}

#[tonic::async_trait]
impl Cell for Service {
    type WatchStream = Stream<v1::WatchResponse>;
    type LogsStream = Stream<v1::LogsResponse>;
    type ExecStream = Stream<v1::ExecResponse>;
    type AttachStream = Stream<v1::AttachResponse>;
    type DrainStream = Stream<v1::DrainResponse>;

    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let look = self.look().await?;
        let Inner { config, ground, books, .. } = &*self.0;
        let ladder = ground.images.ladder().info();
        let disk = DiskLimits::probe(&ground.root);
        let controllers = ground.hierarchy.controllers().unwrap_or_default();
        let kept = controllers.into_iter().filter(|controller| controller.missing.is_none());
        Ok(Response::new(v1::DescribeResponse {
            name: config.cell.name.clone(),
            zone: config.cell.zone.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: ladder.kernel,
            architecture: celda_layerfs::Platform::host().architecture,
            mount: ladder.rung.into(),
            capacity: Some(resources_message(&books.capacity())),
            free: Some(resources_message(&books.free())),
            running: look.running_count(),
            known: look.known_count(),
            draining: look.is_draining,
            epoch: books.epoch(),
            controllers: kept.map(|controller| controller.name.to_owned()).collect(),
            disk_limits: disk.words(),
            disk_limits_why: disk.why,
            network: Some(network(&ground.offer)),
        }))
    }

    async fn start(&self, request: Request<v1::StartRequest>) -> Result<Response<v1::StartResponse>, Status> {
        let wanted = check::wanted(request.into_inner(), &self.0.config.defaults).map_err(invalid)?;
        let (outcomes, before) = self.ask(|answer| Call::Start(wanted, answer)).await?;
        Ok(Response::new(v1::StartResponse { outcomes, token: self.0.events.token(before) }))
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopResponse>, Status> {
        let v1::StopRequest { ids, grace_ms, reason } = request.into_inner();
        check::stop(&ids, grace_ms, &reason).map_err(invalid)?;
        let grace_ms = grace_ms.map(u64::from);
        let (outcomes, before) = self.ask(|answer| Call::Stop { ids, grace_ms, reason, answer }).await?;
        Ok(Response::new(v1::StopResponse { outcomes, token: self.0.events.token(before) }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let v1::RemoveRequest { ids, force } = request.into_inner();
        check::ids(&ids).map_err(invalid)?;
        let (outcomes, before) = self.ask(|answer| Call::Remove { ids, force, answer }).await?;
        Ok(Response::new(v1::RemoveResponse { outcomes, token: self.0.events.token(before) }))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let v1::ListRequest { app, ids, running_only, with_specs } = request.into_inner();
        check::ids(&ids).map_err(invalid)?;
        let shown = ToList { app, ids, running_only, with_specs };
        let (instances, last) = self.ask(|answer| Call::List { shown, answer }).await?;
        let answer = v1::ListResponse { instances, token: self.0.events.token(last) };
        if prost::Message::encoded_len(&answer) > ANSWER_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "a list of more than {ANSWER_BYTES_MAX} bytes: list by app or by ids, or without specs"
            )));
        }
        Ok(Response::new(answer))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let v1::WatchRequest { token, app, ids } = request.into_inner();
        check::ids(&ids).map_err(invalid)?;
        streams::watch(self, &token, app, ids).map(Response::new)
    }

    async fn stats(&self, request: Request<v1::StatsRequest>) -> Result<Response<v1::StatsResponse>, Status> {
        let ids = request.into_inner().ids;
        check::ids(&ids).map_err(invalid)?;
        let shown = ToList { ids, ..ToList::default() };
        let (instances, _) = self.ask(|answer| Call::List { shown, answer }).await?;
        let read = move || instances.iter().filter_map(usage::read).collect();
        let usages = tokio::task::spawn_blocking(read).await;
        let usages = usages.map_err(|_| Status::internal("reading the cgroups panicked"))?;
        Ok(Response::new(v1::StatsResponse { usages }))
    }

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        check::ids(&request.ids).map_err(invalid)?;
        logs::open(self, request).await.map(Response::new)
    }

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        exec::open(self, request.into_inner()).await.map(Response::new)
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        attach::open(self, request.into_inner()).await.map(Response::new)
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<Self::DrainStream>, Status> {
        let v1::DrainRequest { grace_ms, cancel } = request.into_inner();
        check::grace(grace_ms).map_err(invalid)?;
        let grace_ms = grace_ms.map(u64::from);
        let drains = self.ask(|answer| Call::Drain { grace_ms, cancel, answer }).await?;
        drains.map_err(Status::resource_exhausted)?;
        streams::drain(self, cancel).map(Response::new)
    }

    async fn metrics(&self, _: Request<v1::MetricsRequest>) -> Result<Response<v1::MetricsResponse>, Status> {
        Ok(Response::new(v1::MetricsResponse { text: self.metrics_text().await? }))
    }
}

fn network(offer: &Offer) -> v1::CellNetwork {
    let options = offer.options();
    v1::CellNetwork {
        available: offer.why_not().is_none(),
        why_not: offer.why_not().unwrap_or_default().to_owned(),
        subnet: format!("{}/{}", options.network, options.prefix_bits),
        egress: options.egress,
        name_servers: offer.name_servers().iter().map(ToString::to_string).collect(),
        warnings: offer.warnings().to_vec(),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn invalid(why: String) -> Status {
    Status::invalid_argument(why)
}
