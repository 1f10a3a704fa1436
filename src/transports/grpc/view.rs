//! Requests as they lie in the network's buffer: their keys and values are parts of it.
//!
//! The generated types would copy every key into a string of its own. What is read here is by definition what they
//! read: a test holds both against each other, and what is refused here is refused in their words.

use std::str;

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;

use crate::pace::{Pace, SLICE_BYTES, SLICE_ITEMS, pause};
use crate::proto;

/// How a failure to read a message begins.
pub(super) const MALFORMED: &str = "malformed request";

/// A message, borrowed from its bytes.
pub(super) trait View<'a>: Default {
    /// The generated type of the same message.
    type Message: Message + Default;

    /// Takes one field in. `None` where it has the wrong type; fields that nobody knows are none of its business.
    fn take(&mut self, number: u32, field: Field<'a>) -> Option<()>;

    /// Reads a message. Bytes that are no message, or a key that is not UTF-8, are the caller's mistake.
    fn read(message: &'a [u8]) -> Result<Self, Status> {
        read_fields(message, DEEPEST).ok_or_else(|| malformed::<Self::Message>(message))
    }

    /// Reads a message that may have very many fields.
    fn read_in_slices(message: &'a [u8]) -> impl Future<Output = Result<Self, Status>> + Send
    where
        Self: Send,
    {
        async { read_fields_in_slices(message).await.ok_or_else(|| malformed::<Self::Message>(message)) }
    }
}

/// What is said of bytes that are no `M`. Where it would take long to find out why, nobody does.
fn malformed<M: Message + Default>(message: &[u8]) -> Status {
    let cause = if message.len() > SLICE_BYTES { None } else { M::decode(message).err() };
    let cause = cause.map_or_else(|| "not understood".to_owned(), |error| error.to_string());
    Status::invalid_argument(format!("{MALFORMED}: {cause}"))
}

/// The content of one field.
#[derive(Clone, Copy)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that none of our requests has.
    Other,
}

impl<'a> Field<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    fn text(self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    /// An `int32`: what is beyond its 32 bits is cut off.
    #[expect(clippy::cast_possible_truncation, reason = "as protobuf prescribes")]
    fn int32(self) -> Option<i32> {
        if let Self::Number(number) = self { Some(number as i32) } else { None }
    }
}

/// How deep the generated types follow groups, which none of our messages has: a message within another is a step, too.
const DEEPEST: u32 = 100;

/// How many fields a message may have that is read in one go, those in groups included: far more than there are. With more it is
/// none, as it was made for nothing but to take long.
const MOST_FIELDS: u32 = 4096;

/// How far a message is followed.
#[derive(Clone, Copy)]
struct Reach {
    /// Groups within groups.
    depth: u32,
    fields: u32,
}

impl Reach {
    const fn of_depth(depth: u32) -> Self {
        Self { depth, fields: MOST_FIELDS }
    }

    /// There is one more field.
    fn step(&mut self) -> Option<()> {
        self.fields = self.fields.checked_sub(1)?;
        Some(())
    }
}

fn read_fields<'a, V: View<'a>>(mut message: &'a [u8], depth: u32) -> Option<V> {
    let mut view = V::default();
    let mut reach = Reach::of_depth(depth);
    while !message.is_empty() {
        read_field(&mut view, &mut message, &mut reach)?;
    }
    Some(view)
}

async fn read_fields_in_slices<'a, V: View<'a>>(mut message: &'a [u8]) -> Option<V> {
    let mut view = V::default();
    let mut pace = Pace::default();
    while !message.is_empty() {
        read_field(&mut view, &mut message, &mut Reach::of_depth(DEEPEST))?;
        pace.step().await;
    }
    Some(view)
}

