//! What a user may type: every command and flag, with the words of `--help`.
//!
//! This file is the manual; what the flags mean is decided where they are used (`spec`, `sandbox`, `layerfs`).
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments on flags are the words of --help")]

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::cell_args::{
    AgentArgs, AttachArgs, CaArgs, DrainArgs, EventsArgs, ExecArgs, HolderArgs, LogsArgs, MetricsArgs,
    PsArgs, RmArgs, StatsArgs, StopArgs,
};
use super::run_args::RunArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const IMAGE_HELP: &str = "\
IMAGE is name[:tag][@digest] (docker.io is the default registry), or a local image:
  oci:DIR[:TAG]              an OCI image layout
  oci-archive:FILE[:TAG]     the same in a tar
  docker-archive:FILE[:TAG]  what `docker save` writes

Exit status: the container's own; 128+N when signal N ended it; 125 when celda itself failed,
126 when the command cannot be executed, 127 when it was not found.";

/// Attempts at one request; more is waiting by another name.
const RETRIES_COUNT_MAX: i64 = 100;
/// Seconds that a silent connection may be waited for: an hour.
const STALL_TIME_MAX_S: u64 = 3600;

/// A container cell: mounts images without unpacking them and starts containers in about a millisecond.
#[derive(Debug, Parser)]
#[command(name = "celda", version, styles = STYLES, after_help = IMAGE_HELP, max_term_width = 100)]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Directory of everything that lasts: layers, indexes, image records
    #[arg(long, global = true, value_name = "DIR", env = "CELDA_ROOT", default_value = "/var/lib/celda", value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    /// Directory of what does not outlive a boot
    #[arg(long, global = true, value_name = "DIR", env = "CELDA_RUN", default_value = "/run/celda", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// How layers are written and verified: by io_uring, by threads, or whichever was measured to win here
    #[arg(long, global = true, value_name = "PATH", default_value = "auto", hide_short_help = true)]
    pub io: Io,
    /// How images are mounted; `auto` takes the best that the kernel has (see `celda info`)
    #[arg(long, global = true, value_name = "RUNG", default_value = "auto", hide_short_help = true)]
    pub mount: Mount,
}

/// The I/O path of ingest and verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Io {
    /// Whichever was measured to win here.
    Auto,
    /// io_uring.
    Ring,
    /// Plain system calls on threads.
    Threads,
}

/// How images are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mount {
    /// The best rung the kernel has.
    Auto,
    /// An EROFS index mounted from its file.
    File,
    /// An EROFS index over loop devices.
    Loop,
    /// A directory, unpacked.
    Directory,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one container in the foreground
    Run(Box<RunArgs>),
    /// Fetch an image, verify it and make it mountable
    Pull(PullArgs),
    /// List the images that are here
    Images(ImagesArgs),
    /// Show all that is known of an image, as JSON
    Inspect(InspectArgs),
    /// Remove image names; what nothing names any more is freed by `celda gc`
    Rmi(RmiArgs),
    /// Free what no image and no running container needs
    Gc,
    /// Hash every layer and check every index; repair what can be repaired
    Verify(VerifyArgs),
    /// Build a small image from programs of this machine, with the libraries they need
    Pack(PackArgs),
    /// Say what this machine offers and what is missing, and why
    Info,
    /// Run a cell: a daemon that keeps containers running
    Agent(AgentArgs),
    /// List the cell's instances and tasks
    Ps(PsArgs),
    /// Stop instances: stop signal, grace, kill
    Stop(StopArgs),
    /// Forget instances that have ended
    Rm(RmArgs),
    /// Show what happens to the cell's instances
    Events(EventsArgs),
    /// Show what the cell's instances have written
    Logs(LogsArgs),
    /// Run a further program in a running instance
    Exec(ExecArgs),
    /// Join a running instance's terminal or standard files
    Attach(AttachArgs),
    /// Show what the cell's instances use
    Stats(StatsArgs),
    /// Have the cell take no more work and stop all there is
    Drain(DrainArgs),
    /// Show the cell's counters and times as Prometheus reads them
    Metrics(MetricsArgs),
    /// Make certificates to reach a cell from other machines with
    Ca(CaArgs),
    /// The process that a cell's containers are children of
    #[command(hide = true)]
    Holder(HolderArgs),
    /// Print a completion script, or write the man pages
    Completions(CompletionsArgs),
}

/// How an image is reached: flags that `run` and `pull` share.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// Platform to take from a multi-platform image, as os/arch[/variant]; this machine's by default
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Speak plain HTTP to the registry (loopback registries get it without asking)
    #[arg(long)]
    pub plain_http: bool,
    /// Docker config file with credentials [default: $DOCKER_CONFIG/config.json or ~/.docker/config.json]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authfile: Option<PathBuf>,
    /// Host to ask before REGISTRY (docker.io when left out); a URL may be given as well; repeatable, tried in order
    #[arg(long, value_name = "[REGISTRY=]HOST[:PORT]", env = "CELDA_MIRRORS", value_delimiter = ',')]
    pub mirror: Vec<String>,
    /// Attempts after the first that a request to a registry has, as long as they bring nothing new [default: 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(..=RETRIES_COUNT_MAX))]
    pub retry: Option<u32>,
    /// Seconds of silence after which a connection to a registry is given up [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=STALL_TIME_MAX_S))]
    pub stall_timeout: Option<u64>,
}

/// `celda pull`.
#[derive(Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct PullArgs {
    /// What to fetch
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// How to reach it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Print only the manifest digest
    #[arg(short, long)]
    pub quiet: bool,
}

/// `celda images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Print only the ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not shorten digests
    #[arg(long)]
    pub no_trunc: bool,
}

/// `celda inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Name, manifest digest or the first digits of one; or the name or id of a container or of a cell's instance
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// The cell.
    #[command(flatten)]
    pub cell: super::cell_args::CellArgs,
}

/// `celda rmi`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Name, manifest digest or the first digits of one
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Remove even names of images that running containers use
    #[arg(short, long)]
    pub force: bool,
}

/// `celda verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only report; repair nothing and fetch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How a broken layer is fetched again.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `celda pack`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  celda pack oci:/tmp/demo:1 /bin/sh /bin/ls /bin/cat
  celda pack oci:/tmp/web:1 ./server:/app/server --entrypoint /app/server --env PORT=8080")]
pub struct PackArgs {
    /// Where to: oci:DIR:TAG
    #[arg(value_name = "oci:DIR:TAG")]
    pub destination: String,
    /// Programs and files of this machine, as PATH or PATH:PATH-IN-THE-IMAGE; programs bring their libraries
    #[arg(required = true, value_name = "FILE[:PATH]")]
    pub files: Vec<String>,
    /// Entrypoint of the image; repeatable for its arguments
    #[arg(long, value_name = "ARG")]
    pub entrypoint: Vec<String>,
    /// Default command of the image; repeatable. Without it and --entrypoint: the first file
    #[arg(long, value_name = "ARG")]
    pub cmd: Vec<String>,
    /// Environment variable of the image, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory of the image
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Label of the image, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// How the layer is compressed
    #[arg(long, value_name = "KIND", default_value = "gzip")]
    pub compression: PackCompression,
}

/// How a packed layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PackCompression {
    /// Every registry and engine reads it.
    Gzip,
    /// Smaller and faster; engines of the last years read it.
    Zstd,
    /// Not at all.
    None,
}

/// `celda completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Shell to complete for
    #[arg(required_unless_present = "man")]
    pub shell: Option<clap_complete::Shell>,
    /// Write the man pages into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "shell", value_hint = ValueHint::DirPath)]
    pub man: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
