//! The health flags of `celda run -d`, with Docker's names where Docker has them, as a message of the API.
#![allow(rustdoc::broken_intra_doc_links, reason = "the comments on flags are the words of --help")]

use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::check::Probe;
use clap::Args;

use crate::{Error, Result};

/// Docker's defaults, <https://docs.docker.com/reference/dockerfile/#healthcheck>.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES_COUNT: u32 = 3;

/// How the health of an instance is looked at.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Health, with -d")]
pub struct HealthArgs {
    /// Script for /bin/sh in the container; another status than 0 is a failure
    #[arg(long, value_name = "SCRIPT", group = "liveness")]
    pub health_cmd: Option<String>,
    /// A GET of PATH on PORT of the container is answered with status 200
    #[arg(long, value_name = "PORT[/PATH]", group = "liveness")]
    pub health_http: Option<Http>,
    /// PORT of the container accepts a connection
    #[arg(long, value_name = "PORT", group = "liveness")]
    pub health_tcp: Option<u16>,
    /// As --health-cmd, for whether it may get requests; shown, and ends nothing
    #[arg(long, value_name = "SCRIPT", group = "readiness")]
    pub ready_cmd: Option<String>,
    /// As --health-http, for whether it may get requests
    #[arg(long, value_name = "PORT[/PATH]", group = "readiness")]
    pub ready_http: Option<Http>,
    /// As --health-tcp, for whether it may get requests
    #[arg(long, value_name = "PORT", group = "readiness")]
    pub ready_tcp: Option<u16>,
    /// Time between two looks, such as 500ms, 30s or 1m30s [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub health_interval: Option<Duration>,
    /// The longest that one look may take [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub health_timeout: Option<Duration>,
    /// Failures in a row that end the container [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub health_retries: Option<u32>,
    /// Time that the container has to come up before failures count [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub health_start_period: Option<Duration>,
    /// No health check, not even the image's
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// `PORT`, or `PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    port: u16,
    path: String,
}

impl std::str::FromStr for Http {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (port, path) = text.find('/').map_or((text, "/"), |at| text.split_at(at));
        let port = port.parse().map_err(|_| format!("{text:?}: write PORT or PORT/PATH"))?;
        Ok(Self { port, path: path.to_owned() })
    }
}

/// A time as Docker writes it: numbers with `h`, `m`, `s` or `ms`, one after the other.
fn time(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || format!("{text:?}: write a number with ms, s, m or h, as 500ms or 1m30s");
    let (mut rest, mut all) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let units: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
        let found = units.iter().find_map(|(name, ms)| Some((unit.strip_prefix(name)?, *ms)));
        let (left, ms) = found.ok_or_else(wrong)?;
        all = all.saturating_add(Duration::from_millis(number.saturating_mul(ms)));
        rest = left;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(all) }
}

fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

impl HealthArgs {
    /// The message; none where the image's own check counts.
    ///
    /// # Errors
    /// [`Error::Argument`] for flags that say nothing together.
    pub fn message(&self) -> Result<Option<v1::Health>> {
        let check = |script: Option<&String>, http: Option<&Http>, tcp: Option<u16>| {
            let shell = |script: &String| ["/bin/sh".to_owned(), "-c".to_owned(), script.clone()].to_vec();
            let probe = match (script, http, tcp) {
                (Some(script), _, _) => Probe::Exec(v1::ExecProbe { command: shell(script) }),
                (_, Some(Http { port, path }), _) => {
                    let (port, path) = (u32::from(*port), path.clone());
                    Probe::Http(v1::HttpProbe { port, path, ..v1::HttpProbe::default() })
                }
                (_, _, Some(port)) => Probe::Tcp(v1::TcpProbe { port: port.into() }),
                _ => return None,
            };
            Some(v1::Check {
                probe: Some(probe),
                interval_ms: ms(self.health_interval.unwrap_or(INTERVAL)),
                timeout_ms: ms(self.health_timeout.unwrap_or(TIMEOUT)),
                failures_count: self.health_retries.unwrap_or(RETRIES_COUNT),
                successes_count: 0,
            })
        };
        let liveness = check(self.health_cmd.as_ref(), self.health_http.as_ref(), self.health_tcp);
        let readiness = check(self.ready_cmd.as_ref(), self.ready_http.as_ref(), self.ready_tcp);
        let wrong = |what: &str, reason: &str| {
            Err(Error::Argument { what: what.to_owned(), reason: reason.to_owned() })
        };
        let has_check = liveness.is_some() || readiness.is_some();
        let times = [self.health_interval, self.health_timeout, self.health_start_period];
        let has_number = times.iter().any(Option::is_some) || self.health_retries.is_some();
        if self.no_healthcheck {
            if has_check || has_number {
                return wrong(
                    "--no-healthcheck",
                    "there are health flags beside it: leave out one of the two",
                );
            }
            return Ok(Some(v1::Health { none: true, ..v1::Health::default() }));
        }
        if !has_check {
            if has_number {
                let reason = "nothing says how to look: add --health-cmd, --health-http or --health-tcp";
                return wrong("--health-*", reason);
            }
            return Ok(None);
        }
        if self.health_retries == Some(0) {
            return wrong("--health-retries 0", "a failure or more ends the container: 1 to 1000");
        }
        // As for an image's HEALTHCHECK: it is up in time, or failed as often in a row as ends it.
        let start_period = self.health_start_period.unwrap_or_default();
        let interval = self.health_interval.unwrap_or(INTERVAL);
        let retries = self.health_retries.unwrap_or(RETRIES_COUNT);
        let startup_interval = if start_period.is_zero() { interval } else { START_INTERVAL };
        Ok(Some(v1::Health {
            liveness,
            readiness,
            startup_interval_ms: ms(startup_interval),
            startup_timeout_ms: ms(start_period.saturating_add(interval.saturating_mul(retries))),
            none: false,
        }))
    }

