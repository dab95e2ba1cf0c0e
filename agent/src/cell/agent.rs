//! The daemon: brings the rooms together, serves until it is told to end, and leaves what runs to the next one.
//!
//! ```text
//! lock -> journal -> holder (there, or started) -> adopt -> core's thread, news' thread -> serve -> SIGTERM -> quit
//! ```
//! Ending is being killed with better manners: instances go on. `celda drain` ends them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use celda_auction::service::Listener;
use celda_auction::transport::Users;
use celda_layerfs::mount::{Ladder, sweep_containers};
use celda_layerfs::store::Store;
use crossbeam_channel::Sender;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::Resource;
use tonic::transport::Server;

use super::books::Books;
use super::config::Config;
use super::core::{Core, Input, Parts};
use super::error::{CellError, Result};
use super::events::Events;
use super::holder::{Attending, Holder};
use super::image::Images;
use super::journal::Journal;
use super::metrics::Metrics;
use super::place::Ground;
use super::service::{self, Service};
use super::work::Workers;

/// Streams, unary calls among them, of one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// The most bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 8 << 10;
/// How long peers have to take the end of their streams.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often a silent peer is asked whether it is there, and how long it has to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

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
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    let lasting = home.root.join("cell");
    for directory in [&home.private(), &lasting, &lasting.join("layers")] {
        make_private(directory)?;
    }
    let _lock = lock(&home.private().join("agent.lock"))?;
    let (journal, known) = Journal::open(&lasting, config.limits.journal_bytes)?;
    let program = Path::new("/proc/self/exe");
    let holder = Holder::connect_or_start(&home.private(), program)?;
    let (news, attending) = connect(&home.private())?.attend()?;
    // What a killed agent had prepared is locked by nobody; what runs is locked by the holder.
    sweep_containers(&lasting.join("layers"))?;

    let images = Images::new(store, ladder, config.limits.pulls_count);
    let images = images.map_err(CellError::io("start threads for images of", &home.root))?;
    let networks_count = config.limits.networks_ready_count;
    let ground = Arc::new(Ground::new(Arc::clone(&images), home.root.clone(), networks_count)?);
    let books = Books::new(&config, config.capacity.resources(&home.root))?;
    let events = Arc::new(Events::new(books.epoch()));
    let metrics = Arc::new(Metrics::default());
    let workers = Workers::start(config.limits.workers_count, &home.private())?;
    // Bounded by its makers: callers wait for answers, workers and the holder have a few events for each instance.
    let (sender, inputs) = crossbeam_channel::unbounded();
    let service = Service::new(service::Parts {
        config: config.clone(),
        ground: Arc::clone(&ground),
        books: books.clone(),
        events: Arc::clone(&events),
        metrics: Arc::clone(&metrics),
        workers: workers.clone(),
        core: sender.clone(),
    });
    let socket = config.socket.path.clone().unwrap_or_else(|| home.socket());
    let (users, connections_max) = (config.socket.users.clone(), config.socket.connections_max);
    let parts =
        Parts { config, ground, workers, books: books.clone(), events, journal, metrics, sender, inputs };
    let sender = parts.sender.clone();
    let mut core = Core::new(parts);
    core.adopt(known, news, &holder)?;
    listen_to_holder(attending, sender.clone())?;
    let core = spawn("core", move || core.run())?;
    let served = serve(&socket, users, connections_max, &service, &books, &sender, core);
    images.close();
    served
}

/// Serves until a signal, or until the core ends of itself.
fn serve(
    socket: &Path,
    mut users: Vec<u32>,
    connections_max: u32,
    service: &Service,
    books: &Books,
    sender: &Sender<Input>,
    core: JoinHandle<Result<()>>,
) -> crate::Result<()> {
    users.push(rustix::process::geteuid().as_raw());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(CellError::io("start the threads of", socket))?;
    runtime.block_on(async {
        let listener = listen(socket, &users)?;
        let (core_ends, core_ended) = tokio::sync::oneshot::channel();
        let waiter = spawn("core-end", move || {
            let ended = core.join();
            let _ = core_ends.send(());
            ended
        })?;
        let quit = sender.clone();
        let closing = service.clone();
        let shutdown = async move {
            tokio::select! {
                () = signalled() => drop(quit.send(Input::Quit)),
                _ = core_ended => {}
            }
            closing.close();
        };
        let (closes, closed) = tokio::sync::oneshot::channel();
        let served = Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(service.clone().server())
            .add_service(books.service().clone().server())
            .serve_with_incoming_shutdown(listener.incoming(connections_max), async {
                shutdown.await;
                let _ = closes.send(());
            });
        tracing::info!(socket = %socket.display(), "the cell is up");
        let too_late = async {
            let _ = closed.await;
            tokio::time::sleep(CLOSE_WAIT).await;
        };
        tokio::select! {
            ended = served => ended.map_err(|error| CellError::Serve(celda_auction::transport::Error::Serve(error)))?,
            () = too_late => {}
        }
        let _ = std::fs::remove_file(socket);
        let _ = sender.send(Input::Quit);
        let panicked = || CellError::Holder { what: "run the cell", why: "its core panicked".into() };
        waiter.join().map_err(|_| panicked())?.map_err(|_| panicked())??;
        Ok(())
    })
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signal's default ends the agent, which is as good.
        _ => std::future::pending().await,
    }
}

/// Listens at `socket`. The agent's lock is held, so a socket that is there is a dead agent's.
fn listen(socket: &Path, users: &[u32]) -> Result<Listener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CellError::io("remove the socket of a dead agent,", socket)(error));
        }
        _ => {}
    }
    let listener = Listener::unix(socket, Users::these(users))?;
    rustix::fs::chmod(socket, Mode::from_raw_mode(0o660))
        .map_err(|errno| CellError::io("set the mode of", socket)(errno.into()))?;
    Ok(listener)
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
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(CellError::Held { path: path.to_owned() }),
    }
}
