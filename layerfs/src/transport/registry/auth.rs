//! From a 401 to an `Authorization` header.
//!
//! ```text
//! WWW-Authenticate: Basic ...                               -> Basic user:password
//! WWW-Authenticate: Bearer realm=URL,service=S,scope=...    -> GET URL?service=S&scope=repository:NAME:pull
//!                                                              (POST with the refresh token, if that is what we have)
//!                                                           -> {"token": T} -> Bearer T
//! ```
//!
//! CNCF distribution, "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 9110, 11.6.1.

use std::time::Duration;

use base64::Engine as _;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::RegistryToken;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::credentials::Credentials;
use super::error::Reason;
use super::http;
use super::tls::Clients;

/// Bytes of a token endpoint's answer.
const TOKEN_BYTES_MAX: u64 = 256 << 10;
/// `WWW-Authenticate` headers that are looked at.
const CHALLENGES_COUNT_MAX: usize = 8;
/// Who asks, in the OAuth2 form.
const CLIENT_ID: &str = "celda";

/// What the registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// The best challenge of an answer; an error where none is understood.
pub(super) fn challenge(headers: &HeaderMap) -> Result<Challenge, Reason> {
    let mut basic = None;
    let mut seen = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE).iter().take(CHALLENGES_COUNT_MAX) {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // A header that is rubbish from some point on still counts up to there.
        for found in http_auth::parser::ChallengeParser::new(&text).map_while(Result::ok) {
            let parameter = |name: &str| {
                let found = found.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if found.scheme.eq_ignore_ascii_case("Bearer")
                && let Some(realm) = parameter("realm")
            {
                return Ok(Challenge::Bearer { realm, service: parameter("service") });
            }
            if found.scheme.eq_ignore_ascii_case("Basic") {
                basic = Some(Challenge::Basic);
            }
        }
        seen.push(text.chars().take(100).collect::<String>());
    }
    basic.ok_or_else(|| {
        Reason::Challenge(if seen.is_empty() {
            "401 without WWW-Authenticate".into()
        } else {
            seen.join("; ")
        })
    })
}

/// The header for a Basic challenge.
pub(super) fn basic(credentials: &Credentials) -> Result<HeaderValue, Reason> {
    let Credentials::Plain(RegistryAuth::Basic(user, password)) = credentials else {
        return Err(Reason::Unauthorized { detail: String::new(), advice: super::endpoint::ADVICE_LOG_IN });
    };
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    header(&format!("Basic {text}"))
}

/// Fetches a token that may pull `repository`.
pub(super) async fn bearer(
    clients: &Clients,
    registry: &Url,
    (realm, service): (&str, Option<&str>),
    repository: &str,
    credentials: &Credentials,
    stall: Duration,
) -> Result<HeaderValue, Reason> {
    let rubbish = |why: &str| {
        Reason::Challenge(format!("realm {:?} {why}", realm.chars().take(200).collect::<String>()))
    };
    let mut url = Url::parse(realm).map_err(|_| rubbish("is not a URL"))?;
    match (url.scheme(), registry.scheme()) {
        ("https", _) | ("http", "http") => {}
        _ => return Err(rubbish("is not https, so no credentials are sent there")),
    }
    let scope = format!("repository:{repository}:pull");
    let pairs: Vec<(&str, &str)> =
        service.map(|service| ("service", service)).into_iter().chain([("scope", &*scope)]).collect();
    let client = clients.of(&url)?;
    let request = match credentials {
        Credentials::Identity(token) => {
            let mut form = reqwest::Url::parse("form:").map_err(|_| rubbish("fails"))?;
            form.query_pairs_mut().extend_pairs(&pairs).extend_pairs([
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", token),
            ]);
            let body = form.query().unwrap_or_default().to_owned();
            client.post(url.clone()).header("content-type", "application/x-www-form-urlencoded").body(body)
        }
        Credentials::Plain(auth) => {
            url.query_pairs_mut().extend_pairs(&pairs);
            let request = client.get(url.clone());
            match auth {
                RegistryAuth::Basic(user, password) => request.basic_auth(user, Some(password)),
                RegistryAuth::Bearer(token) => request.bearer_auth(token),
                RegistryAuth::Anonymous => request,
            }
        }
    };
    let response = http::within(stall, request.send()).await?;
    let host = url.host_str().unwrap_or_default().to_owned();
    if !response.status().is_success() {
        let reason = super::endpoint::status_reason(response, stall, credentials.is_anonymous()).await;
        return Err(match reason {
            Reason::Status(status, _) => Reason::Token(host, format!("status {status}")),
            reason => reason,
        });
    }
    let bytes =
        http::read_bounded(response, TOKEN_BYTES_MAX, stall).await.map_err(|reason| match reason {
            Reason::TooLong(bytes) => Reason::Token(host.clone(), format!("more than {bytes} bytes")),
            reason => reason,
        })?;
    let token: RegistryToken = serde_json::from_slice(&bytes)
        .map_err(|_| Reason::Token(host.clone(), "no JSON object with a token".into()))?;
    if token.token().is_empty() {
        return Err(Reason::Token(host, "an empty token".into()));
    }
    header(&token.bearer_token()).map_err(|_| Reason::Token(host, "a token with control characters".into()))
}

fn header(text: &str) -> Result<HeaderValue, Reason> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Reason::Credentials("they hold characters that no HTTP header can carry".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Challenge, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        challenge(&headers)
    }

    #[test]
    fn bearer_is_preferred_and_rubbish_is_quoted() {
        let bearer = Challenge::Bearer { realm: "https://a/token".into(), service: Some("s".into()) };
        assert_eq!(
            of(&["Basic realm=\"x\"", "Bearer realm=\"https://a/token\",service=\"s\""]).unwrap(),
            bearer
        );
        assert_eq!(of(&["basic realm=x"]).unwrap(), Challenge::Basic);
        for rubbish in [
            "",
            ",,,",
            "Bearer",
            "Bearer service=\"x\"",
            "Negotiate abc",
            "\"\"\"",
            "Bearer realm=\"unclosed",
        ] {
            assert!(matches!(of(&[rubbish]), Err(Reason::Challenge(_))), "{rubbish}");
        }
        assert!(matches!(of(&[]), Err(Reason::Challenge(_))));
    }
}
