//! `celda ca`: an authority with a server's and a client's certificate, to try TCP with.
//!
//! ```text
//! DIR/ca.pem  ca-key.pem            the authority
//!     server-cert.pem  server-key.pem   for `[listen]`: the hosts
//!     cert.pem  key.pem             for --tlscert and --tlskey, or CELDA_CERT_PATH=DIR: the client
//! ```
//! The names are Docker's. Nothing that is there is written over.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::cell_args::CaArgs;
use super::output;
use crate::{Error, Result};

/// What clocks may differ by.
const CLOCK_SLACK: Duration = Duration::hours(1);
/// For this machine, however it is called from itself.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

pub(super) fn main(args: &CaArgs) -> Result<ExitCode> {
    let mut hosts: Vec<String> = LOCAL_HOSTS.iter().map(|host| (*host).to_owned()).collect();
    hosts.extend(args.host.iter().filter(|host| !LOCAL_HOSTS.contains(&host.as_str())).cloned());
    let files = make(hosts, &args.client, args.days).map_err(|error| Error::Argument {
        what: "make certificates".into(),
        reason: format!("{error}; --host and --client take names and addresses in plain ASCII"),
    })?;
    let directory = &args.directory;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(Error::io("create directory", directory))?;
    for (name, _) in &files {
        refuse_to_overwrite(&directory.join(name))?;
    }
    for (name, pem) in &files {
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = opened.and_then(|mut file| file.write_all(pem.as_bytes()));
        written.map_err(Error::io("write", &path))?;
        output::line(&path.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_to_overwrite(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", path)(error)),
        Ok(_) => Err(Error::Argument {
            what: path.display().to_string(),
            reason: "it is there already, and is not written over; give another directory".into(),
        }),
    }
}

/// Name and PEM of each file.
fn make(
    hosts: Vec<String>,
    client: &str,
    days: u16,
) -> std::result::Result<[(&'static str, String); 6], rcgen::Error> {
    let from = OffsetDateTime::now_utc() - CLOCK_SLACK;
    let params = |names: Vec<String>, common: &str| {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common);
        (params.not_before, params.not_after) = (from, from + Duration::days(days.into()));
        Ok::<_, rcgen::Error>(params)
    };
    let mut authority = params(Vec::new(), "celda test authority")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let certify = |names: Vec<String>, common: &str, purpose| {
        let (mut params, key) = (params(names, common)?, KeyPair::generate()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        Ok::<_, rcgen::Error>((params.signed_by(&key, &authority)?.pem(), key.serialize_pem()))
    };
    let server_name = hosts.last().cloned().unwrap_or_default();
    let (server, server_key) = certify(hosts, &server_name, ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = certify(Vec::new(), client, ExtendedKeyUsagePurpose::ClientAuth)?;
    Ok([
        ("ca.pem", authority.pem()),
        ("ca-key.pem", authority.key().serialize_pem()),
        ("server-cert.pem", server),
        ("server-key.pem", server_key),
        ("cert.pem", client),
        ("key.pem", client_key),
    ])
}
