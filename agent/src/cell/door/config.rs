//! `[listen]`: where, with which certificate, and for whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// `[listen]`. Nothing listens on TCP unless the first four are given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// What is bound: an IP address and a port. Default: none.
    pub address: Option<SocketAddr>,
    /// The cell's certificate with the ones between it and its authority, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The authority of clients' certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// Names of which a client's certificate must have one; none: every certificate of that authority will do.
    pub clients: Vec<String>,
    /// Connections at once, 1 to 65535; more are closed as they come.
    pub connections_max: u32,
    /// Handshakes at once, 1 to 4096; one more ends the oldest.
    pub handshakes_max: u32,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: None,
            certificate: None,
            key: None,
            client_ca: None,
            clients: Vec::new(),
            connections_max: 256,
            handshakes_max: 64,
        }
    }
}

/// The files of a door that is to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) address: SocketAddr,
    pub(super) certificate: &'a PathBuf,
    pub(super) key: &'a PathBuf,
    pub(super) client_ca: &'a PathBuf,
}

impl Listen {
    /// What is needed to listen; `None` when that is not wanted.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn files(&self) -> Result<Option<Files<'_>>, String> {
        let missing =
            |field: &str| format!("listen.{field} is missing: TCP is served with certificates only");
        match (self.address, &self.certificate, &self.key, &self.client_ca) {
            (None, None, None, None) => Ok(None),
            (Some(address), Some(certificate), Some(key), Some(client_ca)) => {
                Ok(Some(Files { address, certificate, key, client_ca }))
            }
            (None, ..) => Err(missing("address")),
            (_, None, ..) => Err(missing("certificate")),
            (_, _, None, _) => Err(missing("key")),
            _ => Err(missing("client_ca")),
        }
    }

    /// What is wrong with it.
    ///
    /// # Errors
    /// The field, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        self.files()?;
        for (field, value, max) in [
            ("connections_max", self.connections_max, u32::from(u16::MAX)),
            ("handshakes_max", self.handshakes_max, 4096),
        ] {
            if !(1..=max).contains(&value) {
                return Err(format!("listen.{field} = {value}: it is 1 to {max}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_with_all_files_or_not_at_all() {
        let parse = |text: &str| toml::from_str::<Listen>(text).expect("TOML");
        let all =
            ["address = \"127.0.0.1:7070\"", "certificate = \"/c\"", "key = \"/k\"", "client_ca = \"/a\""];
        assert!(parse(&all.join("\n")).files().is_ok_and(|files| files.is_some()));
        assert!(parse("").files().is_ok_and(|files| files.is_none()));
        for (at, left_out) in all.iter().enumerate() {
            let some: Vec<_> =
                all.iter().enumerate().filter(|(other, _)| *other != at).map(|one| *one.1).collect();
            let field = left_out.split(' ').next().unwrap_or_default();
            let error = parse(&some.join("\n")).check().expect_err(field);
            assert!(error.contains(&format!("listen.{field} ")), "{error}");
        }
        assert!(parse("handshakes_max = 0").check().is_err_and(|error| error.contains("1 to 4096")));
    }
}
