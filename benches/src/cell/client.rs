//! A caller of the cell: starts, waits for what the cell says of each instance, removes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use celda_api::cell::v1;
use celda_api::cell::v1::cell_client::CellClient;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

use super::{CellOptions, Net};
use crate::Result;

/// How long anything may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// Where an instance with a check serves.
const PORT: u32 = 8080;
/// The name of the bench's app.
const APP: &str = "bench";

/// What the cell may say of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    Running,
    Ready,
    Exited,
    Removed,
}

/// Who waits for what of an instance, and is told when it came.
type Waiting = Arc<Mutex<HashMap<(String, Mark), oneshot::Sender<Instant>>>>;

/// A connection, and what is started by it.
pub(super) struct Client {
    client: CellClient<Channel>,
    waiting: Waiting,
    kept: v1::Spec,
    task: v1::Spec,
    next: AtomicUsize,
}

/// Something that was started.
pub(super) struct Life {
    /// From the call to its running, if it is an instance, or to its end, if it is a task.
    pub(super) latency: Duration,
}

impl Client {
    /// Connects to the cell at `socket`, and watches it.
    ///
    /// # Errors
    /// When nobody answers.
    pub(super) async fn connect(options: &CellOptions, socket: &Path, work: &Path) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
        let client = CellClient::new(channel);
        let waiting = Waiting::default();
        let mut stream = client.clone().watch(v1::WatchRequest::default()).await?.into_inner();
        let told = Arc::clone(&waiting);
        tokio::spawn(async move {
            let ended = loop {
                match stream.message().await {
                    Ok(Some(message)) => tell(&told, message),
                    Ok(None) => break "the cell ended it".to_owned(),
                    Err(status) => break status.to_string(),
                }
            };
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.is_empty() {
                eprintln!("benches: the watch is over: {ended}");
            }
            told.clear(); // whoever waits hears of it
        });
        let image = format!("oci:{}:bench", work.join("image").display());
        Ok(Self {
            client,
            waiting,
            kept: kept(options, &image),
            task: task(options, &image),
            next: AtomicUsize::new(0),
        })
    }

    /// Ids that nobody has had.
    pub(super) fn ids(&self, count: usize) -> Vec<String> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first..first + count).map(|number| format!("bench-{number}")).collect()
    }

    /// To be told when the cell says this of each.
    pub(super) fn wait(&self, ids: &[String], mark: Mark) -> Vec<oneshot::Receiver<Instant>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |id: &String| {
            let (send, receive) = oneshot::channel();
            waiting.insert((id.clone(), mark), send);
            receive
        };
        ids.iter().map(one).collect()
    }

    /// One call that starts them all, to run until they are stopped.
    ///
    /// # Errors
    /// What the cell says.
    pub(super) async fn start(&self, ids: &[String]) -> Result<()> {
        self.start_of(&self.kept, ids).await
    }

    async fn start_of(&self, spec: &v1::Spec, ids: &[String]) -> Result<()> {
        let (spec, ids) = (Some(spec.clone()), ids.to_vec());
        let group = v1::StartGroup { spec, app: APP.into(), ids, ..v1::StartGroup::default() };
        let request = v1::StartRequest { groups: vec![group] };
        let outcomes = self.client.clone().start(request).await?.into_inner().outcomes;
        match outcomes.iter().find(|outcome| outcome.result() != v1::outcome::Result::Done) {
            Some(outcome) => Err(format!("{}: {}", outcome.id, outcome.detail).into()),
            None => Ok(()),
        }
    }

    /// One call that stops them all without grace.
    ///
    /// # Errors
    /// What the cell says.
    pub(super) async fn stop(&self, ids: Vec<String>) -> Result<()> {
        let request = v1::StopRequest { ids, grace_ms: Some(0), reason: APP.into() };
        self.client.clone().stop(request).await?;
        Ok(())
    }

    /// One call that forgets them, once they are stopped.
    ///
    /// # Errors
    /// What the cell says.
    pub(super) async fn remove(&self, ids: Vec<String>) -> Result<()> {
        let gone = self.wait(&ids, Mark::Removed);
        self.client.clone().remove(v1::RemoveRequest { ids, force: true }).await?;
        all(gone).await.map(drop)
    }

    /// One instance, from the call to its running; then it is removed.
    ///
    /// # Errors
    /// What the cell says.
    pub(super) async fn instance(&self) -> Result<Life> {
        self.life(&self.kept, Mark::Running).await
    }

    /// One task, from the call to its end; then it is removed.
    ///
    /// # Errors
    /// What the cell says.
    pub(super) async fn task(&self) -> Result<Life> {
        self.life(&self.task, Mark::Exited).await
    }

    async fn life(&self, spec: &v1::Spec, until: Mark) -> Result<Life> {
        let ids = self.ids(1);
        let reached = self.wait(&ids, until);
        let called = Instant::now();
        self.start_of(spec, &ids).await?;
        let latency = all(reached).await?[0].saturating_duration_since(called);
        self.remove(ids).await?;
        Ok(Life { latency })
    }
}