fn read_field<'a, V: View<'a>>(view: &mut V, message: &mut &'a [u8], reach: &mut Reach) -> Option<()> {
    reach.step()?;
    let (number, wire_type) = decode_key(message).ok()?;
    let field = match wire_type {
        WireType::Varint => Field::Number(decode_varint(message).ok()?),
        WireType::LengthDelimited => {
            let length = decode_varint(message).ok()?;
            let (field, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
            *message = rest;
            Field::Bytes(field)
        }
        _ => {
            skip(wire_type, number, message, reach)?;
            Field::Other
        }
    };
    view.take(number, field)
}

/// Goes on behind the content of a field, and of the groups in it as far as they are followed.
fn skip(wire_type: WireType, number: u32, message: &mut &[u8], reach: &mut Reach) -> Option<()> {
    reach.depth = reach.depth.checked_sub(1)?;
    if wire_type == WireType::StartGroup {
        loop {
            reach.step()?;
            match decode_key(message).ok()? {
                (end, WireType::EndGroup) if end == number => break,
                (_, WireType::EndGroup) => return None,
                (number, wire_type) => skip(wire_type, number, message, reach)?,
            }
        }
    } else {
        skip_field(wire_type, number, message, DecodeContext::default()).ok()?;
    }
    reach.depth += 1;
    Some(())
}

/// How many items a message of so many bytes has at the most.
pub(super) const fn most_items(message_bytes: usize) -> usize {
    // The smallest takes two.
    message_bytes / 2
}

/// How many items a message of a batch has, at the cost of a look at where each begins. It is not looked for more than
/// one beyond `limit`; and of bytes that are no message those count that come before it shows.
pub(super) async fn count_items(mut message: &[u8], limit: usize) -> usize {
    let mut items = 0;
    loop {
        for _ in 0..SLICE_ITEMS {
            if items > limit {
                return items;
            }
            let Some(number) = skip_any_field(&mut message) else { return items };
            items += usize::from(number == 1);
        }
        pause(SLICE_ITEMS).await;
    }
}

/// Goes on behind the next field; its number, if there is one.
fn skip_any_field(message: &mut &[u8]) -> Option<u32> {
    // So begins every item of less than 128 bytes.
    if let [0x0a, length @ ..128, rest @ ..] = *message
        && let Some((_, rest)) = rest.split_at_checked(usize::from(*length))
    {
        *message = rest;
        return Some(1);
    }
    let (number, wire_type) = decode_key(message).ok()?;
    if wire_type == WireType::LengthDelimited {
        let length = decode_varint(message).ok()?;
        (_, *message) = message.split_at_checked(usize::try_from(length).ok()?)?;
    } else {
        skip(wire_type, number, message, &mut Reach::of_depth(DEEPEST))?;
    }
    Some(number)
}

/// `Empty`.
impl View<'_> for () {
    type Message = proto::Empty;

    fn take(&mut self, _number: u32, _field: Field<'_>) -> Option<()> {
        Some(())
    }
}

/// `CacheKey`.
#[derive(Default)]
pub(super) struct Key<'a> {
    pub(super) key: &'a str,
}

impl<'a> View<'a> for Key<'a> {
    type Message = proto::CacheKey;

    fn take(&mut self, number: u32, field: Field<'a>) -> Option<()> {
        if number == 1 {
            self.key = field.text()?;
        }
        Some(())
    }
}

/// `MultiCacheKeyRequest`.
#[derive(Default)]
pub(super) struct Keys<'a> {
    pub(super) keys: Vec<&'a str>,
}

impl<'a> View<'a> for Keys<'a> {
    type Message = proto::MultiCacheKeyRequest;

    fn take(&mut self, number: u32, field: Field<'a>) -> Option<()> {
        if number == 1 {
            self.keys.push(field.text()?);
        }
        Some(())
    }
}

/// `CacheItem`.
#[derive(Default)]
pub(super) struct Item<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
    pub(super) ttl: i32,
}

impl<'a> View<'a> for Item<'a> {
    type Message = proto::CacheItem;

    fn take(&mut self, number: u32, field: Field<'a>) -> Option<()> {
        match number {
            1 => self.key = field.text()?,
            2 => self.value = field.bytes()?,
            3 => self.ttl = field.int32()?,
            _ => {}
        }
        Some(())
    }
}

/// `MultiCacheItemRequest`.
#[derive(Default)]
pub(super) struct Items<'a> {
    pub(super) items: Vec<Item<'a>>,
}

impl<'a> View<'a> for Items<'a> {
    type Message = proto::MultiCacheItemRequest;

    fn take(&mut self, number: u32, field: Field<'a>) -> Option<()> {
        if number == 1 {
            self.items.push(read_fields(field.bytes()?, DEEPEST - 1)?);
        }
        Some(())
    }
}

/// `CompareAndSetRequest`.
#[derive(Default)]
pub(super) struct Comparison<'a> {
    pub(super) key: &'a str,
    pub(super) expected: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) ttl: i32,
}

