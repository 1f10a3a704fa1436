//! Handshakes: who is let in, with which certificate, and what a reload changes.

use std::fs;
use std::path::Path;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::{ClientIdentity, TlsConfig};
use crate::tls::tests::{Authority, Identity, files_in};
use crate::transports::listener::ConnectionRefusal;

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

fn connector(trusted: &Authority, identity: Option<&Identity>, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&trusted.pem));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(certificates(&identity.cert), key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn handshake(running: &Running, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    within(connector.connect(name, running.connect().await)).await
}

fn start(files: &TlsConfig, protocol: Protocol) -> (Running, Arc<ServerTls>) {
    let tls = ServerTls::load(files).unwrap();
    (Running::start_at(&any_port(), protocol, &config(), Some(Arc::clone(&tls)), AMPLE), tls)
}

fn fresh(authority: &Authority) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    authority.sign().write_to(directory.path());
    directory
}

fn with_client_ca(directory: &Path, authority: &Authority) -> TlsConfig {
    let path = directory.join("ca.crt");
    fs::write(&path, &authority.pem).unwrap();
    TlsConfig { client_ca: Some(path), ..files_in(directory) }
}

#[tokio::test]
async fn the_listener_speaks_its_protocol_over_tls() {
    let authority = Authority::new();
    let directory = fresh(&authority);
    for (protocol, alpn) in [(Protocol::Http1, &b"http/1.1"[..]), (Protocol::Http2, b"h2")] {
        let (running, _) = start(&files_in(directory.path()), protocol);
        let stream = handshake(&running, &connector(&authority, None, &[b"h2", b"http/1.1"])).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let info = Client::over(stream, protocol).await.get("/").await.unwrap();
        assert!(info.ends_with("tls: true }"), "{info}");
        assert_eq!(running.stop().await, 0);
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_counted_and_harms_nobody() {
    let authority = Authority::new();
    let directory = fresh(&authority);
    let (running, _) = start(&files_in(directory.path()), Protocol::Http2);
    let stranger = Authority::new();
    assert!(handshake(&running, &connector(&stranger, None, &[b"h2"])).await.is_err());
    until(|| running.counters.tls_handshake_failures_total() == 1).await;
    assert!(handshake(&running, &connector(&authority, None, &[b"h2"])).await.is_ok());
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_closed() {
    let authority = Authority::new();
    let directory = fresh(&authority);
    let tls = ServerTls::load(&files_in(directory.path())).unwrap();
    let config = ConnectionConfig { handshake_timeout: Duration::from_millis(100), ..config() };
    let running = Running::start_at(&any_port(), Protocol::Http2, &config, Some(tls), AMPLE);
    let mut silent = running.connect().await;
    assert_eq!(within(silent.read(&mut [0])).await.unwrap(), 0);
    until(|| running.counters.open() == 0).await;
    assert_eq!(running.counters.tls_handshake_failures_total(), 1);
}

#[tokio::test]
async fn mutual_tls_lets_in_only_those_whom_the_authority_signed() {
    let authority = Authority::new();
    let directory = fresh(&authority);
    let (running, _) = start(&with_client_ca(directory.path(), &authority), Protocol::Http1);

    let friend = authority.sign();
    let stream = handshake(&running, &connector(&authority, Some(&friend), &[])).await.unwrap();
    assert!(Client::over(stream, Protocol::Http1).await.get("/").await.is_ok());

    let stranger = Authority::new().sign();
    for (number, identity) in [None, Some(&stranger)].into_iter().enumerate() {
        // In TLS 1.3 the client has shaken hands before it hears that it was refused.
        if let Ok(stream) = handshake(&running, &connector(&authority, identity, &[])).await {
            assert!(Client::over(stream, Protocol::Http1).await.get("/").await.is_err());
        }
        until(|| running.counters.tls_handshake_failures_total() == number as u64 + 1).await;
    }
}

#[tokio::test]
async fn of_those_whom_the_authority_signed_only_the_listed_are_let_in() {
    let authority = Authority::new();
    let directory = fresh(&authority);
    let clients = vec![
        ClientIdentity::Dns("app.internal".to_owned()),
        ClientIdentity::Uri("spiffe://td/app".to_owned()),
        ClientIdentity::Below("spiffe://td/jobs/".to_owned()),
    ];
    let files = TlsConfig { clients: Some(clients), ..with_client_ca(directory.path(), &authority) };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (running, tls) = start(&files, protocol);
        let mut refused = 0;
        for (names, is_listed) in [
            (&["dns:app.internal"][..], true),
            (&["dns:other.internal", "uri:spiffe://td/app"], true),
            (&["uri:spiffe://td/jobs/nightly/1"], true),
            (&[], false),
            (&["dns:localhost"], false),
            (&["dns:*.internal"], false),
            (&["dns:app.internal.example"], false),
            (&["uri:spiffe://td/app/more", "uri:spiffe://td/jobs"], false),
        ] {
            let identity = authority.sign_for(names);
            let answered = async {
                let stream = handshake(&running, &connector(&authority, Some(&identity), &[])).await.ok()?;
                Client::over(stream, protocol).await.get("/").await.ok()
            };
            assert_eq!(answered.await.is_some(), is_listed, "{names:?}");
            refused += u64::from(!is_listed);
            until(|| running.counters.refused_total(ConnectionRefusal::ClientNotListed) == refused).await;
        }
        // Of another authority: that is not a question of names.
        let stranger = Authority::new().sign_for(&["dns:app.internal"]);
        if let Ok(stream) = handshake(&running, &connector(&authority, Some(&stranger), &[])).await {
            assert!(Client::over(stream, protocol).await.get("/").await.is_err());
        }
        until(|| running.counters.tls_handshake_failures_total() == refused + 1).await;
        assert_eq!(running.counters.refused_total(ConnectionRefusal::ClientNotListed), refused);

        tls.reload().unwrap();
        let identity = authority.sign_for(&["dns:localhost"]);
        if let Ok(stream) = handshake(&running, &connector(&authority, Some(&identity), &[])).await {
            assert!(
                Client::over(stream, protocol).await.get("/").await.is_err(),
                "the list holds after a reload"
            );
        }
        until(|| running.counters.refused_total(ConnectionRefusal::ClientNotListed) == refused + 1).await;
    }
}

#[tokio::test]
async fn a_reload_serves_new_clients_with_the_new_certificate_and_drops_nobody() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = fresh(&old);
    let (running, tls) = start(&files_in(directory.path()), Protocol::Http2);
    let stream = handshake(&running, &connector(&old, None, &[b"h2"])).await.unwrap();
    let mut early = Client::over(stream, Protocol::Http2).await;
    let held = tokio::spawn(early.send("/held"));
    running.gate.arrival().await;

    new.sign().write_to(directory.path());
    tls.reload().unwrap();
    assert!(handshake(&running, &connector(&old, None, &[b"h2"])).await.is_err());
    handshake(&running, &connector(&new, None, &[b"h2"])).await.unwrap();

    fs::write(directory.path().join("tls.crt"), "not a certificate").unwrap();
    tls.reload().unwrap_err();
    handshake(&running, &connector(&new, None, &[b"h2"])).await.unwrap();

    running.gate.release();
    within(held).await.unwrap().unwrap();
    assert!(early.get("/").await.is_ok());
    assert_eq!((tls.reloads_total(), tls.reload_failures_total()), (1, 1));
}
