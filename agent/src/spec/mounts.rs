//! The filesystems of a container: Docker's default set, then `--tmpfs`, the image's volumes and `-v`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_spec::runtime::{Mount, MountBuilder};

use super::config::ImageConfig;
use super::flags::RunFlags;
use super::prepare::{Owner, Step};
use super::process::internal;
use super::volume::{Volume, VolumeSource, image_destination};
use super::{Host, SHM_BYTES, SpecError, security};

/// Mounts that flags and the image's volumes may add.
const MOUNTS_COUNT_MAX: usize = 1024;

/// The mounts in the order in which they are made, and what must be laid out for them.
pub(super) fn mounts(
    config: &ImageConfig,
    flags: &RunFlags,
    host: &Host,
) -> Result<(Vec<Mount>, Vec<Step>), SpecError> {
    let owner = security::root_owner(&flags.userns)?;
    let mut mounts = defaults(flags)?;
    let mut steps = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    once(flags)?;
    for tmpfs in &flags.tmpfs {
        mounts.push(mount(&tmpfs.destination, "tmpfs", "tmpfs", tmpfs.options.clone())?);
        taken.push(tmpfs.destination.clone());
    }
    for volume in &flags.volumes {
        let (source, step) = match &volume.source {
            VolumeSource::Host(path) => {
                (PathBuf::from(path), Step::HostDirectory { path: path.into(), mode: 0o755, owner })
            }
            VolumeSource::Named(name) => volume_step(host.volumes_dir.join(name), volume, owner),
            VolumeSource::Anonymous => volume_step(anonymous(host, taken.len()), volume, owner),
        };
        let mut options = vec!["rbind".to_owned(), volume.propagation.to_owned()];
        // `ro` alone would leave what is mounted below the source writable (Docker's is recursive since its version 25).
        options.push(if volume.read_only { "rro" } else { "rw" }.to_owned());
        mounts.push(mount(&volume.destination, "bind", &source.to_string_lossy(), options)?);
        steps.push(step);
        taken.push(volume.destination.clone());
    }
    for destination in config.volumes.iter().flat_map(|volumes| volumes.keys()) {
        let destination = image_destination(destination)
            .map_err(|why| SpecError::Image { field: "Volumes", why: format!("{destination:?}: {why}") })?;
        if taken.contains(&destination) {
            continue;
        }
        let path = anonymous(host, taken.len());
        let image_path = destination.clone();
        steps.push(Step::Volume { path: path.clone(), image_path, copy_up: true, owner });
        let options = ["rbind", "rprivate", "rw"].map(str::to_owned).to_vec();
        mounts.push(mount(&destination, "bind", &path.to_string_lossy(), options)?);
        taken.push(destination);
    }
    if taken.len() > MOUNTS_COUNT_MAX {
        let why = format!("{} volumes and tmpfs, more than {MOUNTS_COUNT_MAX}", taken.len());
        return Err(SpecError::Conflict { what: "mounts".into(), why });
    }
    // A mount below another must come after it; the sort is stable, so equal depths keep their order.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok((mounts, steps))
}

/// Of two mounts in one place only the later would be seen.
fn once(flags: &RunFlags) -> Result<(), SpecError> {
    let volumes = flags.volumes.iter().map(|volume| &volume.destination);
    let mut seen = BTreeSet::new();
    match volumes.chain(flags.tmpfs.iter().map(|tmpfs| &tmpfs.destination)).find(|place| !seen.insert(*place))
    {
        None => Ok(()),
        Some(place) => Err(SpecError::Conflict {
            what: format!("-v or --tmpfs on {place}"),
            why: "duplicate mount point; mount one thing there".into(),
        }),
    }
}

fn volume_step(path: PathBuf, volume: &Volume, owner: Option<Owner>) -> (PathBuf, Step) {
    let (image_path, copy_up) = (volume.destination.clone(), volume.copy_up);
    (path.clone(), Step::Volume { path, image_path, copy_up, owner })
}

fn anonymous(host: &Host, number: usize) -> PathBuf {
    host.container_dir.join("volumes").join(number.to_string())
}

/// What `docker run` mounts in each container.
fn defaults(flags: &RunFlags) -> Result<Vec<Mount>, SpecError> {
    let shm = flags.shm_size.map_or(SHM_BYTES, |size| size.0);
    let sys = if flags.privileged { "rw" } else { "ro" };
    let table: [(&str, &str, &str, String); 7] = [
        ("/proc", "proc", "proc", "nosuid,noexec,nodev".into()),
        ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k".into()),
        ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5".into()),
        ("/sys", "sysfs", "sysfs", format!("nosuid,noexec,nodev,{sys}")),
        ("/sys/fs/cgroup", "cgroup", "cgroup", format!("nosuid,noexec,nodev,relatime,{sys}")),
        ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev".into()),
        ("/dev/shm", "tmpfs", "shm", format!("nosuid,noexec,nodev,mode=1777,size={shm}")),
    ];
    let hidden = |destination: &str| {
        flags.volumes.iter().any(|volume| volume.destination == destination)
            || flags.tmpfs.iter().any(|tmpfs| tmpfs.destination == destination)
    };
    table
        .into_iter()
        .filter(|(destination, ..)| !hidden(destination))
        .map(|(destination, kind, source, options)| {
            mount(destination, kind, source, options.split(',').map(str::to_owned).collect())
        })
        .collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> Result<Mount, SpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .map_err(|error| internal("mounts", &error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn built(volumes: &serde_json::Value, flags: &RunFlags) -> Result<(Vec<Mount>, Vec<Step>), SpecError> {
        let config = ImageConfig::read(&json!({"config": {"Volumes": volumes}})).expect("a config");
        mounts(&config, flags, &Host::here(Path::new("/root"), Path::new("/container")))
    }

    #[test]
    fn an_image_cannot_have_a_volume_where_the_kernel_shows_itself() {
        for place in ["/proc", "/proc/sys/kernel", "/x/../proc", "/sys", "/dev"] {
            let error = built(&json!({ place: {} }), &RunFlags::default()).expect_err(place).to_string();
            assert!(error.contains("Volumes") && error.contains(place), "{error}");
        }
        assert!(built(&json!({"/data": {}, "/sys/fs/cgroup": {}}), &RunFlags::default()).is_ok());
    }

    #[test]
    fn one_place_takes_one_mount() {
        let flags = |volumes: &[&str], tmpfs: &[&str]| RunFlags {
            volumes: volumes.iter().map(|text| text.parse().expect("a volume")).collect(),
            tmpfs: tmpfs.iter().map(|text| text.parse().expect("a tmpfs")).collect(),
            ..RunFlags::default()
        };
        for twice in
            [flags(&["a:/x", "b:/x/."], &[]), flags(&["a:/x"], &["/x"]), flags(&[], &["/x:ro", "/x:size=1m"])]
        {
            let error = built(&json!({}), &twice).expect_err("twice").to_string();
            assert!(error.contains("duplicate mount point") && error.contains("/x"), "{error}");
        }
        // The user's volume takes the place of the image's.
        let (mounts, _) = built(&json!({"/x": {}}), &flags(&["a:/x"], &["/x/y"])).expect("different places");
        assert_eq!(mounts.iter().filter(|mount| mount.destination() == Path::new("/x")).count(), 1);
    }
}
