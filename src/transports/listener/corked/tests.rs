//! Streams that are pipes in memory, and what is gathered, read and written in a turn.

use std::future::poll_fn;
use std::iter::repeat_with;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex};

use super::*;
use crate::transports::refused::RequestRefusal;

#[tokio::test]
async fn small_writes_leave_together_once_uncorked() {
    let (near, mut far) = duplex(CORK_BYTES);
    let mut corked = Corked::new(near, Duration::MAX, Arc::default());
    for piece in ["some ", "small ", "writes"] {
        corked.write_all(piece.as_bytes()).await.expect("gathered");
        corked.flush().await.expect("left for later");
    }
    let mut received = [0; 99];
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut unread = ReadBuf::new(&mut received);
    assert!(Pin::new(&mut far).poll_read(cx, &mut unread).is_pending());
    assert!(!corked.poll_uncork(cx));
    let length = far.read(&mut received).await.expect("open");
    assert_eq!(&received[..length], b"some small writes");
}

#[tokio::test]
async fn a_stream_that_holds_back_what_it_took_is_flushed_until_it_is_done() {
    // As TLS does: takes all at once, and gives the socket what that takes.
    for bytes in [1000, CORK_BYTES, 4 * CORK_BYTES] {
        let (near, mut far) = duplex(100);
        let mut corked =
            Corked::new(BufWriter::with_capacity(8 * CORK_BYTES, near), Duration::MAX, Arc::default());
        corked.write_all(&vec![7; bytes]).await.expect("taken");
        let uncorking = poll_fn(|cx| {
            assert!(!corked.poll_uncork(cx));
            Poll::<()>::Pending
        });
        let mut received = vec![0; bytes];
        let received = far.read_exact(&mut received);
        let received = async { tokio::time::timeout(Duration::from_secs(10), received).await };
        tokio::select! {
            () = uncorking => {}
            received = received => assert_eq!(received.expect("all arrives").expect("open"), bytes),
        }
        assert!(corked.lock().gathered.capacity() <= KEPT_BYTES, "{bytes} bytes are not kept room for");
    }
}

#[tokio::test]
async fn every_byte_arrives_once_and_in_order_whatever_the_stream_takes_at_a_time() {
    for room in [1, 1000, CORK_BYTES, 4 * CORK_BYTES] {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let writes = if room == 1 { 5 } else { 50 };
        let sizes = repeat_with(|| {
            let most = 1 << random.u32(..18);
            random.usize(..most)
        });
        let sizes: Vec<usize> = sizes.take(writes).collect();
        let sent: Vec<u8> = repeat_with(|| random.u8(..)).take(sizes.iter().sum()).collect();
        let (near, mut far) = duplex(room);
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.expect("open");
            received
        });
        let mut corked = Corked::new(near, Duration::MAX, Arc::default());
        let mut rest = &sent[..];
        for size in sizes {
            let piece;
            (piece, rest) = rest.split_at(size);
            let (left, right) = piece.split_at(random.usize(..=size));
            let mut pieces = Buf::chain(left, right);
            while pieces.has_remaining() {
                corked.write_buf(&mut pieces).await.expect("open");
            }
            if random.bool() {
                poll_fn(|cx| Poll::Ready(corked.poll_uncork(cx))).await;
            }
        }
        corked.shutdown().await.expect("open");
        drop(corked);
        assert!(reader.await.expect("no panic") == sent, "room for {room} bytes, seed {seed}");
    }
}

