//! `celda run`: one container in the foreground.
//!
//! ```text
//! resolve -> lease -> mount -> spec -> plan -> start -> (the container) -> teardown
//!    `- pull, when the image is not here         `- the network namespace is made meanwhile, on a thread
//! ```
//!
//! With the image here this is the hot path: no async runtime, no TLS, no fsync.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use celda_layerfs::mount::{Ladder, WritableLayer};
use celda_layerfs::pull::{PullPolicy, resolve_local};
use celda_layerfs::store::{ImageLease, ImageRecord, Store};
use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};

use super::context::{self, Context};
use super::run_args::{Pull, RunArgs};
use super::timing::{Stage, Timing};
use super::{output, pull};
use crate::container::{self, NameClaim, State};
use crate::sandbox::cgroup::Hierarchy;
use crate::sandbox::seccomp::{self, Arch, Kernel};
use crate::sandbox::{
    Container, Exit, Foreground, PreparingNetwork, Request, Stdio, TerminalSize, plan, terminal_size,
    user_namespace,
};
use crate::spec::{Built, Host, Network, SeccompChoice};
use crate::{Error, Result, spec};

/// The mode that a writable layer's root is made with.
const DIRECTORY_MODE: u32 = 0o755;

/// Runs the container and gives its exit status, or Docker's for a failure of celda's own.
pub(super) fn main(context: &Context, args: &RunArgs) -> ExitCode {
    let mut timing = Timing::begin();
    let outcome = run(context, args, &mut timing);
    if args.timing {
        timing.print(context.global.json);
    }
    match outcome {
        Ok(exit) => {
            if let Exit::OutOfMemory { .. } = exit {
                output::complain(&format_args!("the container ended: {exit}"));
            }
            ExitCode::from(exit.status())
        }
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.status())
        }
    }
}

fn run(context: &Context, args: &RunArgs, timing: &mut Timing) -> Result<Exit> {
    check_terminal(args)?;
    let (store, ladder) = context.store_and_ladder()?;
    let record = image(context, args, &store, timing)?;
    timing.reached(Stage::Resolve);
    // Making a network namespace waits for the kernel longest; it is done beside the mounts.
    let network = match args.network {
        Network::None => Some(PreparingNetwork::begin()?),
        Network::Host => None,
    };
    let _name = args.name.as_deref().map(|name| NameClaim::take(&context.global.run, name)).transpose()?;
    let mut prepared = Prepared::new(args, store, &ladder, record)?;
    timing.reached(Stage::Mount);
    let outcome = prepared.start(args, network, timing).and_then(|running| running.attend(args));
    timing.reached(Stage::Run);
    let removed = prepared.end(args, outcome.as_ref().ok());
    timing.reached(Stage::Teardown);
    let exit = outcome?;
    removed.map(|()| exit)
}

/// `-t` makes a terminal of the container's own; without one here to show it on, that is a mistake.
fn check_terminal(args: &RunArgs) -> Result<()> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        let reason = "standard input is not a terminal; leave out -t (or -i)".into();
        return Err(Error::Argument { what: "-t".into(), reason });
    }
    Ok(())
}

/// The image, fetched if it is not here and may be.
fn image(context: &Context, args: &RunArgs, store: &Store, timing: &mut Timing) -> Result<ImageRecord> {
    let reference = context::reference(args.image())?;
    let policy = match args.pull {
        Pull::Always => PullPolicy::Always,
        Pull::Missing => PullPolicy::Missing,
        Pull::Never => PullPolicy::Never,
    };
    let options = context::pull_options(&args.source, policy)?;
    if policy != PullPolicy::Always
        && let Some(record) = resolve_local(store, &reference, &options)?
    {
        return Ok(record);
    }
    let record = pull::fetch(store, &reference, &options, &timing.watch(context.global.json))?;
    Ok(record)
}

/// A container whose root filesystem is mounted.
struct Prepared {
    state: State,
    store: Store,
    record: ImageRecord,
    rootfs: Option<OwnedFd>,
    writable: Option<WritableLayer>,
    _lease: ImageLease,
}

/// A container that runs.
struct Running {
    container: Container,
    foreground: Foreground,
}

impl Prepared {
    fn new(args: &RunArgs, store: Store, ladder: &Ladder, record: ImageRecord) -> Result<Self> {
        let id = container::new_id()?;
        let lease = store.lease(&record)?;
        let lower = ladder.shared_image(&record.chain_id, lease.source(), lease.tars())?;
        let (uids, gids) = spec::id_mappings(&args.userns)?;
        let users = if uids.is_empty() { None } else { Some(user_namespace(&uids, &gids)?) };
        let writable = WritableLayer::create(&store.root().join("containers"), &id)?;
        let owner = uids.iter().find(|range| range.container_id() == 0).map(LinuxIdMapping::host_id);
        let rootfs = match_root(lower.as_fd(), writable.path(), owner).and_then(|()| {
            let users = users.as_ref().map(|users| users.as_fd());
            Ok(ladder.overlay_mapped(lower.as_fd(), Some(writable.path()), users)?)
        });
        let (rootfs, writable) = match rootfs {
            Ok(rootfs) => (rootfs, writable),
            Err(error) => {
                writable.remove()?;
                return Err(error);
            }
        };
        let created_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let state = State {
            id,
            name: args.name.clone(),
            image: args.image().to_owned(),
            manifest: record.manifest.to_string(),
            labels: BTreeMap::new(),
            args: Vec::new(),
            stop_signal: 0,
            created_s,
            pid: None,
            exit_code: None,
        };
        Ok(Self { state, store, record, rootfs: Some(rootfs), writable: Some(writable), _lease: lease })
    }

