//! What a shutdown does to those who are connected.

use super::*;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn requests_in_flight_finish_and_new_clients_are_refused() {
    for protocol in BOTH {
        let running = Running::start(protocol, &config());
        let mut idle = running.client(protocol).await;
        idle.get("/").await.unwrap();
        let mut busy = running.client(protocol).await;
        let held = tokio::spawn(busy.send("/held"));
        running.gate.arrival().await;

        running.shutdown.cancel();
        until(|| idle.is_closed()).await;
        until(|| running.counters.open() == 1).await;
        let address = tcp(&running.address);
        within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
        assert!(!running.server.is_finished());

        running.gate.release();
        within(held).await.unwrap().unwrap();
        assert_eq!(running.stop().await, 0);
    }
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_off_and_counted() {
    for protocol in BOTH {
        let grace = Duration::from_millis(100);
        let running = Running::start_at(&any_port(), protocol, &config(), None, grace);
        let mut busy = running.client(protocol).await;
        let held = tokio::spawn(busy.send("/held"));
        running.gate.arrival().await;
        assert_eq!(running.stop().await, 1);
        assert!(within(held).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn clients_in_the_backlog_are_served() {
    for protocol in BOTH {
        let listener = Listener::bind(&any_port(), None, &config()).unwrap();
        let address = tcp(listener.local_address());
        let mut answers = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = Client::over(TcpStream::connect(address).await.unwrap(), protocol).await;
            answers.push(tokio::spawn(client.send("/")));
            clients.push(client);
        }
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let running = Running::serve(listener, protocol, AMPLE, shutdown);
        for answer in answers {
            within(answer).await.unwrap().unwrap();
        }
        assert_eq!(running.counters.accepted_total(), 20);
        assert_eq!(running.stop().await, 0);
    }
}

#[tokio::test]
async fn a_client_that_connected_but_never_asks_does_not_hold_up_the_end() {
    for protocol in BOTH {
        let running = Running::start(protocol, &config());
        let _silent = running.connect().await;
        until(|| running.counters.open() == 1).await;
        assert_eq!(running.stop().await, 0);
    }
}

/// Asks until it is told to go elsewhere: how many requests were answered. The client is h2's own, for hyper's may tell a
/// request that is on its way that it came too late.
async fn ask_until_sent_away(stream: TcpStream) -> u64 {
    let (mut sender, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut answers = 0;
    while let Ok(ready) = within(sender.ready()).await {
        sender = ready;
        let request = Request::get("http://localhost/").body(()).unwrap();
        let Ok((response, _)) = sender.send_request(request, true) else { break };
        match within(response).await {
            Ok(response) => {
                let mut body = response.into_body();
                while let Some(data) = within(body.data()).await {
                    data.unwrap();
                }
                answers += 1;
            }
            // GOAWAY without an error promises that the request may be sent elsewhere.
            Err(error) => {
                assert!(error.is_go_away() && error.is_remote(), "{error:?}");
                assert_eq!(error.reason(), Some(h2::Reason::NO_ERROR));
                break;
            }
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_request_is_answered_or_was_refused_unprocessed() {
    let running = Running::start(Protocol::Http2, &config());
    let mut asking = Vec::new();
    for _ in 0..8 {
        asking.push(tokio::spawn(ask_until_sent_away(running.connect().await)));
    }
    let answered = Arc::clone(&running.gate.answered);
    until(|| answered.load(Ordering::Relaxed) > 500).await;
    assert_eq!(running.stop().await, 0);
    let mut received = 0;
    for client in asking {
        received += within(client).await.unwrap();
    }
    assert_eq!(received, answered.load(Ordering::Relaxed));
}
