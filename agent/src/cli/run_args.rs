//! The flags of `celda run`, with Docker's names and habits.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments on flags are the words of --help")]

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum, ValueHint};

use super::args::SourceArgs;
use super::cell_args::CellArgs;
use super::health_args::HealthArgs;
use crate::cell::network::PortWish;
use crate::sandbox::idmap::Userns;
use crate::sandbox::rlimit::Ulimit;
use crate::spec::size::{Cpus, DeviceRate, MemorySwap, Size, StorageOpt};
use crate::spec::volume::{Tmpfs, Volume};
use crate::spec::{Network, RunFlags, SecurityOpt};

/// `celda run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "celda run [OPTIONS] IMAGE [COMMAND [ARGUMENT...]]",
    after_help = "\
Examples:
  celda run debian:12 echo hello
  celda run -it --rm -v $PWD:/src:ro -w /src debian:12 bash
  celda run --memory 256m --cpus 0.5 --pids-limit 64 --read-only --cap-drop ALL app:1
  celda run --timing oci:/tmp/demo:1 true
  celda run -d --name web --restart always app:1

Exit status: the container's own; 128+N when signal N ended it; 125 when celda itself failed,
126 when the command cannot be executed, 127 when it was not found."
)]
pub struct RunArgs {
    /// Image to run: name[:tag][@digest], oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]; what
    /// follows it, flags included, is the command to run instead of the image's own
    // One list, not two: the parser stops to look for celda's flags only within a list, and the image is to stop it.
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub image_and_command: Vec<String>,

    /// Remove the container's writable layer when it ends
    #[arg(long)]
    pub rm: bool,
    /// Keep standard input open and hand it to the container
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Name of the container; unique among the running ones
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Label of the container, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// When to fetch the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: Pull,
    /// How the image is reached.
    #[command(flatten)]
    pub source: SourceArgs,
    /// What holds with `-d`.
    #[command(flatten)]
    pub detached: DetachArgs,
    /// How health is looked at, with `-d`.
    #[command(flatten)]
    pub health: HealthArgs,
    /// Print to standard error how long each stage took, in microseconds
    #[arg(long)]
    pub timing: bool,

    /// Environment variable NAME=VALUE, or NAME to hand on this shell's; repeatable
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Process")]
    pub env: Vec<String>,
    /// File of environment variables, a NAME[=VALUE] a line; repeatable
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Process")]
    pub env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR", help_heading = "Process")]
    pub workdir: Option<String>,
    /// User, by name or number, with an optional group
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    pub user: Option<String>,
    /// Further group of the process; repeatable
    #[arg(long, value_name = "GROUP", help_heading = "Process")]
    pub group_add: Vec<String>,
    /// Program to run instead of the image's entrypoint; drops the image's command
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    pub entrypoint: Option<String>,
    /// Run a small init as process 1 that forwards signals and reaps
    #[arg(long, help_heading = "Process")]
    pub init: bool,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL", help_heading = "Process")]
    pub stop_signal: Option<String>,

    /// Mount a host directory, file or named volume; repeatable
    #[arg(short, long, value_name = "SOURCE:TARGET[:OPTIONS]", help_heading = "Files")]
    pub volume: Vec<Given<Volume>>,
    /// Mount a tmpfs; repeatable
    #[arg(long, value_name = "TARGET[:OPTIONS]", help_heading = "Files")]
    pub tmpfs: Vec<Given<Tmpfs>>,
    /// Make the root filesystem read-only
    #[arg(long, help_heading = "Files")]
    pub read_only: bool,
    /// Size of /dev/shm, such as 64m
    #[arg(long, value_name = "BYTES", help_heading = "Files")]
    pub shm_size: Option<Size>,

    /// Network: none has loopback only, host is this machine's, cell the cell's [default: none; with -p cell; with -d
    /// cell, if the cell has a network]
    #[arg(long, alias = "net", value_name = "none|host|cell", help_heading = "Network")]
    pub network: Option<Network>,
    /// Port of this machine that leads to a port of the container, on the cell's network; host port 0 is any; repeatable
    #[arg(short, long, value_name = "HOST:CONTAINER[/tcp|udp]", help_heading = "Network")]
    pub publish: Vec<PortWish>,
    /// Host name inside
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub hostname: Option<String>,
    /// Line of /etc/hosts, NAME:ADDRESS; repeatable
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub add_host: Vec<String>,

