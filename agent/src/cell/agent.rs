//! The daemon: brings the rooms together, serves until it is told to end, and leaves what runs to the next one.
//!
//! ```text
//! lock -> journal -> holder (there, or started) -> news' thread -> adopt -> core's thread -> serve -> SIGTERM -> quit
//! ```
//! Ending is being killed with better manners: instances go on. `celda drain` ends them.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use celda_auction::service::Listener;
use celda_auction::transport::Users;
use celda_layerfs::mount::{Ladder, sweep_containers};
use celda_layerfs::store::Store;
use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{Mode, OFlags};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::books::Books;
use super::config::Config;
use super::core::{Core, Input, Parts};
use super::door::{self, Door, Listen};
use super::error::{CellError, Result};
use super::events::Events;
use super::forward::{Forwarder, OfCore};
use super::health::Health;
use super::holder::{Attending, Holder, raise_files_limit};
use super::image::Images;
use super::image_gc::ImageGc;
use super::journal::{Journal, Known, RESERVE_BYTES_PER_INSTANCE};
use super::logs::{Logs, LogsOptions};
use super::metrics::Metrics;
use super::metrics::http::{Exporter, MetricsConfig};
use super::network::Offer;
use super::place::Ground;
use super::service::Service;
use super::work::Workers;
use crate::sandbox::cgroup::Hierarchy;

/// Empty networks kept ready beside those of the cell's.
const EMPTY_COUNT: u32 = 8;
/// How long what is under way has to end.
const FINISH_WAIT: Duration = Duration::from_secs(20);

/// Where a cell lives.
#[derive(Debug)]
pub struct Home {
    /// `ROOT`: what lasts.
    pub root: PathBuf,
    /// `RUN`: what does not outlive a boot.
    pub run: PathBuf,
}

impl Home {
    /// Of the holder and of locks: for this user only.
    fn private(&self) -> PathBuf {
        self.run.join("cell")
    }

    /// The socket where nothing else is configured.
    pub fn socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }
}