    /// Whether something is to be looked at.
    pub fn has_check(&self) -> bool {
        !matches!(self.message(), Ok(None | Some(v1::Health { none: true, .. })))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        health: HealthArgs,
    }

    fn message(flags: &str) -> std::result::Result<Option<v1::Health>, String> {
        let line = Line::try_parse_from(std::iter::once("run").chain(flags.split_whitespace()));
        let line = line.map_err(|error| error.to_string())?;
        line.health.message().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_is_dockers() {
        assert_eq!(message(""), Ok(None));
        let health = message("--health-cmd true").expect("flags").expect("a message");
        let liveness = health.liveness.expect("a check");
        assert_eq!((liveness.interval_ms, liveness.timeout_ms, liveness.failures_count), (30_000, 30_000, 3));
        assert_eq!((health.startup_interval_ms, health.startup_timeout_ms), (30_000, 90_000));
        let Some(Probe::Exec(exec)) = liveness.probe else { panic!("{:?}", liveness.probe) };
        assert_eq!(exec.command, ["/bin/sh", "-c", "true"]);
        assert!(message("--no-healthcheck").expect("flags").expect("a message").none);
    }

    #[test]
    fn each_flag_is_in_the_message() {
        let flags = "--health-http 8080/live?a=b --ready-tcp 80 --health-interval 1m30s --health-timeout 500ms \
                     --health-retries 2 --health-start-period 1h";
        let health = message(flags).expect("flags").expect("a message");
        let liveness = health.liveness.expect("a check");
        let http = v1::HttpProbe { port: 8080, path: "/live?a=b".into(), ..v1::HttpProbe::default() };
        assert_eq!(liveness.probe, Some(Probe::Http(http)));
        assert_eq!((liveness.interval_ms, liveness.timeout_ms, liveness.failures_count), (90_000, 500, 2));
        assert_eq!(health.readiness.expect("one").probe, Some(Probe::Tcp(v1::TcpProbe { port: 80 })));
        assert_eq!((health.startup_interval_ms, health.startup_timeout_ms), (5000, 3_780_000));
        crate::cell::wish_health::read(message(flags).expect("flags").as_ref()).expect("what a cell takes");
    }

    #[test]
    fn flags_that_say_nothing_together_are_refused() {
        for (flags, named) in [
            ("--health-interval 5s", "--health-cmd"),
            ("--no-healthcheck --health-tcp 80", "--no-healthcheck"),
            ("--health-tcp 80 --health-http 80", "cannot be used with"),
            ("--health-tcp 80 --health-retries 0", "1 to 1000"),
            ("--health-tcp 80000", "80000"),
            ("--health-http /x", "PORT/PATH"),
            ("--health-tcp 80 --health-interval 5", "500ms"),
            ("--health-tcp 80 --health-interval 5d", "500ms"),
        ] {
            let error = message(flags).expect_err(flags);
            assert!(error.contains(named), "{flags}: {error}");
        }
    }
}
