//! A running agent, and a client that waits for what it is to say.

use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use celda_api::cell::v1;
use celda_api::cell::v1::cell_client::CellClient;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::common::{Celda, Leftovers, copy_program};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// A script that goes on for ever and does nothing: what hundreds of instances do, an emulated guest has to do as well.
pub(crate) const FOR_EVER: &str = "exec busybox sleep 86400";

/// A store with an image, and an agent on it.
pub(crate) struct Cell {
    celda: Celda,
    agent: Option<Child>,
    before: Leftovers,
    /// Further lines of the configuration's `[limits]`, and other tables.
    limits: String,
    /// Further flags of the agent.
    pub(crate) flags: Vec<&'static str>,
    /// Where it tells systemd how it is.
    pub(crate) notify: Option<PathBuf>,
    /// What it is to say.
    pub(crate) filter: &'static str,
    /// What the agent said until it was up.
    pub(crate) said: String,
    /// What it said since.
    pub(crate) heard: Arc<Mutex<String>>,
    /// The network namespace that its agents run in, and where programs are looked for.
    host: Option<OwnedFd>,
    path: Option<&'static str>,
    /// Which celda its agents are.
    program: PathBuf,
    pub(crate) runtime: Runtime,
}

impl Deref for Cell {
    type Target = Celda;

    fn deref(&self) -> &Celda {
        &self.celda
    }
}

impl Cell {
    /// A cell that is up; `None` where the test is to be skipped.
    pub(crate) fn up(test: &str) -> Option<Self> {
        Self::up_within(test, "")
    }

    /// A cell with further limits.
    pub(crate) fn up_within(test: &str, limits: &str) -> Option<Self> {
        let mut cell = Self::down(Celda::with_image(test)?, limits);
        cell.begin();
        Some(cell)
    }

    /// A cell with further limits, whose store is on a disk of so many MiB.
    pub(crate) fn up_on_disk(test: &str, disk_mib: u64, limits: &str) -> Option<Self> {
        let mut cell = Self::down(Celda::with_image_on(test, disk_mib)?, limits);
        cell.begin();
        Some(cell)
    }

    /// A cell with a network of its own, in a namespace that stands for a host, which is answered too.
    pub(crate) fn up_on_a_host(test: &str, limits: &str) -> Option<(Self, OwnedFd)> {
        let mut cell = Self::down(Celda::with_image(test)?, limits);
        let host = crate::net::namespace();
        cell.host = Some(host.try_clone().unwrap());
        cell.begin();
        Some((cell, host))
    }

    /// As [`up_on_a_host`](Self::up_on_a_host), where no `nft` is to be found.
    pub(crate) fn up_without_nft(test: &str) -> Option<Self> {
        let mut cell = Self::down(Celda::with_image(test)?, "");
        cell.host = Some(crate::net::namespace());
        cell.path = Some("/nowhere");
        cell.begin();
        Some(cell)
    }

    /// A cell whose agents are a copy of celda, and where that is.
    pub(crate) fn up_from_a_copy(test: &str) -> Option<(Self, PathBuf)> {
        let mut cell = Self::down(Celda::with_image(test)?, "");
        let program = cell.files().join("celda");
        copy_program(&cell.program, &program);
        cell.program.clone_from(&program);
        cell.begin();
        Some((cell, program))
    }

