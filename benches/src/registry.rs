//! Debian's docker-registry on a loopback port of its own, filled by skopeo.

use crate::Result;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_WAIT: Duration = Duration::from_secs(10);

/// A running registry; dropping it ends it.
pub(crate) struct Registry {
    child: Child,
    address: SocketAddr,
}

impl Registry {
    /// Starts one that keeps its blobs under `directory`.
    ///
    /// # Errors
    /// When `docker-registry` is not installed or does not answer.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        // The port is free when it is taken from here; who takes it in between makes the start fail loudly.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = directory.join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
                directory.join("blobs").display()
            ),
        )?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(directory.join("log"))?);
        let child = command
            .spawn()
            .map_err(|error| format!("docker-registry: {error}: apt-get install docker-registry"))?;
        let registry = Self { child, address };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < START_WAIT {
            if self.answers().unwrap_or(false) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("docker-registry does not answer on {}", self.address).into())
    }

    fn answers(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(START_WAIT))?;
        write!(stream, "GET /v2/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    }

    /// Copies `source`, in skopeo's notation, to `name` and gives the reference to pull it by.
    ///
    /// # Errors
    /// When skopeo is missing or refuses.
    pub(crate) fn push(&self, source: &str, name: &str) -> Result<String> {
        let reference = format!("{}/{name}", self.address);
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                source,
                &format!("docker://{reference}"),
            ])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("skopeo: {error}: apt-get install skopeo"))?;
        if output.status.success() {
            return Ok(reference);
        }
        Err(format!("skopeo copy {source}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
