//! An agent that is killed again and again while instances and tasks come and go: nothing is lost, doubled or leaked, and
//! every exit status is right.
//!
//! ```text
//! round: agent begins (and is sometimes killed before it is up) ── calls, one after another ── kill -9 at any moment
//!        next agent ── the calls whose answer was lost, again: each may be repeated ──> next round
//! ```
//! What each container does is in its spec, and that it did so once is in a file of its own outside of the cell.
//! `CELDA_TEST_KILLS` is how often, `CELDA_TEST_SEED` from which numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use celda_api::cell::v1;
use celda_api::cell::v1::cell_client::CellClient;
use celda_api::cell::v1::end::Cause;
use celda_api::cell::v1::outcome::Result as Outcome;
use tonic::transport::{Channel, Endpoint};

use crate::support::Cell;

/// Kills where nothing else is asked for: a few seconds.
const KILLS_COUNT: u64 = 8;
/// Calls of one round.
const CALLS_COUNT_MAX: u64 = 8;
/// The longest time to a kill.
const KILL_AFTER_MAX: Duration = Duration::from_millis(300);
/// How a stopped container that hears TERM ends, and a crashing one the first time.
const HEARD: i32 = 33;
const CRASHED: i32 = 41;

/// SplitMix64: the same seed is the same test, but for the moments that the machine decides.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn time(&mut self, at_most: Duration) -> Duration {
        at_most.mul_f64(self.below(1000) as f64 / 1000.0)
    }
}

/// What an id does, and what it is to be in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Ends by itself.
    Task(i32),
    /// Goes on, and ends with [`HEARD`] when it is asked to.
    Hears,
    /// Goes on until it is killed.
    Stubborn,
    /// Crashes once, and goes on when it is started again.
    Crashes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    Stopped,
    Removed,
}

#[derive(Clone, Debug)]
enum Action {
    Start(v1::StartRequest),
    Stop(String, Kind),
    Remove(String),
}

struct Churn {
    random: Random,
    files: PathBuf,
    image: String,
    ids: BTreeMap<String, (Kind, Fate)>,
    repeated_count: u64,
    has_limits: bool,
}

impl Churn {
    fn script(&mut self, kind: Kind) -> String {
        let go_on = "echo > /files/ready/$ID; while :; do busybox sleep 0.05; done";
        match kind {
            Kind::Task(code) => format!("busybox sleep 0.{:02}; exit {code}", self.random.below(30)),
            Kind::Hears => format!("trap 'exit {HEARD}' TERM; {go_on}"),
            Kind::Stubborn => go_on.to_owned(),
            Kind::Crashes => {
                format!(
                    "[ -e /files/crashed/$ID ] || {{ echo > /files/crashed/$ID; exit {CRASHED}; }}; {go_on}"
                )
            }
        }
    }

    fn spec(&mut self, id: &str, kind: Kind) -> v1::Spec {
        let script = format!("echo run >> /files/runs/$ID; {}", self.script(kind));
        let process = v1::Process {
            command: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            env: vec![format!("ID={id}")],
            ..v1::Process::default()
        };
        let volumes = vec![format!("{}:/files", self.files.display())];
        let restart = v1::Restart { policy: v1::restart::Policy::Always.into(), ..v1::Restart::default() };
        let is_task = matches!(kind, Kind::Task(_));
        // Some have a writable layer of their own size, which is more to leave behind.
        let disk_bytes = if self.has_limits && self.random.below(4) == 0 { 16 << 20 } else { 0 };
        v1::Spec {
            limits: Some(v1::Limits { disk_bytes, ..v1::Limits::default() }),
            image: self.image.clone(),
            process: Some(process),
            files: Some(v1::Files { volumes, ..v1::Files::default() }),
            task: is_task,
            restart: (!is_task).then_some(restart),
            ..v1::Spec::default()
        }
    }

    /// Those that can be asked to stop: they have said that they listen.
    fn ready(&self) -> Vec<(String, Kind)> {
        let is_ready = |id: &str| self.files.join("ready").join(id).exists();
        let wanted = self.ids.iter().filter(|(id, (_, fate))| *fate == Fate::Wanted && is_ready(id));
        wanted.map(|(id, (kind, _))| (id.clone(), *kind)).collect()
    }

    fn actions(&mut self, round: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for call in 0..=self.random.below(CALLS_COUNT_MAX) {
            let ready = self.ready();
            let which = self.random.below(ready.len().max(1) as u64) as usize;
            let action = match (self.random.below(10), ready.into_iter().nth(which)) {
                (0..=2, Some((id, kind))) => {
                    self.ids.insert(id.clone(), (kind, Fate::Stopped));
                    Action::Stop(id, kind)
                }
                (3, Some((id, kind))) => {
                    self.ids.insert(id.clone(), (kind, Fate::Removed));
                    Action::Remove(id)
                }
                _ => self.start(round, call),
            };
            actions.push(action);
        }
        actions
    }

