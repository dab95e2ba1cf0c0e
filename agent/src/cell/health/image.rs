//! An image's `HEALTHCHECK`, as Docker writes it into the config (moby/docker-image-spec, "Healthcheck"), as checks.
//!
//! | Docker | here |
//! |---|---|
//! | `Test` CMD, CMD-SHELL, NONE | an exec check of liveness, or no check |
//! | `Interval` 30 s, `Timeout` 30 s, `Retries` 3 | of liveness |
//! | `StartPeriod` 0, `StartInterval` 5 s | startup: polled at that interval; its timeout is the period and `Retries` intervals |

use std::time::Duration;

use serde::Deserialize;

use super::error::{HealthError, Result};
use super::{Check, Checks, Startup};

#[derive(Deserialize)]
struct Config {
    config: Option<Inner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inner {
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
}

/// Durations in nanoseconds; 0 is the default.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

fn or(value_ns: u64, default_s: u64) -> Duration {
    if value_ns == 0 { Duration::from_secs(default_s) } else { Duration::from_nanos(value_ns) }
}

/// The checks of an image's config; the probe is the program and its arguments. Nothing where the image has none.
///
/// # Errors
/// [`HealthError::Invalid`] for a `Test` of another form, or a value out of its range.
pub fn of_image(config_json: &[u8]) -> Result<Option<Checks<Vec<String>>>> {
    let invalid = |why: String| HealthError::Invalid { what: "the image's HEALTHCHECK", why };
    let config: Config = serde_json::from_slice(config_json).map_err(|error| invalid(error.to_string()))?;
    let Some(Inner { healthcheck: Some(given), shell }) = config.config else { return Ok(None) };
    let probe = match given.test.split_first() {
        None => return Ok(None),
        Some((word, [])) if word == "NONE" => return Ok(None),
        Some((word, program @ [_, ..])) if word == "CMD" => program.to_vec(),
        Some((word, [script])) if word == "CMD-SHELL" => {
            let shell = shell.filter(|shell| !shell.is_empty());
            let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            words.push(script.clone());
            words
        }
        Some(_) => {
            return Err(invalid(
                "Test is none of NONE, CMD with a program, CMD-SHELL with a script".to_owned(),
            ));
        }
    };
    let interval = or(given.interval, 30);
    let retries = if given.retries == 0 { 3 } else { given.retries };
    let start_period = Duration::from_nanos(given.start_period);
    let startup_interval = if start_period.is_zero() { interval } else { or(given.start_interval, 5) };
    let checks = Checks {
        startup: Startup {
            interval: startup_interval,
            timeout: start_period.saturating_add(interval.saturating_mul(retries)),
        },
        liveness: Some(Check {
            interval,
            timeout: or(given.timeout, 30),
            failures_count: retries,
            ..Check::of(probe)
        }),
        readiness: None,
    };
    checks.check()?;
    Ok(Some(checks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(healthcheck: &str) -> Result<Option<Checks<Vec<String>>>> {
        of_image(format!(r#"{{"config": {{"Healthcheck": {healthcheck}}}}}"#).as_bytes())
    }

    #[test]
    fn dockers_defaults_and_forms() {
        let checks =
            of(r#"{"Test": ["CMD-SHELL", "curl -f localhost || exit 1"]}"#).expect("valid").expect("one");
        let liveness = checks.liveness.expect("one");
        assert_eq!(liveness.probe, ["/bin/sh", "-c", "curl -f localhost || exit 1"]);
        assert_eq!(
            (liveness.interval.as_secs(), liveness.timeout.as_secs(), liveness.failures_count),
            (30, 30, 3)
        );
        assert_eq!((checks.startup.interval.as_secs(), checks.startup.timeout.as_secs()), (30, 90));
        let all = r#"{"Test": ["CMD", "/check", "-x"], "Interval": 5000000000, "Timeout": 2000000000,
                      "StartPeriod": 10000000000, "StartInterval": 1000000000, "Retries": 2}"#;
        let checks = of(all).expect("valid").expect("one");
        assert_eq!(checks.liveness.expect("one").probe, ["/check", "-x"]);
        assert_eq!((checks.startup.interval.as_secs(), checks.startup.timeout.as_secs()), (1, 20));
    }

    #[test]
    fn none_is_none_and_rubbish_is_refused() {
        for none in [r#"{"Test": ["NONE"]}"#, r#"{"Test": []}"#, "{}", "null"] {
            assert!(of(none).expect("valid").is_none(), "{none}");
        }
        assert!(of_image(br#"{"config": null}"#).expect("valid").is_none());
        for wrong in [
            r#"{"Test": ["CMD"]}"#,
            r#"{"Test": ["curl"]}"#,
            r#"{"Test": ["CMD-SHELL", "a", "b"]}"#,
            r#"{"Test": ["CMD", "x"], "Interval": 1}"#,
            r#"{"Test": ["CMD", "x"], "Retries": 4000}"#,
            r#"{"Test": 3}"#,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
