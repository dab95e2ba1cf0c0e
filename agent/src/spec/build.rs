//! The builder: one spec from the image's config, the flags and the machine.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use oci_spec::runtime::{LinuxBuilder, RootBuilder, Spec, SpecBuilder};

use crate::sandbox::users;

use super::config::ImageConfig;
use super::flags::{Network, RunFlags, SecurityOpt};
use super::prepare::{Built, SeccompChoice};
use super::process::internal;
use super::{Host, SpecError, files, mounts, process, resources, security, signal};

/// Digits of the id that are the default host name, as Docker's.
const HOSTNAME_DIGITS: usize = 12;
/// Bytes of a host name (HOST_NAME_MAX of limits.h).
const HOSTNAME_BYTES_MAX: usize = 64;
/// The annotation that keeps an image's HEALTHCHECK for whoever checks.
pub const HEALTHCHECK: &str = "org.celda.healthcheck";

/// Builds the spec. `config` is the image's config document, `rootfs` the mounted root: its /etc/passwd and
/// /etc/group are read.
///
/// # Errors
/// [`SpecError`] naming the flag or the field of the config.
pub fn build(
    config: &serde_json::Value,
    flags: &RunFlags,
    rootfs: BorrowedFd<'_>,
    host: &Host,
) -> Result<Built, SpecError> {
    let config = ImageConfig::read(config)?;
    let hostname = hostname(flags, host)?;
    let user = flags.user.as_deref().or(config.user.as_deref()).unwrap_or("");
    let identity = users::resolve(user, &flags.groups, rootfs)?;
    let (mounts, mut steps) = mounts::mounts(&config, flags, host)?;
    steps.extend(files::steps(flags, &hostname, host.network.as_ref())?);
    let process = process::process(&config, flags, &identity, &hostname, host)?;
    let mut builder = SpecBuilder::default()
        .version("1.2.0")
        .root(
            RootBuilder::default()
                .path("rootfs")
                .readonly(flags.read_only)
                .build()
                .map_err(|error| internal("root", &error))?,
        )
        .process(process)
        .mounts(mounts)
        .annotations(annotations(&config, flags)?)
        .linux(linux(flags, host)?);
    if flags.network != Network::Host || flags.hostname.is_some() {
        builder = builder.hostname(hostname);
    }
    let mut spec: Spec = builder.build().map_err(|error| internal("spec", &error))?;
    if let Some(linux) = spec.linux_mut() {
        // The builder starts from a default of its own, with a profile that is compiled elsewhere.
        linux.set_seccomp(None);
    }
    let stop_signal = signal::number(flags.stop_signal.as_deref().or(config.stop_signal.as_deref()))?;
    Ok(Built { spec, steps, stop_signal, seccomp: seccomp(flags) })
}

fn linux(flags: &RunFlags, host: &Host) -> Result<oci_spec::runtime::Linux, SpecError> {
    let (masked, read_only) = security::covered(flags);
    let (uids, gids) = security::id_mappings(&flags.userns)?;
    let sysctls = security::sysctls(flags)?;
    let devices = security::devices(flags)?;
    let mut resources = resources::resources(flags, host)?;
    if let Some(rules) = security::device_rules(flags) {
        resources.get_or_insert_default().set_devices(Some(rules));
    }
    let mut linux = LinuxBuilder::default()
        .namespaces(security::namespaces(flags)?)
        .masked_paths(masked)
        .readonly_paths(read_only)
        .rootfs_propagation("rprivate")
        .build()
        .map_err(|error| internal("linux", &error))?;
    linux.set_uid_mappings((!uids.is_empty()).then_some(uids));
    linux.set_gid_mappings((!gids.is_empty()).then_some(gids));
    linux.set_sysctl((!sysctls.is_empty()).then_some(sysctls));
    linux.set_devices((!devices.is_empty()).then_some(devices));
    linux.set_resources(resources);
    Ok(linux)
}

fn hostname(flags: &RunFlags, host: &Host) -> Result<String, SpecError> {
    let name = match (&flags.hostname, flags.network) {
        (Some(name), _) => name.clone(),
        (None, Network::Host) => host.hostname.clone(),
        (None, Network::None | Network::Cell) => flags.id.chars().take(HOSTNAME_DIGITS).collect(),
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.len() > HOSTNAME_BYTES_MAX || !name.bytes().all(legal) {
        let why = format!("a host name is at most {HOSTNAME_BYTES_MAX} letters, digits, dots and hyphens");
        return Err(SpecError::Conflict { what: format!("--hostname {name:?}"), why });
    }
    Ok(name)
}

/// The image's labels, then the user's, and the image's health check where no label has its name.
fn annotations(config: &ImageConfig, flags: &RunFlags) -> Result<HashMap<String, String>, SpecError> {
    let mut annotations: HashMap<String, String> =
        config.labels.iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    for label in &flags.labels {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            let why = "it has no name; write NAME=VALUE or NAME".into();
            return Err(SpecError::Conflict { what: format!("--label {label:?}"), why });
        }
        annotations.insert(name.to_owned(), value.to_owned());
    }
    if let Some(check) = &config.healthcheck {
        annotations.entry(HEALTHCHECK.to_owned()).or_insert_with(|| check.to_string());
    }
    Ok(annotations)
}

fn seccomp(flags: &RunFlags) -> SeccompChoice {
    let last = flags.security.iter().rev().find_map(|option| match option {
        SecurityOpt::SeccompUnconfined => Some(SeccompChoice::Unconfined),
        SecurityOpt::SeccompBuiltin => Some(SeccompChoice::Builtin),
        SecurityOpt::SeccompFile(path) => Some(SeccompChoice::File(path.clone())),
        _ => None,
    });
    match last {
        Some(choice) => choice,
        None if flags.privileged => SeccompChoice::Unconfined,
        None => SeccompChoice::Builtin,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_not_overwritten_by_the_health_check() {
        let check = json!({"Test": ["CMD", "true"]});
        let annotations = |labels: serde_json::Value, given: &[&str]| {
            let document = json!({"config": {"Healthcheck": check, "Labels": labels}});
            let config = ImageConfig::read(&document).expect("a config");
            let labels = given.iter().map(|label| (*label).to_owned()).collect();
            annotations(&config, &RunFlags { labels, ..RunFlags::default() }).expect("labels")
        };
        assert_eq!(annotations(json!({}), &[])[HEALTHCHECK], check.to_string());
        assert_eq!(annotations(json!({HEALTHCHECK: "of the image"}), &[])[HEALTHCHECK], "of the image");
        let given = format!("{HEALTHCHECK}=given");
        assert_eq!(annotations(json!({HEALTHCHECK: "of the image"}), &[&given])[HEALTHCHECK], "given");
    }

    #[test]
    fn a_label_has_a_name() {
        for label in ["", "=x"] {
            let flags = RunFlags { labels: vec![label.into()], ..RunFlags::default() };
            let error = annotations(&ImageConfig::default(), &flags).expect_err(label).to_string();
            assert!(error.contains("--label"), "{error}");
        }
    }
}
