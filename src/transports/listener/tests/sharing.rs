//! Requests that share an HTTP/2 connection.

use super::*;

#[tokio::test]
async fn a_request_that_waits_holds_up_no_other_on_its_connection() {
    let running = Running::start(Protocol::Http2, &config());
    let mut client = running.client(Protocol::Http2).await;
    let held = client.send("/held");
    let held = tokio::spawn(held);
    running.gate.arrival().await;
    for _ in 0..3 {
        assert!(client.get("/").await.is_ok());
    }
    running.gate.release();
    assert!(within(held).await.unwrap().is_ok());
    assert_eq!(running.stop().await, 0);
}

#[tokio::test]
async fn a_panic_ends_one_request_and_not_its_connection() {
    let running = Running::start(Protocol::Http2, &config());
    let mut client = running.client(Protocol::Http2).await;
    assert!(client.get("/panic").await.is_err());
    assert!(client.get("/").await.is_ok());
    assert_eq!(running.stop().await, 0);
}

#[tokio::test]
async fn a_burst_of_requests_is_answered_to_the_last() {
    let running = Running::start(Protocol::Http2, &config());
    let mut client = running.client(Protocol::Http2).await;
    for _ in 0..20 {
        let burst: Vec<_> = (0..100).map(|_| client.send("/")).collect();
        for answer in burst {
            assert!(within(answer).await.is_ok());
        }
    }
    assert_eq!(running.gate.answered.load(Ordering::Relaxed), 2000);
    assert_eq!(running.stop().await, 0);
}

/// As long as there are tasks to run, the system is hardly ever asked for news: that others wait for it is up to the turn's end.
fn run_on_one_thread(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().event_interval(10_000).build().unwrap().block_on(test);
}

#[test]
fn a_connection_that_always_has_work_lets_others_have_their_turn() {
    run_on_one_thread(async {
        let running = Running::start(Protocol::Http2, &config());
        let mut busy = running.client(Protocol::Http2).await;
        let mut other = running.client(Protocol::Http2).await;
        assert!(busy.get("/").await.is_ok() && other.get("/").await.is_ok());
        let burst: Vec<_> = (0..90).map(|_| tokio::spawn(busy.send("/busy"))).collect();
        let answered = Arc::clone(&running.gate.answered);
        until(|| answered.load(Ordering::Relaxed) > 2).await;
        assert!(other.get("/").await.is_ok());
        let before = answered.load(Ordering::Relaxed);
        assert!(before < 50, "a request waited for {before} of another connection's");
        for answer in burst {
            assert!(within(answer).await.unwrap().is_ok());
        }
        assert_eq!(running.stop().await, 0);
    });
}

#[test]
fn others_wait_for_few_turns_however_many_connections_always_have_work() {
    run_on_one_thread(async {
        let running = Running::start(Protocol::Http2, &config());
        let mut other = running.client(Protocol::Http2).await;
        assert!(other.get("/").await.is_ok());
        let mut busy = Vec::new();
        for _ in 0..30 {
            let mut client = running.client(Protocol::Http2).await;
            assert!(client.get("/").await.is_ok());
            busy.push(client);
        }
        let bursts = busy.iter_mut().flat_map(|client| (0..20).map(|_| tokio::spawn(client.send("/busy"))));
        let bursts: Vec<_> = bursts.collect();
        let answered = Arc::clone(&running.gate.answered);
        // All of them have had a turn and want another.
        until(|| answered.load(Ordering::Relaxed) > 200).await;
        for _ in 0..3 {
            let before = answered.load(Ordering::Relaxed);
            assert!(other.get("/").await.is_ok());
            let meanwhile = answered.load(Ordering::Relaxed) - before;
            assert!(meanwhile < 30, "a request waited for {meanwhile} of other connections'");
        }
        for answer in bursts {
            assert!(within(answer).await.unwrap().is_ok());
        }
        assert_eq!(running.stop().await, 0);
    });
}