    /// Memory limit, such as 256m; a process beyond it is killed
    #[arg(short, long, value_name = "BYTES", help_heading = "Limits")]
    pub memory: Option<Size>,
    /// Memory and swap together, such as 512m; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, help_heading = "Limits")]
    pub memory_swap: Option<MemorySwap>,
    /// Memory that the container keeps when the machine runs short of it
    #[arg(long, value_name = "BYTES", help_heading = "Limits")]
    pub memory_reservation: Option<Size>,
    /// Number of cores, such as 0.5
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub cpus: Option<Cpus>,
    /// Relative weight of CPU time, 2 to 262144
    #[arg(long, value_name = "WEIGHT", help_heading = "Limits")]
    pub cpu_shares: Option<u64>,
    /// Cores the container may use, such as 0-3,6
    #[arg(long, value_name = "CORES", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes the container may use, such as 0,1
    #[arg(long, value_name = "NODES", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1 for no limit
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, help_heading = "Limits")]
    pub pids_limit: Option<i64>,
    /// Relative weight of disk access, 10 to 1000; 0 for none
    #[arg(long, value_name = "WEIGHT", help_heading = "Limits")]
    pub blkio_weight: Option<u16>,
    /// Bytes a second read from a device, such as /dev/vda:1m; repeatable
    #[arg(long, value_name = "DEVICE:BYTES", help_heading = "Limits")]
    pub device_read_bps: Vec<DeviceRate>,
    /// Bytes a second written to a device; repeatable
    #[arg(long, value_name = "DEVICE:BYTES", help_heading = "Limits")]
    pub device_write_bps: Vec<DeviceRate>,
    /// Operations a second that read a device, such as /dev/vda:100; repeatable
    #[arg(long, value_name = "DEVICE:COUNT", help_heading = "Limits")]
    pub device_read_iops: Vec<DeviceRate>,
    /// Operations a second that write a device; repeatable
    #[arg(long, value_name = "DEVICE:COUNT", help_heading = "Limits")]
    pub device_write_iops: Vec<DeviceRate>,
    /// What the container may write outside its volumes, size=BYTES, such as size=10G
    #[arg(long, value_name = "size=BYTES", help_heading = "Limits")]
    pub storage_opt: Option<StorageOpt>,
    /// Resource limit, such as nofile=1024:2048; repeatable
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    pub ulimit: Vec<Given<Ulimit>>,
    /// How ready the kernel is to kill this container when memory runs out, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true, help_heading = "Limits")]
    pub oom_score_adj: Option<i32>,

    /// Capability to add, or ALL; repeatable
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Security")]
    pub cap_add: Vec<String>,
    /// Capability to drop, or ALL; repeatable
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', help_heading = "Security")]
    pub cap_drop: Vec<String>,
    /// seccomp=FILE, seccomp=unconfined, no-new-privileges or systempaths=unconfined; repeatable. apparmor=unconfined and
    /// label=disable are taken as well, as celda sets no labels
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    pub security_opt: Vec<Given<SecurityOpt>>,
    /// User namespace: `host` for none, `auto`, or map:CONTAINER:HOST:COUNT[,...]
    #[arg(long, value_name = "MODE", default_value = "host", help_heading = "Security")]
    pub userns: Given<Userns>,
    /// Namespaced kernel parameter, NAME=VALUE; repeatable
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Security")]
    pub sysctl: Vec<String>,
    /// All capabilities, all devices, no seccomp filter and no masks: no protection from what runs inside
    #[arg(long, help_heading = "Security")]
    pub privileged: bool,
}

/// A value as it was given and as it is meant: another process may have to read it again.
#[derive(Debug, Clone)]
pub struct Given<T> {
    /// As it was typed.
    pub text: String,
    /// As it is meant.
    pub meant: T,
}

