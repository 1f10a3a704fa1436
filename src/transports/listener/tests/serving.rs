//! Requests and what they are told about their connection.

use super::*;

#[tokio::test]
async fn both_protocols_are_served_over_tcp() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let running = Running::start(protocol, &config());
        let stream = running.connect().await;
        let peer = stream.local_addr().unwrap();
        let mut client = Client::over(stream, protocol).await;
        for _ in 0..2 {
            let info = client.get("/").await.unwrap();
            assert_eq!(info, format!("ConnectInfo {{ peer: Tcp({peer}), tls: false }}"));
        }
        assert_eq!((running.counters.open(), running.counters.accepted_total()), (1, 1));
        drop(client);
        until(|| running.counters.open() == 0).await;
        assert_eq!(running.stop().await, 0);
    }
}

#[tokio::test]
async fn both_protocols_are_served_over_a_unix_socket() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache.sock");
        let address = ListenAddress::Unix(path.clone());
        let running = Running::start_at(&address, protocol, &config(), None, AMPLE);
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let mut client = Client::over(stream, protocol).await;
        assert_eq!(client.get("/").await.unwrap(), "ConnectInfo { peer: Unix, tls: false }");
        assert_eq!(running.stop().await, 0);
        assert!(!path.exists(), "the file is removed at the end");
    }
}

#[tokio::test]
async fn a_panic_ends_no_more_than_its_connection() {
    let running = Running::start(Protocol::Http1, &config());
    let mut unlucky = running.client(Protocol::Http1).await;
    assert!(unlucky.get("/panic").await.is_err());
    assert!(running.client(Protocol::Http1).await.get("/").await.is_ok());
    until(|| running.counters.open() == 0).await;
    assert_eq!(running.stop().await, 0);
}
