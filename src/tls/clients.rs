//! Which of the clients that an authority vouches for are let in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;

use crate::config::ClientIdentity;
use crate::telemetry::throttle::Throttle;

/// The least time between two log lines about clients that are not listed.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How many names of a certificate are logged at most, and how much of each.
const MAX_LOGGED_NAMES: usize = 8;
const MAX_LOGGED_CHARS: usize = 256;

/// Of clients whose certificate is good, lets in only those with a listed name in it.
#[derive(Debug)]
pub(super) struct ListedClients {
    certificates: Arc<dyn ClientCertVerifier>,
    clients: Vec<ClientIdentity>,
    log: Throttle,
}

impl ListedClients {
    pub(super) fn new(certificates: Arc<dyn ClientCertVerifier>, clients: Vec<ClientIdentity>) -> Self {
        Self { certificates, clients, log: Throttle::new(LOG_INTERVAL) }
    }
}

/// Whether a handshake failed since the client, whose certificate is good, is not listed.
#[must_use]
pub fn is_unlisted_client(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    matches!(error, Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)))
}

/// Whether a certificate (DER) has a name in it that is listed. Whether it is good is another question, to be asked before.
#[must_use]
pub fn is_listed(certificate: &[u8], clients: &[ClientIdentity]) -> bool {
    with_names(certificate, |names| is_any_listed(names, clients))
}

fn is_any_listed(names: &[GeneralName<'_>], clients: &[ClientIdentity]) -> bool {
    names.iter().any(|name| clients.iter().any(|identity| is_named_by(identity, name)))
}

/// The names in a certificate that a client can be listed by. One that cannot be read has none.
fn with_names<T>(certificate: &[u8], read: impl FnOnce(&[GeneralName<'_>]) -> T) -> T {
    let parsed = x509_parser::parse_x509_certificate(certificate).ok();
    let names =
        parsed.as_ref().and_then(|(_, certificate)| certificate.subject_alternative_name().ok().flatten());
    read(names.map_or(&[], |names| &names.value.general_names))
}

fn is_named_by(identity: &ClientIdentity, name: &GeneralName<'_>) -> bool {
    match name {
        GeneralName::DNSName(name) => identity.is_dns(name),
        GeneralName::URI(uri) => identity.is_uri(uri),
        _ => false,
    }
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    let (kind, name) = match name {
        GeneralName::DNSName(name) => ("dns", name),
        GeneralName::URI(name) => ("uri", name),
        _ => return None,
    };
    Some(format!("{kind}:{}", name.chars().take(MAX_LOGGED_CHARS).collect::<String>()))
}

impl ClientCertVerifier for ListedClients {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.certificates.verify_client_cert(end_entity, intermediates, now)?;
        with_names(end_entity, |names| {
            if is_any_listed(names, &self.clients) {
                return Ok(verified);
            }
            // The one error that the client is told as "access denied".
            if let Some(not_logged) = self.log.pass() {
                let presented: Vec<String> = names.iter().filter_map(shown).take(MAX_LOGGED_NAMES).collect();
                tracing::info!(
                    ?presented,
                    not_logged,
                    "client refused: its certificate has no name that is listed"
                );
            }
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        })
    }

    fn offer_client_auth(&self) -> bool {
        self.certificates.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.certificates.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.certificates.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.certificates.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.certificates.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.certificates.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.certificates.requires_raw_public_keys()
    }
}
