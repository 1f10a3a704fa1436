//! Certificates made for the occasion; handshakes are in the listener's tests.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio_util::sync::CancellationToken;

use super::*;

/// A certificate authority that signs for servers and clients.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn sign(&self) -> Identity {
        self.sign_for(&["dns:localhost"])
    }

    /// For these names: "dns:…" or "uri:…".
    pub(crate) fn sign_for(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.split_once(':').unwrap() {
                ("dns", name) => SanType::DnsName(name.try_into().unwrap()),
                (_, uri) => SanType::URI(uri.try_into().unwrap()),
            })
            .collect();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }
}

impl Identity {
    /// Writes `tls.crt` and `tls.key`.
    pub(crate) fn write_to(&self, directory: &Path) {
        fs::write(directory.join("tls.crt"), &self.cert).unwrap();
        fs::write(directory.join("tls.key"), &self.key).unwrap();
    }
}

pub(crate) fn files_in(directory: &Path) -> TlsConfig {
    TlsConfig {
        cert: directory.join("tls.crt"),
        key: directory.join("tls.key"),
        client_ca: None,
        clients: None,
        reload_interval: Duration::from_millis(10),
    }
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_with_it() {
    let good = Authority::new().sign();
    let other = Authority::new().sign();
    let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let bad_key = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    // As when the line breaks are lost on the way.
    let one_line = &*good.key.replace('\n', "");
    for (cert, key, ca, file, says) in [
        (None, Some(&*good.key), None, "tls.crt", "cannot read"),
        (Some(&*good.cert), None, None, "tls.key", "cannot read"),
        (Some(""), Some(&*good.key), None, "tls.crt", "no certificate found"),
        (Some(&*good.key), Some(&*good.key), None, "tls.crt", "no certificate found"),
        (Some(damaged), Some(&*good.key), None, "tls.crt", "not a valid PEM certificate"),
        (Some(&*good.cert), Some(&*good.cert), None, "tls.key", "no private key found"),
        (Some(&*good.cert), Some(bad_key), None, "tls.key", "the private key cannot be used"),
        (Some(&*good.cert), Some(one_line), None, "tls.key", "the private key cannot be used"),
        (Some(&*good.cert), Some(&*other.key), None, "tls.key", "does not match"),
        (Some(&*good.cert), Some(&*good.key), Some(""), "ca.crt", "no certificate found"),
        (Some(&*good.cert), Some(&*good.key), Some(damaged), "ca.crt", "cannot be used to verify clients"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, contents: Option<&str>| {
            contents.map(|contents| fs::write(directory.path().join(name), contents).unwrap())
        };
        write("tls.crt", cert);
        write("tls.key", key);
        write("ca.crt", ca);
        let files = TlsConfig {
            client_ca: ca.map(|_| directory.path().join("ca.crt")),
            ..files_in(directory.path())
        };
        let error = ServerTls::load(&files).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        assert!(error.contains(&*directory.path().join(file).to_string_lossy()), "{error:?} names no {file}");
        assert!(!error.contains('\n'), "{error:?} is one line");
        assert!(error.len() < 300, "{error:?} quotes the file");
    }
}

#[test]
fn a_reload_counts_and_keeps_what_works() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.sign().write_to(directory.path());
    let tls = ServerTls::load(&files_in(directory.path())).unwrap();
    let first = tls.server_config(Alpn::Http2);

    authority.sign().write_to(directory.path());
    tls.reload().unwrap();
    let second = tls.server_config(Alpn::Http2);
    assert!(!Arc::ptr_eq(&first, &second));

    fs::write(directory.path().join("tls.key"), authority.sign().key).unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::KeyMismatch { .. })));
    assert!(Arc::ptr_eq(&second, &tls.server_config(Alpn::Http2)));
    assert_eq!((tls.reloads_total(), tls.reload_failures_total()), (1, 1));

    tls.reload_if_changed();
    assert_eq!(tls.reload_failures_total(), 1, "the same files are not tried again");
    tls.reload().unwrap_err();
    assert_eq!(tls.reload_failures_total(), 2, "unless asked to");
}

#[tokio::test]
async fn watching_notices_a_directory_swapped_by_symbolic_link() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    for version in ["1", "2"] {
        fs::create_dir(directory.path().join(version)).unwrap();
        authority.sign().write_to(&directory.path().join(version));
    }
    let link = directory.path().join("data");
    std::os::unix::fs::symlink("1", &link).unwrap();
    let tls = ServerTls::load(&files_in(&link)).unwrap();
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&tls).watch(shutdown.clone()));

    let new_link = directory.path().join("data.new");
    std::os::unix::fs::symlink("2", &new_link).unwrap();
    fs::rename(&new_link, &link).unwrap();
    let noticed = async {
        while tls.reloads_total() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noticed).await.unwrap();
    assert_eq!((tls.reloads_total(), tls.reload_failures_total()), (1, 0));
    shutdown.cancel();
    watching.await.unwrap();
}