    fn down(celda: Celda, limits: &str) -> Self {
        let before = celda.leftovers();
        // A thread of its own: an agent that ends waits for clients that do not hear of it.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        Self {
            celda,
            agent: None,
            before,
            limits: limits.to_owned(),
            flags: Vec::new(),
            notify: None,
            filter: "info",
            said: String::new(),
            heard: Arc::default(),
            host: None,
            path: None,
            program: env!("CARGO_BIN_EXE_celda").into(),
            runtime,
        }
    }

    /// Starts the agent and waits until it is up.
    pub(crate) fn begin(&mut self) {
        let mut agent = self.spawn(self.filter, Stdio::piped());
        let mut said = BufReader::new(agent.stderr.take().unwrap());
        let mut all = String::new();
        while !all.contains("the cell is up") {
            assert!(said.read_line(&mut all).unwrap() > 0, "the agent ended: {all}");
        }
        self.said = all;
        // Whatever else it says must not block it.
        let heard = Arc::clone(&self.heard);
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let mut heard = heard.lock().unwrap();
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        self.agent = Some(agent);
    }

    /// Starts the agent and kills it so much later, up or not.
    pub(crate) fn begin_and_kill(&mut self, after: Duration) {
        self.agent = Some(self.spawn("off", Stdio::null()));
        let kill_at = Instant::now() + after;
        while Instant::now() < kill_at {
            std::thread::yield_now();
        }
        self.kill();
    }

    /// The process id of the agent that is up.
    pub(crate) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Whether this machine keeps limits by these controllers; says so when not.
    pub(crate) fn keeps(&self, test: &str, wanted: &[&str]) -> bool {
        let described =
            self.runtime.block_on(self.client().describe(v1::DescribeRequest {})).unwrap().into_inner();
        let missing: Vec<_> =
            wanted.iter().filter(|one| !described.controllers.iter().any(|has| has == *one)).collect();
        let what = format!("{test} needs cgroup v2 with {missing:?}");
        assert!(
            missing.is_empty() || std::env::var("CELDA_REQUIRE_CONTROLLERS").as_deref() != Ok("1"),
            "{what}"
        );
        if !missing.is_empty() {
            println!("skipped: {what}");
        }
        missing.is_empty()
    }

    fn spawn(&self, filter: &str, said: Stdio) -> Child {
        let config = self.files().join("agent.toml");
        // Tests that are not about it leave the machine's network alone.
        let network = self.host.is_some();
        let text = format!(
            "[network]\nenabled = {network}\n[capacity]\ncontainers = 400\n\
             [limits]\nworkers_count = 4\nnetworks_ready_count = 8\n{}\n",
            self.limits
        );
        std::fs::write(&config, text).unwrap();
        let args = [&["agent", "--config", config.to_str().unwrap()][..], &self.flags].concat();
        let mut command: Command = self.command_of(&self.program, &args);
        command.env("CELDA_LOG", filter).stderr(said);
        command.envs(self.path.map(|path| ("PATH", path)));
        command.envs(self.notify.iter().map(|socket| ("NOTIFY_SOCKET", socket)));
        match &self.host {
            Some(host) => crate::net::inside(host, move || command.spawn().unwrap()),
            None => command.spawn().unwrap(),
        }
    }

    /// Starts the agent again, with other lines of the configuration.
    pub(crate) fn configure(&mut self, limits: String) {
        self.limits = limits;
        self.end();
        self.begin();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// What an agent that must not come up says.
    pub(crate) fn fails_to_begin(&self) -> String {
        self.fails(125, &["agent"])
    }

    /// SIGTERM; the agent must end well.
    pub(crate) fn end(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(agent.wait().unwrap().success());
    }

    /// Ends everything, and asserts that nothing is left.
    pub(crate) fn leaves_nothing(mut self, what: &str) {
        self.ok(&["drain", "-t", "0"]);
        self.end();
        self.ok(&["gc"]);
        self.before.assert_unchanged(self.directory(), what);
        let layers = std::fs::read_dir(self.root().join("cell/layers")).unwrap().count();
        assert_eq!(layers, 0, "{what} left writable layers");
    }

    pub(crate) fn channel(&self) -> Channel {
        let socket = format!("unix://{}", self.directory().join("run/agent.sock").display());
        self.runtime.block_on(Endpoint::from_shared(socket).unwrap().connect()).unwrap()
    }

    pub(crate) fn client(&self) -> CellClient<Channel> {
        CellClient::new(self.channel())
    }

    /// `run -d` of a shell script in busybox's shell, with flags.
    pub(crate) fn run(&self, flags: &[&str], script: &str) -> String {
        let image = self.image();
        let mut args = vec!["run", "-d"];
        args.extend(flags);
        args.extend([image.as_str(), "/bin/sh", "-c", script]);
        self.ok(&args)
    }

    /// A spec of a shell script in busybox's shell.
    pub(crate) fn spec(&self, script: &str) -> v1::Spec {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let process = Some(v1::Process { command, ..v1::Process::default() });
        let stop = Some(v1::Stop { grace_ms: Some(0), ..v1::Stop::default() });
        v1::Spec { image: self.image(), process, stop, ..v1::Spec::default() }
    }

    /// What the API answers to a start.
    pub(crate) fn start(&self, ids: &[&str], spec: v1::Spec) -> Result<Vec<v1::Outcome>, tonic::Status> {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let groups = vec![v1::StartGroup { spec: Some(spec), ids, ..v1::StartGroup::default() }];
        let mut client = self.client();
        let answer = self.runtime.block_on(client.start(v1::StartRequest { groups }))?;
        Ok(answer.into_inner().outcomes)
    }

    /// As [`Self::start`], of what must be taken.
    pub(crate) fn started(&self, ids: &[&str], spec: v1::Spec) {
        for outcome in self.start(ids, spec).unwrap() {
            assert_eq!(outcome.result(), v1::outcome::Result::Done, "{}", outcome.detail);
        }
    }

    pub(crate) fn list(&self) -> (Vec<v1::Instance>, String) {
        let mut client = self.client();
        let listed = self.runtime.block_on(client.list(v1::ListRequest::default())).unwrap().into_inner();
        (listed.instances, listed.token)
    }

    /// The instance once it is as wanted.
    pub(crate) fn wait(&self, id: &str, is_so: impl Fn(&v1::Instance) -> bool) -> v1::Instance {
        let (instances, token) = self.list();
        if let Some(found) = instances.into_iter().find(|one| one.id == id && is_so(one)) {
            return found;
        }
        let mut client = self.client();
        let wait = async {
            let request = v1::WatchRequest { token, ids: vec![id.to_owned()], ..v1::WatchRequest::default() };
            let mut stream = client.watch(request).await.unwrap().into_inner();
            while let Some(message) = stream.message().await.unwrap() {
                let found = message.events.into_iter().filter_map(|event| event.instance).find(&is_so);
                if let Some(found) = found {
                    return found;
                }
            }
            panic!("the stream ended");
        };
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, wait).await })
            .unwrap_or_else(|_| panic!("{id} is not as wanted: {:?}", self.list().0))
    }

    pub(crate) fn ended(&self, id: &str) -> v1::End {
        self.wait(id, |one| one.status() == v1::Status::Exited).end.expect("an end")
    }
}

impl Drop for Cell {
    /// A test that failed leaves nothing to others.
    fn drop(&mut self) {
        if self.agent.is_some() {
            let _ = self.output(&["drain", "-t", "0"]);
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}