impl<'a> View<'a> for Comparison<'a> {
    type Message = proto::CompareAndSetRequest;

    fn take(&mut self, number: u32, field: Field<'a>) -> Option<()> {
        match number {
            1 => self.key = field.text()?,
            2 => self.expected = field.bytes()?,
            3 => self.value = field.bytes()?,
            4 => self.ttl = field.int32()?,
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn items_are_counted_without_being_read() {
        for (message, items) in [
            (&b""[..], 0),
            (b"\x0a\0\x0a\x01k\x0a\x02\xff\xff", 3),
            (b"\x12\x01x\x0a\0\x18\x05", 1),
            (b"\x0a\0\x0a\0\x0a\x05", 2),
            (b"\x0a\0\x07", 1),
            (b"\x0a\x81\x00k\x0a\x7f", 1),
        ] {
            for limit in 0..9 {
                let counted = count_items(message, limit).now_or_never();
                assert_eq!(counted, Some(items.min(limit + 1)), "{message:?}, at most {limit}");
            }
            assert!(items <= most_items(message.len()));
        }
    }

    #[test]
    fn nobody_follows_fields_without_end() {
        let many = MOST_FIELDS as usize;
        let in_group = |fields: usize| [&b"\x2b"[..], &b"\x30\x01".repeat(fields), b"\x2c"].concat();
        for (message, is_one) in [
            (b"\x30\x01".repeat(many), true),
            (b"\x30\x01".repeat(many + 1), false),
            // The group and its end are fields, too.
            (in_group(many - 2), true),
            (in_group(many - 1), false),
            (in_group(SLICE_BYTES), false),
        ] {
            assert_eq!(Key::read(&message).is_ok(), is_one, "{} bytes", message.len());
            let items = proto::MultiCacheItemRequest { items: vec![proto::CacheItem::default()] };
            let mut nested = vec![0x0a];
            prost::encoding::encode_varint(message.len() as u64, &mut nested);
            nested.extend(&message);
            nested.extend(items.encode_to_vec());
            let read = Items::read_in_slices(&nested).now_or_never().expect("no pause");
            assert_eq!(read.map(|items| items.items.len()).ok(), is_one.then_some(2));
        }
        let each_one_group = in_group(100).repeat(100);
        let read = Keys::read_in_slices(&each_one_group).now_or_never().expect("no pause");
        assert!(read.is_ok(), "a batch has as many fields as it likes");
    }

    fn owned_item(item: &Item<'_>) -> proto::CacheItem {
        proto::CacheItem { key: item.key.to_owned(), value: item.value.to_vec().into(), ttl: item.ttl }
    }

    /// Reads bytes both ways: the same message, or the same refusal.
    fn check<'a, V: View<'a>>(bytes: &'a [u8], owned: impl Fn(&V) -> V::Message)
    where
        V::Message: PartialEq + std::fmt::Debug,
    {
        match (V::read(bytes), V::Message::decode(bytes)) {
            (Ok(view), Ok(message)) => assert_eq!(owned(&view), message, "{bytes:?}"),
            (Err(status), Err(error)) => {
                assert_eq!(status.message(), format!("{MALFORMED}: {error}"), "{bytes:?}");
            }
            (view, message) => panic!("{bytes:?}: read {}, but {message:?}", view.is_ok()),
        }
    }

    fn check_all(bytes: &[u8]) {
        check::<()>(bytes, |()| proto::Empty {});
        check::<Key<'_>>(bytes, |view| proto::CacheKey { key: view.key.to_owned() });
        check::<Keys<'_>>(bytes, |view| proto::MultiCacheKeyRequest {
            keys: view.keys.iter().map(|&key| key.to_owned()).collect(),
        });
        check::<Item<'_>>(bytes, owned_item);
        check::<Items<'_>>(bytes, |view| proto::MultiCacheItemRequest {
            items: view.items.iter().map(owned_item).collect(),
        });
        check::<Comparison<'_>>(bytes, |view| proto::CompareAndSetRequest {
            key: view.key.to_owned(),
            expected_value: view.expected.to_vec().into(),
            value: view.value.to_vec().into(),
            ttl: view.ttl,
        });
    }

    /// A field of any type, sound or not.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        (0..7_u8, 0..8_u8, vec(any::<u8>(), 0..12)).prop_map(|(number, wire_type, content)| {
            let mut field = vec![number << 3 | wire_type];
            if wire_type == 2 {
                field.push(u8::try_from(content.len()).expect("short"));
            }
            field.extend(content);
            field
        })
    }

    #[test]
    fn groups_are_followed_as_deep_as_the_generated_types_follow_them() {
        for depth in [1, 98, 99, 100, 101] {
            let groups = [vec![0x2b; depth], vec![0x2c; depth]].concat();
            check_all(&groups);
            check_all(&[&[0x2b; 2][..], &groups, &[0x2c; 2]].concat());
            // Of a field without content, and of one in each of them.
            check_all(&[&groups[..depth], &[0x30, 1], &groups[depth..]].concat());
            let mut item = Vec::new();
            prost::encoding::bytes::encode(1, &groups, &mut item);
            check_all(&item);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_the_generated_types_read_them(bytes in vec(any::<u8>(), 0..40)) {
            check_all(&bytes);
        }

        #[test]
        fn any_fields_are_read_as_the_generated_types_read_them(fields in vec(field(), 0..5)) {
            check_all(&fields.concat());
        }

        #[test]
        fn messages_are_read_as_the_generated_types_read_them(
            items in vec((".{0,5}", vec(any::<u8>(), 0..200), any::<i32>()), 0..5),
        ) {
            let items: Vec<_> = items
                .into_iter()
                .map(|(key, value, ttl)| proto::CacheItem { key, value: value.into(), ttl })
                .collect();
            let keys = items.iter().map(|item| item.key.clone()).collect();
            check_all(&proto::MultiCacheKeyRequest { keys }.encode_to_vec());
            if let [first, second, ..] = &items[..] {
                check_all(&first.encode_to_vec());
                let (key, value, ttl) = (first.key.clone(), first.value.clone(), first.ttl);
                let expected_value = second.value.clone();
                check_all(&proto::CompareAndSetRequest { key, expected_value, value, ttl }.encode_to_vec());
            }
            check_all(&proto::MultiCacheItemRequest { items }.encode_to_vec());
        }
    }
}
