//! The command line: one file per command, `args` and `run_args` are the manual.
//!
//! ```text
//! args -> main -> run | pull | images | ...  -> output (tables, JSON), progress (bars, lines)
//!                  `-> layerfs (store, pull, mount), spec (flags -> OCI spec), sandbox (start, wait)
//! ```

pub mod args;
mod attach;
pub mod cell_args;
pub mod run_args;

mod agent;
mod ca;
mod cell;
mod complete;
mod context;
mod detached;
mod dial;
mod drain;
mod events;
mod exec;
mod gc;
mod health_args;
mod images;
mod in_front;
mod info;
mod inspect;
mod logs;
mod output;
mod pack;
mod prepared;
mod progress;
mod ps;
mod pull;
mod rmi;
mod run;
mod signals;
mod stats;
mod stop;
mod timing;
mod verify;

use std::process::ExitCode;

use args::{Cli, Command};
use context::Context;

use crate::cell::tell::FILTER_ENV;

/// What a command of celda ends with when celda itself failed, as Docker's.
pub const EXIT_FAILED: u8 = 125;

/// Runs one command and gives its exit status.
pub fn main(cli: Cli) -> ExitCode {
    if !matches!(cli.command, Command::Agent(_)) {
        log_if_asked();
    }
    let context = match Context::new(cli.global) {
        Ok(context) => context,
        Err(error) => return fail(&error),
    };
    let outcome = match cli.command {
        Command::Run(args) => return run::main(&context, &args),
        Command::Pull(args) => pull::main(&context, &args),
        Command::Images(args) => images::main(&context, &args),
        Command::Inspect(args) => inspect::main(&context, &args),
        Command::Rmi(args) => rmi::main(&context, &args),
        Command::Gc => gc::main(&context),
        Command::Verify(args) => verify::main(&context, &args),
        Command::Pack(args) => pack::main(&context, &args),
        Command::Info => info::main(&context),
        Command::Agent(args) => agent::main(&context, &args),
        Command::Holder(args) => agent::holder(&args),
        Command::Ps(args) => ps::main(&context, &args),
        Command::Stop(args) => stop::main(&context, &args),
        Command::Rm(args) => stop::remove(&context, &args),
        Command::Events(args) => events::main(&context, &args),
        Command::Logs(args) => logs::main(&context, &args),
        Command::Exec(args) => return exec::main(&context, &args),
        Command::Attach(args) => return attach::main(&context, &args),
        Command::Stats(args) => stats::main(&context, &args),
        Command::Metrics(args) => stats::metrics(&context, &args),
        Command::Drain(args) => drain::main(&context, &args),
        Command::Ca(args) => ca::main(&args),
        Command::Completions(args) => complete::main(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Prints what the parser has to say instead of a command: the help or version that was asked for, or what is wrong with
/// the flags, with the status that Docker has for it.
pub fn not_a_command(answer: &clap::Error) -> ExitCode {
    // A closed standard output or error changes nothing about the exit status.
    let _ = answer.print();
    if answer.use_stderr() { ExitCode::from(EXIT_FAILED) } else { ExitCode::SUCCESS }
}

/// The status of a container or a program, or Docker's for celda's own failure, which is said.
fn ended(outcome: crate::Result<u8>) -> ExitCode {
    let status = outcome.unwrap_or_else(|error| {
        output::complain(&error);
        error.status()
    });
    ExitCode::from(status)
}

/// Says why celda failed.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    output::complain(&error);
    ExitCode::from(EXIT_FAILED)
}

/// `CELDA_LOG=debug` shows what the libraries do; without it not even the subscriber is made. An agent's is made when its
/// configuration is known.
fn log_if_asked() {
    if let Ok(filter) = std::env::var(FILTER_ENV) {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal);
        subscriber.with_writer(std::io::stderr).init();
    }
}
