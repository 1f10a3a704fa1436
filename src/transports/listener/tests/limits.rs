//! Clients that are too many, too old, silent or senseless.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::ConnectionRefusal;
use super::*;
use crate::transports::refused::RequestRefusal;

/// Reads until the server closes the connection, however it does that.
async fn closed_by_server(stream: &mut TcpStream) {
    let mut ignored = Vec::new();
    within(stream.read_to_end(&mut ignored)).await.ok();
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let config = ConnectionConfig { max_connections: 2, ..config() };
    let running = Running::start(Protocol::Http2, &config);
    let mut first = running.client(Protocol::Http2).await;
    let mut second = running.client(Protocol::Http2).await;
    first.get("/").await.unwrap();
    second.get("/").await.unwrap();

    closed_by_server(&mut running.connect().await).await;
    assert_eq!((running.counters.open(), running.counters.refused_total(ConnectionRefusal::TooMany)), (2, 1));
    assert!(second.get("/").await.is_ok(), "the others do not notice");

    drop(first);
    until(|| running.counters.open() == 1).await;
    assert!(running.client(Protocol::Http2).await.get("/").await.is_ok());
    assert_eq!(
        (running.counters.accepted_total(), running.counters.refused_total(ConnectionRefusal::TooMany)),
        (3, 1)
    );
}

#[tokio::test]
async fn an_old_connection_goes_away_after_its_request() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let config = ConnectionConfig { max_connection_age: Some(Duration::from_millis(200)), ..config() };
        let running = Running::start(protocol, &config);
        let mut client = running.client(protocol).await;
        let held = tokio::spawn(client.send("/held"));
        running.gate.arrival().await;
        until(|| running.counters.age_closed_total() == 1).await;
        if protocol == Protocol::Http2 {
            within(async { while client.get("/").await.is_ok() {} }).await;
        }
        assert_eq!(running.counters.open(), 1, "the request keeps it open");
        running.gate.release();
        within(held).await.unwrap().unwrap();
        until(|| running.counters.open() == 0).await;
        assert!(client.get("/").await.is_err());
        assert!(running.client(protocol).await.get("/").await.is_ok(), "a new connection is welcome");
    }
}

#[tokio::test]
async fn an_old_connection_is_cut_off_after_its_grace() {
    let config = ConnectionConfig {
        max_connection_age: Some(Duration::from_millis(100)),
        max_connection_age_grace: Duration::from_millis(100),
        ..config()
    };
    let running = Running::start(Protocol::Http2, &config);
    let mut client = running.client(Protocol::Http2).await;
    assert!(client.get("/held").await.is_err());
    until(|| running.counters.open() == 0).await;
}

#[tokio::test]
async fn garbage_costs_the_sender_its_connection_and_nobody_else() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let running = Running::start(protocol, &config());
        let mut garbage = running.connect().await;
        garbage.write_all(&[0xFF; 1024]).await.unwrap();
        closed_by_server(&mut garbage).await;
        until(|| running.counters.open() == 0).await;
        assert_eq!(running.counters.refused_requests().total(RequestRefusal::Malformed), 1, "{protocol:?}");
        assert!(running.client(protocol).await.get("/").await.is_ok());
    }
}

#[tokio::test]
async fn a_client_that_does_not_begin_is_closed() {
    let config = ConnectionConfig { handshake_timeout: Duration::from_millis(100), ..config() };
    // Who says nothing over HTTP/1 has not begun a request, and hyper closes without a word.
    for (protocol, said, refused) in [
        (Protocol::Http1, "", 0),
        (Protocol::Http1, "GET / HTTP/1.1\r\nhost: ", 1),
        (Protocol::Http2, "", 1),
        (Protocol::Http2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r", 1),
    ] {
        let running = Running::start(protocol, &config);
        let mut silent = running.connect().await;
        silent.write_all(said.as_bytes()).await.unwrap();
        closed_by_server(&mut silent).await;
        until(|| running.counters.open() == 0).await;
        assert_eq!(running.counters.accepted_total(), 1);
        assert_eq!(running.counters.refused_requests().total(RequestRefusal::TooSlow), refused, "{said:?}");
    }
}

#[tokio::test]
async fn a_client_that_was_answered_and_asks_for_nothing_more_is_closed_and_not_counted() {
    let config = ConnectionConfig { handshake_timeout: Duration::from_millis(100), ..config() };
    for (said_after, refused) in [("", 0), ("GET / HTTP/1.1\r\nhost: ", 1)] {
        let running = Running::start(Protocol::Http1, &config);
        let mut idle = running.connect().await;
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 1024];
        assert!(within(idle.read(&mut answer)).await.unwrap() > 0, "it was answered");
        idle.write_all(said_after.as_bytes()).await.unwrap();
        closed_by_server(&mut idle).await;
        until(|| running.counters.open() == 0).await;
        assert_eq!(
            running.counters.refused_requests().total(RequestRefusal::TooSlow),
            refused,
            "{said_after:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_began_may_be_silent() {
    let config = ConnectionConfig { handshake_timeout: Duration::from_millis(50), ..config() };
    let running = Running::start(Protocol::Http2, &config);
    let mut client = running.client(Protocol::Http2).await;
    client.get("/").await.unwrap();
    let mut silent = running.connect().await;
    // The other one's deadline began after ours.
    closed_by_server(&mut silent).await;
    assert!(client.get("/").await.is_ok());
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed() {
    let config = ConnectionConfig {
        keepalive_interval: Some(Duration::from_millis(50)),
        keepalive_timeout: Duration::from_millis(50),
        ..config()
    };
    let running = Running::start(Protocol::Http2, &config);
    let mut vanished = running.connect().await;
    // The preface and an empty SETTINGS frame, then nothing.
    vanished.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed_by_server(&mut vanished).await;
    until(|| running.counters.open() == 0).await;
    for reason in RequestRefusal::ALL {
        assert_eq!(running.counters.refused_requests().total(reason), 0, "{reason:?}");
    }
}

#[tokio::test]
async fn heads_that_http2_itself_answers_with_431_are_counted_whatever_lies_between() {
    let running = Running::start(Protocol::Http2, &config());
    let mut client = running.client(Protocol::Http2).await;
    let too_long = format!("/{}", "x".repeat(40_000));
    let refused = |reason| running.counters.refused_requests().total(reason);
    let mut expected = 0;
    // Each answer adds a field to the table of those that need not be spelt out again, which has room for about sixty.
    for answers in [0, 1, 0, 10, 55, 60, 70, 0, 200, 3] {
        assert_eq!(client.get(&too_long).await.unwrap(), "", "after no more than a head");
        expected += 1;
        assert_eq!(refused(RequestRefusal::HeadTooLarge), expected, "before {answers} answers");
        for _ in 0..answers {
            assert_ne!(client.get("/").await.unwrap(), "");
        }
    }
    assert_eq!(refused(RequestRefusal::HeadTooLarge), expected, "answers are no refusals");
    assert_eq!(running.counters.accepted_total(), 1);
}
