//! The flags of `celda agent`, and of the commands that talk to a cell.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments on flags are the words of --help")]

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cell::tell::Format;

/// Seconds of grace that a flag may give: an hour.
const GRACE_MAX_S: i64 = 3600;

/// Which cell a command talks to.
#[derive(Debug, Clone, Default, Args)]
pub struct CellArgs {
    /// Socket of the cell [default: agent.sock in --run]
    #[arg(long = "cell", value_name = "SOCKET", env = "CELDA_CELL", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Cell of another machine, instead of a socket; needs certificates, as files or in CELDA_CERT_PATH=DIR as ca.pem,
    /// cert.pem and key.pem [default port: 7070]
    #[arg(long, value_name = "HOST[:PORT]", env = "CELDA_HOST", conflicts_with = "socket")]
    pub host: Option<String>,
    /// Authority of the cell's certificate, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub tlscacert: Option<PathBuf>,
    /// Certificate to show to the cell, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub tlscert: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub tlskey: Option<PathBuf>,
}

/// `celda ca`.
#[derive(Debug, Args)]
#[command(after_help = "\
For trials, and for a few machines of one owner: whoever has ca-key.pem can make itself a client, and a client can be root
on the cell's machine.
  celda ca --host cell-1.example /etc/celda/tls
  CELDA_CERT_PATH=/etc/celda/tls CELDA_HOST=cell-1.example celda ps")]
pub struct CaArgs {
    /// Where to: ca.pem, ca-key.pem, server-cert.pem, server-key.pem, cert.pem, key.pem
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Name or address that clients call the cell by, besides localhost; repeatable
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// Name of the client, which `clients` of [listen] may ask for
    #[arg(long, value_name = "NAME", default_value = "client")]
    pub client: String,
    /// Days that the certificates are valid
    #[arg(long, value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
}

/// `celda agent`.
#[derive(Debug, Args)]
#[command(after_help = "\
Containers outlive the agent: they go on when it ends or is killed, and the next one takes them over. `celda drain` ends
them. The configuration's fields, units, ranges and defaults are in docs/agent.toml.")]
pub struct AgentArgs {
    /// Configuration, TOML
    #[arg(long, value_name = "FILE", env = "CELDA_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// How the agent's own lines on standard error look [default: `format` of [log], which is text]
    #[arg(long, value_name = "FORMAT", env = "CELDA_LOG_FORMAT")]
    pub log_format: Option<Format>,
}

/// `celda holder`, which an agent starts.
#[derive(Debug, Args)]
pub struct HolderArgs {
    /// Where its socket is
    pub directory: PathBuf,
}

/// `celda ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Those that have ended as well
    #[arg(short, long)]
    pub all: bool,
    /// Print only the ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Of this app only
    #[arg(long, value_name = "NAME", default_value = "")]
    pub app: String,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Ids, or beginnings of at least four characters
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Seconds from the stop signal to the kill [default: the instance's]
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=GRACE_MAX_S))]
    pub time: Option<u32>,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Ids, or beginnings of at least four characters
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Kill those that run
    #[arg(short, long)]
    pub force: bool,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Begin after this token, which --json prints with each event [default: now]
    #[arg(long, value_name = "TOKEN", default_value = "")]
    pub since: String,
    /// Of this app only
    #[arg(long, value_name = "NAME", default_value = "")]
    pub app: String,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Ids, or beginnings of at least four characters; all of --app when left out
    #[arg(required_unless_present = "app", value_name = "ID")]
    pub ids: Vec<String>,
    /// All instances of this app
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub app: String,
    /// Go on with what is written from now on, over restarts, until they have ended for good
    #[arg(short, long)]
    pub follow: bool,
    /// Begin with so many lines of each before its end
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Begin with lines that are not older than so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with = "tail")]
    pub since: Option<u64>,
    /// Show when each line was written, in seconds since 1970
    #[arg(short, long)]
    pub timestamps: bool,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda exec`.
#[derive(Debug, Args)]
#[command(
    override_usage = "celda exec [OPTIONS] ID COMMAND [ARGUMENT...]",
    after_help = "Exit status: the command's own; 128+N when signal N ended it; 125 when celda failed, 126 when the \
command cannot be executed, 127 when it was not found."
)]
pub struct ExecArgs {
    /// Instance, and the command to run in it
    #[arg(value_name = "ID", required = true, trailing_var_arg = true)]
    pub id_and_command: Vec<String>,
    /// Hand standard input to the command
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Environment variable NAME=VALUE, over the instance's own; repeatable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Working directory [default: the instance's]
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub workdir: String,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
With a terminal, ctrl-p ctrl-q leaves it; the instance goes on.

Exit status: that of the instance's container, when it ends; 128+N when signal N ended it; 0 when it was left;
125 when celda failed.")]
pub struct AttachArgs {
    /// Instance, or the beginning of its id
    #[arg(value_name = "ID")]
    pub id: String,
    /// Hand no input to it, not even if it takes some
    #[arg(long)]
    pub no_stdin: bool,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Ids; all that run by default
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Print once, with no share of CPU, instead of every second
    #[arg(long)]
    pub no_stream: bool,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}

/// `celda drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Seconds from the stop signals to the kill [default: the instances']
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=GRACE_MAX_S))]
    pub time: Option<u32>,
    /// Take work again
    #[arg(long)]
    pub cancel: bool,
    /// The cell.
    #[command(flatten)]
    pub cell: CellArgs,
}
