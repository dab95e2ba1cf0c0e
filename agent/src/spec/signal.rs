//! Stop signals: `SIGTERM`, `TERM`, `15`.

use std::str::FromStr as _;

use nix::sys::signal::Signal;

use super::SpecError;

/// The last real-time signal (signal(7)).
const SIGNAL_MAX: i32 = 64;

/// The number of a signal by name or number; SIGTERM when none is given.
pub(super) fn number(text: Option<&str>) -> Result<i32, SpecError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Signal::SIGTERM as i32) };
    if let Ok(number) = text.parse::<i32>() {
        if (1..=SIGNAL_MAX).contains(&number) {
            return Ok(number);
        }
    } else {
        let upper = text.to_ascii_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        if let Ok(signal) = Signal::from_str(&name) {
            return Ok(signal as i32);
        }
    }
    let why = format!("no such signal; write a name as SIGTERM or a number from 1 to {SIGNAL_MAX}");
    Err(SpecError::Conflict { what: format!("stop signal {text:?}"), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, expected) in [(None, 15), (Some("SIGQUIT"), 3), (Some("quit"), 3), (Some("37"), 37)] {
            assert_eq!(number(text).expect("known"), expected);
        }
        for text in ["0", "65", "SIGNOPE", "-9"] {
            assert!(number(Some(text)).is_err(), "{text}");
        }
    }
}
