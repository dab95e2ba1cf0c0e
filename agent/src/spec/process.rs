//! What runs, as whom and with which environment, by the rules of `docker run`.

use oci_spec::runtime::{Process, ProcessBuilder, UserBuilder};

use crate::sandbox::caps::{self, CapSet};
use crate::sandbox::users::Identity;

use super::config::ImageConfig;
use super::flags::{RunFlags, SecurityOpt};
use super::volume::clean;
use super::{Host, SpecError, env};

/// The search path of an image that names none (Docker's default for Linux).
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process of the spec.
pub(super) fn process(
    config: &ImageConfig,
    flags: &RunFlags,
    identity: &Identity,
    hostname: &str,
    host: &Host,
) -> Result<Process, SpecError> {
    let user = UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.additional_gids.clone())
        .build()
        .map_err(|error| internal("process.user", &error))?;
    let capabilities = capabilities(flags, host)?;
    let mut builder = ProcessBuilder::default()
        .terminal(flags.tty)
        .user(user)
        .args(arguments(config, flags)?)
        .env(environment(config, flags, identity, hostname, host)?)
        .cwd(working_directory(config, flags)?)
        .capabilities(caps::five_sets(capabilities, identity.uid))
        .no_new_privileges(no_new_privileges(flags));
    if !flags.ulimits.is_empty() {
        builder = builder.rlimits(flags.ulimits.iter().map(|limit| limit.to_oci()).collect::<Vec<_>>());
    }
    if let Some(score) = flags.oom_score_adj {
        builder = builder.oom_score_adj(score);
    }
    let mut process = builder.build().map_err(|error| internal("process", &error))?;
    if flags.ulimits.is_empty() {
        process.set_rlimits(None);
    }
    Ok(process)
}

/// The builders fail only for a missing field, and then this says which part of the spec it was.
pub(super) fn internal(field: &'static str, error: &dyn std::fmt::Display) -> SpecError {
    SpecError::Image { field, why: error.to_string() }
}

/// `--entrypoint` drops the image's command; a command of the user's replaces it.
fn arguments(config: &ImageConfig, flags: &RunFlags) -> Result<Vec<String>, SpecError> {
    let cmd = || config.cmd.clone().unwrap_or_default();
    let mut arguments = match flags.entrypoint.as_deref() {
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    match (flags.command.is_empty(), &flags.entrypoint) {
        (true, None) => arguments.extend(cmd()),
        (true, Some(_)) => {}
        (false, _) => arguments.extend(flags.command.iter().cloned()),
    }
    if arguments.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand);
    }
    Ok(arguments)
}

/// Defaults, then the image's, then `--env-file`, then `-e`: the last of a name wins, in the first's place. HOME is set
/// where nothing of these did.
fn environment(
    config: &ImageConfig,
    flags: &RunFlags,
    identity: &Identity,
    hostname: &str,
    host: &Host,
) -> Result<Vec<String>, SpecError> {
    let mut variables = env::Variables::default();
    variables.set(PATH);
    variables.set(&format!("HOSTNAME={hostname}"));
    if flags.tty {
        variables.set("TERM=xterm");
    }
    for variable in config.env.iter().flatten() {
        variables.set(variable);
    }
    for file in &flags.env_files {
        for variable in env::read_file(file)? {
            variables.set_or_inherit(&variable, &host.env);
        }
    }
    for variable in &flags.env {
        env::check(variable)?;
        variables.set_or_inherit(variable, &host.env);
    }
    variables.set_missing(&format!("HOME={}", identity.home));
    Ok(variables.into_list())
}

/// Absolute and clean; one that is missing is made by the sandbox. A relative one of the image's starts at the root.
fn working_directory(config: &ImageConfig, flags: &RunFlags) -> Result<String, SpecError> {
    let asked = flags.workdir.as_deref().filter(|asked| !asked.is_empty());
    if let Some(given) = asked.filter(|asked| !asked.starts_with('/')) {
        let why = "the working directory must be an absolute path inside the container".into();
        return Err(SpecError::Conflict { what: format!("-w {given:?}"), why });
    }
    Ok(clean(asked.or(config.working_dir.as_deref()).unwrap_or("/")))
}

fn capabilities(flags: &RunFlags, host: &Host) -> Result<CapSet, SpecError> {
    if flags.privileged {
        return Ok(host.caps);
    }
    let asked = caps::apply(CapSet::docker_default(), &flags.cap_add, &flags.cap_drop)?;
    // What celda itself lacks it cannot give: by name that is an error, by a default or ALL it is left out.
    let named = flags.cap_add.iter().filter(|name| !name.to_ascii_uppercase().ends_with("ALL"));
    for name in named {
        let number = caps::parse(name)?;
        if !host.caps.numbers().any(|held| held == number) {
            let what = format!("--cap-add {name}");
            let why =
                "celda itself does not have this capability and cannot give it; run celda with it".into();
            return Err(SpecError::Conflict { what, why });
        }
    }
    Ok(asked.and(host.caps))
}

fn no_new_privileges(flags: &RunFlags) -> bool {
    let last = flags.security.iter().rev().find_map(|option| match option {
        SecurityOpt::NoNewPrivileges(on) => Some(*on),
        _ => None,
    });
    last.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn entrypoint_and_command_combine_as_dockers() {
        let config = ImageConfig {
            entrypoint: Some(list(&["/entry", "-x"])),
            cmd: Some(list(&["serve"])),
            ..ImageConfig::default()
        };
        let run = |entrypoint: Option<&str>, command: &[&str]| {
            let entrypoint = entrypoint.map(str::to_owned);
            let flags = RunFlags { entrypoint, command: list(command), ..RunFlags::default() };
            arguments(&config, &flags)
        };
        assert_eq!(run(None, &[]).expect("whole"), ["/entry", "-x", "serve"]);
        assert_eq!(run(None, &["other"]).expect("whole"), ["/entry", "-x", "other"]);
        assert_eq!(run(Some("sh"), &[]).expect("whole"), ["sh"]);
        assert_eq!(run(Some("sh"), &["-c", "x"]).expect("whole"), ["sh", "-c", "x"]);
        assert_eq!(run(Some(""), &["x"]).expect("whole"), ["x"]);
        assert!(matches!(run(Some(""), &[]), Err(SpecError::NoCommand)));
        assert!(matches!(
            arguments(&ImageConfig::default(), &RunFlags::default()),
            Err(SpecError::NoCommand)
        ));
    }

    #[test]
    fn working_directories_are_dockers() {
        let directory = |of_image: &str, given: Option<&str>| {
            let config = ImageConfig { working_dir: Some(of_image.into()), ..ImageConfig::default() };
            let flags = RunFlags { workdir: given.map(str::to_owned), ..RunFlags::default() };
            working_directory(&config, &flags)
        };
        for (of_image, given, expected) in [
            ("app", None, "/app"),
            ("", None, "/"),
            ("/srv/../app/./x/", None, "/app/x"),
            ("/../..", None, "/"),
            ("/app", Some("/w/../v"), "/v"),
            ("/app", Some(""), "/app"),
        ] {
            assert_eq!(directory(of_image, given).expect("right"), expected, "{of_image} {given:?}");
        }
        for wrong in ["rel", "./rel", "../w"] {
            let error = directory("/app", Some(wrong)).expect_err(wrong).to_string();
            assert!(error.contains("absolute"), "{error}");
        }
    }
}
