//! Certificates: the cell's own, and whose of others' are let in.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::config::Files;
use super::error::{DoorError, Result};

/// Bytes of a PEM file.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// TLS 1.3 with a certificate on both sides, for HTTP/2.
pub(super) fn server_config(files: Files<'_>, clients: &[String]) -> Result<ServerConfig> {
    let Files { certificate, key, client_ca, .. } = files;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates("certificate", certificate)?;
    let key_pem = read("key", key)?;
    let pem = |why: String| DoorError::Pem { field: "key", path: key.clone(), why };
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| pem(error.to_string()))?;
    let verifier = verifier(client_ca, clients, &provider)?;
    let wrong = |source| DoorError::Certificate { path: certificate.clone(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(wrong)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not show its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn verifier(path: &Path, clients: &[String], provider: &Arc<CryptoProvider>) -> Result<Arc<Named>> {
    let wrong = |why: String| DoorError::Pem { field: "client_ca", path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", path)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let inner = builder.build().map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(Named { inner, names: clients.to_vec() }))
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(field, path)?;
    let wrong = |why: String| DoorError::Pem { field, path: path.to_owned(), why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("there is no certificate in it".into())) } else { Ok(found) }
}

fn read(field: &'static str, path: &Path) -> Result<Vec<u8>> {
    let failed = |source| DoorError::Read { field, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        let why = format!("it has more than {PEM_BYTES_MAX} bytes");
        return Err(DoorError::Pem { field, path: path.to_owned(), why });
    }
    Ok(bytes)
}

/// What the authority calls a client whose certificate it is: for the log.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    names.next()?.as_str().ok().map(str::to_owned)
}

/// Lets in certificates of an authority that have one of some names.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    /// None: all.
    names: Vec<String>,
}

impl Named {
    fn has_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        let is_wanted = |name: &str| self.names.iter().any(|wanted| wanted == name);
        let mut common = parsed.subject().iter_common_name();
        if common.any(|name| name.as_str().is_ok_and(is_wanted)) {
            return true;
        }
        let Ok(Some(alternatives)) = parsed.subject_alternative_name() else { return false };
        alternatives.value.general_names.iter().any(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                is_wanted(name)
            }
            _ => false,
        })
    }
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        // Only of a certificate that is the authority's is anything more read.
        if self.names.is_empty() || self.has_name(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
