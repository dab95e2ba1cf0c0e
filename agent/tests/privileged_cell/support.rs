//! A running agent, and a client that waits for what it is to say.

use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::cell_client::CellClient;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::common::{Celda, Leftovers};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

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
    pub(crate) notify: Option<std::path::PathBuf>,
    /// What it is to say.
    pub(crate) filter: &'static str,
    /// What the agent said until it was up.
    pub(crate) said: String,
    /// What it said since.
    pub(crate) heard: Arc<Mutex<String>>,
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
        let celda = Celda::with_image(test)?;
        let before = celda.leftovers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut cell = Self {
            celda,
            agent: None,
            before,
            limits: limits.to_owned(),
            flags: Vec::new(),
            notify: None,
            filter: "info",
            said: String::new(),
            heard: Arc::default(),
            runtime,
        };
        cell.begin();
        Some(cell)
    }

    /// Starts the agent and waits until it is up.
    pub(crate) fn begin(&mut self) {
        let config = self.files().join("agent.toml");
        let text = format!("[capacity]\ncontainers = 400\n[limits]\nworkers_count = 4\n{}\n", self.limits);
        std::fs::write(&config, text).unwrap();
        let args = [&["agent", "--config", config.to_str().unwrap()][..], &self.flags].concat();
        let mut command = self.command(&args);
        if let Some(socket) = &self.notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        let mut agent = command.env("CELDA_LOG", self.filter).stderr(Stdio::piped()).spawn().unwrap();
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
