//! The part of an image's config that says how to run it, read leniently: builders write nulls and omit fields.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SpecError;

/// Strings of one list: arguments, environment variables, labels, volumes.
const STRINGS_COUNT_MAX: usize = 65_536;
/// Bytes of one string: what execve(2) takes of one argument (MAX_ARG_STRLEN).
const STRING_BYTES_MAX: usize = 128 << 10;

/// OCI image-spec 1.1, config.md, the member `config`; Docker's `Healthcheck` besides.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    pub(super) user: Option<String>,
    pub(super) env: Option<Vec<String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) working_dir: Option<String>,
    pub(super) volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) stop_signal: Option<String>,
    pub(super) healthcheck: Option<serde_json::Value>,
}

impl ImageConfig {
    /// Reads the whole image config (the JSON document), of which only `config` matters here.
    ///
    /// # Errors
    /// [`SpecError::Image`] naming the field that has the wrong type, a NUL byte or too much in it.
    pub fn read(document: &serde_json::Value) -> Result<Self, SpecError> {
        let Some(config) = document.get("config").filter(|config| !config.is_null()) else {
            return Ok(Self::default());
        };
        let read = Self::deserialize(config)
            .map_err(|error| SpecError::Image { field: "config", why: error.to_string() })?;
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), SpecError> {
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let pairs =
            |map: &BTreeMap<String, String>| map.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect();
        let one = |text: &Option<String>| text.iter().cloned().collect();
        let fields: [(&'static str, Vec<String>); 8] = [
            ("User", one(&self.user)),
            ("Env", list(&self.env)),
            ("Entrypoint", list(&self.entrypoint)),
            ("Cmd", list(&self.cmd)),
            ("WorkingDir", one(&self.working_dir)),
            ("Volumes", self.volumes.iter().flat_map(BTreeMap::keys).cloned().collect()),
            ("Labels", self.labels.as_ref().map_or_else(Vec::new, pairs)),
            ("StopSignal", one(&self.stop_signal)),
        ];
        for (field, strings) in fields {
            let wrong = |why: String| Err(SpecError::Image { field, why });
            if strings.len() > STRINGS_COUNT_MAX {
                return wrong(format!("it has {} entries, more than {STRINGS_COUNT_MAX}", strings.len()));
            }
            if strings.iter().any(|text| text.len() > STRING_BYTES_MAX) {
                return wrong(format!("an entry is longer than {STRING_BYTES_MAX} bytes"));
            }
            if strings.iter().any(|text| text.contains('\0')) {
                return wrong("an entry has a NUL byte".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_and_missing_fields_are_nothing() {
        for document in
            [json!({}), json!({"config": null}), json!({"config": {"Env": null, "Volumes": null}})]
        {
            let config = ImageConfig::read(&document).expect("lenient");
            assert!(config.env.is_none() && config.volumes.is_none());
        }
    }

    #[test]
    fn hostile_configs_are_refused_by_field() {
        let refused = |config| match ImageConfig::read(&json!({ "config": config })) {
            Err(SpecError::Image { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(json!({"Env": "A=1"})), "config");
        assert_eq!(refused(json!({"Cmd": ["a\u{0}b"]})), "Cmd");
        assert_eq!(refused(json!({"Env": vec!["A=1"; STRINGS_COUNT_MAX + 1]})), "Env");
        assert_eq!(refused(json!({"WorkingDir": "x".repeat(STRING_BYTES_MAX + 1)})), "WorkingDir");
    }
}