/// Runs a cell until SIGTERM or SIGINT.
///
/// # Errors
/// [`crate::Error`]: what keeps a cell from beginning or going on. Containers go on.
pub fn run(home: &Home, config: Config, store: Store, ladder: Ladder) -> crate::Result<()> {
    raise_files_limit();
    let lasting = home.root.join("cell");
    for directory in [&home.private(), &lasting, &lasting.join("layers")] {
        make_private(directory)?;
    }
    let _lock = lock(&home.private().join("agent.lock"))?;
    let (mut journal, known) = Journal::open(&lasting, config.limits.journal_bytes)?;
    journal.keep_reserve(u64::from(config.limits.instances_max) * RESERVE_BYTES_PER_INSTANCE);
    let holder = Holder::connect_or_start(&home.private(), Path::new("/proc/self/exe"))?;
    let (news, attending) = connect(&home.private())?.attend()?;
    // Bounded by its makers: callers wait for answers, workers and the holder have a few events for each instance.
    let (sender, inputs) = crossbeam_channel::unbounded();
    // From now on: the holder waits for who does not read its news, and the workers wait for the holder.
    listen_to_holder(attending, sender.clone())?;
    // What a killed agent had prepared is locked by nobody; what runs is locked by the holder.
    sweep_containers(&lasting.join("layers"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(CellError::io("start the threads of the cell in", &home.run))?;
    let offer = offer(&config, &known);
    let parts = parts(home, config, (store, ladder), (journal, offer), &runtime, (sender, inputs))?;
    let (sender, books, ground) = (parts.sender.clone(), parts.books.clone(), Arc::clone(&parts.ground));
    let workers = parts.workers.clone();
    begin_forwarding(&runtime, &parts, home)?;
    let service = Service::new(&parts);
    let image_gc = ImageGc::start(&parts)?;
    let doors = Doors::of(home, &parts.config);
    let mut core = Core::new(parts);
    core.adopt(known, news, &holder)?;
    core.sweep_logs(&lasting.join("logs"))?;
    let core = spawn("core", move || core.run())?;
    let served = serve(&runtime, doors, &service, &books, &sender, core);
    drop(image_gc);
    // What is being cleared away is; what is left after that is the next agent's.
    workers.finish(FINISH_WAIT);
    ground.images.close();
    if let Err(error) = ground.offer.close() {
        tracing::warn!(%error, "the network's table was left behind");
    }
    served
}

/// The cell's network, with the addresses and ports of all that may still run.
fn offer(config: &Config, known: &Known) -> Offer {
    let offer = match config.network.options(config.limits.networks_ready_count) {
        Ok(options) if config.network.enabled => {
            let running: Vec<_> = known.instances.values().filter_map(|kept| kept.attached.clone()).collect();
            Offer::start(options, &config.network.name_servers, &running)
        }
        _ => Offer::off(), // the configuration is checked: a subnet that is none was refused
    };
    if let Some(why) = offer.why_not() {
        tracing::warn!(why, "the cell has no network of its own");
    }
    for warning in offer.warnings() {
        tracing::warn!(warning, "the cell's network");
    }
    offer
}

/// Sends logs on, for as long as the runtime is there.
fn begin_forwarding(runtime: &tokio::runtime::Runtime, parts: &Parts, home: &Home) -> Result<()> {
    let _entered = runtime.enter();
    let (forward, cell) = (&parts.config.logs.forward, &parts.config.cell.name);
    let forwarders = [Forwarder::syslog(&forward.syslog, cell)?, Forwarder::otlp(&forward.otlp, cell)?];
    let forwarders: Vec<_> = forwarders.into_iter().flatten().collect();
    if forwarders.is_empty() {
        return Ok(());
    }
    let directory = home.root.join("cell/forward");
    make_private(&directory)?;
    let tally = |forwarder: &Forwarder| (forwarder.name(), forwarder.tally());
    parts.metrics.set_forwarders(forwarders.iter().map(tally).collect());
    for forwarder in forwarders {
        let (news, logs) = (parts.events.news(), Arc::clone(&parts.logs));
        let (limits, root) = (parts.config.logs.limits(), home.root.join("cell/logs"));
        let catalog = OfCore::new(parts.sender.clone(), news, logs, limits, root);
        let directory = directory.clone();
        runtime.spawn(async move { forwarder.run(catalog, &directory).await });
    }
    Ok(())
}

/// What the core and the service work with.
fn parts(
    home: &Home,
    config: Config,
    (store, ladder): (Store, Ladder),
    (journal, offer): (Journal, Offer),
    runtime: &tokio::runtime::Runtime,
    (sender, inputs): (Sender<Input>, Receiver<Input>),
) -> crate::Result<Parts> {
    let images = Images::new(store, ladder, &config.limits);
    let images = images.map_err(CellError::io("start threads for images of", &home.root))?;
    let hierarchy = Hierarchy::of_cell(&home.private())?;
    let ready_count = config.limits.networks_ready_count;
    // Where instances are on the cell's network, few want none.
    let empty_count = if offer.why_not().is_none() { ready_count.min(EMPTY_COUNT) } else { ready_count };
    let ground = Ground::new(images, home.root.clone(), hierarchy, offer, empty_count)?;
    let books = Books::new(&config, config.capacity.resources(&home.root))?;
    let logs = LogsOptions { root: home.root.join("cell/logs"), run: home.private().join("logs") };
    Ok(Parts {
        ground: Arc::new(ground),
        workers: Workers::start(config.limits.workers_count, &home.private())?,
        events: Arc::new(Events::new(books.epoch())),
        books,
        journal,
        metrics: Arc::new(Metrics::default()),
        health: Health::start()?,
        logs: Arc::new(Logs::start(logs)?),
        runtime: runtime.handle().clone(),
        sender,
        inputs,
        config,
    })
}

/// Where callers come in, and who may.
struct Doors {
    socket: PathBuf,
    users: Vec<u32>,
    connections_max: u32,
    listen: Listen,
    metrics: MetricsConfig,
}

impl Doors {
    fn of(home: &Home, config: &Config) -> Self {
        let socket = config.socket.path.clone().unwrap_or_else(|| home.socket());
        let mut users = config.socket.users.clone();
        users.push(rustix::process::geteuid().as_raw());
        let (listen, metrics) = (config.listen.clone(), config.metrics.clone());
        Self { socket, users, connections_max: config.socket.connections_max, listen, metrics }
    }
}

/// Serves until a signal, or until the core ends of itself.
fn serve(
    runtime: &tokio::runtime::Runtime,
    Doors { socket, users, connections_max, listen, metrics }: Doors,
    service: &Service,
    books: &Books,
    sender: &Sender<Input>,
    core: JoinHandle<Result<()>>,
) -> crate::Result<()> {
    runtime.block_on(async {
        let listener = listen_at(&socket, &users)?;
        let door = Door::open(&listen).map_err(CellError::from)?;
        let exporter = Exporter::open(&metrics)?;
        let (core_ends, core_ended) = tokio::sync::oneshot::channel();
        let waiter = spawn("core-end", move || {
            let ended = core.join();
            let _ = core_ends.send(());
            ended
        })?;
        let (quit, closing) = (sender.clone(), service.clone());
        // Before anybody is told that it is up, and so may want it to end.
        let signals = signals();
        let shutdown = async move {
            tokio::select! {
                () = signalled(signals) => drop(quit.send(Input::Quit)),
                _ = core_ended => {}
            }
            tell_systemd(&[NotifyState::Stopping]);
            closing.close();
        };
        let tcp = door.as_ref().and_then(|(door, _)| door.address().ok()).map(|address| address.to_string());
        let metrics = exporter.as_ref().and_then(|exporter| exporter.address().ok());
        let metrics = metrics.map(|address| address.to_string());
        tracing::info!(socket = %socket.display(), tcp, metrics, "the cell is up");
        tell_systemd(&[NotifyState::Ready]);
        if let Some(exporter) = exporter {
            let service = service.clone();
            let text = move || {
                let service = service.clone();
                async move { service.metrics_text().await.ok() }
            };
            runtime.spawn(exporter.serve(text)); // ends with the runtime
        }
        let services = |mut server: tonic::transport::Server| {
            let router = server.add_service(service.clone().server());
            router.add_service(books.service().clone().server())
        };
        let served = door::serve(listener.incoming(connections_max), door, services, shutdown).await;
        served.map_err(|error| CellError::Serve(celda_auction::transport::Error::Serve(error)))?;
        let _ = std::fs::remove_file(&socket);
        let _ = sender.send(Input::Quit);
        let panicked = || CellError::Holder { what: "run the cell", why: "its core panicked".into() };
        waiter.join().map_err(|_| panicked())?.map_err(|_| panicked())??;
        Ok(())
    })
}

/// Tells the one who started this agent, if it wants to know: sd_notify(3).
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told how the cell is");
    }
}