    fn start(
        &mut self,
        args: &RunArgs,
        network: Option<PreparingNetwork>,
        timing: &mut Timing,
    ) -> Result<Running> {
        let rootfs = self.rootfs.take().expect("a prepared container is started once");
        let directory = self.writable.as_ref().expect("kept until the end").path();
        let host = Host::here(self.store.root(), directory);
        let flags = args.flags(self.state.id.clone());
        let built = spec::build(&self.record.config_json, &flags, rootfs.as_fd(), &host)?;
        built.prepare(rootfs.as_fd())?;
        timing.reached(Stage::Spec);
        let filter = filter(&built)?;
        let resources =
            built.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let cgroup = Hierarchy::find()?.create(&self.state.id, &resources)?;
        self.describe(&built);
        let request = Request {
            id: self.state.id.clone(),
            spec: built.spec,
            rootfs,
            stdio: stdio(args)?,
            cgroup: Some(cgroup),
            network: network.map(PreparingNetwork::finish).transpose()?,
            seccomp: filter,
            init: args.init,
            dies_with_caller: true,
        };
        let plan = plan(request)?;
        timing.reached(Stage::Plan);
        let foreground = Foreground::new()?;
        let container = plan.start()?;
        timing.reached(Stage::Start);
        self.state.pid = u32::try_from(container.pid()).ok();
        if let Some(writable) = &self.writable {
            self.state.write(writable.path())?;
        }
        Ok(Running { container, foreground })
    }

    fn describe(&mut self, built: &Built) {
        let annotations = built.spec.annotations().clone().unwrap_or_default();
        self.state.labels = annotations.into_iter().collect();
        self.state.stop_signal = built.stop_signal;
        self.state.args =
            built.spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
    }

    /// Removes what was the container's, or keeps its writable layer until `celda gc`.
    fn end(&mut self, args: &RunArgs, exit: Option<&Exit>) -> Result<()> {
        drop(self.rootfs.take());
        let Some(writable) = self.writable.take() else { return Ok(()) };
        match exit {
            Some(exit) if !args.rm => {
                self.state.exit_code = Some(exit.status());
                self.state.write(writable.path())
            }
            _ => Ok(writable.remove()?),
        }
    }
}

impl Running {
    fn attend(self, args: &RunArgs) -> Result<Exit> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let input: Option<BorrowedFd<'_>> = args.interactive.then(|| stdin.as_fd());
        Ok(self.foreground.attend(self.container, input, stdout.as_fd())?)
    }
}

/// Gives the writable layer's root the mode and owner of the image's: overlayfs shows those of the upper directory.
/// In a user namespace the container's root owns it.
fn match_root(lower: BorrowedFd<'_>, directory: &Path, root: Option<u32>) -> Result<()> {
    let upper = directory.join("upper");
    let failed = |errno: rustix::io::Errno| Error::io("set the owner and mode of", &upper)(errno.into());
    let of_image = rustix::fs::fstat(lower).map_err(failed)?;
    let (uid, gid) = (root.unwrap_or(of_image.st_uid), root.unwrap_or(of_image.st_gid));
    if (uid, gid) != (0, 0) {
        let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(CWD, &upper, ids.0, ids.1, AtFlags::empty()).map_err(failed)?;
    }
    let mode = of_image.st_mode & 0o7777;
    if mode != DIRECTORY_MODE {
        rustix::fs::chmodat(CWD, &upper, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

/// The system call filter, compiled.
fn filter(built: &Built) -> Result<Option<Vec<seccomp::BpfInstruction>>> {
    let capabilities = built.spec.process().as_ref().and_then(|process| process.capabilities().clone());
    let bounding = capabilities.and_then(|sets| sets.bounding().clone()).unwrap_or_default();
    let caps = crate::sandbox::caps::CapSet::from_oci(&bounding);
    Ok(match &built.seccomp {
        SeccompChoice::Unconfined => None,
        SeccompChoice::Builtin => Some(seccomp::default_program(Arch::host(), caps)?),
        SeccompChoice::File(path) => {
            let profile = seccomp::profile_from_file(path, caps, Kernel::running())?;
            Some(seccomp::compile(&profile, Arch::host())?)
        }
    })
}

/// Standard files: a terminal of the container's own, or ours; standard input only with `-i`, as Docker's.
fn stdio(args: &RunArgs) -> Result<Stdio> {
    if args.tty {
        let size = terminal_size(io::stdout().as_fd()).or_else(|| terminal_size(io::stdin().as_fd()));
        return Ok(Stdio::Terminal(size.unwrap_or(TerminalSize { rows: 24, columns: 80 })));
    }
    if args.interactive {
        return Ok(Stdio::Inherit);
    }
    let null = File::open("/dev/null").map_err(Error::io("open", "/dev/null"))?;
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(Error::io("copy", "a standard file"));
    Ok(Stdio::Files([null.into(), own(io::stdout().as_fd())?, own(io::stderr().as_fd())?]))
}
