//! `celda run`: one container in the foreground.
//!
//! ```text
//! resolve -> place -> spec -> plan -> start -> (the container) -> teardown
//!    `- pull, when the image is not here                             `- the place is given back, or removed
//! ```
//!
//! With the image here this is the hot path: no async runtime, no TLS, no fsync.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use celda_layerfs::pull::{PullPolicy, resolve_local};
use celda_layerfs::store::{ImageRecord, Store};
use rustix::process::Signal;

use super::context::{self, Context};
use super::detached;
use super::in_front;
use super::prepared::Place;
use super::run_args::{Pull, RunArgs};
use super::timing::{Stage, Timing};
use super::{output, pull};
use crate::container::{self, NameClaim, State};
use crate::sandbox::cgroup::Hierarchy;
use crate::sandbox::{
    Container, Exit, Foreground, Request, Stdio, TerminalSize, is_sealed, plan, terminal_size,
};
use crate::spec::{Built, Host, Network, SeccompChoice};
use crate::{Error, Result, spec};

/// Runs the container and gives its exit status, or Docker's for a failure of celda's own.
pub(super) fn main(context: &Context, args: &RunArgs) -> ExitCode {
    if args.detached.detach {
        return detached::main(context, args);
    }
    if args.network == Some(Network::Cell) || !args.publish.is_empty() {
        return in_front::main(context, args);
    }
    if args.health.has_check() {
        let reason = "only a cell looks at health: add -d".to_owned();
        return super::fail(&Error::Argument { what: "--health-*".to_owned(), reason });
    }
    let mut timing = Timing::begin();
    let outcome = run(context, args, &mut timing);
    if args.timing {
        timing.print(context.global.json);
    }
    super::ended(outcome.map(|exit| {
        if let Exit::OutOfMemory { .. } = exit {
            output::complain(&format_args!("the container ended: {exit}"));
        }
        exit.status()
    }))
}

fn run(context: &Context, args: &RunArgs, timing: &mut Timing) -> Result<Exit> {
    check_terminal(args)?;
    let (store, ladder) = context.store_and_ladder()?;
    let record = image(context, args, &store, timing)?;
    timing.reached(Stage::Resolve);
    let _name = args.name.as_deref().map(|name| NameClaim::take(&context.global.run, name)).transpose()?;
    let mut state = new_state(args, &record)?;
    let mut place = Place::new(args, &store, &ladder, &record, &state.id)?;
    timing.reached(Stage::Mount);
    let mut is_sealed = false;
    let outcome = start(args, &store, &record, &mut state, (&mut place, &mut is_sealed), timing)
        .and_then(|running| running.attend(args));
    timing.reached(Stage::Run);
    let removed = match &outcome {
        Ok(exit) if !args.rm => {
            state.exit_code = Some(exit.status());
            let written = state.write(place.directory());
            place.leave();
            written
        }
        Ok(_) if is_sealed => place.give_back(),
        _ => place.remove(),
    };
    timing.reached(Stage::Teardown);
    let exit = outcome?;
    if let Err(error) = removed {
        // The container's own status is the one to give.
        output::complain(&error);
    }
    Ok(exit)
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

/// A container that runs.
struct Running {
    container: Container,
    foreground: Foreground,
}

/// The record of a container to be.
fn new_state(args: &RunArgs, record: &ImageRecord) -> Result<State> {
    Ok(State {
        id: container::new_id()?,
        name: args.name.clone(),
        image: args.image().to_owned(),
        manifest: record.manifest.to_string(),
        labels: BTreeMap::new(),
        args: Vec::new(),
        stop_signal: 0,
        created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        cgroup: None,
        pid: None,
        exit_code: None,
    })
}

/// Starts the container in its place; says whether it is sealed.
fn start(
    args: &RunArgs,
    store: &Store,
    record: &ImageRecord,
    state: &mut State,
    (place, sealed): (&mut Place<'_>, &mut bool),
    timing: &mut Timing,
) -> Result<Running> {
    let host = Host::here(store.root(), place.directory());
    let built = spec::build(&record.config_json, &args.flags(state.id.clone()), place.overlay(), &host)?;
    built.prepare(place.overlay())?;
    timing.reached(Stage::Spec);
    let filter = spec::filter(&built)?;
    let stdio = stdio(args)?;
    if args.rm && is_sealed(&built.spec, &stdio, built.seccomp == SeccompChoice::Builtin) {
        *sealed = true;
        place.settle()?;
    }
    describe(state, &built);
    let hierarchy = Hierarchy::find()?;
    // Known before it is there: whoever clears up after a celda that was killed finds what still runs.
    state.cgroup = Some(hierarchy.parent().join(&state.id));
    state.write(place.directory())?;
    let (rootfs, network) = (place.mount()?, place.network()?);
    let resources =
        built.spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    // The last before the plan, which removes it when something fails.
    let cgroup = hierarchy.create(&state.id, &resources)?;
    let request = Request {
        id: state.id.clone(),
        spec: built.spec,
        rootfs,
        stdio,
        cgroup: Some(cgroup),
        network,
        seccomp: filter,
        init: args.init,
        dies_with_caller: true,
    };
    let plan = plan(request)?;
    timing.reached(Stage::Plan);
    let foreground = Foreground::new()?;
    let container = plan.start()?;
    timing.reached(Stage::Start);
    state.pid = u32::try_from(container.pid()).ok();
    if let Err(error) = state.write(place.directory()) {
        container.kill(Signal::KILL)?;
        container.wait()?;
        return Err(error);
    }
    Ok(Running { container, foreground })
}

fn describe(state: &mut State, built: &Built) {
    state.labels = built.spec.annotations().clone().unwrap_or_default().into_iter().collect();
    state.stop_signal = built.stop_signal;
    state.args = built.spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
}

impl Running {
    fn attend(self, args: &RunArgs) -> Result<Exit> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let input: Option<BorrowedFd<'_>> = args.interactive.then(|| stdin.as_fd());
        Ok(self.foreground.attend(self.container, input, stdout.as_fd())?)
    }
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
