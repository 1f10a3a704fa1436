//! Messages as they lie in the network's buffer, and unpacked. Whatever the bytes are, they are read where they lie as the generated types read them, and
//! refused where those refuse them and in their words, but for messages with very many fields that nobody knows; as many items are counted as they find; and what is packed comes to what it is unpacked to in one go,
//! however little room there is.
//!
//! The input: what to do, how often the content comes, and a limit (two bytes); then the content. Messages of which one comes behind the other are one.
#![no_main]

#[expect(dead_code, reason = "nobody is in a line here")]
#[path = "../../src/line.rs"]
mod line;
#[expect(dead_code, reason = "batches are answered by the rest")]
#[path = "../../src/pace.rs"]
mod pace;
#[path = "../../src/transports/grpc/packed.rs"]
mod packed;
#[path = "../../src/transports/grpc/view.rs"]
mod view;

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use packed::{Encoding, Failure};
use prost::Message;
use tiny_cache::proto;
use view::View;

/// What is looked at in one go, at the most.
const MOST_BYTES: usize = 100_000;

/// Bytes that have as many fields at the most as are followed in one go.
const FOLLOWED_BYTES: usize = 4096;

/// What it comes to, however often others have their turn.
fn wait<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

/// Reads bytes each way: the same message, or the same refusal.
fn check<'a, V: View<'a> + Send>(bytes: &'a [u8], owned: impl Fn(&V) -> V::Message)
where
    V::Message: PartialEq + Debug,
{
    let expected = V::Message::decode(bytes).map_err(|error| format!("malformed request: {error}"));
    for read in [V::read(bytes), wait(V::read_in_slices(bytes))] {
        let read = read.map(|view| owned(&view)).map_err(|status| status.message().to_owned());
        if bytes.len() > FOLLOWED_BYTES && read == Err("malformed request: not understood".to_owned()) {
            continue;
        }
        assert!(read == expected, "read {read:?}, but it is {expected:?}");
    }
}

fn owned_item(item: &view::Item<'_>) -> proto::CacheItem {
    proto::CacheItem { key: item.key.to_owned(), value: item.value.to_vec().into(), ttl: item.ttl }
}

/// Any batch, its items unread.
#[derive(Clone, PartialEq, Message)]
struct Batch {
    #[prost(bytes = "vec", repeated, tag = "1")]
    items: Vec<Vec<u8>>,
}

fn views(bytes: &[u8], limit: usize) {
    check::<()>(bytes, |()| proto::Empty {});
    check::<view::Key<'_>>(bytes, |view| proto::CacheKey { key: view.key.to_owned() });
    check::<view::Keys<'_>>(bytes, |view| proto::MultiCacheKeyRequest {
        keys: view.keys.iter().map(|&key| key.to_owned()).collect(),
    });
    check::<view::Item<'_>>(bytes, owned_item);
    check::<view::Items<'_>>(bytes, |view| proto::MultiCacheItemRequest {
        items: view.items.iter().map(owned_item).collect(),
    });
    check::<view::Comparison<'_>>(bytes, |view| proto::CompareAndSetRequest {
        key: view.key.to_owned(),
        expected_value: view.expected.to_vec().into(),
        value: view.value.to_vec().into(),
        ttl: view.ttl,
    });

    let counted = wait(view::count_items(bytes, limit));
    assert!(counted <= limit + 1 && counted <= view::most_items(bytes.len()), "{counted} items");
    if let Ok(Batch { items }) = Batch::decode(bytes) {
        let expected = items.len().min(limit + 1);
        let is_followed = bytes.len() <= FOLLOWED_BYTES;
        assert!(
            counted == expected || counted < expected && !is_followed,
            "{counted} of {expected} items, of which {limit} are allowed"
        );
    }
}

/// What it comes to in one go, and no more of it than one byte beyond the limit.
fn unpacked(encoding: Encoding, packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let reader: Box<dyn Read> = match encoding {
        Encoding::Gzip => Box::new(flate2::read::GzDecoder::new(packed)),
        Encoding::Zstd => {
            let mut decoder = zstd::Decoder::new(packed)?;
            decoder.window_log_max(23)?;
            Box::new(decoder)
        }
    };
    let mut message = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut message)?;
    Ok(message)
}

fn unpack(encoding: Encoding, packed: &[u8], limit: usize, room: usize) {
    let expected = unpacked(encoding, packed, limit);
    let mut asked = 0;
    let mut had_room = true;
    let found = encoding.unpack(packed, limit, |bytes| {
        assert!(had_room, "there is no room, and it was said");
        asked += bytes;
        had_room = asked <= room;
        had_room
    });
    assert!(asked <= limit, "{asked} bytes, of which {limit} are allowed");
    match (found, expected) {
        (Ok(message), Ok(expected)) => {
            assert!(message == expected, "another message than in one go");
            assert_eq!(asked, message.len(), "room for all of it");
        }
        (Err(Failure::TooLong), Ok(expected)) => assert_eq!(expected.len(), limit + 1),
        (Err(Failure::NoRoom), _) => assert!(!had_room, "there is room"),
        (Err(Failure::Unsound(cause)), Err(expected)) => assert_eq!(cause.kind(), expected.kind()),
        (found, expected) => panic!("{found:?}, and in one go {:?}", expected.map(|message| message.len())),
    }
}

fn pack(encoding: Encoding, content: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).expect("into memory");
            encoder.finish().expect("into memory")
        }
        Encoding::Zstd => zstd::encode_all(content, 1).expect("into memory"),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[what, times, high, low], content)) = data.split_first_chunk() else { return };
    let limit = usize::from(u16::from_be_bytes([high, low]));
    let times = usize::from(times).pow(2).clamp(1, (MOST_BYTES / content.len().max(1)).max(1));
    let content = content.repeat(times);
    let encoding = if what & 1 == 0 { Encoding::Gzip } else { Encoding::Zstd };
    match what >> 1 & 3 {
        0 => unpack(encoding, &content, limit, usize::MAX),
        1 => {
            // So that several steps are taken, and there is room for some of them.
            let room = usize::from(what >> 3) * 10_000;
            unpack(encoding, &pack(encoding, &content), 2 * limit, room);
        }
        _ => views(&content, limit),
    }
});