/// Tells whoever waits for what these events say.
fn tell(waiting: &Waiting, message: v1::WatchResponse) {
    let now = Instant::now();
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    for instance in message.events.into_iter().filter_map(|event| event.instance) {
        for mark in marks(&instance) {
            if let Some(who) = waiting.remove(&(instance.id.clone(), mark)) {
                let _ = who.send(now);
            }
        }
    }
}

fn marks(instance: &v1::Instance) -> impl Iterator<Item = Mark> {
    let mark = match instance.status() {
        v1::Status::Running => Some(Mark::Running),
        v1::Status::Exited => Some(Mark::Exited),
        v1::Status::Removed => Some(Mark::Removed),
        _ => None,
    };
    let is_ready = instance.health() == v1::instance::Health::Ready;
    mark.into_iter().chain(is_ready.then_some(Mark::Ready))
}

fn spec(options: &CellOptions, image: &str, words: &[&str]) -> v1::Spec {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    let process = Some(v1::Process { command, ..v1::Process::default() });
    let mut spec = v1::Spec { image: image.to_owned(), process, ..v1::Spec::default() };
    if options.soak.is_some() && matches!(options.network, Net::Cell) {
        spec.ports = vec![v1::Port { port: PORT, ..v1::Port::default() }];
    }
    spec.set_network(match options.network {
        Net::None => v1::Network::None,
        Net::Cell => v1::Network::Cell,
        Net::Host => v1::Network::Host,
    });
    spec
}

/// Runs until it is stopped, and answers http where it is checked.
fn kept(options: &CellOptions, image: &str) -> v1::Spec {
    if !options.health {
        return spec(options, image, &["/bin/busybox", "sleep", "100000"]);
    }
    // There is nothing to serve: its answer is 404, which says that it serves.
    let http = v1::HttpProbe { port: PORT, path: "/".into(), status_min: 404, status_max: 404 };
    let check = v1::Check { probe: Some(v1::check::Probe::Http(http)), ..v1::Check::default() };
    let health = v1::Health { liveness: Some(check), ..v1::Health::default() };
    let words = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/root"];
    v1::Spec { health: Some(health), ..spec(options, image, &words) }
}

fn task(options: &CellOptions, image: &str) -> v1::Spec {
    v1::Spec { task: true, ..spec(options, image, &[crate::fixture::PROGRAM]) }
}

/// When each came.
///
/// # Errors
/// When one does not come in time.
pub(super) async fn all(waiting: Vec<oneshot::Receiver<Instant>>) -> Result<Vec<Instant>> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut came = Vec::with_capacity(waiting.len());
    for one in waiting {
        came.push(tokio::time::timeout_at(deadline, one).await.map_err(|_| "an instance does not come")??);
    }
    Ok(came)
}