/// The signals that end the agent in good order, caught from now on. Without handlers the signal's default ends it, which is
/// as good.
fn signals() -> Option<[Signal; 2]> {
    Some([signal(SignalKind::terminate()).ok()?, signal(SignalKind::interrupt()).ok()?])
}

async fn signalled(signals: Option<[Signal; 2]>) {
    let Some([mut terminate, mut interrupt]) = signals else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Listens at `socket`. The agent's lock is held, so a socket that is there is a dead agent's.
fn listen_at(socket: &Path, users: &[u32]) -> Result<Listener> {
    clear_socket(socket).map_err(CellError::io("remove the socket of a dead agent,", socket))?;
    let listener = Listener::unix(socket, Users::these(users))?;
    // Whoever may connect is asked for its user then; other users come as far as that only where some are configured.
    let mode = if users.len() > 1 { 0o666 } else { 0o660 };
    rustix::fs::chmod(socket, Mode::from_raw_mode(mode))
        .map_err(|errno| CellError::io("set the mode of", socket)(errno.into()))?;
    Ok(listener)
}

/// Removes a socket, and nothing that is none.
fn clear_socket(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(facts) if facts.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(std::io::Error::new(
            std::io::ErrorKind::AlreadyExists,
            "there is another file of this name; move it away, or set another socket.path",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Brings the holder's news to the core.
fn listen_to_holder(attending: Attending, sender: Sender<Input>) -> Result<()> {
    let listen = move || loop {
        let input = match attending.receive() {
            Ok(Some(news)) => Input::News(news),
            Ok(None) => continue,
            Err(error) => Input::HolderGone(error),
        };
        let is_last = matches!(input, Input::HolderGone(_));
        if sender.send(input).is_err() || is_last {
            return;
        }
    };
    spawn("holder", listen).map(drop)
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(CellError::io("start the thread", Path::new(name)))
}

fn connect(directory: &Path) -> Result<Holder> {
    Holder::connect(directory)?.ok_or_else(|| CellError::Holder {
        what: "connect to the holder",
        why: "it has just ended; start the agent again".into(),
    })
}

fn make_private(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(CellError::io("create directory", directory))?;
    rustix::fs::chmod(directory, Mode::RWXU)
        .map_err(|errno| CellError::io("set the mode of", directory)(errno.into()))
}

fn lock(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| CellError::io("open", path)(errno.into()))?;
    if super::lock::take(&file) { Ok(file) } else { Err(CellError::Held { path: path.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_is_cleared_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.sock");
        clear_socket(&path).expect("nothing is there");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        clear_socket(&path).expect("a socket");
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("written");
        let error = clear_socket(&path).expect_err("a file");
        assert!(error.to_string().contains("socket.path"), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
    }
}
