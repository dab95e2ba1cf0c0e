//! A containerd of our own inside a worker: private root, state and socket, no CRI.

use crate::Result;
use crate::peers::version;
use crate::worker::{WORK, Worker, argv};
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(20);

/// A running daemon.
pub(crate) struct Containerd {
    pid: u32,
    snapshotters: Vec<String>,
    /// Of the daemon.
    pub(crate) version: String,
}

impl Containerd {
    /// In the worker's private /run.
    pub(crate) const SOCKET: &'static str = "/run/containerd/containerd.sock";

    /// Starts the containerd of a worker's root, if it has one.
    ///
    /// # Errors
    /// When it is there and does not come up.
    pub(crate) fn start(place: usize, worker: &mut Worker) -> Result<Option<Self>> {
        let Some(version) = version(worker, &["containerd", "--version"]) else { return Ok(None) };
        let root = format!("{WORK}/containerd-{place}");
        let config = format!(
            "version = 2\nroot = \"{root}\"\nstate = \"/run/containerd\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n\
             [grpc]\naddress = \"{}\"\n\
             [plugins.\"io.containerd.service.v1.diff-service\"]\ndefault = [\"erofs\", \"walking\"]\n",
            Self::SOCKET
        );
        // Differs that a release does not know are refused, so older ones keep their default.
        let major: u32 = version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let config = if major >= 2 { config } else { config.lines().take(6).collect::<Vec<_>>().join("\n") };
        let write = format!("mkdir -p {root} && printf '%s\\n' '{config}' >{root}.toml");
        worker.once(&argv(&["sh", "-c", &write]))?;
        let pid = worker.daemon(&argv(&[
            "containerd",
            "--config",
            &format!("{root}.toml"),
            "--log-level",
            "error",
        ]))?;
        let mut daemon = Self { pid, snapshotters: Vec::new(), version };
        match daemon.wait(worker) {
            Ok(()) => Ok(Some(daemon)),
            Err(error) => {
                worker.stop(pid)?;
                Err(error)
            }
        }
    }

    fn wait(&mut self, worker: &mut Worker) -> Result<()> {
        let began = Instant::now();
        loop {
            match worker.once(&argv(&["ctr", "--address", Self::SOCKET, "plugins", "ls"])) {
                Ok(plugins) => {
                    self.snapshotters = ready_snapshotters(&plugins);
                    return Ok(());
                }
                Err(error) if began.elapsed() > START_WAIT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Whether it can use that one here.
    pub(crate) fn has_snapshotter(&self, name: &str) -> bool {
        self.snapshotters.iter().any(|snapshotter| snapshotter == name)
    }

    /// Ends it.
    pub(crate) fn stop(&self, worker: &mut Worker) -> Result<()> {
        worker.stop(self.pid)
    }
}

/// Names in `ctr plugins ls` whose kind is a snapshotter's and whose state is ok.
fn ready_snapshotters(plugins: &str) -> Vec<String> {
    plugins
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&"io.containerd.snapshotter.v1") && words.last() == Some(&"ok"))
        .filter_map(|words| words.get(1).map(|name| (*name).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::ready_snapshotters;

    #[test]
    fn only_snapshotters_that_work_count() {
        let text = "TYPE ID PLATFORMS STATUS\nio.containerd.snapshotter.v1 erofs linux/amd64 ok\n\
                    io.containerd.snapshotter.v1 zfs linux/amd64 skip\nio.containerd.content.v1 content - ok\n";
        assert_eq!(ready_snapshotters(text), ["erofs"]);
    }
}
