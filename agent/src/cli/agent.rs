//! `celda agent`, and the holder that it starts.

use std::process::ExitCode;

use super::cell_args::{AgentArgs, HolderArgs};
use super::context::Context;
use crate::Result;
use crate::cell::agent::{self, Home};
use crate::cell::config::Config;
use crate::cell::holder;

pub(super) fn main(context: &Context, args: &AgentArgs) -> Result<ExitCode> {
    let mut config = Config::read(args.config.as_deref())?;
    config.log.format = args.log_format.unwrap_or(config.log.format);
    config.log.begin()?;
    let (store, ladder) = context.store_and_ladder()?;
    let home = Home { root: context.global.root.clone(), run: context.global.run.clone() };
    agent::run(&home, config, store, ladder)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn holder(args: &HolderArgs) -> Result<ExitCode> {
    holder::serve(&args.directory)?;
    Ok(ExitCode::SUCCESS)
}
