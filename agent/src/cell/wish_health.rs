//! The health checks of a spec, as the room of health takes them; programs are launched by who has the container.

use std::time::Duration;

use celda_api::cell::v1;

use super::health::{Check, Checks, Startup};

/// How to look, before there is a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// A connection to the port.
    Tcp(u16),
    /// A request of the path on the port, and the statuses that are success.
    Http(u16, String, [u16; 2]),
    /// A program.
    Exec(Vec<String>),
}

/// What a spec says about health.
#[derive(Debug, Clone, Default)]
pub enum Wanted {
    /// Nothing: the image's word counts.
    #[default]
    OfImage,
    /// That nothing is checked.
    None,
    /// These checks.
    Checks(Checks<Look>),
}

impl Wanted {
    /// Whether a program is asked for.
    pub fn has_program(&self) -> bool {
        let Self::Checks(Checks { liveness, readiness, .. }) = self else { return false };
        [liveness, readiness].into_iter().flatten().any(|check| matches!(check.probe, Look::Exec(_)))
    }
}

/// Words of a program.
const WORDS_COUNT_MAX: usize = 1024;

/// Checks a message.
///
/// # Errors
/// What is wrong, naming the field.
pub fn read(message: Option<&v1::Health>) -> Result<Wanted, String> {
    let Some(message) = message else { return Ok(Wanted::OfImage) };
    if message.none {
        return Ok(Wanted::None);
    }
    let defaults = Startup::default();
    let startup = Startup {
        interval: or(message.startup_interval_ms, defaults.interval),
        timeout: or(message.startup_timeout_ms, defaults.timeout),
    };
    let checks = Checks {
        startup,
        liveness: message.liveness.as_ref().map(check).transpose()?,
        readiness: message.readiness.as_ref().map(check).transpose()?,
    };
    if checks.liveness.is_none() && checks.readiness.is_none() {
        return Err("health: neither liveness nor readiness; set one, or `none`".into());
    }
    checks.check().map_err(|error| format!("health: {error}"))?;
    Ok(Wanted::Checks(checks))
}

fn or(ms: u32, default: Duration) -> Duration {
    if ms == 0 { default } else { Duration::from_millis(ms.into()) }
}

fn check(message: &v1::Check) -> Result<Check<Look>, String> {
    let probe = message.probe.as_ref().ok_or("health: a check without its probe")?;
    let defaults = Check::of(look(probe)?);
    let count = |given: u32, default: u32| if given == 0 { default } else { given };
    Ok(Check {
        interval: or(message.interval_ms, defaults.interval),
        timeout: or(message.timeout_ms, defaults.timeout),
        failures_count: count(message.failures_count, defaults.failures_count),
        successes_count: count(message.successes_count, defaults.successes_count),
        probe: defaults.probe,
    })
}

fn look(probe: &v1::check::Probe) -> Result<Look, String> {
    let port = |port: u32| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("health: port {port}: it is 1 to 65535")),
    };
    match probe {
        v1::check::Probe::Tcp(tcp) => Ok(Look::Tcp(port(tcp.port)?)),
        v1::check::Probe::Http(http) => {
            let path = if http.path.is_empty() { "/" } else { &http.path };
            if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!("health: path {path:?}: printable ASCII without spaces, from / on"));
            }
            let status = |given: u32, default: u32| {
                let status = if given == 0 { default } else { given };
                u16::try_from(status).map_err(|_| format!("health: status {status} is none"))
            };
            let first = status(http.status_min, 200)?;
            let last = status(http.status_max, first.into())?;
            Ok(Look::Http(port(http.port)?, path.to_owned(), [first, last]))
        }
        v1::check::Probe::Exec(exec) => {
            let is_good = (1..=WORDS_COUNT_MAX).contains(&exec.command.len())
                && !exec.command.iter().any(|word| word.contains('\0'));
            if !is_good {
                return Err("health: a command has 1 to 1024 words without NUL bytes".into());
            }
            Ok(Look::Exec(exec.command.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(check: v1::Check) -> v1::Health {
        v1::Health { liveness: Some(check), ..v1::Health::default() }
    }

    fn tcp(port: u32) -> v1::Check {
        v1::Check { probe: Some(v1::check::Probe::Tcp(v1::TcpProbe { port })), ..v1::Check::default() }
    }

    #[test]
    fn what_is_left_out_is_diegos() {
        let Wanted::Checks(checks) = read(Some(&health(tcp(80)))).expect("checks") else { panic!("checks") };
        let check = checks.liveness.expect("liveness");
        assert_eq!((check.interval, check.timeout), (Duration::from_secs(30), Duration::from_secs(1)));
        assert_eq!((check.probe, checks.startup), (Look::Tcp(80), Startup::default()));
        assert!(matches!(read(None), Ok(Wanted::OfImage)));
        assert!(matches!(read(Some(&v1::Health { none: true, ..v1::Health::default() })), Ok(Wanted::None)));
    }

    #[test]
    fn absurd_checks_are_refused() {
        let http = |path: &str| v1::HttpProbe { port: 80, path: path.into(), ..v1::HttpProbe::default() };
        let probe = |probe| health(v1::Check { probe: Some(probe), ..v1::Check::default() });
        for (message, named) in [
            (v1::Health::default(), "neither"),
            (health(v1::Check::default()), "without its probe"),
            (health(tcp(0)), "port 0"),
            (health(tcp(70_000)), "port 70000"),
            (health(v1::Check { interval_ms: 1, ..tcp(80) }), "interval"),
            (health(v1::Check { failures_count: 5000, ..tcp(80) }), "failures_count"),
            (probe(v1::check::Probe::Http(http("a b"))), "path"),
            (probe(v1::check::Probe::Exec(v1::ExecProbe::default())), "command"),
        ] {
            let error = read(Some(&message)).expect_err(named);
            assert!(error.contains(named), "{error}");
        }
    }
}
