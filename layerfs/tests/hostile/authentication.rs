//! Tokens, passwords, and who gets to see them.

use base64::Engine as _;
use celda_layerfs::pull::PullOptions;

use crate::common::Place;
use crate::server::{Server, head, respond};
use crate::{hasty, image, says};

/// Options with a Docker config that has this entry for `host`.
fn with_credentials(place: &Place, host: &str, entry: &str) -> PullOptions {
    let config = place.directory.path().join("config.json");
    std::fs::write(&config, format!(r#"{{"auths": {{"{host}": {entry}}}}}"#)).unwrap();
    let mut options = hasty();
    options.network.docker_config = Some(config);
    options
}

fn bearer(host: &str) -> String {
    format!("Bearer realm=\"http://{host}/token\",service=\"the service\",scope=\"repository:app:pull\"")
}

/// A registry that wants a token, which `/token` gives.
fn token_server(answer: &'static str) -> Server {
    Server::start(image(), move |request, _, stream| {
        let host = request.header("host").unwrap_or_default().to_owned();
        if request.path.starts_with("/token") {
            respond(stream, 200, &[], answer.as_bytes());
            return true;
        }
        if request.header("authorization") == Some("Bearer good") {
            return false;
        }
        respond(stream, 401, &[("www-authenticate", &bearer(&host))], b"{}");
        true
    })
}

#[test]
fn a_token_is_fetched_once_and_used_throughout() {
    for answer in [r#"{"token": "good"}"#, r#"{"access_token": "good", "expires_in": 60}"#] {
        let (place, server) = (Place::new(), token_server(answer));
        let options = with_credentials(
            &place,
            &server.address.to_string(),
            r#"{"username": "me", "password": "secret"}"#,
        );
        place.pull(&server.name(), &options).unwrap();
        let log = server.log.lock().unwrap();
        let tokens: Vec<_> = log.iter().filter(|request| request.path.starts_with("/token")).collect();
        assert_eq!(tokens.len(), 1);
        says(&tokens[0].path, &["service=the+service", "scope=repository%3Aapp%3Apull"]);
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:secret"));
        assert_eq!(tokens[0].header("authorization"), Some(basic.as_str()));
        assert!(
            log.iter()
                .filter(|request| request.is_blob())
                .all(|request| request.header("authorization").is_some())
        );
    }
}

#[test]
fn an_identity_token_is_posted() {
    let (place, server) = (Place::new(), token_server(r#"{"access_token": "good"}"#));
    let options = with_credentials(&place, &server.address.to_string(), r#"{"identitytoken": "refresh me"}"#);
    place.pull(&server.name(), &options).unwrap();
    let log = server.log.lock().unwrap();
    let asked = log.iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert_eq!(asked.path, "/token", "a secret does not stand in a URL");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
}

#[test]
fn a_password_opens_and_a_wrong_one_does_not() {
    let good = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:secret"));
    let server = Server::start(image(), move |request, _, stream| {
        if request.header("authorization") == Some(&good) {
            return false;
        }
        respond(stream, 401, &[("www-authenticate", "Basic realm=\"here\"")], b"");
        true
    });
    let host = server.address.to_string();
    let place = Place::new();
    let wrong = with_credentials(&place, &host, r#"{"username": "me", "password": "guess"}"#);
    says(&place.refuses(&server.name(), &wrong), &["401", "were refused"]);
    let none = with_credentials(&place, "other.example", r#"{"username": "me", "password": "secret"}"#);
    says(&place.refuses(&server.name(), &none), &["401", "docker login"]);
    let encoded = base64::engine::general_purpose::STANDARD.encode("me:secret");
    let right =
        with_credentials(&place, &format!("https://{host}/v2/"), &format!(r#"{{"auth": "{encoded}"}}"#));
    place.pull(&server.name(), &right).unwrap();
}

#[test]
fn rubbish_challenges_are_quoted() {
    for rubbish in [
        "",
        "Bearer",
        "Bearer realm=\"not a url\"",
        "Bearer realm=\"ftp://x/\"",
        "Negotiate AAAA",
        ",,,=\"\"",
    ] {
        let server = Server::start(image(), move |_, _, stream| {
            respond(stream, 401, &[("www-authenticate", rubbish)], b"");
            true
        });
        says(&Place::new().refuses(&server.name(), &hasty()), &["in a way that is not understood"]);
    }
    let without = Server::start(image(), |_, _, stream| {
        respond(stream, 401, &[], b"");
        true
    });
    says(&Place::new().refuses(&without.name(), &hasty()), &["401 without WWW-Authenticate"]);
}

#[test]
fn rubbish_tokens_are_refused() {
    for rubbish in ["", "{}", "null", "<html>", r#"{"token": ""}"#, r#"{"token": "a\nb"}"#, r#"{"token": 5}"#]
    {
        says(&Place::new().refuses(&token_server(rubbish).name(), &hasty()), &["answered rubbish"]);
    }
    let endless = Server::start(image(), |request, _, stream| {
        if request.path.starts_with("/token") {
            head(stream, 200, &[]);
            use std::io::Write as _;
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
            return true;
        }
        respond(
            stream,
            401,
            &[("www-authenticate", &bearer(request.header("host").unwrap_or_default()))],
            b"",
        );
        true
    });
    says(&Place::new().refuses(&endless.name(), &hasty()), &["answered rubbish", "more than"]);
}

#[test]
fn a_token_endpoint_that_refuses_or_fails_is_named() {
    for (status, expected) in [(401, "401"), (403, "403"), (500, "500"), (404, "404")] {
        let server = Server::start(image(), move |request, _, stream| {
            if request.path.starts_with("/token") {
                respond(stream, status, &[], b"no");
                return true;
            }
            respond(
                stream,
                401,
                &[("www-authenticate", &bearer(request.header("host").unwrap_or_default()))],
                b"",
            );
            true
        });
        says(&Place::new().refuses(&server.name(), &hasty()), &[expected]);
    }
}

#[test]
fn a_token_that_opens_nothing_is_no_loop() {
    let server = token_server(r#"{"token": "bad"}"#);
    says(&Place::new().refuses(&server.name(), &hasty()), &["401"]);
    assert!(server.count(|_| true) < 10);
}

#[test]
fn another_host_never_sees_the_credentials() {
    let other_image = image();
    let other = Server::start(image(), move |request, _, stream| {
        let digest =
            request.path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        respond(stream, 200, &[], &other_image.blobs[digest]);
        true
    });
    let to = other.address;
    let server = Server::start(image(), move |request, _, stream| {
        if request.header("authorization").is_none() {
            respond(stream, 401, &[("www-authenticate", "Basic realm=\"r\"")], b"");
            return true;
        }
        if request.is_blob() {
            respond(stream, 307, &[("location", &format!("http://{to}{}?signed=yes", request.path))], b"");
        }
        request.is_blob()
    });
    let place = Place::new();
    let options =
        with_credentials(&place, &server.address.to_string(), r#"{"username": "me", "password": "secret"}"#);
    place.pull(&server.name(), &options).unwrap();
    let log = other.log.lock().unwrap();
    assert_eq!(log.len(), 2, "the config and the layer");
    assert!(log.iter().all(|request| request.header("authorization").is_none()));
}