    fn start(&mut self, round: u64, call: u64) -> Action {
        let mut groups = Vec::new();
        for number in 0..=self.random.below(4) {
            let id = format!("r{round}-{call}-{number}");
            let kind = match self.random.below(8) {
                0..=3 => Kind::Task(self.random.below(120) as i32),
                4..=5 => Kind::Hears,
                6 => Kind::Stubborn,
                _ => Kind::Crashes,
            };
            self.ids.insert(id.clone(), (kind, Fate::Wanted));
            let spec = Some(self.spec(&id, kind));
            groups.push(v1::StartGroup { spec, ids: vec![id], ..v1::StartGroup::default() });
        }
        Action::Start(v1::StartRequest { groups })
    }
}

/// One call; `false` when its answer was lost.
async fn call(client: &mut CellClient<Channel>, action: &Action) -> bool {
    let answer = match action {
        Action::Start(request) => client.start(request.clone()).await.map(|one| one.into_inner().outcomes),
        Action::Stop(id, kind) => {
            let grace_ms = if *kind == Kind::Hears { 60_000 } else { 0 };
            let request =
                v1::StopRequest { ids: vec![id.clone()], grace_ms: Some(grace_ms), reason: "churn".into() };
            client.stop(request).await.map(|one| one.into_inner().outcomes)
        }
        Action::Remove(id) => {
            let request = v1::RemoveRequest { ids: vec![id.clone()], force: true };
            client.remove(request).await.map(|one| one.into_inner().outcomes)
        }
    };
    let Ok(outcomes) = answer else { return false };
    for outcome in &outcomes {
        let is_allowed = match outcome.result() {
            Outcome::Done | Outcome::Already => true,
            // It was removed by the call whose answer was lost.
            Outcome::Unknown => matches!(action, Action::Remove(_)),
            _ => false,
        };
        assert!(is_allowed, "{action:?}: {outcome:?}");
    }
    true
}

/// Calls one after another until one is not answered; how many were.
fn drive(socket: String, actions: Vec<Action>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Ok(channel) = Endpoint::from_shared(socket).unwrap().connect().await else { return 0 };
            let mut client = CellClient::new(channel);
            for (number, action) in actions.iter().enumerate() {
                if !call(&mut client, action).await {
                    return number;
                }
            }
            actions.len()
        })
    })
}

#[test]
fn privileged_an_agent_killed_under_churn_loses_doubles_and_leaks_nothing() {
    let Some(mut cell) =
        Cell::up_within("churn", "ended_ttl_s = 604800\n[defaults]\ntask_result_ttl_s = 604800")
    else {
        return;
    };
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (kills_count, seed) = (number("CELDA_TEST_KILLS", KILLS_COUNT), number("CELDA_TEST_SEED", 1));
    for directory in ["runs", "ready", "crashed"] {
        fs::create_dir(cell.files().join(directory)).unwrap();
    }
    cell.run(&["--name", "first", "--task"], "true");
    cell.ended("first");
    cell.ok(&["rm", "first"]);
    let holder_files = files_of_holder(&cell);
    let mut churn = Churn {
        random: Random(seed),
        files: cell.files(),
        image: cell.image(),
        ids: BTreeMap::new(),
        repeated_count: 0,
        has_limits: crate::disk::has_limits(&cell, "layers with limits under churn", &[]),
    };
    let (mut round, mut kills) = (0, 0);
    while kills < kills_count {
        let actions = churn.actions(round);
        let socket = format!("unix://{}", cell.directory().join("run/agent.sock").display());
        let driver = drive(socket, actions.clone());
        let kill_at = Instant::now() + churn.random.time(KILL_AFTER_MAX);
        while Instant::now() < kill_at {
            std::thread::yield_now();
        }
        cell.kill();
        kills += 1;
        let answered_count = driver.join().unwrap();
        // One that comes back is killed as it takes over what there is.
        while kills < kills_count && churn.random.below(3) == 0 {
            let after = churn.random.time(KILL_AFTER_MAX);
            cell.begin_and_kill(after);
            kills += 1;
        }
        cell.begin();
        let mut client = cell.client();
        for action in &actions[answered_count..] {
            churn.repeated_count += 1;
            assert!(cell.runtime.block_on(call(&mut client, action)), "{action:?} is not answered");
        }
        round += 1;
    }
    check(&cell, &churn);
    let count = |is: &dyn Fn(&(Kind, Fate)) -> bool| churn.ids.values().filter(|one| is(one)).count();
    println!(
        "seed {seed}: {kills} kills in {round} rounds, {} ids of which {} tasks, {} crashed once, {} stopped, {} removed; \
         {} calls repeated: each id there once, each end right",
        churn.ids.len(),
        count(&|(kind, _)| matches!(kind, Kind::Task(_))),
        count(&|(kind, _)| *kind == Kind::Crashes),
        count(&|(_, fate)| *fate == Fate::Stopped),
        count(&|(_, fate)| *fate == Fate::Removed),
        churn.repeated_count,
    );
    let ids: Vec<String> = cell.list().0.into_iter().map(|one| one.id).collect();
    for ids in ids.chunks(500) {
        let request = v1::RemoveRequest { ids: ids.to_vec(), force: true };
        cell.runtime.block_on(cell.client().remove(request)).unwrap();
    }
    crate::common::wait_until(|| cell.list().0.is_empty(), "all are forgotten");
    crate::common::wait_until(
        || files_of_holder(&cell) <= holder_files,
        "the holder has let go of all files",
    );
    cell.leaves_nothing("an agent killed under churn");
}

