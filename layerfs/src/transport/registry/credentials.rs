//! Whom to be at a registry: Docker's config file and its credential helpers.
//!
//! ```text
//! $DOCKER_CONFIG/config.json or ~/.docker/config.json
//!   { "credHelpers": {"host": "name"},          docker-credential-name get  < host
//!     "credsStore": "name",                     the same, for every host
//!     "auths": {"host": {"auth": base64("user:password"), "identitytoken": "..."}} }
//! ```
//!
//! Docker's command line reference, "Credential helpers", and docker-credential-helpers' README. A helper runs
//! with a bounded time and a bounded answer.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

/// Bytes of the config file, and of a helper's answer.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// How long a helper may take; some ask a cloud for a token.
const HELPER_TIME_MAX: Duration = Duration::from_secs(20);
/// How often a running helper is looked at.
const HELPER_LOOK_EVERY: Duration = Duration::from_millis(5);
/// What Docker's config calls its own registry.
const DOCKER_HUB_KEYS: [&str; 4] =
    ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"];

/// Who to be.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nobody, or a name and a password.
    Plain(RegistryAuth),
    /// An OAuth2 refresh token.
    Identity(String),
}

impl Credentials {
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Plain(RegistryAuth::Anonymous))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the config at `given`, or at the usual places, says for `host`. Blocking: may run a helper.
pub(super) fn find(given: Option<&Path>, host: &str) -> Result<Credentials, String> {
    let nobody = Credentials::Plain(RegistryAuth::Anonymous);
    let Some(path) = config_path(given) else { return Ok(nobody) };
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && given.is_none() => return Ok(nobody),
        Err(error) => return Err(format!("open {}: {error}", path.display())),
    };
    let mut text = Vec::new();
    file.take(CONFIG_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| format!("read {}: {error}", path.display()))?;
    let config: DockerConfig =
        serde_json::from_slice(&text).map_err(|error| format!("{} is not valid: {error}", path.display()))?;
    look_up(&config, host).map(|found| found.unwrap_or(nobody))
}

fn config_path(given: Option<&Path>) -> Option<PathBuf> {
    let directory = match given {
        Some(given) if given.is_file() => return Some(given.to_owned()),
        Some(given) => given.to_owned(),
        None => match std::env::var_os("DOCKER_CONFIG").filter(|directory| !directory.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
        },
    };
    Some(directory.join("config.json"))
}

fn look_up(config: &DockerConfig, host: &str) -> Result<Option<Credentials>, String> {
    let keys = keys_of(host);
    if let Some((key, helper)) = keys.iter().find_map(|key| config.cred_helpers.get_key_value(key.as_str())) {
        return ask_helper(helper, key);
    }
    if let Some(helper) = config.creds_store.as_deref().filter(|helper| !helper.is_empty())
        && let Some(found) = ask_helper(helper, &keys[0])?
    {
        return Ok(Some(found));
    }
    let entry = config
        .auths
        .iter()
        .find(|(key, _)| keys.iter().any(|wanted| wanted == *key || wanted == host_of(key)));
    entry.map_or(Ok(None), |(key, entry)| from_entry(key, entry))
}

fn keys_of(host: &str) -> Vec<String> {
    if DOCKER_HUB_KEYS.contains(&host) {
        DOCKER_HUB_KEYS.map(str::to_owned).to_vec()
    } else {
        vec![host.to_owned()]
    }
}

/// `https://host:port/v1/` is the entry of `host:port`.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or_default()
}

fn from_entry(key: &str, entry: &Entry) -> Result<Option<Credentials>, String> {
    if let Some(token) = entry.identitytoken.clone().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let Some(auth) = entry.auth.as_deref().filter(|auth| !auth.is_empty()) {
        let bad = || format!("the config's auth of {key} is not base64 of user:password");
        let text = base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| bad())?;
        let text = String::from_utf8(text).map_err(|_| bad())?;
        // Old Dockers padded with NULs.
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        let auth = RegistryAuth::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned());
        return Ok(Some(Credentials::Plain(auth)));
    }
    match (&entry.username, &entry.password) {
        (Some(user), Some(password)) => {
            Ok(Some(Credentials::Plain(RegistryAuth::Basic(user.clone(), password.clone()))))
        }
        _ => Ok(None),
    }
}

fn ask_helper(helper: &str, key: &str) -> Result<Option<Credentials>, String> {
    let is_name =
        !helper.is_empty() && helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !is_name {
        return Err(format!("{helper:?} is not the name of a credential helper"));
    }
    ask(&format!("docker-credential-{helper}"), key, HELPER_TIME_MAX)
}

