//! Clients that take their answers beside others that do not.

use std::task::Waker;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::scan::tests::frame;
use super::super::scan::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE};
use super::super::untaken::{Held, STREAM_BYTES, Taken, Untaken};
use super::*;
use crate::transports::refused::RequestRefusal;

/// A field for a request that is more than is read at a time where there is room for one.
const LONG: usize = 120;

/// The room that there is for what clients do not take.
fn most() -> u64 {
    config().max_in_flight_bytes / 4
}

/// Another connection, whose client takes nothing of what it holds.
fn debtor(room: &Arc<Untaken>, bytes: u64) -> Held {
    let mut held = Held::new(Arc::clone(room));
    held.set(bytes, Taken::Nothing, Waker::noop());
    held
}

/// What opens a connection, with so large a window for each stream.
fn hello(window: u8) -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window])].concat()
}

/// A request with a field of so many bytes.
fn request(stream: u32, path: &str, field_bytes: usize) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    let field = [&text(b"x")[..], &text(&vec![b'x'; field_bytes])].concat();
    let head = [&b"\x82\x86\x04"[..], &text(path.as_bytes()), b"\x00", &field].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

fn closed(running: &Running) -> u64 {
    running.counters.refused_requests().total(RequestRefusal::TooManyUntaken)
}

#[tokio::test]
async fn whose_request_is_read_in_parts_for_want_of_room_is_not_closed_for_what_others_owe() {
    let running = Running::start(Protocol::Http2, &config());
    let room = running.counters.untaken();
    let mut other = debtor(room, most() / 2);
    let mut client = running.connect().await;
    client.write_all(&[hello(127), request(1, "/", LONG)].concat()).await.unwrap();
    until(|| room.bytes() == most() / 2 + STREAM_BYTES).await;
    assert_eq!(
        running.gate.answered.load(Ordering::Relaxed),
        0,
        "the rest waits for the connection's next turn"
    );
    other.set(most(), Taken::Some, Waker::noop());
    assert!(other.has_to_go());
    let mut said = Vec::new();
    while !said.windows(11).any(|word| word == b"ConnectInfo") {
        assert_ne!(within(client.read_buf(&mut said)).await.unwrap(), 0, "closed");
    }
    assert_eq!(closed(&running), 1);
}

#[tokio::test]
async fn who_takes_an_answer_is_not_closed_before_others_who_take_none() {
    let running = Running::start(Protocol::Http2, &config());
    let room = running.counters.untaken();
    let mut client = running.connect().await;
    client.write_all(&[hello(1), request(1, "/", 1)].concat()).await.unwrap();
    until(|| room.bytes() == STREAM_BYTES).await;
    let margin = 200 * STREAM_BYTES;
    let other = debtor(room, most() / 2 - margin);
    let opened = frame(WINDOW_UPDATE, 0, 3, &[0, 0, 127, 0]);
    client.write_all(&[request(3, "/", 1), opened].concat()).await.unwrap();
    until(|| running.gate.answered.load(Ordering::Relaxed) == 2).await;
    assert_eq!(room.bytes(), most() / 2 - margin + STREAM_BYTES, "the first waits as before");
    let another = debtor(room, most() / 2 + margin);
    assert_eq!((other.has_to_go(), another.has_to_go(), closed(&running)), (true, false, 1));
}

#[tokio::test]
async fn what_a_connection_has_read_is_freed_where_it_is_closed_before_it_answers() {
    let running = Running::start(Protocol::Http2, &config());
    let room = running.counters.untaken();
    let others = debtor(room, most() / 2);
    let answered = &running.gate.answered;
    let held_before = Arc::strong_count(answered);
    let mut client = running.connect().await;
    let requests: Vec<_> = (0..10).flat_map(|number| request(2 * number + 1, "/busy", LONG)).collect();
    client.write_all(&[hello(1), requests].concat()).await.unwrap();
    until(|| answered.load(Ordering::Relaxed) > 0).await;
    let more = debtor(room, most());
    until(|| running.counters.open() == 0).await;
    assert!(answered.load(Ordering::Relaxed) < 10, "its turn was over before");
    // A request that is under way has the service's gate.
    until(|| Arc::strong_count(answered) == held_before).await;
    drop((others, more));
    assert_eq!(room.bytes(), 0);
}
