//! Messages that come compressed, unpacked no further than there is room for.
//!
//! A few bytes can become very many. So a message is unpacked in steps, and each has to find room among what is in
//! flight before there is another one: what a sender says of the size is believed only as far as memory goes that
//! nobody has touched yet.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;
use zstd::zstd_safe::get_frame_content_size;

/// What is unpacked at a time.
const STEP_BYTES: usize = 64 << 10;

/// How far back a zstd message may refer, as a power of two: what a decoder has to support (RFC 8878), and what one should
/// not go beyond for the sake of its memory (RFC 9659). It is not charged, as no more than two are unpacked at a time.
const WINDOW_LOG: u32 = 23;

/// How a message is compressed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

/// Why a message was not unpacked.
#[derive(Debug)]
pub(super) enum Failure {
    TooLong,
    NoRoom,
    Unsound(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unsound(error)
    }
}

impl Encoding {
    /// The message, of `limit` bytes at most. `has_room` is asked for every step whether there is room for that many more.
    pub(super) fn unpack(
        self,
        packed: &[u8],
        limit: usize,
        mut has_room: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, Failure> {
        let mut message = Vec::with_capacity(self.promised_bytes(packed).min(limit));
        let mut rest = self.reader(packed)?;
        loop {
            let step = STEP_BYTES.min(limit.saturating_add(1).saturating_sub(message.len()));
            let read = rest.by_ref().take(step as u64).read_to_end(&mut message)?;
            if message.len() > limit {
                return Err(Failure::TooLong);
            }
            if !has_room(read) {
                return Err(Failure::NoRoom);
            }
            if read < step {
                return Ok(message);
            }
        }
    }

    fn reader(self, packed: &[u8]) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(packed)),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(packed)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    /// The size of a message by its own account, so that an honest one needs no second buffer.
    fn promised_bytes(self, packed: &[u8]) -> usize {
        let promised = match self {
            Self::Gzip => packed.last_chunk().map(|size| u64::from(u32::from_le_bytes(*size))),
            Self::Zstd => get_frame_content_size(packed).ok().flatten(),
        };
        promised.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(message).expect("into memory");
        encoder.finish().expect("into memory")
    }

    fn zstd(message: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(message, 1).expect("into memory")
    }

    /// What comes of unpacking where there is room for so much, and how much was asked for.
    fn check(encoding: Encoding, packed: &[u8], limit: usize, room: usize, expected: &str) {
        let mut left = room;
        let unpacked = encoding.unpack(packed, limit, |bytes| {
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        });
        let told = match unpacked {
            Ok(message) => format!("{} bytes", message.len()),
            Err(Failure::TooLong) => "too long".to_owned(),
            Err(Failure::NoRoom) => "no room".to_owned(),
            Err(Failure::Unsound(_)) => "unsound".to_owned(),
        };
        assert_eq!(told, expected, "{encoding:?}, at most {limit}, room for {room}");
    }

    #[test]
    fn a_message_is_unpacked_as_far_as_it_may_be_and_there_is_room() {
        for size in [0, 1, 1000, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 10 * STEP_BYTES] {
            let message: Vec<u8> = (0..size).map(|byte| (byte / 7 % 251).to_le_bytes()[0]).collect();
            for (encoding, packed) in [(Encoding::Gzip, gzip(&message)), (Encoding::Zstd, zstd(&message))] {
                let whole = encoding.unpack(&packed, size, |_| true).expect("it is sound");
                assert!(whole == message && whole.capacity() == size, "{encoding:?} of {size}");
                check(encoding, &packed, size, size, &format!("{size} bytes"));
                if size > 0 {
                    check(encoding, &packed, size - 1, size, "too long");
                    check(encoding, &packed, size, size - 1, "no room");
                    check(encoding, &packed[..packed.len() / 2], size, size, "unsound");
                }
            }
        }
    }

    #[test]
    fn a_message_that_lies_about_its_size_is_unpacked_all_the_same() {
        for said in [0_u32, 5, u32::MAX] {
            let mut packed = gzip(&vec![7; 3 * STEP_BYTES]);
            let size = packed.len() - 4;
            packed[size..].copy_from_slice(&said.to_le_bytes());
            // Its checksum covers the size, so in the end it shows.
            check(Encoding::Gzip, &packed, 10 * STEP_BYTES, 10 * STEP_BYTES, "unsound");
            check(Encoding::Gzip, &packed, 10 * STEP_BYTES, STEP_BYTES, "no room");
        }
    }

    #[test]
    fn a_message_that_refers_too_far_back_is_refused() {
        for (log, expected) in [(23, "16777216 bytes"), (24, "unsound")] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("the level exists");
            encoder.window_log(log).expect("the window exists");
            encoder.write_all(&vec![1; 1 << 24]).expect("into memory");
            let packed = encoder.finish().expect("into memory");
            check(Encoding::Zstd, &packed, 1 << 24, 1 << 24, expected);
        }
    }
}
