//! Environment variables: a list in which the last value of a name wins, and Docker's env-file grammar.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::SpecError;

/// Bytes of an env file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `NAME=value` strings, each name once.
#[derive(Debug, Default)]
pub(super) struct Variables {
    list: Vec<String>,
}

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

impl Variables {
    /// Sets `NAME=value`, whatever it was; what has no `=` is no variable and is left out.
    pub(super) fn set(&mut self, variable: &str) {
        if !variable.contains('=') || variable.starts_with('=') {
            return;
        }
        let name = name_of(variable);
        match self.list.iter_mut().find(|known| name_of(known) == name) {
            Some(known) => variable.clone_into(known),
            None => self.list.push(variable.to_owned()),
        }
    }

    /// Sets `NAME=value`, or `NAME` as the host has it; a name that the host has not is taken out.
    pub(super) fn set_or_inherit(&mut self, variable: &str, host: &[(String, String)]) {
        if variable.contains('=') {
            return self.set(variable);
        }
        match host.iter().find(|(name, _)| name == variable) {
            Some((name, value)) => self.set(&format!("{name}={value}")),
            None => self.list.retain(|known| name_of(known) != variable),
        }
    }

    /// Sets `NAME=value` unless the name is set, and not empty: an empty HOME is none.
    pub(super) fn set_missing(&mut self, variable: &str) {
        let name = name_of(variable);
        let is_set = self.list.iter().any(|known| name_of(known) == name && known.len() > name.len() + 1);
        if !is_set {
            self.set(variable);
        }
    }

    pub(super) fn into_list(self) -> Vec<String> {
        self.list
    }
}

/// Refuses what cannot be a variable.
pub(super) fn check(variable: &str) -> Result<(), SpecError> {
    let why = match variable {
        "" => "it is empty; write NAME=VALUE or NAME",
        text if text.starts_with('=') => "it has no name before the `=`",
        text if text.contains('\0') => "it has a NUL byte",
        _ => return Ok(()),
    };
    Err(SpecError::Conflict { what: format!("-e {variable:?}"), why: why.into() })
}

/// The variables of an env file: a line each, `#` starts a comment line, nothing is quoted (Docker's grammar).
///
/// # Errors
/// [`SpecError::Io`], and [`SpecError::Conflict`] for a line that is none.
pub fn read_file(path: &Path) -> Result<Vec<String>, SpecError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(SpecError::io("open the env file", path))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(SpecError::io("read the env file", path))?;
    let wrong = |why: String| SpecError::Conflict { what: format!("--env-file {}", path.display()), why };
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(text).map_err(|_| wrong("it is not UTF-8".into()))?;
    let mut variables = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = name_of(line);
        if name.is_empty() || name.contains(char::is_whitespace) || line.contains('\0') {
            return Err(wrong(format!("line {}: {name:?} is no variable name", index + 1)));
        }
        variables.push(line.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_wins_in_the_first_ones_place() {
        let host = [("FROM_HOST".to_owned(), "h".to_owned())];
        let mut variables = Variables::default();
        variables.set("PATH=/bin");
        variables.set("A=1");
        variables.set("broken");
        variables.set("A=2");
        variables.set_or_inherit("FROM_HOST", &host);
        variables.set("GONE=1");
        variables.set_or_inherit("GONE", &host);
        variables.set("HOME=");
        variables.set_missing("HOME=/root");
        assert_eq!(variables.into_list(), ["PATH=/bin", "A=2", "FROM_HOST=h", "HOME=/root"]);
    }

    #[test]
    fn env_files_have_comments_and_no_quotes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env");
        std::fs::write(&path, "\u{feff}A=1\n# comment\n\n  B=\"x y\"\nC\n").expect("written");
        assert_eq!(read_file(&path).expect("read"), ["A=1", "B=\"x y\"", "C"]);
        std::fs::write(&path, "A B=1\n").expect("written");
        assert!(matches!(read_file(&path), Err(SpecError::Conflict { .. })));
        assert!(matches!(read_file(&directory.path().join("none")), Err(SpecError::Io { .. })));
    }
}