/// Waits until every id is as it is to be, and asserts how it came to that.
fn check(cell: &Cell, churn: &Churn) {
    let wanted_count = churn.ids.values().filter(|(_, fate)| *fate != Fate::Removed).count();
    let is_settled = || {
        let instances = cell.list().0;
        instances.len() == wanted_count
            && instances.iter().all(|one| match churn.ids[&one.id] {
                (Kind::Task(_), _) | (_, Fate::Stopped) => one.status() == v1::Status::Exited,
                (Kind::Crashes, _) => one.status() == v1::Status::Running && one.crashes == 1,
                _ => one.status() == v1::Status::Running,
            })
    };
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        crate::common::wait_until(is_settled, "everything is as wanted");
    }));
    let instances = cell.list().0;
    assert!(settled.is_ok(), "{:?}: {instances:?}", churn.ids);
    for one in &instances {
        let (kind, fate) = churn.ids[&one.id];
        let end = one.end.clone().map(|end| (end.cause(), end.code));
        let runs =
            fs::read_to_string(churn.files.join("runs").join(&one.id)).unwrap_or_default().lines().count();
        let (runs_wanted, end_wanted) = match (kind, fate) {
            (Kind::Task(code), _) => (1, Some((Cause::Exit, code))),
            (Kind::Hears, Fate::Stopped) => (1, Some((Cause::Exit, HEARD))),
            (Kind::Stubborn, Fate::Stopped) => (1, Some((Cause::Signal, 9))),
            (Kind::Crashes, Fate::Stopped) => (2, Some((Cause::Signal, 9))),
            (Kind::Crashes, _) => (2, Some((Cause::Exit, CRASHED))),
            _ => (1, None),
        };
        assert_eq!((runs, end), (runs_wanted, end_wanted), "{kind:?} {fate:?}: {one:?}");
        if one.status() == v1::Status::Running {
            let processes = fs::read_to_string(format!("{}/cgroup.procs", one.cgroup)).unwrap();
            assert!(
                processes.lines().any(|pid| pid == one.pid.to_string()),
                "{} is not in its cgroup",
                one.id
            );
        }
    }
    // No container runs that nobody knows of.
    let running = instances.iter().filter(|one| one.status() == v1::Status::Running);
    let mut cgroups: Vec<PathBuf> = running.map(|one| PathBuf::from(&one.cgroup)).collect();
    cgroups.sort();
    if let Some(parent) = cgroups.first().and_then(|one| one.parent()).map(Path::to_owned) {
        crate::common::wait_until(|| children(&parent) == cgroups, "only what is known has a cgroup");
    }
}

fn children(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).unwrap().flatten().map(|entry| entry.path());
    let mut children: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    children.sort();
    children
}

/// How many files the cell's holder has open: the process of this cell's that is no agent.
fn files_of_holder(cell: &Cell) -> usize {
    let ours = format!("CELDA_ROOT={}", cell.root().display());
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_holder = |process: &PathBuf| {
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(process.join(file)).unwrap_or_default()).into_owned()
        };
        read("environ").contains(&ours)
            && !read("cmdline").contains("agent\0")
            && read("stat").contains("celda")
    };
    let holders = processes.filter(is_holder);
    holders.map(|process| fs::read_dir(process.join("fd")).map_or(0, Iterator::count)).sum()
}
