//! Reaching a server: targets, namespaces, request ids, timeouts, TLS, and what is said where it fails.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::{Server, run};

#[test]
fn a_namespace_keeps_its_keys_to_itself() {
    let server = Server::start(&[]);
    server.run(&["set", "k", "shared"]).expect(0);
    server.run(&["get", "k", "--namespace", "web"]).expect(1);
    server.run(&["set", "k", "web's", "--namespace", "web"]).expect(0);
    assert_eq!(server.run(&["get", "k"]).expect(0).text(), "shared");
    assert_eq!(server.run(&["get", "k", "--namespace", "web"]).expect(0).text(), "web's");
    let refused = server.run(&["get", "k", "--namespace", "not/one"]).expect(2);
    assert!(refused.complaint().starts_with("get: INVALID_ARGUMENT: "), "{}", refused.stderr);
}

#[test]
fn a_request_id_is_the_one_in_the_log_and_in_the_complaint() {
    let server = Server::start(&["--log-level", "debug"]);
    let refused = server.run(&["get", "", "--request-id", "my-own-id"]).expect(2);
    assert!(refused.complaint().contains("request_id=my-own-id"), "{}", refused.stderr);
    server.run(&["set", "k", "v", "--request-id", "another-id"]).expect(0);
    server.wait_for(|line| line["request_id"] == "another-id");
}

#[test]
fn a_server_that_never_answers_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = silent.local_addr().expect("an address").to_string();
    let begun = Instant::now();
    let ended = run(&["get", "k", "--target", &target, "--timeout", "300ms"]).expect(2);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(ended.complaint(), format!("get: no answer from {target} within 300ms"));
    drop(silent);
    let ended = run(&["get", "k", "--target", &target]).expect(2);
    assert_eq!(ended.complaint(), format!("get: cannot connect to {target}: connection refused"));
}

#[test]
fn ping_tells_whether_a_server_serves() {
    let server = Server::start(&[]);
    let ended = server.run(&["ping"]).expect(0);
    assert!(ended.text().starts_with(&format!("SERVING {} ", server.grpc)), "{}", ended.text());
    let ended = server.run(&["ping", "--output", "json"]).expect(0);
    assert_eq!(ended.json()["status"], "SERVING");
    let ended = server.run(&["ping", "--service", "no.such.Service"]).expect(2);
    assert!(ended.complaint().starts_with("ping: NOT_FOUND: "), "{}", ended.stderr);
}

#[test]
fn stats_are_a_table_or_every_field() {
    let server = Server::start(&["--policy", "sieve", "--max-items", "7"]);
    server.run(&["set", "k", "v"]).expect(0);
    server.run(&["get", "k"]).expect(0);
    server.run(&["get", "missing"]).expect(1);
    let stats = server.run(&["stats", "--output", "json"]).expect(0).json();
    for (field, value) in [("size", 1), ("hits", 1), ("misses", 1), ("max_items", 7), ("max_entries", 7)] {
        assert_eq!(stats[field], value, "{field}: {stats}");
    }
    assert_eq!((&stats["policy"], &stats["hit_rate"]), (&"sieve".into(), &0.5.into()));
    let table = server.run(&["stats"]).expect(0);
    for row in ["policy               sieve\n", "hit rate             0.5000\n", "entries              1\n"] {
        assert!(table.text().contains(row), "{}", table.text());
    }
}

#[test]
fn a_unix_socket_is_a_target_and_goes_with_its_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("cache.sock");
    let target = format!("unix:{}", socket.display());
    let server = Server::spawn(&["--listen", &target, "--http-listen", "127.0.0.1:0"]);
    run(&["set", "k", "v", "--target", &target]).expect(0);
    assert_eq!(run(&["get", "k", "--target", &target]).expect(0).text(), "v");
    drop(server);
    let ended = run(&["get", "k", "--target", &target]).expect(2);
    assert_eq!(ended.complaint(), format!("get: cannot connect to {target}: connection refused"));
}

#[test]
fn a_server_with_mtls_takes_those_whom_it_trusts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    write_certificates(folder.path());
    let config = format!(
        "[[transport]]\nkind = \"grpc\"\nlisten = \"127.0.0.1:0\"\n\
         [transport.tls]\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    std::fs::write(file("tls.toml"), config).expect("a file");
    let server = Server::spawn(&["--config", &file("tls.toml")]);
    let target = format!("https://{}", server.grpc);
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let trusted = ["--target", &target, "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    run(&[&["set", "k", "v"][..], &trusted].concat()).expect(0);
    run(&["get", "k", "--target", &target, "--tls-ca", &ca]).expect(2).complaint();
    run(&["get", "k", "--target", &target]).expect(2).complaint();
    run(&["get", "k", "--target", &server.grpc]).expect(2).complaint();
    let half = run(&["get", "k", "--target", &target, "--tls-cert", &cert]).expect(2);
    assert!(half.stderr.contains("--tls-key"), "{}", half.stderr);
}

fn write_certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an issuer");
    std::fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("signed");
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("a file");
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
    }
}