#[tokio::test]
async fn streams_that_are_refused_are_counted_whether_that_is_gathered_or_written_through() {
    for size in [0, 10, CORK_BYTES, 4 * CORK_BYTES] {
        let length = u32::try_from(size).expect("short").to_be_bytes();
        let data = [&length[1..], &[0, 0, 0, 0, 0, 1], &vec![7; size]].concat();
        let refused = [0, 0, 4, 3, 0, 0, 0, 0, 3, 0, 0, 0, 7];
        let (near, mut far) = duplex(1000);
        let reader = tokio::spawn(async move { far.read_to_end(&mut Vec::new()).await });
        let counts = Arc::<RefusedRequests>::default();
        let mut corked = Corked::new(near, Duration::MAX, Arc::clone(&counts));
        for _ in 0..3 {
            let mut pieces = Buf::chain(&data[..], &refused[..]);
            while pieces.has_remaining() {
                corked.write_buf(&mut pieces).await.expect("open");
            }
        }
        corked.shutdown().await.expect("open");
        drop(corked);
        assert_eq!(reader.await.expect("no panic").expect("open"), 3 * (data.len() + refused.len()));
        assert_eq!(counts.total(RequestRefusal::TooManyStreams), 3, "beside {size} bytes");
    }
}

#[tokio::test]
async fn nothing_is_read_or_written_through_from_the_end_of_a_turn_to_the_next() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let large = vec![7; 1 + CORK_BYTES];
    for (length, ends) in [(Duration::ZERO, true), (Duration::MAX, false)] {
        let (mut near, far) = duplex(8 * CORK_BYTES);
        near.write_all(&vec![7; 3 * UNTIMED_BYTES]).await.expect("room");
        let mut corked = Corked::new(far, length, Arc::default());
        for _ in 0..2 {
            // So little is not timed.
            let mut received = [0; UNTIMED_BYTES];
            let mut received = ReadBuf::new(&mut received);
            assert!(Pin::new(&mut corked).poll_read(cx, &mut received).is_ready());
            for _ in 0..2 {
                let polled = Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut [0]));
                assert_eq!(polled.is_pending(), ends);
            }
            assert!(Pin::new(&mut corked).poll_write(cx, &[7]).is_ready(), "answers are gathered");
            assert!(!corked.is_spent_writing());
            assert_eq!(corked.end_turn().is_over, ends);
        }
        for _ in 0..2 {
            // Begun in time, however long it takes.
            assert!(Pin::new(&mut corked).poll_write(cx, &large).is_ready());
            for next in [&large[..], &[7]] {
                let written = Pin::new(&mut corked).poll_write(cx, next);
                assert_eq!(written.is_pending(), ends, "{} bytes", next.len());
            }
            assert_eq!(corked.is_spent_writing(), ends);
            assert!(!corked.poll_uncork(cx));
            assert_eq!(corked.end_turn().is_over, ends);
            assert!(!corked.is_spent_writing());
        }
    }
}

#[tokio::test]
async fn nothing_is_read_while_the_stream_takes_nothing() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (near, mut far) = duplex(1000);
    let mut corked = Corked::new(near, Duration::MAX, Arc::default());
    far.write_all(&[0; 24]).await.expect("room");
    corked.write_all(&[7; 1500]).await.expect("gathered");
    assert!(!corked.poll_uncork(cx));
    let mut received = [0; 24];
    let read = |corked: &mut Corked<_>, cx: &mut Context<'_>| {
        let mut received = ReadBuf::new(&mut received);
        Pin::new(corked).poll_read(cx, &mut received).is_ready()
    };
    let mut read = read;
    assert!(!read(&mut corked, cx) && !corked.is_let_go());
    let standing = corked.end_turn();
    assert!(standing.blocked_bytes >= 500 && standing.took && !standing.is_over);
    let mut taken = [0; 1500];
    far.read_exact(&mut taken[..700]).await.expect("open");
    corked.begin(1, cx);
    assert!(corked.is_let_go());
    assert!(read(&mut corked, cx) && !corked.is_let_go());
    assert_eq!(corked.end_turn().blocked_bytes, 0);
    far.read_exact(&mut taken[700..]).await.expect("open");
    assert_eq!(taken, [7; 1500]);
}