impl<T: FromStr> FromStr for Given<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        Ok(Self { text: text.to_owned(), meant: text.parse()? })
    }
}

fn meant<T: Clone>(given: &[Given<T>]) -> Vec<T> {
    given.iter().map(|one| one.meant.clone()).collect()
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartWhen {
    /// Never.
    No,
    /// Unless it exits with 0.
    OnFailure,
    /// Until somebody stops it.
    #[value(alias = "unless-stopped")]
    Always,
}

/// What holds with `-d` only.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Hand the container to the cell (`celda agent`), and print its id when it runs
    #[arg(short, long, help_heading = "Cell")]
    pub detach: bool,
    /// How many to start
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), requires = "detach", help_heading = "Cell")]
    pub count: u32,
    /// The app that they are instances of
    #[arg(long, value_name = "NAME", default_value = "", requires = "detach", help_heading = "Cell")]
    pub app: String,
    /// Run once and keep the result: a task, not an instance
    #[arg(long, requires = "detach", help_heading = "Cell")]
    pub task: bool,
    /// When to start it again after it ended
    #[arg(long, value_name = "WHEN", default_value = "no", requires = "detach", help_heading = "Cell")]
    pub restart: RestartWhen,
    /// Seconds from the stop signal to the kill
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600), requires = "detach", help_heading = "Cell")]
    pub stop_timeout: Option<u32>,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// When `run` fetches its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Ask the registry each time.
    Always,
    /// Only when it is not here.
    Missing,
    /// Never; fail when it is not here.
    Never,
}

impl RunArgs {
    /// The image to run.
    pub fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// Command and arguments instead of the image's own; empty when none were given.
    pub fn command(&self) -> &[String] {
        self.image_and_command.get(1..).unwrap_or_default()
    }

    /// What the container may write outside its volumes, if there is a limit.
    pub fn disk_bytes(&self) -> Option<u64> {
        self.storage_opt.map(|StorageOpt::Size(size)| size.0)
    }

    /// The flags as the spec's builder takes them, for the container `id`.
    pub fn flags(&self, id: String) -> RunFlags {
        RunFlags {
            id,
            name: self.name.clone(),
            command: self.command().to_vec(),
            entrypoint: self.entrypoint.clone(),
            env: self.env.clone(),
            env_files: self.env_file.clone(),
            user: self.user.clone(),
            groups: self.group_add.clone(),
            workdir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            labels: self.label.clone(),
            tty: self.tty,
            init: self.init,
            network: self.network.unwrap_or_default(),
            volumes: meant(&self.volume),
            tmpfs: meant(&self.tmpfs),
            shm_size: self.shm_size,
            read_only: self.read_only,
            privileged: self.privileged,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            security: meant(&self.security_opt),
            ulimits: meant(&self.ulimit),
            userns: self.userns.meant.clone(),
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
            device_read_bps: self.device_read_bps.clone(),
            device_write_bps: self.device_write_bps.clone(),
            device_read_iops: self.device_read_iops.clone(),
            device_write_iops: self.device_write_iops.clone(),
            oom_score_adj: self.oom_score_adj,
            sysctls: self.sysctl.clone(),
            add_hosts: self.add_host.clone(),
            stop_signal: self.stop_signal.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(line: &[&str]) -> Result<Box<RunArgs>, clap::Error> {
        match Cli::try_parse_from(["celda", "run"].iter().chain(line))?.command {
            Command::Run(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_after_the_image_are_the_commands() {
        for command in
            [&["--help"][..], &["-t"], &["-e", "A=1"], &["--json"], &["ls", "--version"], &["--", "-x"], &[]]
        {
            let line = [&["--rm", "-e", "B=2", "image:1"], command].concat();
            let args = parsed(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            assert_eq!(args.image(), "image:1");
            assert_eq!(args.command(), command);
            assert!(args.rm && !args.tty && args.env == ["B=2"], "{args:?}");
        }
    }

    #[test]
    fn an_unknown_flag_is_no_image() {
        for line in [&["--no-such-flag", "image"][..], &["-Z", "image"], &["--rm"]] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
    }
}
