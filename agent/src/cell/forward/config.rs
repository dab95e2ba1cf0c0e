//! `[logs.forward]`: where to.

use std::path::PathBuf;

use serde::Deserialize;

/// The greatest number of a facility (RFC 5424, 6.2.1).
const FACILITY_MAX: u8 = 23;

/// `[logs.forward]`: nothing is forwarded by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// To a syslog server.
    pub syslog: Syslog,
    /// To an OpenTelemetry collector.
    pub otlp: Otlp,
}

/// `[logs.forward.syslog]`: RFC 5424 over TCP, framed by octet counting (RFC 6587).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Syslog {
    /// `HOST:PORT`. Default: none.
    pub address: Option<String>,
    /// The authority of the server's certificate, PEM: with it the connection is TLS.
    pub tls_ca: Option<PathBuf>,
    /// The agent's certificate, where the server wants one, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// What messages are about, 0 to 23: 1 is "user", 16 to 23 are "local0" to "local7".
    pub facility: u8,
}

impl Default for Syslog {
    fn default() -> Self {
        Self { address: None, tls_ca: None, tls_certificate: None, tls_key: None, facility: 1 }
    }
}

/// `[logs.forward.otlp]`: OTLP logs over gRPC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// `http://HOST:PORT`, or `https://HOST:PORT` with `tls_ca`. Default: none.
    pub endpoint: Option<String>,
    /// The authority of the collector's certificate, PEM.
    pub tls_ca: Option<PathBuf>,
    /// The agent's certificate, where the collector wants one, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
}

impl Forward {
    /// What is wrong with it.
    ///
    /// # Errors
    /// The field, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let Self { syslog, otlp } = self;
        if syslog.facility > FACILITY_MAX {
            return Err(format!(
                "logs.forward.syslog.facility = {}: it is 0 to {FACILITY_MAX}",
                syslog.facility
            ));
        }
        if let Some(address) = &syslog.address
            && !address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            return Err(format!("logs.forward.syslog.address = {address:?}: it is HOST:PORT"));
        }
        if let Some(endpoint) = &otlp.endpoint {
            let uri = endpoint.parse::<tonic::transport::Uri>().ok();
            let is_tls = match uri.as_ref().and_then(tonic::transport::Uri::scheme_str) {
                Some("http") => false,
                Some("https") => true,
                _ => {
                    return Err(format!(
                        "logs.forward.otlp.endpoint = {endpoint:?}: it is http://HOST:PORT or https://HOST:PORT"
                    ));
                }
            };
            if is_tls != otlp.tls_ca.is_some() {
                return Err("logs.forward.otlp.tls_ca: it is given with https://, and only then".into());
            }
        }
        for (table, ca, certificate, key) in [
            ("syslog", &syslog.tls_ca, &syslog.tls_certificate, &syslog.tls_key),
            ("otlp", &otlp.tls_ca, &otlp.tls_certificate, &otlp.tls_key),
        ] {
            if certificate.is_some() != key.is_some() || (certificate.is_some() && ca.is_none()) {
                return Err(format!(
                    "logs.forward.{table}: tls_certificate and tls_key go together, and with tls_ca"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (text, named) in [
            ("syslog.facility = 24", "facility"),
            ("syslog.address = \"host\"", "syslog.address"),
            ("syslog.address = \":514\"", "syslog.address"),
            ("otlp.endpoint = \"collector:4317\"", "otlp.endpoint"),
            ("otlp.endpoint = \"https://collector:4317\"", "tls_ca"),
            ("otlp = { endpoint = \"http://collector:4317\", tls_ca = \"/ca\" }", "tls_ca"),
            ("syslog = { address = \"h:1\", tls_ca = \"/ca\", tls_key = \"/key\" }", "go together"),
            ("syslog = { address = \"h:1\", tls_certificate = \"/c\", tls_key = \"/key\" }", "with tls_ca"),
        ] {
            let forward: Forward = toml::from_str(text).expect(text);
            let error = forward.check().expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        let right = "syslog = { address = \"[::1]:6514\", tls_ca = \"/ca\" }\notlp.endpoint = \"http://127.0.0.1:4317\"";
        assert_eq!(toml::from_str::<Forward>(right).expect("TOML").check(), Ok(()));
    }
}