/// Runs `program get` and gives it `key`.
fn ask(program: &str, key: &str, time: Duration) -> Result<Option<Credentials>, String> {
    let failed = |why: String| format!("{program} get ({key}): {why}");
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("{error}; install it, or remove it from Docker's config.json")))?;
    let answer = converse(&mut child, key, time);
    // Whatever happened, no helper is left behind; killing one that has ended is harmless.
    let _ = child.kill();
    let _ = child.wait();
    let (ok, text) = answer.map_err(failed)?;
    if !ok {
        let said = String::from_utf8_lossy(&text).trim().chars().take(200).collect::<String>();
        // The protocol's one message that is no failure (docker-credential-helpers, credentials/error.go).
        return if said.contains("credentials not found") { Ok(None) } else { Err(failed(said)) };
    }
    let answer: Answer =
        serde_json::from_slice(&text).map_err(|error| failed(format!("its answer: {error}")))?;
    Ok(Some(if answer.username == "<token>" {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Plain(RegistryAuth::Basic(answer.username, answer.secret))
    }))
}

/// Writes `key`, reads the answer on a thread of its own, and waits no longer than `time`.
fn converse(child: &mut Child, key: &str, time: Duration) -> Result<(bool, Vec<u8>), String> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its question will give no useful answer; that is what counts.
        let _ = stdin.write_all(key.as_bytes());
    }
    let stdout = child.stdout.take().ok_or("no output")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.take(CONFIG_BYTES_MAX).read_to_end(&mut text).map(|_| text)
    });
    let until = Instant::now() + time;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => {
                while !reader.is_finished() && Instant::now() < until {
                    std::thread::sleep(HELPER_LOOK_EVERY);
                }
                if !reader.is_finished() {
                    return Err("it left its output open".into());
                }
                let text = reader.join().map_err(|_| "its output")?.map_err(|error| error.to_string())?;
                return Ok((status.success(), text));
            }
            None if Instant::now() >= until => return Err(format!("no answer within {time:?}")),
            None => std::thread::sleep(HELPER_LOOK_EVERY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> DockerConfig {
        serde_json::from_str(text).unwrap()
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Plain(RegistryAuth::Basic(user.into(), password.into()))
    }

    #[test]
    fn entries_are_found_by_any_form_of_the_host() {
        let auth = base64::engine::general_purpose::STANDARD.encode("me:se:cret");
        let text = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
            "http://h:5000/v2/": {{"username": "a", "password": "b"}}, "t": {{"identitytoken": "x", "auth": ""}}}}}}"#
        );
        let config = config(&text);
        assert!(look_up(&config, "registry-1.docker.io").unwrap() == Some(basic("me", "se:cret")));
        assert!(look_up(&config, "h:5000").unwrap() == Some(basic("a", "b")));
        assert!(look_up(&config, "t").unwrap() == Some(Credentials::Identity("x".into())));
        assert!(look_up(&config, "other").unwrap().is_none());
    }

    #[test]
    fn helpers_answer_within_their_bounds() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let with = |script: &str, time| {
            let path = directory.path().join("helper");
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            loop {
                match ask(path.to_str().unwrap(), "host:5000", time) {
                    // Another test's fork may hold the script open for writing until it executes.
                    Err(why) if why.contains("Text file busy") => std::thread::yield_now(),
                    answer => return answer,
                }
            }
        };
        let answer =
            r#"read key; echo "{\"ServerURL\": \"$key\", \"Username\": \"me\", \"Secret\": \"$1 $key\"}""#;
        let patient = Duration::from_secs(60);
        assert!(with(answer, patient).unwrap() == Some(basic("me", "get host:5000")));
        let token = r#"echo '{"ServerURL": "h", "Username": "<token>", "Secret": "refresh"}'"#;
        assert!(with(token, patient).unwrap() == Some(Credentials::Identity("refresh".into())));
        let unknown = "echo credentials not found in native keychain; exit 1";
        assert!(with(unknown, patient).unwrap().is_none());
        assert!(with("echo out of order; exit 1", patient).is_err_and(|why| why.contains("out of order")));
        assert!(with("echo rubbish", patient).is_err_and(|why| why.contains("its answer")));
        assert!(
            with("exec tail -f /dev/null", Duration::from_millis(100))
                .is_err_and(|why| why.contains("no answer"))
        );
        assert!(with("exec cat /dev/zero", patient).is_err(), "an endless answer ends it");
    }

    #[test]
    fn rubbish_is_named() {
        assert!(look_up(&config(r#"{"auths": {"h": {"auth": "%%"}}}"#), "h").is_err());
        assert!(look_up(&config(r#"{"credHelpers": {"h": "../../bin/sh"}}"#), "h").is_err());
        let missing = look_up(&config(r#"{"credsStore": "celda-has-no-such-helper"}"#), "h");
        assert!(missing.is_err_and(|error| error.contains("install it")));
    }
}