#[tokio::test]
async fn no_more_requests_are_read_than_there_is_room_for() {
    let (mut near, far) = duplex(CORK_BYTES);
    let head = |stream: u8| [0, 0, 4, 1, 5, 0, 0, 0, stream, 1, 1, 1, 1];
    near.write_all(&[0; 24]).await.expect("room");
    for stream in (1..=199).step_by(2) {
        near.write_all(&head(stream)).await.expect("room");
    }
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut corked = Corked::new(far, Duration::MAX, Arc::default());
    let mut open = 0;
    for most in [50, 1, 20] {
        corked.begin(most, cx);
        while Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut [0; 4096])).is_ready() {}
        let standing = corked.end_turn();
        let come = standing.open - open;
        open = standing.open;
        assert_eq!((standing.fresh, standing.took), (come, false));
        assert!(
            come >= most && come <= most + LEAST_READ_BYTES.div_ceil(LEAST_HEAD_BYTES),
            "{come} of {most}"
        );
        assert!(standing.is_over, "there is more to be read");
    }
    corked.write_all(&[0, 0, 0, 0, 1, 0, 0, 0, 1]).await.expect("gathered");
    for took in [true, false] {
        let standing = corked.end_turn();
        assert_eq!((standing.open, standing.took), (open - 1, took));
    }
}

#[tokio::test]
async fn a_request_is_fresh_until_there_is_room_after_its_head_has_come_as_a_whole() {
    let (mut near, far) = duplex(CORK_BYTES);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut corked = Corked::new(far, Duration::MAX, Arc::default());
    near.write_all(&[0; 24]).await.expect("room");
    let [begun, rest] = [[0, 0, 100, 1, 5, 0, 0, 0, 1].as_slice(), &[0; 100]];
    for (comes, expected) in [(begun, (1, 1)), (&[], (1, 1)), (rest, (1, 1)), (&[], (1, 0))] {
        near.write_all(comes).await.expect("room");
        corked.begin(1, cx);
        while Pin::new(&mut corked).poll_read(cx, &mut ReadBuf::new(&mut [0; 4096])).is_ready() {}
        let standing = corked.end_turn();
        assert_eq!((standing.open, standing.fresh), expected);
    }
}

#[tokio::test]
async fn of_bytes_that_take_long_few_are_read_in_a_turn() {
    const LONG: Duration = Duration::from_millis(2);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut near, far) = duplex(CORK_BYTES);
    near.write_all(&vec![0; CORK_BYTES]).await.expect("room");
    let mut corked = Corked::new(far, LONG, Arc::default());
    let mut received = [0; UNTIMED_BYTES / 4];
    let mut turn = |takes: Duration| {
        corked.begin(usize::MAX, cx);
        let mut reads = Vec::new();
        loop {
            let mut received = ReadBuf::new(&mut received);
            if Pin::new(&mut corked).poll_read(cx, &mut received).is_pending() {
                return (reads, corked.end_turn().is_over);
            }
            reads.push(received.filled().len());
            let until = Instant::now() + takes;
            while Instant::now() < until {}
        }
    };
    let few = |read: usize| (LEAST_READ_BYTES..=220).contains(&read);
    let (reads, is_over) = turn(LONG);
    // One may have taken long for another reason.
    assert!(is_over && reads[..2] == [UNTIMED_BYTES / 4; 2], "{reads:?}");
    assert!(reads.len() == 3 && few(reads[2]), "{reads:?}");
    for _ in 0..3 {
        let (reads, is_over) = turn(LONG);
        assert!(is_over && reads.len() == 1 && few(reads[0]), "{reads:?}");
    }
}

#[tokio::test]
async fn a_failure_while_nobody_writes_is_told_to_the_next_who_reads() {
    let (near, far) = duplex(10);
    let mut corked = Corked::new(near, Duration::MAX, Arc::default());
    corked.write_all(b"nobody will read this").await.expect("gathered");
    drop(far);
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    assert!(corked.poll_uncork(cx));
    assert!(!corked.poll_uncork(cx));
    assert_eq!(corked.read_u8().await.expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
}
